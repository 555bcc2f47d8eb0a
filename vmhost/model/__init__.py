"""Values: what a site says, what a host is, what will be done. No I/O here."""

"""Work inside guests: one line to each, facts, operations, probes."""

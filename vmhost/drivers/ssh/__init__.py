"""SSH to guests: strictly pinned host keys, one connection with many commands at once, atomic file writes.

``shell`` opens sessions (paramiko); ``openssh`` and ``banner`` need no library and are cheap to import; ``keys``
makes key pairs; ``fanout`` runs one function over many guests.
"""

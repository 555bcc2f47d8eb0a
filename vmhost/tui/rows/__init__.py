"""View models: pure functions from one picture of the host to cells and lines. No widget, no I/O, no clock."""

"""The use cases: the one layer that the command line, the terminal UI and scripts call."""

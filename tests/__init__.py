"""The tests of vmhost, one folder for each room."""

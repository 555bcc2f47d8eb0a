"""Planners: spec + observed -> plan. Pure: no I/O, no clock, no chance."""

"""Soak test of the real process, under mixed load and faults for a long time: ``python -m kits.soak``."""

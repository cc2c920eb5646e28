"""Simulation of load balancing for calls that take minutes."""

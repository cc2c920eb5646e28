"""Metrics: cells that count finished requests, gauges of those under way, and their exposition. Sans-I/O."""

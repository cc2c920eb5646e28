"""Benchmarks of CPU time, delay and memory, of this product and its alternatives: ``make bench``."""

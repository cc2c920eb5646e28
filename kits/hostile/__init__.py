"""Measurement of what hostile upstreams, clients and services cost."""

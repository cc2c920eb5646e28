"""Tests of the metrics, without I/O."""

"""Tests that take long or need much memory, run by ``make test-heavy``."""

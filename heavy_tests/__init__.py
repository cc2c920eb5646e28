"""Tests that take long or need much memory: ``make test-heavy``."""

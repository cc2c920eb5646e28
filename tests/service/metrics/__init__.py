"""Tests of the metrics of the service."""

"""Tests of the admin port."""

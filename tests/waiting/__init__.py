"""Tests of clients that wait, lose, and ask again."""

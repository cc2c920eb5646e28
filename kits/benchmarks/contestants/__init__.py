"""Contestants: this product and its alternatives."""

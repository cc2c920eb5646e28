"""Tests of the product, and what they share."""

from tests.support.properties import load_profile

load_profile()

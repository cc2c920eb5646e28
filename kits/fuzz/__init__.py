"""Fuzz targets for the parsers: ``python -m kits.fuzz``."""

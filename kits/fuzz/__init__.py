"""What the parsers make of bytes that nobody meant: ``python -m kits.fuzz``."""

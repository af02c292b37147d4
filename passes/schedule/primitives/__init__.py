"""Schedule primitives, one family per file."""

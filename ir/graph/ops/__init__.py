"""Operator definitions, one family per file; each has exactly one home."""

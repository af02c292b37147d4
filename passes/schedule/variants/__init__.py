"""Algebraic alternatives of a computation, one per file: each rewrites a block that matches it."""

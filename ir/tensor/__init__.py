"""Tensor IR: expressions, statements, functions, programs, verifier, interpreter."""

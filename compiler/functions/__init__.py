"""Decorated Python functions: captured, compiled and called."""

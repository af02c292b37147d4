"""Primitives that name hardware: bind and tensorize."""

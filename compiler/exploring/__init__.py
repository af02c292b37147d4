"""Designs of accelerators, compared by what a model takes on each."""

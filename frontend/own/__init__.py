"""Operators of users."""

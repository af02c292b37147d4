"""Analyses shared by passes."""

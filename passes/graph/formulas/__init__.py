"""Formulas that are operators of the library, recognised by their structure."""

"""Measuring models: other runtimes, profiles, the limits of the machine."""

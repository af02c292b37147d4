"""Schedules: primitives, their legality, traces, rules."""

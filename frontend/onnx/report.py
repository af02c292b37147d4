"""Collecting every problem of a model into one ``CompileError``."""

from __future__ import annotations

from aisc.ir.diagnostics import CompileError, Diagnostics
from aisc.ir.location import Loc

MAX_PROBLEMS = 100


class Report:
    """Problems so far."""

    def __init__(self) -> None:
        self.found = Diagnostics()

    def add(self, fault: CompileError) -> None:
        """Record the problems of one node."""
        self.found.extend(fault.diagnostics)
        if len(self.found.errors) > MAX_PROBLEMS:
            self.found.raise_if_errors()

    def malformed(self, message: str, *notes: str, loc: Loc) -> None:
        """Record an inconsistency of the model (E103)."""
        self.found.add("E103", message, *notes, loc=loc)

    def finish(self) -> None:
        """Raise if anything was recorded."""
        self.found.raise_if_errors()

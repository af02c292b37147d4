"""Arms of an If that give values of different rank: only one of them can be compiled.

Which one is found by trying: the arm is part of the graph, what follows either fits it or not, and
the run tests that it takes that arm. The arm of the general case, else, is tried first.
"""

from __future__ import annotations

from dataclasses import field

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError

MAX_CHOICES = 8


class ArmNeeded(CompileError):
    """E204 that goes away once an arm of the If called `key` is chosen."""

    def __init__(self, fault: CompileError, key: str) -> None:
        super().__init__(fault.diagnostics)
        self.key = key

    def __reduce__(self) -> tuple[object, ...]:
        return ArmNeeded, (CompileError(self.diagnostics), self.key)


@dataclass(slots=True)
class Choices:
    """Arms chosen so far, by the place of their If, in the order in which they were asked for."""

    taken: dict[str, bool] = field(default_factory=dict)
    reasons: dict[str, ArmNeeded] = field(default_factory=dict)

    def choose(self, need: ArmNeeded) -> None:
        """Choose the first arm to be tried; E204 when there are too many such Ifs."""
        if len(self.taken) == MAX_CHOICES:
            raise CompileError(need.diagnostics)
        self.taken[need.key] = False
        self.reasons[need.key] = need

    def choose_other(self) -> bool:
        """Choose the other arm of the last If that has one left; whether there is one."""
        while self.taken:
            key = next(reversed(self.taken))
            if not self.taken[key]:
                self.taken[key] = True
                return True
            del self.taken[key]
        return False

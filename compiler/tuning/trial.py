"""What came of a candidate, and who measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from aisc.ir.dataclass import dataclass
from aisc.passes.schedule.picks import Choices
from aisc.tuning.pairs import Ratio
from aisc.tuning.space import Sketch

Fate = Literal["ok", "same", "refused", "wrong", "lost", "unmeasured"]
FAILED: tuple[Fate, ...] = ("refused", "wrong", "lost")


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was made and run beside the default; or why it was not. seconds: of the
    default in the same pairs; digest: of its code."""

    sketch: Sketch
    fate: Fate
    ratio: Ratio | None = None
    seconds: float = 0.0
    digest: str = ""
    detail: str = ""


class Bench(Protocol):
    """Who schedules, makes and runs the configurations of one kernel."""

    def sketches(self, several: Sequence[Choices]) -> list[Sketch | str]:
        """Each as the rules take it, or why they do not."""

    def trials(self, sketches: Sequence[Sketch], samples: int) -> list[Trial]:
        """Each made, and run in `samples` pairs with the default."""

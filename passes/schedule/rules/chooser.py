"""Who rules ask when they decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar, cast

from aisc.ir.target import Target
from aisc.passes.schedule.picks import Choice, Choices, Pick
from aisc.passes.schedule.schedule import Schedule, unless_refused

C = TypeVar("C", bool, int, str, tuple[int, ...])
NONE: Choices = {}


class Chooser:
    """Answers the rules' questions for one kernel and keeps what was picked.

    `choices` are given from outside, by a record or a search, and hold where they are among the
    options; `preferred` are taken for a rule's own defaults, by who has learnt better since (the
    gate of a back end). Where the kernel shall be there `quick`, defaults are what takes little
    time to make.
    """

    def __init__(
        self,
        target: Target,
        choices: Choices = NONE,
        preferred: Choices = NONE,
        quick: bool = False,
    ) -> None:
        self.target, self.quick = target, quick
        self.choices, self.preferred = choices, preferred
        self._made: dict[str, Pick] = {}

    def pick(self, name: str, options: Iterable[C], default: C, exact: bool = True) -> C:
        """The choice for decision `name` (block and subject, which no other choice changes). What
        was answered once is answered so again. `exact`: every option gives the same bits."""
        if name not in self._made:
            wanted = cast(C, self.preferred.get(name, default))
            every: tuple[Choice, ...] = tuple(dict.fromkeys((wanted, *options)))
            given = self.choices.get(name, wanted)
            choice = given if given in every else wanted
            self._made[name] = Pick(name, choice, wanted, every, exact)
        return cast(C, self._made[name].choice)

    def attempt(self, s: Schedule, step: Callable[[Schedule], Schedule]) -> Schedule:
        """Take a step that only speed depends on, or leave it out where it is not legal, and then
        what was decided on its way, too."""
        before, ended = dict(self._made), False

        def whole(start: Schedule) -> Schedule:
            nonlocal ended
            result = step(start)
            ended = True
            return result

        after = unless_refused(s, whole)
        if not ended:
            self._made = before
        return after

    def fork(self, choices: Choices, preferred: Choices) -> Chooser:
        """Another chooser that has decided the same up to here and is told otherwise from here."""
        other = Chooser(self.target, choices, preferred, self.quick)
        other._made = dict(self._made)
        return other

    @property
    def picks(self) -> tuple[Pick, ...]:
        """What was decided, in order; a decision with one option is none."""
        return tuple(p for p in self._made.values() if len(p.options) > 1)

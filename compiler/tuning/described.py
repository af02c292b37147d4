"""The bench of a kernel for a machine that is described, not there: nothing runs, the back end says
how many cycles a schedule takes. So trials are exact, and a search can be repeated anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import field

from aisc.codegen.backend import Described
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, InternalError
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.picks import Choices, choices_to_json, stale, tuned
from aisc.passes.schedule.rules.chooser import NONE, Chooser
from aisc.tuning.pairs import Ratio
from aisc.tuning.space import Sketch
from aisc.tuning.trial import Trial

HERTZ = 1e9  # cycles are told as seconds of such a machine


@dataclass(slots=True)
class DescribedBench:
    """Schedules configurations of a kernel and asks the back end what they take. What a back end
    knows needs no model before it, so all of a round are known when they are scheduled."""

    backend: Described
    func: Func
    _known: dict[str, tuple[ScheduledKernel, float]] = field(default_factory=dict)
    _asked: dict[str, Sketch | str] = field(default_factory=dict)

    def sketches(self, several: Sequence[Choices]) -> list[Sketch | str]:
        """Each as the rules take it, or why they do not."""
        found = []
        for choices in several:
            key = choices_to_json(choices)
            if key not in self._asked:
                self._asked[key] = self._sketch(choices)
            found.append(self._asked[key])
        return found

    def _sketch(self, choices: Choices) -> Sketch | str:
        try:
            schedule = self.backend.rules(self.func, Chooser(self.backend.target, choices))
            unknown = stale(choices, schedule.picks)
            if unknown:
                return f"{self.func.name} cannot have {', '.join(unknown)} so"
            kernel = self.backend.optimize(self.func, schedule)
            cycles = self.backend.cycles(kernel)
        except (AiscError, InternalError, KeyError) as fault:
            return str(fault)
        sketch = Sketch(tuned(schedule.picks), schedule.picks, cycles, "", ())
        self._known[sketch.key] = kernel, cycles
        return sketch

    def trials(self, sketches: Sequence[Sketch], samples: int) -> list[Trial]:
        """The cycles of each over those of the default."""
        if choices_to_json(NONE) not in self._known:
            self._sketch(NONE)
        _, base = self._known[choices_to_json(NONE)]
        found = []
        for s in sketches:
            kernel, cycles = self._known[s.key]
            ratio = cycles / max(base, 1.0)
            digest = hashlib.sha256(print_ir(kernel.func).encode()).hexdigest()
            found.append(Trial(s, "ok", Ratio(ratio, ratio, ratio), base / HERTZ, digest))
        return found

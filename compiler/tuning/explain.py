"""The schedule of a kernel as Python that people read, with the reason for each decision: what the
model expects of the other options, and what was measured of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aisc.codegen.backend import Backend
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError
from aisc.ir.tensor.func import Func
from aisc.passes.analysis.estimate import Estimate, estimate
from aisc.passes.schedule.picks import Choice, Choices, Pick, written
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule
from aisc.records.database import Database, Past, Record, workload_key

# Options of a decision that are told of, those nearest to the best.
SHOWN = 4


@dataclass(frozen=True, slots=True)
class Explanation:
    """The kernel, its schedule by some choices, its estimate, and the trials that there are."""

    func: Func
    backend: Backend
    schedule: Schedule
    expected: Estimate
    record: Record | None
    trials: Sequence[Past]
    threads: int

    def lines(self) -> Iterator[str]:
        """The explanation as a Python program."""
        yield f"# {self.func.name} on {self.backend.target.name}, {self.threads} threads"
        if self.record is not None and self.record.choices:
            r = self.record
            yield f"# tuned: {1 / r.ratio:.3f} x as fast as by default ({1 / r.high:.3f} at least)"
        yield f"# expected: {self.expected.cycles:.3g} cycles, bound by {self.expected.bound}"
        yield from (f"#   from {name}: {n:.3g} bytes" for name, n in self.expected.moved)
        for p in self.schedule.picks:
            yield from self._decision(p)
        yield "s = Schedule.of(func)"
        for step in self.schedule.trace:
            yield f"s = s.{step}"

    def _decision(self, p: Pick) -> Iterator[str]:
        """A decision: the choice, then the others with what is expected and known of them."""
        own = "" if p.choice == p.default else f" (by default {written(p.default)})"
        yield f"# {p.name} = {written(p.choice)}{own}"
        others = [(self._expected(p, o), o) for o in p.options if o != p.choice][: 4 * SHOWN]
        known = sorted(((e, o) for e, o in others if e is not None), key=lambda pair: pair[0] or 0)
        for expected, option in known[:SHOWN]:
            measured = self._measured(p, option)
            said = "" if measured is None else f", measured {measured:.3f}"
            yield f"#     {written(option)}: {expected:.3f} of the time expected{said}"

    def _expected(self, p: Pick, option: Choice) -> float | None:
        """The time with another option over that now, by the model; ``None`` where it cannot be."""
        choices = {q.name: q.choice for q in self.schedule.picks if q.choice != q.default}
        other = estimated(self.func, self.backend, {**choices, p.name: option}, self.threads)
        return None if other is None else other[1].cycles / max(self.expected.cycles, 1.0)

    def _measured(self, p: Pick, option: Choice) -> float | None:
        """The time with another option over that now, if both were measured."""
        choices = {q.name: q.choice for q in self.schedule.picks if q.choice != q.default}
        wanted = {n: c for n, c in {**choices, p.name: option}.items() if (n, c) != (n, p.default)}
        if p.default == option:
            wanted.pop(p.name, None)
        now = 1.0 if not choices else self._ratio(choices)
        then = 1.0 if not wanted else self._ratio(wanted)
        return None if now is None or then is None else then / now

    def _ratio(self, choices: Choices) -> float | None:
        found = [t.ratio for t in self.trials if dict(t.choices) == dict(choices)]
        return next((r for r in reversed(found) if r is not None), None)


def estimated(
    func: Func,
    backend: Backend,
    choices: Choices,
    threads: int,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Schedule, Estimate] | None:
    """The schedule of a kernel by some choices and what the model says of it, for dimensions of
    these sizes; ``None`` where the rules do not take it."""
    try:
        schedule = backend.rules(func, Chooser(backend.target, choices))
        kernel = backend.optimize(func, schedule)
    except AiscError:
        return None
    return schedule, estimate(kernel.func, backend.target, threads, sizes)


def explain(func: Func, backend: Backend, database: Database | None, threads: int) -> Explanation:
    """Why a kernel is scheduled as it is, with the records of a database if there is one."""
    key = workload_key(func)
    record = None if database is None else database.best(key, backend.target, threads)
    trials = [] if database is None else database.trials(backend.target, key)
    choices: Choices = {} if record is None else record.choices
    made = estimated(func, backend, choices, threads) or estimated(func, backend, {}, threads)
    assert made is not None, "a kernel has a default schedule"
    return Explanation(func, backend, *made, record, trials, threads)

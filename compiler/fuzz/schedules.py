"""Random loop nests under random schedules: what is accepted keeps the result to the bit, what is
refused with a witness conflicts, every trace replays. The default rules keep the result as well.
"""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from aisc.fuzz.check import Finding, Outcome
from aisc.fuzz.nests import Case, make
from aisc.fuzz.steps import MOVES, Args, Moves
from aisc.fuzz.witness import assert_replays
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import Node
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import For
from aisc.ir.tensor.tree import loops_of
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.tensor.visitor import substitute, transform
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.legality import ScheduleError
from aisc.passes.schedule.picks import Choice
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule, packer_schedule
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

STEPS = 9
# What moves and joins whole nests needs a fitting place, so it is tried more often.
NAMES = (*MOVES, *("compute_at", "reverse_compute_at", "fuse_loops", "fission", "pipeline") * 3)


def backwards(func: Func) -> Func:
    """Parallel and vectorized loops in descending order: their iterations are independent."""

    def turn(n: Node) -> Node:
        if not isinstance(n, For) or n.kind not in ("parallel", "vectorize"):
            return n
        last = n.low + n.low + n.extent - 1
        return For(n.var, n.low, n.extent, n.kind, substitute(n.body, {n.var: last - n.var}))

    return replace(func, body=transform(func.body, turn))


class Run:
    """One case under a random schedule."""

    def __init__(self, seed: int) -> None:
        self.case, self.rng = make(seed)
        verify_func(self.case.func)
        self.expected = self.case.run(self.case.func)
        self.start = self.s = Schedule.of(self.case.func)
        self.refusals = 0

    def step(self) -> None:
        """Try one primitive."""
        moves = Moves(self.rng, self.s.func)
        name = self.rng.choice(NAMES)
        args = MOVES[name](moves)
        try:
            after = self.s.apply(name, *args)
        except CompileError as refusal:
            self.refused(refusal, name, args)
            return
        self.s = after
        verify_func(after.func)
        self.same(after.func, "it")
        kinds = {f.kind for f in loops_of(after.func.body)}
        if kinds & {"parallel", "vectorize"}:
            self.same(backwards(after.func), "its reversed lanes and threads")
            self.same(after.func, "its interleaved threads", nthreads=3)

    def refused(self, why: CompileError, name: str, args: Args) -> None:
        """A refusal is of the schedule's codes, and its witness is real."""
        assert set(why.codes) <= {"E302", "E303", "E304"}, self.told(name, args)
        self.refusals += 1
        if isinstance(why, ScheduleError) and why.witness is not None:
            assert why.codes == ("E303",)
            assert_replays(why.func, why.witness)

    def told(self, name: str, args: Args) -> str:
        """The schedule so far and the step that is tried."""
        return f"{self.s.to_python()}\ns.{name}{args}"

    def same(self, func: Func, what: str, nthreads: int = 1) -> None:
        """``AssertionError`` unless a function computes what the case did."""
        found = self.case.run(func, self.s.packers, nthreads)
        for name, array in self.expected.items():
            assert np.array_equal(found[name], array), f"{what} differs:\n{self.s.to_python()}"

    def finish(self) -> None:
        """What holds of every schedule."""
        again = trace_from_json(trace_to_json(self.s.trace))
        replayed = self.start.replay(again)
        assert replayed.func == self.s.func
        assert print_ir(replayed.func) == print_ir(self.s.func)
        assert parse_func(print_ir(self.s.func)) == self.s.func
        if not any("." in f.kind for f in loops_of(self.s.func.body)):
            self.same(optimize(self.s.func), "step 8")


def check(seed: int) -> tuple[Case, Schedule]:
    """Random steps on the nest of a seed; ``AssertionError`` with the schedule when it is wrong."""
    run = Run(seed)
    for _ in range(STEPS):
        run.step()
    run.finish()
    return run.case, run.s


def check_default(seed: int, target: Target) -> None:
    """The default rules on the nest of a seed keep its result, before and after step 8; so do the
    rules with anything else among the options picked, and they pick the same again."""
    case, _ = make(seed)
    rng, chosen = random.Random(seed), dict[str, Choice]()
    for _ in range(3):
        d = Chooser(target, chosen)
        s = default_schedule(case.func, d)
        _check_rules(case, s, target)
        again = default_schedule(case.func, Chooser(target, {p.name: p.choice for p in s.picks}))
        assert again == s, f"picked otherwise:\n{s.to_python()}"
        chosen = {p.name: rng.choice(p.options) for p in s.picks if rng.random() < 0.4}


def _check_rules(case: Case, s: Schedule, target: Target) -> None:
    expected = case.run(case.func)
    verify_func(s.func)
    packers = tuple(packer_schedule(p, target).func for p in s.packers)
    for what, func in (("the rules", s.func), ("step 8", optimize(s.func))):
        found = case.run(func, packers, nthreads=2)
        for name, array in expected.items():
            assert np.array_equal(found[name], array), f"{what} differ:\n{s.to_python()}"


def check_seed(seed: int) -> Outcome:
    """Both checks as findings."""
    outcome = Outcome()
    try:
        check(seed)
        check_default(seed, resolve("cpu"))
    except AssertionError as wrong:
        outcome.findings.append(Finding("mismatch", "schedule", f"schedule: {wrong}"))
    except Exception as fault:
        message = f"{type(fault).__name__}: {fault}"
        outcome.findings.append(Finding("internal", "schedule", message))
    return outcome

"""Handovers between the units of an accelerator: inserted where one depends on another, and proved.

before: ``for i { load(tile[i % 2]);  compute(tile[i % 2]) }``
after:  ``for i { load(tile[i % 2]);  handover load -> compute;  compute(tile[i % 2]);
handover compute -> load }``, where load may be one handover ahead

A handover is a token that its giver gives and its taker takes; both do so in program order. Two
accesses of different units to one place of a memory, one of them writing, must be separated by more
handovers than the taker may be ahead. The test is exact: integer sets give a witness or prove that
there is none. Each queue of tokens then gets as many tokens to start with as its depth and the
proof allow, so that units run ahead. Nothing waits for ever: in program order every token is there
when it is taken and finds its place when it is given, and queues in which that holds for one order
let units of fixed instructions finish in any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aisc.ir.accelerator import Accelerator, TokenQueue
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import For, Handover, Invoke, seq
from aisc.ir.tensor.tree import replace_stmt
from aisc.passes.schedule.sets import NotAffine, Problem, Undecided, affine
from aisc.passes.tensor.handover_pairs import Meeting, meetings
from aisc.passes.tensor.vector_programs import instructions_of

# How the attributes of a kernel are called that say how far takers may be ahead.
AHEAD = "ahead."
# No unit is so far ahead that more would matter.
FARTHEST = 4
Instructions = Mapping[str, Intrinsic]


@dataclass(frozen=True, slots=True)
class InsertHandovers:
    """The pass for a target with tokens: see the module's docstring. Precondition: instructions in
    plain loops. E402 where units share a memory and no tokens pass between them."""

    target: Target
    name: str = "insert-handovers"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        chip = self.target.chip
        if chip is None or not chip.tokens:
            return func
        instructions = instructions_of(func, self.target)
        _require_queues(func, instructions, chip)
        for queue in chip.tokens:
            while (found := next(_hazards(func, instructions, queue, 0), None)) is not None:
                func = _with_handover(func, found, queue)
        ahead = {q: _farthest(func, instructions, q) for q in chip.tokens}
        more = tuple((f"{AHEAD}{q.giver}.{q.taker}", n) for q, n in ahead.items() if n)
        return replace(func, attrs=(*func.attrs, *more))


def ahead_of(func: Func, queue: TokenQueue) -> int:
    """How many handovers of a queue its taker may be ahead of its giver."""
    found = dict(func.attrs).get(f"{AHEAD}{queue.giver}.{queue.taker}", 0)
    assert isinstance(found, int), "a number of handovers"
    return found


def check_handovers(func: Func, target: Target) -> None:
    """Prove that no units race and none waits for ever: E507 or E508 with what shows it."""
    chip = target.chip
    if chip is None or not chip.tokens:
        return
    instructions = instructions_of(func, target)
    _require_queues(func, instructions, chip)
    for queue in chip.tokens:
        ahead = ahead_of(func, queue)
        if ahead + 1 > queue.depth:
            what = f"{func.name}: {ahead + 1} tokens do not fit {queue.name}"
            raise error("E508", what, f"it holds {queue.depth}, and {queue.giver} waits for ever")
        for m in _hazards(func, instructions, queue, ahead):
            first, second = m.first, m.second
            raise error(
                "E507", f"{func.name}: {queue.giver} and {queue.taker} race on "
                f"{first.touch.buffer.name}",
                f"{second.instruction} may meet {first.instruction} before it",
                f"expected a handover {queue.giver} -> {queue.taker} between the two",
            )  # fmt: skip


def _require_queues(func: Func, instructions: Instructions, chip: Accelerator) -> None:
    units = sorted({instructions[n.intrinsic].unit for n in walk(func.body) if _is_invoke(n)})  # type: ignore[attr-defined]
    known = {(q.giver, q.taker) for q in chip.tokens}
    for giver in units:
        for taker in units:
            if giver == taker or (giver, taker) in known:
                continue
            for m in meetings(func, instructions, giver, taker):
                first, second = m.first, m.second
                raise error(
                    "E402", f"nothing orders the units {giver} and {taker}, which share "
                    f"{first.touch.buffer.space}",
                    f"{first.instruction} comes before {second.instruction} in {func.name}",
                    f'expected a [token.NAME] with giver = "{giver}", taker = "{taker}"',
                )  # fmt: skip


def _is_invoke(n: object) -> bool:
    return isinstance(n, Invoke)


def _with_handover(func: Func, m: Meeting, queue: TokenQueue) -> Func:
    new = Handover(queue.giver, queue.taker)
    if m.place is not None:
        at, k = m.place
        return replace_stmt(func, at, seq(*at.stmts[:k], new, *at.stmts[k:]))
    # Where both are in every turn: the more often tokens pass, the farther a unit may be ahead.
    own = zip(m.first.touch.loops, m.second.touch.loops, strict=False)
    *_, inner = (a for a, b in own if a is b)
    return replace_stmt(func, inner, replace(inner, body=seq(inner.body, new)))


def _farthest(func: Func, instructions: Instructions, queue: TokenQueue) -> int:
    """How far the taker may be ahead."""
    if not any(_is_of(n, queue) for n in walk(func.body)):
        return 0
    options = range(min(queue.depth - 1, FARTHEST), 0, -1)
    return next((n for n in options if not any(_hazards(func, instructions, queue, n))), 0)


def _is_of(n: object, queue: TokenQueue) -> bool:
    return isinstance(n, Handover) and (n.giver, n.taker) == (queue.giver, queue.taker)


def _hazards(
    func: Func, instructions: Instructions, queue: TokenQueue, ahead: int
) -> Iterator[Meeting]:
    """Meetings that happen when the taker is `ahead` handovers ahead."""
    for m in meetings(func, instructions, queue.giver, queue.taker):
        if _may_happen(func, m, ahead):
            yield m


def _may_happen(func: Func, m: Meeting, ahead: int) -> bool:
    """Whether two accesses meet between which there are at most `ahead` handovers."""
    common = {f.var: f"g{k}" for k, f in enumerate(m.same)}
    sides: list[dict[Var, str]] = []
    names = list(common.values())
    try:
        constraints = [c for f in m.same for c in _range(f, common)]
        for tag, seen in (("a", m.first), ("b", m.second)):
            own = [f for f in seen.touch.loops if f.var not in common]
            rename = {**common, **{f.var: f"{tag}{k}" for k, f in enumerate(own)}}
            names += [rename[f.var] for f in own]
            constraints += [c for f in own for c in _range(f, rename)]
            sides.append(rename)
        a, b = sides
        between = f"{affine(m.first.passed, a)} + {affine(m.second.passed, b)}"
        if m.step is not None:
            first, second = a[m.step.var], b[m.step.var]
            constraints.append(f"{second} > {first}")
            between += f" + {m.turn} * ({second} - {first} - 1)"
        constraints.append(f"{between} <= {ahead}")
        pairs = zip(m.first.touch.index, m.second.touch.index, strict=True)
        constraints += [f"{affine(i, a)} = {affine(j, b)}" for i, j in pairs]
        return Problem(tuple(names), (), tuple(constraints)).sample() is not None
    except (NotAffine, Undecided) as why:
        if ahead:  # what is not proved is not done
            return True
        raise error(
            "E304", f"{func.name}: accesses of {m.first.touch.buffer.name} by two units cannot be "
            "decided", str(why),
        ) from why  # fmt: skip


def _range(loop: For, rename: dict[Var, str]) -> tuple[str, str]:
    low, var = affine(loop.low, rename), rename[loop.var]
    return f"{low} <= {var}", f"{var} < {low} + {affine(loop.extent, rename)}"

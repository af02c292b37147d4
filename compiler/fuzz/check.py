"""Checking one case: every oracle on every feed, differences through the screen."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Sequence
from dataclasses import field
from typing import Literal

import numpy as np

from aisc.fuzz.case import Case, Feed, frozen_feed, live, nodes_of
from aisc.fuzz.oracles import ORACLES, Answer, Oracle, step_answers
from aisc.fuzz.screen import Screen, close, screened
from aisc.ir.arith.poly import evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, CompileError, ExecutionError
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.graph.interpret import bind_dims, interpret
from aisc.ir.graph.opdef import Array
from aisc.ir.target import Target

# mismatch: a wrong number, shape or type, or one where there should be a refusal. internal: a fault
# of aisc that is no diagnostic, or a refusal of a graph that the verifier accepts. crash, hang,
# memory: what ended the process that worked on the case.
Kind = Literal["mismatch", "internal", "crash", "hang", "memory"]
# Another runtime tells whether the meaning is right; its roundings are its own affair.
FOREIGN = 1e-3
UNSUPPORTED = {"E102", "E204", "E402"}


@dataclass(frozen=True)
class Finding:
    """What is wrong with a case, by which oracle, on which feed and result."""

    kind: Kind
    oracle: str
    message: str
    feed: int = 0
    result: int = 0

    def like(self, other: Finding) -> bool:
        """Whether another is of the same kind, of the same oracle, with the same kind of fault."""
        mine, theirs = (x.message.split(":")[0] for x in (self, other))
        return self.kind == other.kind and self.oracle == other.oracle and mine == theirs


@dataclass
class Outcome:
    """What checking a case gave. unclear: elements that the screen passed over. unsupported: the
    diagnostic of a compilation that is refused as not supported."""

    findings: list[Finding] = field(default_factory=list)
    compared: int = 0
    unclear: int = 0
    skipped: int = 0
    unsupported: str = ""


def check(case: Case, target: Target, oracles: Sequence[Oracle] = ORACLES) -> Outcome:
    """Ask the oracles; each gives at most one finding."""
    outcome = Outcome()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        expected = [_expected(case, feed, outcome) for feed in case.feeds]
        screens: dict[int, Screen | None] = {}
        for oracle in oracles:
            if case.seed % oracle.every == 0:
                found = _ask(case, target, oracle, expected, screens, outcome)
                outcome.findings += [found] if found is not None else []
    return outcome


Expected = list[Array] | ExecutionError | None


def _expected(case: Case, feed: Feed, outcome: Outcome) -> Expected:
    """The interpreter's results; an error where it refuses an index; ``None`` where sizes of the
    feed do not fit the graph, which is not refused alike on all levels."""
    try:
        return [np.asarray(x) for x in interpret(case.graph, frozen_feed(feed))]
    except ExecutionError as refusal:
        if "an index is outside" in str(refusal) and _refuses(live(case.graph), feed):
            return refusal
    except CompileError:
        pass
    except Exception as fault:
        outcome.findings.append(Finding("internal", "interpreter", _told(fault)))
    outcome.skipped += 1
    return None


def _refuses(graph: Graph, feed: Feed) -> bool:
    """Whether an index is outside of its axis where an element is read or written."""
    done: set[Value] = set()
    try:
        interpret(graph, frozen_feed(feed), keep=lambda v, _: done.add(v))
    except ExecutionError as refusal:
        if "an index is outside" not in str(refusal):
            return False
        node = next((n for n in graph.nodes if not done.issuperset(n.outputs)), None)
        return node is None or _touches(node, graph, feed)
    return False


def _touches(node: GraphNode, graph: Graph, feed: Feed) -> bool:
    """Whether a node that reads or writes at indices has an element to do that with."""
    types, names = [v.type for v in graph.inputs], [v.name for v in graph.inputs]
    dims = bind_dims(types, [feed[n] for n in names], names, {})
    v = node.inputs[2] if node.op.startswith("scatter") else node.outputs[0]
    assert v is not None, "updates are there"
    try:
        return evaluate(v.type.size, dims) > 0
    except KeyError:  # a size that only the run gives
        return True


def _ask(
    case: Case,
    target: Target,
    oracle: Oracle,
    expected: Sequence[Expected],
    screens: dict[int, Screen | None],
    outcome: Outcome,
) -> Finding | None:
    try:
        answer = oracle.prepare(case, target)
    except Exception as fault:
        return _refused(fault, oracle, outcome)
    if answer is None:
        return None
    for number, (feed, want) in enumerate(zip(case.feeds, expected, strict=True)):
        if want is None:
            continue
        found = _answered(case, oracle, answer, number, feed, want, screens, outcome)
        if found is not None:
            return found
    return None


def _refused(fault: Exception, oracle: Oracle, outcome: Outcome) -> Finding | None:
    if oracle.foreign:
        return None
    if isinstance(fault, CompileError) and set(fault.codes) <= UNSUPPORTED:
        outcome.unsupported = str(fault)
        return None
    return Finding("memory" if isinstance(fault, MemoryError) else "internal", oracle.name,
                   _told(fault))  # fmt: skip


def _told(fault: Exception) -> str:
    """The kind and words of a fault, and where it was raised."""
    name = " ".join(fault.codes) if isinstance(fault, AiscError) else type(fault).__name__
    frames = traceback.extract_tb(fault.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].name})" if frames else ""
    return f"{name}{where}: {str(fault)[:300]}"


def _answered(
    case: Case,
    oracle: Oracle,
    answer: Answer,
    number: int,
    feed: Feed,
    want: list[Array] | ExecutionError,
    screens: dict[int, Screen | None],
    outcome: Outcome,
) -> Finding | None:
    try:
        got = answer(frozen_feed(feed))
    except Exception as fault:
        refused = isinstance(fault, ExecutionError)
        if oracle.foreign or (refused and isinstance(want, ExecutionError)):
            return None
        if refused and "divided by zero" in str(fault) and _divides(case.graph):
            outcome.skipped += 1
            return None
        kind: Kind = "mismatch" if isinstance(fault, ExecutionError) else "internal"
        return Finding(kind, oracle.name, _told(fault), number)
    if isinstance(want, ExecutionError):
        if oracle.foreign:
            return None
        return Finding("mismatch", oracle.name, f"not refused: {want}", number)
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        if a is None:
            continue
        outcome.compared += b.size
        if close(a, b):
            continue
        if number not in screens:
            screens[number] = screened(case.graph, feed)
        message = _difference(oracle, screens[number], k, a, b, outcome)
        if message:
            return Finding("mismatch", oracle.name, message, number, k)
    return None


def _divides(graph: Graph) -> bool:
    """Whether a graph divides integers, and so may refuse a zero where numpy gives zero."""
    dividing = {"div", "mod", "fmod", "reduce_mean"}
    return any(n.op in dividing and n.output.type.dtype.is_integer for n in nodes_of(graph))


def _difference(
    oracle: Oracle, screen: Screen | None, k: int, got: Array, want: Array, outcome: Outcome
) -> str:
    """What is wrong with a result; nothing where rounding explains it."""
    if got.shape != want.shape or got.dtype != want.dtype:
        wrong = f"{got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}"
        return "" if oracle.foreign and not got.size else f"type: {wrong}"
    if screen is None:
        outcome.unclear += want.size
        return ""
    verdict = screen.judge(k, got)
    outcome.unclear += verdict.unclear
    faults = verdict.faults
    if oracle.foreign and want.dtype.kind not in "iub":
        wide = want.astype(np.float64)
        far = np.abs(got - wide) > FOREIGN * np.maximum(1.0, np.abs(wide))
        faults = faults & np.isfinite(wide) & far
    # Where the interpreter itself is as far off, its own rounding is to blame.
    if not faults.any():
        return ""
    own = screen.judge(k, want).faults
    if not (faults & ~own).any():
        outcome.unclear += int(faults.sum())
        return ""
    faults = faults & ~own
    at = tuple(int(x) for x in np.argwhere(faults)[0])
    numbers = f"got {got[at]!s}, expected {want[at]!s} at {list(at)}"
    return f"value: {int(faults.sum())} of {want.size} elements, {numbers}"


def blame(case: Case, target: Target, finding: Finding) -> str:
    """The first step whose product gives another result under its interpreter."""
    if target.kind != "cpu" or finding.kind != "mismatch":
        return ""
    feed = case.feeds[finding.feed]
    try:
        answers = step_answers(case, target)
    except Exception:
        return ""
    for step, answer in answers.items():
        oracle = Oracle(step, lambda *_, a=answer: a)
        alone = Case(case.seed, case.graph, (feed,))
        if check(alone, target, (oracle,)).findings:
            return step
    return "machine code"

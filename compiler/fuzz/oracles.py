"""Who answers a case beside the graph interpreter, whose answer is the meaning.

An oracle prepares a case once and then answers feeds. The list :data:`ORACLES` is the one place
where another is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import numpy as np

from aisc.driver import api
from aisc.driver.options import Options
from aisc.fuzz.case import Case, Feed
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.opdef import Array
from aisc.ir.target import Target
from aisc.ir.tensor.func import Program

Answer = Callable[[Feed], "Sequence[Array | None]"]
Prepare = Callable[[Case, Target], "Answer | None"]


@dataclass(frozen=True, slots=True)
class Oracle:
    """`prepare` gives ``None`` where the oracle does not know the graph, an answer ``None`` for
    results that it does not know. One that is `foreign` is
    no part of aisc: what it refuses or fails on is no finding, and only numbers count where it
    answers."""

    name: str
    prepare: Prepare
    foreign: bool = False
    every: int = 1  # asked for one case of so many


def choices(**given: object) -> Options:
    """Options of a compilation under test: no caches, one thread."""
    return Options(use_cache=False, threads=1, **given)  # type: ignore[arg-type]


def compiled(level: int) -> Prepare:
    """The machine code of an optimisation level, on poisoned memory; what a device takes runs on
    the model of it."""

    def prepare(case: Case, target: Target) -> Answer:
        from aisc.codegen.run.guard import PoisonedExecutable

        executable = api.build(case.graph, target, choices(level=level)).executable
        assert executable is not None, "nothing stopped the pipeline"
        poisoned = PoisonedExecutable(executable.image)
        return lambda feed: poisoned.run(None, feed)

    return prepare


def onnx_runtime(case: Case, target: Target) -> Answer | None:
    """onnxruntime, on what can be said in ONNX."""
    if find_spec("onnxruntime") is None:
        return None
    from aisc.fuzz import runtime
    from aisc.fuzz.onnx_export import exported

    found = exported(case.graph)
    if found is None:
        return None
    model, places = found
    names = [v.name for v in case.graph.inputs]
    data, inputs = model.SerializeToString(), [i.name for i in model.graph.input]

    def answer(feed: Feed) -> list[Array | None]:
        given = {name: feed[names[int(name[3:])]] for name in inputs}
        results: list[Array | None] = [None] * len(case.graph.outputs)
        if _meets_nan(case.graph, feed):
            return results
        got = runtime.answer(data, given)
        for place, x in zip(places, got or (), strict=got is not None):
            results[place] = np.asarray(x)
        return results

    return answer


def _meets_nan(graph: Graph, feed: Feed) -> bool:
    """Whether anything is NaN on the way: ONNX does not say what maxima and sorting make of it."""
    found: list[bool] = []

    def keep(_: Value, x: Array) -> None:
        found.append(x.dtype.kind not in "iub" and bool(np.isnan(x.astype(np.float64)).any()))

    for x in (*feed.values(), *interpret(graph, feed, keep)):
        keep(graph.outputs[0], x)
    return any(found)


def guarded(case: Case, target: Target) -> Answer:
    """The machine code with every buffer beside a page that must not be touched, on either side:
    an access outside ends the worker, which is a finding."""
    from aisc.codegen.run.guard import GuardedExecutable

    executable = api.build(case.graph, target, choices(level=2, apart=True)).executable
    assert executable is not None, "nothing stopped the pipeline"
    last, first = (GuardedExecutable(executable.image, 1, at_end) for at_end in (True, False))

    def answer(feed: Feed) -> list[Array]:
        first.run(None, feed)
        return last.run(None, feed)

    return answer


ORACLES: tuple[Oracle, ...] = (
    Oracle("compiled", compiled(2)),
    Oracle("level 0", compiled(0), every=2),
    Oracle("guard", guarded, every=3),
    Oracle("onnxruntime", onnx_runtime, foreign=True, every=3),
)


def oracles_named(names: Sequence[str]) -> tuple[Oracle, ...]:
    """Oracles by name; all without names."""
    return tuple(o for o in ORACLES if not names or o.name in names)


# -- where a fault begins --------------------------------------------------------------------------
GRAPH_STEPS = ("canonicalize", "legalize", "fuse")
PROGRAM_STEPS = ("lower", "optimize", "plan")


def step_answers(case: Case, target: Target) -> Mapping[str, Answer]:
    """The product of each step under its interpreter, by name and in order."""
    from aisc.driver.instruments import Collector
    from aisc.ir.tensor.interpret import run_program

    collector = Collector()
    api.build(case.graph, target, choices(stop_after="plan"), collector)
    found: dict[str, Answer] = {}
    names = [v.name for v in case.graph.inputs]
    for step in GRAPH_STEPS:
        graph = collector.products[step]
        assert isinstance(graph, Graph), f"the product of {step} is a graph"
        found[step] = lambda feed, g=graph: interpret(g, feed)  # type: ignore[misc]
    for step in PROGRAM_STEPS:
        program = collector.products[step]
        assert isinstance(program, Program), f"the product of {step} is a Program"
        found[step] = lambda feed, p=program: list(  # type: ignore[misc]
            run_program(p, [feed[n] for n in names], nthreads=2)
        )
    return found


__all__ = ["ORACLES", "Oracle", "choices", "compiled", "oracles_named", "step_answers"]

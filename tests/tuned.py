"""A kernel to be tuned, and schedules of it."""

from __future__ import annotations

import numpy as np

from aisc.codegen.backend import backend_of
from aisc.driver.api import build, resolve_target
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Func, Program
from aisc.ir.types import TensorType
from aisc.passes.schedule.picks import Choice, Choices, stale
from aisc.passes.schedule.rules.chooser import NONE, Chooser
from aisc.tuning.space import Sketch, neighbours


def graph() -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType((64, 48), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    return b.finish([b.add("matmul", (x, b.constant(w)))])


def lowered(graph: Graph) -> tuple[Func, ...]:
    program = build(graph, "cpu", from_environment(stop_after="lower")).product
    assert isinstance(program, Program)
    return program.kernels


def sketch_of(func: Func, choices: Choices = NONE) -> Sketch:
    """A configuration, scheduled here."""
    backend = backend_of(resolve_target("cpu"))
    s = backend.rules(func, Chooser(backend.target, choices))
    chosen = {p.name: p.choice for p in s.picks if p.choice != p.default}
    return Sketch(chosen, s.picks, 1.0, "core", ())


def other_tile(kernel: Func, number: int = 0) -> dict[str, Choice]:
    """A choice of another tile, which its gate takes."""
    backend = backend_of(resolve_target("cpu"))
    found = []
    for choices in neighbours(sketch_of(kernel), True):
        made, _ = backend.schedule(kernel, choices)
        if not stale(choices, made.picks):
            found.append(choices)
        if len(found) > number:
            break
    return found[number]

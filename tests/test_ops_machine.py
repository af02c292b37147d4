"""Every operator through machine code against its reference, over all cases and both ways of
giving operands: as inputs, and as constants that are folded or packed. Nothing of a result is what
its memory held before."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CASES, Case
from test_ops_reference import close, run

import aisc
from aisc.codegen.run.guard import PoisonedExecutable
from aisc.ir.dtypes import from_numpy
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import TensorType

# Every case, without the operators that only run on the host.
COMPUTED = [
    c
    for c in CASES
    if opdef.get(c.op).scalar or opdef.get(c.op).variants or opdef.get(c.op).decompose
]


def graph_of(case: Case, constants: bool) -> tuple[Graph, list[np.ndarray]]:
    """A graph of one operator; with `constants` all operands but the first are constants."""
    b = GraphBuilder()
    feeds: list[np.ndarray] = []
    values: list[Value | None] = []
    for k, x in enumerate(case.inputs):
        if x is None:
            values.append(None)
        elif constants and k:
            values.append(b.constant(np.array(x)))
        else:
            values.append(b.input(f"x{k}", TensorType(x.shape, from_numpy(x.dtype))))
            feeds.append(np.array(x))
    return b.finish(b.add_multi(case.op, values, case.attrs)), feeds  # type: ignore[arg-type]


@pytest.mark.parametrize("case", COMPUTED, ids=str)
def test_machine_code(case: Case) -> None:
    many = len([x for x in case.inputs if x is not None]) > 1
    expected = run(case)
    for constants in (False, True) if many else (False,):
        graph, feeds = graph_of(case, constants)
        exe = PoisonedExecutable(aisc.compile(graph, threads=2, cache=False).image, 2)
        got = exe.run(None, dict(zip(exe.input_names, feeds, strict=True)))
        for a, b in zip(got, expected, strict=True):
            close(a, b)

"""Operators against themselves: reference, type rule, compute definition, decomposition."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from op_cases import CASES, Case, result_types

from aisc.ir.arith.poly import symbol
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.verify import verify
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Load, Var
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.types import TensorType


def graph_of(case: Case, decompose: bool = False):  # type: ignore[no-untyped-def]
    gb = GraphBuilder()
    call, _ = result_types(case)
    values = [None if t is None else gb.input(f"x{i}", t) for i, t in enumerate(call.types)]
    if decompose:
        assert call.op.decompose is not None
        results = tuple(call.op.decompose(gb, call, values))
    else:
        results = gb.add_multi(case.op, values, case.attrs)  # type: ignore[arg-type]
    return gb.finish(results)


def run(case: Case, decompose: bool = False) -> list[np.ndarray]:
    graph = graph_of(case, decompose)
    verify(graph)
    return interpret(graph, [x for x in case.inputs if x is not None])


def close(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    if a.dtype.kind in "iub":
        np.testing.assert_array_equal(a, b)
        return
    eps = {2: 2e-2 if a.dtype.kind == "V" else 2e-3, 4: 2e-5, 8: 1e-12}[a.dtype.itemsize]
    x, y = a.astype(np.float64), b.astype(np.float64)
    np.testing.assert_allclose(x, y, rtol=eps, atol=eps)


def lowered(case: Case, symbolic: bool = False) -> Func:
    """The compute definition as a function of its operands and results."""
    call, results = symbolic_call(case) if symbolic else result_types(case)
    op, cb = call.op, ComputeBuilder()
    ins = [
        None if t is None else buffer(f"in{i}", t.dtype, t.shape, "input")
        for i, t in enumerate(call.types)
    ]
    outs = [buffer(f"out{i}", t.dtype, t.shape, "output") for i, t in enumerate(results)]
    if op.scalar is not None:
        scalar = op.scalar

        def element(*i):  # type: ignore[no-untyped-def]
            loads = []
            for b in ins:
                pairs = zip(b.shape, i[len(i) - b.rank :], strict=True)
                loads.append(Load(b, tuple(ZERO if d == 1 else v for d, v in pairs)))
            return scalar(call, loads)

        cb.map(outs[0], element)
    else:
        op.variants["direct"].compute(cb, call, ins, outs)
    dims = [Var("n")] if symbolic else []
    made = cb.func("f", [*(b for b in ins if b is not None), *outs], dims)
    return replace(made, requires=tuple(c.condition for c in call.checks or ()))


BATCHED = ("conv", "max_pool", "avg_pool", "softmax", "layer_norm", "lrn", "argmax", "relu")


def symbolic_call(case: Case):  # type: ignore[no-untyped-def]
    """The call with the first size of the first operand symbolic."""
    call, _ = result_types(case)
    first = call.types[0]
    assert first is not None
    types = (TensorType((symbol("n"), *first.shape[1:]), first.dtype), *call.types[1:])
    call = opdef.OpCall(call.op, types, call.attrs, call.constants, checks=[])
    return call, call.op.infer(call)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_fits_the_type_rule(case: Case) -> None:
    _, results = result_types(case)
    for array, t in zip(run(case), results, strict=True):
        sizes = zip(array.shape, t.shape, strict=True)
        assert all(a == b or not isinstance(b, int) for a, b in sizes)
        assert array.dtype == t.dtype.numpy


@pytest.mark.parametrize("case", [c for c in CASES if opdef.get(c.op).decompose], ids=str)
def test_decomposition(case: Case) -> None:
    for a, b in zip(run(case), run(case, decompose=True), strict=True):
        close(a, b)


COMPUTED = [c for c in CASES if opdef.get(c.op).scalar or opdef.get(c.op).variants]


@pytest.mark.parametrize("case", COMPUTED, ids=str)
def test_compute_definition(case: Case) -> None:
    interpreter = pytest.importorskip("aisc.ir.tensor.interpret")
    func = lowered(case)
    expected = run(case)
    outs = [np.zeros_like(x) for x in expected]
    args = [np.array(x) for x in case.inputs if x is not None]
    with np.errstate(all="ignore"):
        interpreter.run_func(func, [*args, *outs])
    for a, b in zip(outs, expected, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.op in BATCHED and c.inputs[0].ndim > 1], ids=str
)
def test_symbolic_batch(case: Case) -> None:
    func = lowered(case, symbolic=True)
    _, (t,) = symbolic_call(case)
    assert t.shape[0] == symbol("n") or case.op == "argmax"
    interpreter = pytest.importorskip("aisc.ir.tensor.interpret")
    expected = run(case)
    outs = [np.zeros_like(x) for x in expected]
    with np.errstate(all="ignore"):
        args = [np.array(x) for x in case.inputs if x is not None]
        interpreter.run_func(func, [*args, *outs], {"n": case.inputs[0].shape[0]})
    close(outs[0], expected[0])


def test_every_operator_has_a_case() -> None:
    tried = {c.op for c in CASES}
    missing = [op for op in opdef.all_ops() if op.name not in tried]
    assert [op.name for op in missing if op.kind not in ("constant", "control")] == ["fused"]


@pytest.mark.parametrize("value", [np.int8(-100), np.uint8(200), np.int32(2**31 - 5)], ids=repr)
def test_a_mean_of_integers_is_one_of_them(value: np.generic) -> None:
    """However many there are, and whatever their sum."""
    case = Case("reduce_mean", (np.full((300,), value),), {"axes": (0,), "keepdims": False})
    assert run(case)[0] == value

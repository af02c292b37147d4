"""One meaning of every operator for every special value: its reference, the tensor interpreter,
folding and machine code give the same.

Integers, bools and what is exact in floats must be the same bits; where a value is rounded, what is
special in it (NaN, infinities, the sign of zero) must be the same, the rest close.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from cpu_machines import CPU
from op_cases import CASES, Case
from test_ops_machine import COMPUTED, graph_of

import aisc
from aisc.ir import dtypes
from aisc.ir.diagnostics import AiscError, ExecutionError
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.interpret import interpret
from aisc.ir.tensor.interpret import run_program
from aisc.ir.types import TensorType
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.lower.program import lower_graph

Array = np.ndarray[Any, Any]
# Operators whose operands say where something is: special values mean nothing there.
INDEXED = frozenset({
    "gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "within", "one_hot",
    "true_places",
})  # fmt: skip
# Zeros that an algorithm puts between elements, or behind them, meet the operands.
FINITE = frozenset({"conv_transpose"})
EXACT = frozenset({
    "abs", "neg", "add", "sub", "mul", "div", "min", "max", "and", "or", "xor", "not", "equal",
    "less", "less_equal", "greater", "greater_equal", "where", "cast", "floor", "ceil", "trunc",
    "round", "sqrt", "relu", "sign", "isnan", "isinf", "clip", "bitwise_not", "fmod", "mod",
    "argmax", "argmin", "top_k",
})  # fmt: skip


def specials(t: DType, wide: bool) -> Array:
    """Values of a type at which something happens; `wide`: also those that overflow sums."""
    if t.kind == "bool":
        return np.array([False, True])
    if not t.is_float:
        limits = [t.min_value, t.min_value + 1, t.max_value - 1, t.max_value]
        near = [0, 1, 2, 7, *([-1, -2, -7] if t.kind == "int" else [])]
        return np.array([int(v) for v in (near + limits if wide else near)], t.numpy)
    tiny = float(np.finfo(np.float32).smallest_subnormal) if t.bits >= 32 else 0.0
    found = [0.0, -0.0, 1.0, -1.0, 0.5, -1.5, 2.5, np.inf, -np.inf, np.nan, tiny, -tiny * 3]
    if wide:
        found += [float(t.max_value), float(t.min_value), 3e9, -3e9, 1e20, 300.7, -200.2, 1e-30]
    with np.errstate(over="ignore"):
        return np.array(found).astype(t.numpy)


def replaced(case: Case, seed: int) -> Case:
    """A case with special values for its operands."""
    rng = np.random.default_rng(seed)
    op = opdef.get(case.op)
    ranged = case.op == "fmod"  # of quotients
    wide = op.kind == "map" and op.scalar is not None and not ranged
    inputs: list[Any] = []
    for x in case.inputs:
        if x is None:
            inputs.append(None)
            continue
        values = specials(dtypes.from_numpy(np.asarray(x).dtype), wide)
        if case.op in FINITE:
            values = values[np.isfinite(values)]
        if ranged and values.dtype.kind == "f":
            values = values[~(np.abs(values) < 0.1) | (values == 0)]
        inputs.append(rng.choice(values, np.shape(x)))
    return Case(case.op, tuple(inputs), case.attrs)


def ways(case: Case) -> dict[str, Any]:
    """The results of a case by each way, or the code of the error."""
    graph, feeds = graph_of(case, constants=False)
    whole, _ = graph_of(case, constants=False)
    b = GraphBuilder()
    values = [None if x is None else b.constant(np.array(x)) for x in case.inputs]
    folded = b.finish(b.add_multi(case.op, values, case.attrs))

    def program(level: bool) -> Any:
        fused = Fuse(join=level, machines=CPU).run(
            Legalize(machines=CPU).run(Canonicalize().run(whole))
        )
        return run_program(lower_graph(fused), feeds)

    table = {
        "reference": lambda: interpret(graph, feeds),
        "tensor": lambda: program(True),
        "folded": lambda: interpret(Canonicalize().run(folded), []),
        "machine": lambda: aisc.compile(graph, threads=1, cache=False).run(
            None, dict(zip((v.name for v in graph.inputs), feeds, strict=True))
        ),
    }
    return {name: _outcome(way) for name, way in table.items()}


def _outcome(way: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return way()
    except ExecutionError:
        return "an error of the run"
    except AiscError as fault:
        return fault.codes[0]


def same(case: Case, a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "iub":
        return bool(np.array_equal(a, b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    if not np.array_equal(np.isnan(x), np.isnan(y)):
        return False
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    if case.op in EXACT:
        return bool(np.array_equal(x, y) and np.array_equal(np.signbit(x), np.signbit(y)))
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)) or not np.array_equal(x[~finite], y[~finite]):
        return False
    eps = {2: 2e-2 if a.dtype.kind == "V" else 4e-3, 4: 2e-5, 8: 1e-12}[a.dtype.itemsize]
    return bool(np.allclose(x[finite], y[finite], rtol=eps, atol=eps))


TRIED = [c for c in COMPUTED if c.op not in INDEXED]


@pytest.mark.parametrize("number", range(0, len(TRIED), 8))
def test_four_ways(number: int) -> None:
    wrong = []
    for k, case in enumerate(TRIED[number : number + 8]):
        special = replaced(case, number + k)
        found = ways(special)
        first = found["reference"]
        for name, results in found.items():
            if isinstance(first, str) or isinstance(results, str):
                fits = first == results
            else:
                fits = all(same(special, a, b) for a, b in zip(results, first, strict=True))
            if not fits:
                wrong.append(f"{special}: {name} gives {results}, the reference {first}, of "
                             f"{special.inputs}")  # fmt: skip
    assert wrong == [], "\n".join(wrong)


def test_every_map_is_tried() -> None:
    tried = {c.op for c in TRIED}
    maps = {op.name for op in opdef.all_ops() if op.scalar is not None}
    assert maps - tried <= INDEXED
    assert len(CASES) > len(TRIED)


@pytest.mark.parametrize("op", ["shift_left", "shift_right"])
@pytest.mark.parametrize("by", [0, 1, 31, 32, 200])
@pytest.mark.parametrize("t", [np.int32, np.uint32])
def test_shifts_by_known_amounts(op: str, by: int, t: type) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((19,), dtypes.from_numpy(np.dtype(t))))
    graph = b.finish([b.add(op, (x, b.constant(t(by))))])
    data = np.random.default_rng(3).integers(np.iinfo(t).min, np.iinfo(t).max, 19).astype(t)
    if by < 32:
        right = data << t(by) if op == "shift_left" else data >> t(by)
    else:  # nothing is left but the sign
        right = np.where((data < 0) & (op == "shift_right"), -1, 0).astype(t)
    np.testing.assert_array_equal(aisc.compile(graph, cache=False)(data), right)

"""What goes through each row step by step, selections, scans and arg-reductions: every algorithm
of theirs, with rows as lanes and without, means what the numpy reference says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import For, IterKind, Stmt, Store, seq
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

rng = np.random.default_rng(0)
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e-42, -1e-42, 3.0]


def graph(body: str, shape: tuple[int, ...], dtype: str, open_: bool = False) -> Graph:
    sizes = ["n" if open_ and a == len(shape) - 1 else str(d) for a, d in enumerate(shape)]
    text = f"model m(x: {dtype}[{', '.join(sizes)}]) {{\n{body}\n}}"
    return graph_of(text, "m.aim", Path(), {})


def data(shape: tuple[int, ...], dtype: str, special: bool) -> Any:
    """Few different values, so that many are equal."""
    kind = dtypes.dtype(dtype)
    if not kind.is_float:
        return rng.integers(0, 9, shape).astype(kind.numpy) - np.array(4).astype(kind.numpy)
    x = rng.integers(-20, 20, shape).astype(np.float32) / 4
    if special and x.size:
        places = rng.integers(0, x.size, max(1, x.size // 3))
        x.reshape(-1)[places] = rng.choice(SPECIAL, places.shape)
    return x.astype(kind.numpy)


def check(g: Graph, x: Any, bits: bool = True) -> aisc.Executable:
    made = aisc.compile(g, threads=2, cache=False)
    results = made(x)
    got = results if isinstance(results, tuple | list) else [results]
    for a, b in zip(got, interpret(g, [x]), strict=True):
        if bits:
            assert a.shape == b.shape and a.tobytes() == b.tobytes()
        else:
            np.testing.assert_allclose(a, b, rtol=1e-3, equal_nan=True)
    return made


# (shape, axis, k): few results beside each other, apart, in registers, of one row; all of them
# sorted as lanes and alone; chunks of long rows; parts of rows; nothing.
SELECTIONS = [
    ((3, 6, 7), 1, 2), ((2, 5, 40), 1, 5), ((21, 9), 1, 7), ((2, 3, 20, 3), 2, 11), ((19,), 0, 19),
    ((5, 50, 4), 1, 50), ((18, 70), 1, 66), ((90,), 0, 90), ((2, 1500), 1, 9), ((1, 700), 1, 1),
    ((300,), 0, 3), ((4, 1, 5), 1, 1), ((1, 130), 1, 60), ((97,), 0, 97), ((3, 67), 1, 49),
    ((0, 6), 1, 2), ((3, 6), 1, 0),
]  # fmt: skip


@pytest.mark.parametrize("largest", ["true", "false"])
@pytest.mark.parametrize(("shape", "axis", "k"), SELECTIONS)
def test_selections(shape: tuple[int, ...], axis: int, k: int, largest: str) -> None:
    body = f"a, b = top_k(x, k=[{k}], axis={axis}, largest={largest})\nreturn a, b"
    check(graph(body, shape, "f32"), data(shape, "f32", True))


@pytest.mark.parametrize("dtype", ["f16", "f64", "i8", "u32", "i64", "u64"])
def test_selections_of_other_elements(dtype: str) -> None:
    for shape, axis, k in (((3, 9, 5), 1, 4), ((40, 3), 0, 40), ((1, 600), 1, 2), ((2, 77), 1, 60)):
        for largest in ("true", "false"):
            body = f"a, b = top_k(x, k=[{k}], axis={axis}, largest={largest})\nreturn a, b"
            check(graph(body, shape, dtype), data(shape, dtype, True))


def test_selections_of_a_size_that_the_run_gives() -> None:
    for k in (1, 4, 12):
        g = graph(f"a, b = top_k(x, k=[{k}], axis=1)\nreturn a, b", (5, 12), "f32", open_=True)
        made = check(g, data((5, 12), "f32", True))
        long = data((5, 1100), "f32", True)
        for a, b in zip(made(long), interpret(g, [long]), strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("flags", ["", ", exclusive=true", ", reverse=true",
                                   ", exclusive=true, reverse=true"])  # fmt: skip
def test_scans(flags: str) -> None:
    for shape, axis in (
        ((30,), 0),
        ((3, 5, 9), 1),
        ((4, 6, 300), 1),
        ((7, 2, 70), 0),
        ((9, 33), 1),
    ):
        body = f"return cumsum(x, axis={axis}{flags})"
        check(graph(body, shape, "f32"), data(shape, "f32", False))
    check(graph(f"return cumprod(x, axis=1{flags})", (3, 8, 5), "f16"),
          np.ones((3, 8, 5), np.float16) * 1.5, bits=False)  # fmt: skip


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_places_in_short_rows(op: str) -> None:
    shapes = [((21, 3), 1), ((40, 2, 7), 1), ((3, 50, 12), 2), ((4, 9, 40), 1)]
    flags = ["", ", select_last=true, keepdims=false"]
    cases = itertools.product(shapes, flags, ["f32", "i32"])
    for (shape, axis), more, dtype in cases:
        body = f"return {op}(x, axis={axis}{more})"
        check(graph(body, shape, dtype), data(shape, dtype, True))


def test_rows_are_lanes() -> None:
    """A step of many rows is vectors, whichever axis they lie along."""
    for shape, axis in (((40, 9, 7), 1), ((40, 9), 1), ((9, 33), 0)):
        g = graph(f"a, b = top_k(x, k=[5], axis={axis})\nreturn a, b", shape, "f32")
        (kernel,) = aisc.lower(g, to="program").kernels  # type: ignore[union-attr]
        assert any(isinstance(n, For) and n.kind == "vectorize" for n in walk(kernel.body))


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32", "f64"])
def test_ordinals(dtype: str) -> None:
    """Integers in the order of the floats, for the interpreter and in compiled code."""
    kind = dtypes.dtype(dtype)
    number = e.math("ordinal", e.Const(0.0, kind)).dtype
    x = np.array([*SPECIAL, *rng.standard_normal(23)]).astype(kind.numpy)
    a, y = buffer("a", kind, x.shape), buffer("y", number, x.shape)
    cb = ComputeBuilder()
    cb.map(y, lambda i: e.math("ordinal", Load(a, (i,))))
    f = cb.func("f", (a, y))
    found, made = np.zeros(x.shape, number.numpy), np.zeros(x.shape, number.numpy)
    run_func(f, [x, found])
    run_func(optimize(Schedule.of(f).split("map_i0", 8).vectorize("map_i0_i").func), [x, made])
    assert np.array_equal(found, made)
    wide = x.astype(np.float64)
    less = (wide[:, None] < wide) | (~np.isnan(wide)[:, None] & np.isnan(wide))
    assert np.array_equal(found[:, None] < found, less)


def scan() -> Func:
    """``t += x[o, a];  y[o, a] = t`` for each o."""
    x, y = buffer("x", dtypes.i64, (4, 6)), buffer("y", dtypes.i64, (4, 6))
    cb = ComputeBuilder()
    t = cb.alloc("t", dtypes.i64, (4,))

    def step(at: Any) -> Stmt:
        o, a = at
        before = e.select(e.equal(a, 0), e.ZERO, Load(t, (o,)))
        stored = Store(y, (o, a), Load(t, (o,)))
        return seq(Store(t, (o,), before + Load(x, (o, a))), stored)

    kinds: list[IterKind] = ["spatial", "ordered"]
    cb.each((4, 6), step, "scan", kinds)
    return cb.func("f", (x, y))


STEPS = {
    "rows move inside": lambda s: s.reorder("scan_i1", "scan_i0").vectorize("scan_i0"),
    "private": lambda s: s.set_scope("t", "stack", "scan_i0"),
    "private to several": lambda s: (
        s.split("scan_i0", 2, names=("o", "l")).reorder("scan_i1", "l")
        .set_scope("t", "stack", "o").vectorize("l")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_scans(name: str) -> None:
    x = rng.integers(-9, 9, (4, 6))
    for f in (
        STEPS[name](Schedule.of(scan())).func,
        optimize(STEPS[name](Schedule.of(scan())).func),
    ):
        y = [np.zeros((4, 6), np.int64) for _ in f.params[1:]]
        y[1:] = [np.zeros(b.shape, np.int64) for b in f.params[2:]]
        run_func(f, [x, *y])
        assert np.array_equal(y[0], np.cumsum(x, 1))


def test_refused_steps_of_scans() -> None:
    s = Schedule.of(scan()).split("scan_i1", 2, names=("a", "b"))
    for step in (lambda: s.reorder("b", "a"), lambda: s.set_scope("t", "stack", "b")):
        with pytest.raises(CompileError) as caught:
            step()
        assert caught.value.codes[0] in ("E302", "E303")


def test_loops_in_a_block_are_unrolled() -> None:
    """One whose extent is known in each copy of the one around it, too."""
    y = buffer("y", dtypes.i64, (3, 5, 5))
    cb = ComputeBuilder()
    i, j = e.Var("i"), e.Var("j")

    def row(at: Any) -> Stmt:
        body = Store(y, (at[0], i, j), i * 10 + j)
        return For(i, e.ZERO, e.Const(5), "serial", For(j, e.ZERO, i, "serial", body))

    cb.each((3,), row, "rows", "spatial")
    s = Schedule.of(cb.func("f", (y,)))
    with pytest.raises(CompileError):
        s.unroll("j")
    found = [np.zeros((3, 5, 5), np.int64) for _ in range(2)]
    run_func(s.func, [found[0]])
    s = s.unroll("i").unroll("j")
    assert [n.kind for n in walk(s.func.body) if isinstance(n, For)] == ["serial"] + ["unroll"] * 2
    run_func(s.func, [found[1]])
    assert np.array_equal(*found)

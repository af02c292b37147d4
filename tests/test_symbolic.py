"""Symbolic dimensions: sizes that agree, loops fused over them, schedules that stay fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.ir import dtypes
from aisc.ir.arith import poly
from aisc.ir.arith.poly import Dim, bounds, floordiv, maximum, minimum, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.shapes.infer import implied_bound
from aisc.ir.target import resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Const, Expr, Load, Var, binary, const
from aisc.ir.tensor.func import Buffer, Func, Program, buffer
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Block, For, Iter, Store
from aisc.ir.tensor.tree import loops_of
from aisc.ir.types import TensorType
from aisc.passes.analysis.cost import operations
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.bind import ScheduledKernel, bind_kernels
from aisc.passes.schedule.digits import axes_of, determined
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule, prepared, tiled_contractions
from aisc.passes.schedule.rules.tile import pick_tile
from aisc.passes.schedule.rules.tile_cost import rounding
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize_schedule

N, S = symbol("n"), symbol("s")
f32 = dtypes.f32


# -- dimensions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (maximum(0, N), N),
        (minimum(N, 2 * floordiv(N, 2)), 2 * floordiv(N, 2)),
        (floordiv(floordiv(N, 2), 3), floordiv(N, 6)),
        (minimum(floordiv(N, 4), 2 * floordiv(N, 8)), 2 * floordiv(N, 8)),
        (poly.difference(N, maximum(0, N - 1)), minimum(N, 1)),
        (minimum(symbol("k", 0, 64), 64), symbol("k", 0, 64)),
    ],
)
def test_extremes_of_related_sizes(given: Dim, expected: Dim) -> None:
    assert given == expected
    for n in range(40):
        assert poly.evaluate(given, {"n": n, "k": n}) == poly.evaluate(expected, {"n": n, "k": n})


@pytest.mark.parametrize(
    ("dim", "expected"),
    [
        (N - 2 * floordiv(N, 2), (0, 1)),
        (floordiv(N, 2) - 2 * floordiv(N, 4), (0, 1)),
        (floordiv(N + 15, 16) * 16 - N, (0, 15)),
        (floordiv(N, 2), (0, float("inf"))),
    ],
)
def test_divisions_cancel_in_bounds(dim: Dim, expected: tuple[float, float]) -> None:
    assert bounds(dim) == expected


def test_broadcast_sizes_imply_bounds() -> None:
    assert implied_bound([N, minimum(64, N)]) == ("n", 64)
    assert implied_bound([minimum(64, N + 1), N + 1]) == ("n", 63)
    assert implied_bound([N, S]) is None
    assert implied_bound([N, minimum(1, N)]) is None
    assert implied_bound([N, minimum(64, S)]) is None


# -- legality --------------------------------------------------------------------------------

P, R = Var("p"), Var("r")
s_ = Var("s")


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ([P // s_, P % s_], True),
        ([P // s_, (P // s_) * 0 + P % s_ + 1], True),
        ([P // s_ // 12, P // s_ % 12, P % s_], True),
        ([(P // s_) * 4 + R, P % s_], True),
        ([(P % s_ * 4 + R) // 8, (P % s_ * 4 + R) % 8, P // s_], True),
        ([P % s_], False),
        ([P // s_], False),
        ([P // s_ % 12, P % s_], False),
        ([(P // s_) * 3 + R, P % s_], False),
        ([P // s_, P % Var("t")], False),
    ],
)
def test_elements_determine_the_iteration(axes: list[Expr], expected: bool) -> None:
    ranges = Indexer({"s": (0, 1e9), "t": (0, 1e9), "p": (0, 1e9), "r": (0, 3)})
    access = [(low, Const(1)) for low in axes]
    assert determined(P, axes_of([access]), ranges, frozenset({s_, Var("t")})) is expected


def test_accesses_must_share_their_digits() -> None:
    ranges = Indexer({"s": (0, 1e9), "p": (0, 1e9)})
    here = [(P // s_, Const(1)), (P % s_, Const(1))]
    beside = [(P // s_ + 1, Const(1)), (P % s_, Const(1))]
    wide = [(P // s_, Const(2)), (P % s_, Const(1))]
    whole = [(Const(0), s_), *here]
    assert determined(P, axes_of([whole, whole]), ranges, frozenset({s_}))
    assert not determined(P, axes_of([here, beside]), ranges, frozenset({s_}))
    assert not determined(P, axes_of([here, wide]), ranges, frozenset({s_}))


def test_places_beside_each_other_have_one_digit() -> None:
    ranges = Indexer({"p": (0, 1e9), "r": (0, 3)})
    beside = [[(P * 4 + k, Const(1))] for k in range(4)]
    read = [(P * 4 + R, Const(1))]
    assert determined(P, axes_of([*beside, read]), ranges, frozenset())
    assert determined(
        P, axes_of([[(P * 4 + 5, Const(1))], [(P * 4 + 6, Const(2))]]), ranges, frozenset()
    )
    assert not determined(P, axes_of([[(P * 4 + 4, Const(1))], read]), ranges, frozenset())
    assert not determined(P, axes_of([[(P * 4 + 3, Const(2))], read]), ranges, frozenset())


@pytest.mark.parametrize(("most", "expected"), [(24, True), (29, True), (23, False), (0, False)])
def test_tails_that_are_clamped_keep_their_digit(most: int, expected: bool) -> None:
    """``min(6p + r, most)`` for p up to 4: in the last turn too, unless it is moved out of it."""
    ranges = Indexer({"p": (0, 4), "r": (0, 5)})
    clamped = [(binary("min", P * 6 + R, Const(most)), Const(1))]
    whole = [(P * 6 + R, Const(1))]
    assert determined(P, axes_of([clamped, whole]), ranges, frozenset()) is expected
    values = [{min(6 * p + r, most) for r in range(6)} for p in range(5)]
    assert (sum(map(len, values)) == len(set().union(*values))) is expected


def copy_func(index: Callable[[Var, Var], tuple[Expr, Expr]]) -> Func:
    x = buffer("x", f32, (N, S), "input")
    y = buffer("y", f32, (N, S), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i, j: Load(x, index(i, j)), "copy")
    return cb.func("f", (x, y), (Var("n"), Var("s")))


def test_fused_symbolic_loops_are_parallel() -> None:
    schedule = Schedule.of(copy_func(lambda i, j: (i, j)))
    fused = schedule.fuse("copy_i0", "copy_i1", name="p").parallel("p")
    assert [f.kind for f in loops_of(fused.func.body)] == ["parallel"]


def test_a_shared_result_is_still_refused() -> None:
    y = buffer("y", f32, (N,), "output")
    x = buffer("x", f32, (N, S), "input")
    cb = ComputeBuilder()
    cb.reduce(y, (S,), "sum", lambda i, r: Load(x, (i[0], r[0])), "total")
    schedule = Schedule.of(cb.func("f", (x, y), (Var("n"), Var("s"))))
    started = schedule.decompose_reduction("total", "total_i0")
    fused = started.fuse("total_i0", "total_r_i0", name="p")
    with pytest.raises(CompileError):
        fused.parallel("p")


# -- schedules -------------------------------------------------------------------------------


def gelu(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N, S, 320), f32))
    return b.add("mul", (x, b.add("erf", (x,))))


def softmax(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N, 3, S, S), f32))
    return b.add("softmax", (x,), {"axis": -1})


def heads(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N, S, 4, 8), f32))
    return b.add("transpose", (x,), {"perm": (0, 2, 1, 3)})


def scores(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N, 4, S, 8), f32))
    y = b.add("transpose", (x,), {"perm": (0, 1, 3, 2)})
    return b.add("matmul", (x, y))


def rows(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N * S, 24), f32))
    b.input("sizes", TensorType((N, S), f32))
    w = np.random.default_rng(0).standard_normal((24, 40)).astype(np.float32)
    return b.add("relu", (b.add("matmul", (x, b.constant(w))),))


def two_channels(b: GraphBuilder) -> Value:
    x = b.input("x", TensorType((N, S, 24), f32))
    w = np.random.default_rng(0).standard_normal((24, 2)).astype(np.float32)
    flat = b.add("reshape", (x,), {"shape": (N * S, 24)})
    return b.add("matmul", (flat, b.constant(w)))


CASES = {f.__name__: f for f in (gelu, softmax, heads, scores, rows, two_channels)}


def scheduled(graph: Graph) -> tuple[Program, dict[str, ScheduledKernel]]:
    program, target = lower_graph(Fuse(machines=CPU).run(graph)), resolve("cpu")
    kernels: dict[str, ScheduledKernel] = {}
    for k in program.kernels:
        s = default_schedule(k, Chooser(target))
        packers = tuple(default_schedule(p, Chooser(target)).func for p in s.packers)
        kernels[k.name] = optimize_schedule(k, s, packers)
    return program, kernels


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("n", "s"), [(1, 5), (2, 17), (3, 1)])
def test_schedules_keep_the_result_at_every_size(name: str, n: int, s: int) -> None:
    b = GraphBuilder()
    graph = b.finish([CASES[name](b)])
    program, kernels = scheduled(graph)
    env, rng = {"n": n, "s": s}, np.random.default_rng(n)
    xs = [
        rng.standard_normal([poly.evaluate(d, env) for d in v.type.shape]).astype(np.float32)
        for v in graph.inputs
    ]
    bound = bind_kernels(program, kernels)
    for a, e in zip(run_program(bound, xs, nthreads=2), interpret(graph, xs), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_schedules_over_symbolic_sizes_use_lanes_and_threads(name: str) -> None:
    b = GraphBuilder()
    _, kernels = scheduled(b.finish([CASES[name](b)]))
    for kernel in kernels.values():
        loops: list[For] = list(loops_of(kernel.func.body))
        kinds = {f.kind for f in loops}
        assert "vectorize" in kinds
        if name in ("gelu", "softmax", "scores"):  # the others are little work
            assert "parallel" in kinds


def test_tiles_of_unknown_height_are_low() -> None:
    """Short inputs would fill a small part of a high tile; widths are whole steps, or nearly."""
    target = resolve("cpu")
    for width in (64, 512, 768):
        x = buffer("x", f32, (N, 96), "input")
        w = buffer("w", f32, (96, width), "weight")
        y = buffer("y", f32, (N, width), "output")
        cb = ComputeBuilder()
        cb.reduce(y, (96,), "sum", products(x, w), "mm")
        func = cb.func("f", (x, w, y), (Var("n"),))
        start = prepared(func, Chooser(target))
        (found,) = tiled_contractions(start, target)
        first = pick_tile(start, found, Chooser(target))
        assert first.rows <= target.in_flight
        assert rounding(width, first.width) < 1.04
        assert first.rows * first.vectors >= 16 or target.vector_registers < 32


def products(x: Buffer, w: Buffer) -> Callable[[Sequence[Var], Sequence[Var]], Expr]:
    """The products of a matrix multiplication."""
    return lambda i, r: Load(x, (i[0], r[0])) * Load(w, (r[0], i[1]))


def test_a_fused_loop_counts_all_its_turns() -> None:
    """Work decides about threads at each call: what is constant in an extent must count."""
    n = Var("n")
    y = buffer("y", dtypes.f32, (symbol("n"), 1792), "output")
    store = Store(y, (Var("i"), Var("j")), const(1.0, dtypes.f32))
    iters = (Iter(Var("i"), n, "spatial"), Iter(Var("j"), Const(1792), "spatial"))
    fused = Var("f")
    block = Block("fill", iters, (fused // 1792, fused % 1792), (), (), None, store)
    loop = For(fused, ZERO, n * 1792, "parallel", block)
    one = operations(loop, unknown=1)
    assert one >= 1792
    assert operations(loop, unknown=64) == 64 * one


def test_a_range_that_ends_with_a_block_counts_the_longest() -> None:
    """What is left in the last block says nothing about the others."""
    n, block_, i = Var("n"), Var("b"), Var("i")
    y = buffer("y", dtypes.f32, (symbol("n"),), "output")
    iters = (Iter(Var("v"), n, "spatial"),)
    at = block_ * 64 + i
    block = Block("fill", iters, (at,), (), (), None, Store(y, (Var("v"),), const(1.0, dtypes.f32)))
    inner = For(i, ZERO, binary("min", 64, n - block_ * 64), "serial", block)
    loop = For(block_, ZERO, (n + 63) // 64, "serial", inner)
    assert operations(loop, unknown=256) == 256 * operations(loop, unknown=1)


@pytest.mark.parametrize("name", ["a b", "Größe", "0n", "tid", "x/2", "while", "b0", '"'])
def test_dimensions_may_have_any_name(name: str) -> None:
    b = GraphBuilder()
    shape = (symbol(name), symbol(name.replace(" ", "_") + "_"), 3)
    x = b.input("x", TensorType(shape, dtypes.f32))
    y = b.add("transpose", (b.add("relu", (x,)),), {"perm": (2, 0, 1)})
    run = aisc.compile(b.finish([y]), threads=2, cache=False)
    a = np.linspace(-1, 1, 20 * 30 * 3, dtype=np.float32).reshape(20, 30, 3)
    assert np.array_equal(run(a), np.maximum(a, 0).transpose(2, 0, 1))


@pytest.mark.parametrize("symbolic", ["rows", "columns", "both"])
def test_functions_of_products_of_any_size(symbolic: str) -> None:
    """Maps that read a copy of the tile, where its last rows and columns are known to the run."""
    m, n = symbol("m"), symbol("n")
    rows = m if symbolic != "columns" else 9
    columns = n if symbolic != "rows" else 41
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, 19), dtypes.f32))
    y = b.input("y", TensorType((19, columns), dtypes.f32))
    g = b.finish([b.add("tanh", (b.add("matmul", (x, y)),))])
    exe = aisc.compile(g, threads=1, cache=False)
    rng = np.random.default_rng(0)
    for rows_, columns_ in ((9, 41), (1, 41), (9, 1), (17, 41), (9, 100), (5, 24)):
        sizes = (rows_ if symbolic != "columns" else 9), (columns_ if symbolic != "rows" else 41)
        feeds = [
            rng.standard_normal(s).astype(np.float32) for s in ((sizes[0], 19), (19, sizes[1]))
        ]
        np.testing.assert_allclose(exe(*feeds), np.tanh(feeds[0] @ feeds[1]), rtol=1e-5, atol=1e-6)

"""Hints of schedules: they change no result, ask for the right cache lines, print and parse."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.codegen.llvm.function import FunctionEmitter
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.node import walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Load, Var, variables
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import For, Prefetch, Store
from aisc.ir.tensor.visitor import substitute
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

ROWS, COLUMNS = 6, 40


def double() -> Func:
    x = buffer("x", dtypes.i32, (ROWS, COLUMNS), "input")
    y = buffer("y", dtypes.i32, (ROWS, COLUMNS), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i, j: Load(x, (i, j)) + Load(x, (i, j)), "double")
    return cb.func("f", (x, y))


def prefetched() -> Schedule:
    s = Schedule.of(double()).prefetch("double", "x", "double_i0", ahead=1)
    return s.prefetch("double", "y", "double_i0")


def test_a_prefetch_keeps_the_result_and_round_trips() -> None:
    s = prefetched()
    x = np.arange(ROWS * COLUMNS, dtype=np.int32).reshape(ROWS, COLUMNS)
    for func in (s.func, optimize(s.func)):
        y = np.zeros_like(x)
        run_func(func, [x, y])
        assert np.array_equal(y, 2 * x)
        assert print_ir(parse_func(print_ir(func))) == print_ir(func)
    again = Schedule.of(double()).replay(trace_from_json(trace_to_json(s.trace)))
    assert print_ir(again.func) == print_ir(s.func)


def test_a_prefetch_asks_once_for_each_cache_line() -> None:
    body = prefetched().func.body
    hints = [n for n in walk(body) if isinstance(n, Prefetch)]
    assert [(h.buffer.name, h.write) for h in hints] == [("y", True), ("x", False)]
    counts = [n.extent for n in walk(body) if isinstance(n, For) and isinstance(n.body, Prefetch)]
    assert [int(c.value) for c in counts] == [3, 3]  # 40 elements of 4 bytes


@pytest.mark.parametrize(
    ("block", "name", "loop"),
    [("double", "z", "double_i0"), ("double", "x", "other"), ("other", "x", "double_i0")],
)
def test_a_prefetch_of_what_is_not_there_is_refused(block: str, name: str, loop: str) -> None:
    with pytest.raises(CompileError) as refused:
        Schedule.of(double()).prefetch(block, name, loop)
    assert refused.value.codes == ("E302",)


def test_a_prefetch_of_too_much_is_refused() -> None:
    x = buffer("x", dtypes.f32, (2, 64, 64), "input")
    y = buffer("y", dtypes.f32, (2, 64, 64), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda *i: Load(x, i), "copy")
    with pytest.raises(CompileError, match="too large"):
        Schedule.of(cb.func("f", (x, y))).prefetch("copy", "x", "copy_i0")


# -- what the next iteration reads ---------------------------------------------------------------


def panels(rows: int, depth: int, width: int = 16) -> Schedule:
    """A product with weights in panels, two of them, panels outside."""
    x, w = (
        buffer(n, dtypes.i32, s, "input")
        for n, s in (("x", (rows, depth)), ("w", (2, depth, width)))
    )
    y = buffer("y", dtypes.i32, (2, rows, width), "output")
    cb = ComputeBuilder()
    cb.reduce(
        y, (depth,), "sum", lambda i, r: Load(x, (i[1], r[0])) * Load(w, (i[0], r[0], i[2])), "mm"
    )
    s = Schedule.of(cb.func("f", (x, w, y)))
    return s.reorder("mm_i0", "mm_i1", "mm_r_i0", "mm_i2")


def asked(func: Func) -> list[int]:
    """Lines of the next panel in the order in which the first one asks for them."""
    (hint,) = (n for n in walk(func.body) if isinstance(n, Prefetch))
    loops = [n for n in walk(func.body) if isinstance(n, For) and n.var in variables(hint)]
    sizes = {n.var.name: int(n.extent.value) for n in loops if isinstance(n.extent, Const)}
    names = list(sizes)  # outermost first
    found = []
    for at in product(*(range(1 if n == "mm_i0" else sizes[n]) for n in names)):
        values = {Var(n): Const(k) for n, k in zip(names, at, strict=True)}
        panel, row, place = (Indexer().simplify(substitute(i, values)) for i in hint.indices)
        assert (panel, row) == (Const(1), Const(0))
        found.append(int(place.value) * 4 // 64)
    return found


@pytest.mark.parametrize(
    ("rows", "depth", "at"),
    [(3, 10, "mm_i1"), (10, 10, "mm_i1"), (25, 10, "mm_i1"), (4, 10, "mm_r_i0")],
)
def test_the_next_panel_is_asked_for_in_equal_shares(rows: int, depth: int, at: str) -> None:
    before = panels(rows, depth)
    s = before.prefetch_next("mm", "w", "mm_i0", at)
    x = np.arange(rows * depth, dtype=np.int32).reshape(rows, depth)
    w = np.arange(2 * depth * 16, dtype=np.int32).reshape(2, depth, 16)
    for func in (s.func, optimize(s.func)):
        y = np.zeros((2, rows, 16), np.int32)
        run_func(func, [x, w, y])
        assert np.array_equal(y, x @ w)
        assert print_ir(parse_func(print_ir(func))) == print_ir(func)
    lines = asked(s.func)
    assert set(range(depth)) <= set(lines) and sorted(lines) == lines
    assert max(lines) < depth + -(-depth // rows)  # what is beyond the panel is less than a share
    again = panels(rows, depth).replay(trace_from_json(trace_to_json(s.trace)))
    assert print_ir(again.func) == print_ir(s.func)


@pytest.mark.parametrize(
    ("block", "name", "loop", "at"),
    [
        ("mm", "w", "mm_i1", "mm_i0"),  # the wrong way round
        ("mm", "w", "mm_i0", "mm_i0"),
        ("mm", "y", "mm_i0", "mm_i1"),  # not read
        ("other", "w", "mm_i0", "mm_i1"),
    ],
)
def test_shares_that_do_not_exist_are_refused(block: str, name: str, loop: str, at: str) -> None:
    with pytest.raises(CompileError) as refused:
        panels(3, 64).prefetch_next(block, name, loop, at)
    assert refused.value.codes == ("E302",)


def test_shares_of_pieces_apart_or_too_large_are_refused() -> None:
    x = buffer("x", dtypes.f32, (4, 8, 64), "input")
    y = buffer("y", dtypes.f32, (4, 8, 64), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda *i: Load(x, i), "copy")
    s = Schedule.of(cb.func("f", (x, y)))
    with pytest.raises(CompileError, match="one piece"):
        s.reorder("copy_i1", "copy_i0").prefetch_next("copy", "x", "copy_i1", "copy_i0")
    with pytest.raises(CompileError, match="too large"):
        panels(1, 4096).prefetch_next("mm", "w", "mm_i0", "mm_i1")


# -- stores past the caches ----------------------------------------------------------------------


def streamed(columns: int = COLUMNS, dtype: dtypes.DType = dtypes.i32) -> Schedule:
    x = buffer("x", dtype, (ROWS, columns), "input")
    y = buffer("y", dtype, (ROWS, columns), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i, j: Load(x, (i, j)) + Load(x, (i, j)), "double")
    return Schedule.of(cb.func("f", (x, y))).stream_store("double", "y")


def vectors(s: Schedule, lanes: int = 16) -> Schedule:
    return s.split("double_i1", lanes, names=("jo", "ji")).vectorize("ji")


def test_a_streaming_store_keeps_the_result_and_round_trips() -> None:
    s = vectors(streamed(48)).parallel("double_i0")
    x = np.arange(ROWS * 48, dtype=np.int32).reshape(ROWS, 48)
    for func in (s.func, optimize(s.func)):
        assert [n.stream for n in walk(func.body) if isinstance(n, Store)] == [True]
        text = print_ir(func)
        assert "stream y[" in text
        assert print_ir(parse_func(text)) == text
        y = np.zeros_like(x)
        run_func(func, [x, y])
        assert np.array_equal(y, 2 * x)
    start = vectors(streamed(48)).trace
    again = Schedule.of(double()).replay(trace_from_json(trace_to_json(start[:1])))
    assert print_ir(again.func) == print_ir(streamed().func)


@pytest.mark.parametrize(
    ("block", "name"), [("double", "z"), ("double", "x"), ("other", "y"), ("total", "t")]
)
def test_a_streaming_store_of_what_does_not_fit_is_refused(block: str, name: str) -> None:
    x = buffer("x", dtypes.i32, (ROWS, COLUMNS), "input")
    y = buffer("y", dtypes.i32, (ROWS, COLUMNS), "output")
    t = buffer("t", dtypes.i32, (ROWS,), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i, j: Load(x, (i, j)) + Load(x, (i, j)), "double")
    cb.reduce(t, (COLUMNS,), "sum", lambda at, r: Load(x, (*at, *r)), "total")
    with pytest.raises(CompileError) as refused:
        Schedule.of(cb.func("f", (x, y, t))).stream_store(block, name)
    assert refused.value.codes == ("E302",)


def machine_text(s: Schedule) -> str:
    return FunctionEmitter(optimize(s.func)).emit()


@pytest.mark.parametrize(
    ("columns", "lanes", "past"),
    [(48, 16, True), (48, 8, True), (48, 3, False), (40, 16, False), (8, 8, True), (41, 8, False)],
)
def test_only_aligned_whole_vectors_are_stored_past_the_caches(
    columns: int, lanes: int, past: bool
) -> None:
    text = machine_text(vectors(streamed(columns), lanes))
    assert ("!nontemporal" in text) == past
    assert f"align {4 * lanes}, !nontemporal" in text or not past
    assert text.count("fence seq_cst") == 1


def test_streaming_stores_are_visible_before_their_share_is_done() -> None:
    x = buffer("x", dtypes.i32, (64,), "input")
    h = buffer("h", dtypes.i32, (64,), "output")
    y = buffer("y", dtypes.i32, (64,), "output")
    cb = ComputeBuilder()
    cb.map(h, lambda i: Load(x, (i,)) + Load(x, (i,)), "first")
    cb.map(y, lambda i: Load(h, (i,)) + Load(x, (i,)), "second")
    s = Schedule.of(cb.func("f", (x, h, y))).stream_store("first", "h")
    s = s.split("first_i0", 16, names=("o", "l")).vectorize("l").parallel("o")
    s = s.parallel("second_i0")
    lines = [line.strip() for line in machine_text(s).splitlines()]
    (barrier,) = (k for k, line in enumerate(lines) if "@aisc_barrier" in line)
    stored = next(k for k, line in enumerate(lines) if "nontemporal" in line)
    fence = lines.index("fence seq_cst", stored)  # before the next share is asked for
    assert lines[fence + 1].startswith("br label %while") and fence < barrier


@pytest.mark.parametrize("offset", [0, 4, 32, 60])
def test_streaming_into_memory_of_any_alignment(offset: int) -> None:
    """A caller's array may begin anywhere: then the stores are plain ones."""
    rows = 4096
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, 1024), dtypes.f32))
    y = b.add("neg", (x,))
    run = aisc.compile(b.finish([y]), threads=2, cache=False)
    data = np.arange(rows * 1024, dtype=np.float32).reshape(rows, 1024)
    raw = np.zeros(data.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    out = raw[start : start + data.nbytes].view(np.float32).reshape(data.shape)
    run(data, out=out)
    assert np.array_equal(out, -data)
    assert not raw[:start].any()
    assert not raw[start + data.nbytes :].any()


# -- rules for far memory ------------------------------------------------------------------------


def steps(op: str, rows: Dim, columns: int = 1024) -> list[str]:
    """The hints in the default schedule of an operator on rows."""
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, columns), dtypes.f32))
    graph = b.finish([b.add(op, (x,), {"axis": 1} if op == "softmax" else {})])
    (kernel,) = lower_graph(Fuse(machines=CPU).run(graph)).kernels
    trace = default_schedule(kernel, Chooser(resolve_target("cpu"))).trace
    return [t.primitive for t in trace if t.primitive in ("prefetch", "stream_store")]


@pytest.mark.parametrize(
    ("op", "rows", "expected"),
    [
        ("neg", 4096, ["stream_store"]),
        ("neg", 2048, []),
        ("neg", symbol("n"), []),
        ("exp", 4096, ["prefetch", "stream_store"]),
        ("exp", 2048, []),
        ("exp", symbol("n"), []),
        ("softmax", 4096, ["stream_store", "prefetch"]),
        ("softmax", 2048, []),
    ],
)
def test_only_far_memory_gets_hints(op: str, rows: Dim, expected: list[str]) -> None:
    assert steps(op, rows) == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("columns", [1024, 1000, 1023])
def test_far_rows_are_right(columns: int, threads: int) -> None:
    rows = (1 << 22) // columns + 7
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, columns), dtypes.f32))
    run = aisc.compile(b.finish([b.add("softmax", (x,), {"axis": 1})]), threads=threads)
    data = np.random.default_rng(0).standard_normal((rows, columns), np.float32)
    expected = np.exp(data - data.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(run(data), expected, rtol=2e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rest", [0, 1, 77, 1000])
def test_far_maps_with_calls_are_right(rest: int, threads: int) -> None:
    """The same bits as on few elements, whatever is left over after whole passes."""
    results = []
    data = np.random.default_rng(rest).standard_normal((1 << 22) + rest, np.float32)
    for n in (len(data), 64):
        b = GraphBuilder()
        x = b.input("x", TensorType((n,), dtypes.f32))
        run = aisc.compile(b.finish([b.add("tanh", (x,))]), threads=threads)
        results.append(run(data[:n]))
    assert results[0][:64].tobytes() == results[1].tobytes()
    np.testing.assert_allclose(results[0], np.tanh(data), rtol=1e-6)

"""The analytical models: what they count is compared with counting it one by one."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from aisc.codegen.backend import backend_of
from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.target import resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.text.parser import parse_func
from aisc.ir.types import TensorType
from aisc.passes.analysis.estimate import estimate, features, nest_of
from aisc.passes.analysis.footprint import LINE, SHARE, fetched, span
from aisc.passes.analysis.instructions import cycles
from aisc.passes.analysis.simt_estimate import simt_estimate
from aisc.passes.analysis.turns import Access, Digit, digits_of
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.tuning.described import DescribedBench
from aisc.tuning.learned import Learned
from aisc.tuning.search import Search

TARGET = resolve("x86-64-v3")


def touched(a: Access, digits: Sequence[Digit]) -> set[int]:
    """The bytes of an access, turn by turn."""
    found = set()
    for turns in itertools.product(*(range(d.count) for d in digits)):
        start = sum(n * a.steps.get(d, 0) for n, d in zip(turns, digits, strict=True))
        found |= set(range(start, start + a.buffer.dtype.bytes))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_spans_are_what_is_touched(seed: int) -> None:
    """To a line for each piece, where turns of inner loops do not leave holes."""
    rng = np.random.default_rng(seed)
    b = buffer("x", dtypes.f32, (1 << 20,))
    steps, digits, step = {}, [], 4
    for k in range(int(rng.integers(1, 4))):
        d = Digit(f"i{k}", 1, int(rng.integers(1, 9)))
        steps[d] = step
        step *= int(rng.choice([d.count, d.count, 2 * d.count + 30]))
        digits.append(d)
    a = Access(b, steps)
    bytes_ = touched(a, digits)
    lines = len({x // LINE for x in bytes_}) * LINE
    found = span(a, digits)
    assert len(bytes_) <= found * 1.001 + LINE
    assert found <= 2 * lines + LINE, (found, lines, steps)


def matmul(m: int, n: int, k: int, fused: bool = False) -> Func:
    """A product as plain loops; `fused`: rows and columns as one loop."""
    at = ("p // {n}", "p % {n}") if fused else ("i", "j")
    i, j = (x.format(n=n) for x in at)
    head = (
        f"serial p in 0 .. {m * n} {{"
        if fused
        else f"serial i in 0 .. {m} {{ serial j in 0 .. {n} {{"
    )
    return parse_func(f"""
func @f(x: f32[{m}, {k}] input, w: f32[{k}, {n}] input, y: f32[{m}, {n}] output) target cpu {{
  {head}
    serial k in 0 .. {k} {{
      y[{i}, {j}] = y[{i}, {j}] + x[{i}, k] * w[k, {j}]
    }}
  }} {"" if fused else "}"}
}}""")


def accesses(m: int, n: int, k: int) -> Iterator[int]:
    """The lines that the product touches, in order."""
    x, w, y = 0, 1 << 30, 1 << 40
    for i, j, r in itertools.product(range(m), range(n), range(k)):
        yield from (x + 4 * (i * k + r), w + 4 * (r * n + j), y + 4 * (i * n + j))


def simulated(m: int, n: int, k: int, room: int) -> int:
    """Bytes that a cache which keeps what was used last fetches."""
    kept: OrderedDict[int, None] = OrderedDict()
    count = 0
    for address in accesses(m, n, k):
        line = address // LINE
        if line in kept:
            kept.move_to_end(line)
            continue
        count += 1
        kept[line] = None
        if len(kept) > room // LINE:
            kept.popitem(last=False)
    return count * LINE


@pytest.mark.parametrize("shape", [(16, 16, 64), (8, 64, 64), (64, 16, 16), (32, 48, 40)])
@pytest.mark.parametrize("room", [1 << 10, 1 << 12, 1 << 14, 1 << 20])
def test_what_is_fetched_is_that_of_a_cache(shape: tuple[int, int, int], room: int) -> None:
    found = fetched(nest_of(matmul(*shape), {}), room / SHARE)
    wanted = simulated(*shape, room)
    assert 0.45 * wanted <= found <= 2.5 * wanted, (found, wanted)


@pytest.mark.parametrize("room", [1 << 10, 1 << 12, 1 << 14])
def test_a_fused_loop_is_its_digits(room: int) -> None:
    plain, fused = (nest_of(matmul(24, 32, 40, f), {}) for f in (False, True))
    assert fetched(plain, room) == fetched(fused, room)
    assert [d.count for d in digits_of("p", 24 * 32, "serial", {32})] == [24, 32]
    assert [d.count for d in digits_of("p", 30, "serial", {5, 10, 7})] == [3, 2, 5]


def conv(channels: int = 32) -> Func:
    b = GraphBuilder()
    x = b.input("x", TensorType((1, 28, 28, channels), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((3, 3, channels, 64)).astype(np.float32)
    attrs = {"data_layout": "NHWC", "pads": (1, 1, 1, 1)}
    g = b.finish([b.add("conv", (x, b.constant(w)), attrs)])
    program = build(g, "x86-64-v3", from_environment(stop_after="lower")).product
    assert isinstance(program, Program)
    return program.kernels[0]


def scheduled(func: Func, choices: Choices) -> Func:
    backend = backend_of(TARGET)
    return backend.optimize(func, backend.rules(func, Chooser(backend.target, choices))).func


def test_a_register_tile_pays() -> None:
    """More accumulators cost less up to the registers, and more than there are cost more."""
    b = GraphBuilder()
    x = b.input("x", TensorType((48, 256), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((256, 64)).astype(np.float32)
    program = build(
        b.finish([b.add("matmul", (x, b.constant(w)))]),
        TARGET,
        from_environment(stop_after="lower"),
    ).product
    assert isinstance(program, Program)
    (kernel,) = program.kernels
    costs = [
        cycles(scheduled(kernel, {"matmul_1.tile": tile}).body, TARGET, {})
        for tile in ((1, 1), (2, 1), (4, 2), (6, 2))
    ]
    assert costs == sorted(costs, reverse=True)
    ideal = 48 * 256 * 64 / (8 * TARGET.costs.fma_units)
    assert ideal < costs[-1] < 1.5 * ideal
    assert costs[0] > 3.5 * ideal, "one accumulator waits for itself"


def test_parts_of_an_estimate() -> None:
    func = scheduled(conv(), {})
    one, two = estimate(func, TARGET), estimate(func, TARGET, threads=2)
    assert one.bound == "core"
    assert 0.5 < two.cycles / one.cycles < 0.7
    assert [n for n, _ in one.moved] == ["L2", "memory"]
    assert all(np.isfinite(features(func, TARGET)))
    assert len(features(func, TARGET)) == len(features(scheduled(conv(8), {}), TARGET))


def test_a_copy_is_bound_by_memory() -> None:
    c, x, y = ComputeBuilder(), *(buffer(n, dtypes.f32, (1 << 22,)) for n in "xy")
    c.map(y, lambda i: Load(x, (i,)))
    func = scheduled(c.func("copy", (x.with_(role="input"), y.with_(role="output"))), {})
    assert estimate(func, TARGET).bound == "memory"


GPU = resolve("nvidia_sm90")


def kernel_of(row: str, column: str, pad: int = 0) -> Func:
    """Threads of a warp store to shared memory and read global memory at [row, column] of t."""
    return parse_func(f"""
func @k(x: f32[32, 32] input, y: f32[32, 32] output) target nvidia_sm90 {{
  block.x b in 0 .. 1 {{
    alloc s: f32[32, {32 + pad}] space shared
    thread.x t in 0 .. 32 {{
      serial i in 0 .. 32 {{
        s[{row}, {column}] = x[{row}, {column}]
      }}
    }}
  }}
}}""")


@pytest.mark.parametrize(
    ("row", "column", "pad", "conflicts", "sectors"),
    [("i", "t", 0, 1.0, 4), ("t", "i", 0, 1 / 32, 32), ("t", "i", 1, 1.0, 32)],
)
def test_banks_and_sectors(row: str, column: str, pad: int, conflicts: float, sectors: int) -> None:
    found = simt_estimate(kernel_of(row, column, pad), GPU)
    assert found.conflicts == conflicts
    assert found.sectors == 32 * sectors


def product(target: str, m: int, n: int, k: int) -> Func:
    b = GraphBuilder()
    dtype = dtypes.i8 if target == "systolic8" else dtypes.f32
    x, y = (b.input(s, TensorType(t, dtype)) for s, t in (("x", (m, k)), ("y", (k, n))))
    if target == "systolic8":
        x, y = (b.add("cast", (v,), {"to": dtypes.i32}) for v in (x, y))
    program = build(
        b.finish([b.add("matmul", (x, y))]), target, from_environment(stop_after="lower")
    ).product
    assert isinstance(program, Program)
    return next(f for f in program.kernels if f.target == target)


@pytest.mark.parametrize(
    ("target", "shape"), [("systolic8", (192, 64, 64)), ("nvidia_sm90", (256, 256, 128))]
)
def test_a_search_on_a_described_machine_finds_the_optimum(
    target: str, shape: tuple[int, int, int]
) -> None:
    """Known by trying everything: the space is small."""
    func, backend = product(target, *shape), backend_of(resolve(target))
    bench = DescribedBench(backend, func)  # type: ignore[arg-type]
    first = bench.sketches([{}])[0]
    assert not isinstance(first, str)
    picks = [p for p in first.picks if not p.name.endswith(".form")]  # others are far behind
    names, options = [p.name for p in picks], [p.options for p in picks]
    every = [
        {n: o for n, o, p in zip(names, c, picks, strict=True) if o != p.default}
        for c in itertools.product(*options)
    ]
    costs = [s.cycles for s in bench.sketches(every) if not isinstance(s, str)]
    search = Search(bench, Learned(), seed=3)
    while not search.exhausted and search.rounds < 12:
        search.round()
    best = search.best
    assert best is not None
    assert best.sketch.cycles == min(costs)
    again = Search(bench, Learned(), seed=3)
    while not again.exhausted and again.rounds < 12:
        again.round()
    assert [t.sketch.key for t in again.trials] == [t.sketch.key for t in search.trials]

"""Which register tile a product gets, and what it asks for, on machines of 16 and 32 registers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.node import walk
from aisc.ir.target import Memory
from aisc.ir.tensor.expr import Const, Load, Select
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import For, If, Prefetch, Store
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.picks import Choice
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

CACHES = (Memory("L1", 32 << 10), Memory("L2", 512 << 10))


def product(rows: int, depth: int, columns: int, constant: bool = True, op: str = "relu") -> Func:
    """A product with weights, and a map behind it."""
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, depth), dtypes.f32))
    if constant:
        w = b.constant(np.ones((depth, columns), np.float32))
    else:
        w = b.input("w", TensorType((depth, columns), dtypes.f32))
    graph = b.finish([b.add(op, (b.add("matmul", (x, w)),))])
    return lower_graph(Fuse().run(graph)).kernels[0]


def scheduled(
    machine: str, func: Func, memories: tuple[Memory, ...] = CACHES, **choices: Choice
) -> Schedule:
    """The default schedule but for choices for the product."""
    target = replace(resolve_target(machine), memories=memories)
    s = default_schedule(func, Chooser(target))
    for _ in range(2):  # some choices are there once others are made
        known = [p.name for p in s.picks]
        named = {n: choices[k] for n in known if (k := n.partition(".")[2]) in choices}
        s = default_schedule(func, Chooser(target, named))
    return s


def result(s: Schedule, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """What a scheduled product with constant weights gives under the interpreter."""
    (packer,) = s.packers
    packed = np.zeros(packer.params[1].type.static_shape, np.float32)
    run_func(packer, [w, packed])
    y = np.zeros((x.shape[0], w.shape[1]), np.float32)
    run_func(optimize(s.func), [x, packed, y])
    return y


def picks(s: Schedule) -> dict[str, Choice]:
    """What was picked for the product, by subject."""
    return {p.name.partition(".")[2]: p.choice for p in s.picks if p.name.startswith("matmul")}


@pytest.mark.parametrize(
    ("machine", "rows", "columns", "tile"),
    [
        ("x86-64-v3", 128, 768, (4, 3)),  # 7 loads for 12 multiply-adds, all 16 registers
        ("x86-64-v3", 126, 64, (6, 2)),  # three vectors would compute 72 columns
        ("x86-64-v3", 128, 256, (4, 3)),  # 264 columns are worth it
        ("x86-64-v4", 126, 768, (14, 2)),
        ("x86-64-v4", 128, 768, (8, 3)),
    ],
)
def test_tiles_waste_little_and_load_little(
    machine: str, rows: int, columns: int, tile: tuple[int, int]
) -> None:
    assert picks(scheduled(machine, product(rows, 256, columns)))["tile"] == tile


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "ahead"),
    [
        (128, 768, 768, "steps"),  # 36 lines for each of 32 tiles
        (512, 256, 768, "tiles"),
        (128, 64, 64, None),  # all weights stay in the second-level cache, which is not asked
        (4, 768, 768, "never"),  # one tile: a panel passes as fast as it is read
    ],
)
def test_the_next_panel_is_asked_for(rows: int, depth: int, columns: int, ahead: str) -> None:
    s = scheduled("x86-64-v3", product(rows, depth, columns))
    assert picks(s).get("ahead") == ahead
    asked = [n for n in walk(s.func.body) if isinstance(n, Prefetch) and not n.write]
    assert len(asked) == (ahead in ("tiles", "steps"))


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("ahead", ["never", "tiles", "steps"])
def test_every_choice_gives_the_same_bits(ahead: str, steps: int) -> None:
    rng = np.random.default_rng(0)
    func = product(9, 24, 50)
    x, w = (rng.integers(-9, 9, s).astype(np.float32) for s in ((9, 24), (24, 50)))
    caches = (Memory("L1", 1 << 10), Memory("L2", 4 << 10))
    s = scheduled("x86-64-v3", func, caches, ahead=ahead, steps=steps)
    made = picks(s)
    assert (made["ahead"], made["steps"]) == (ahead, steps)
    np.testing.assert_array_equal(result(s, x, w), np.maximum(x @ w, 0))


@pytest.mark.parametrize(("machine", "apart"), [("x86-64-v3", True), ("x86-64-v4", False)])
def test_whole_tiles_need_no_masks_where_these_are_slow(machine: str, apart: bool) -> None:
    func = optimize(scheduled(machine, product(12, 96, 46)).func)
    twice = [n for n in walk(func.body) if isinstance(n, If) and n.other is not None]
    assert len(twice) == apart
    assert all(not any(isinstance(n, If) for n in walk(t.then)) for t in twice)


@pytest.mark.parametrize("columns", [24, 48, 50, 71, 7])
def test_whole_panels_are_packed_without_masks(columns: int) -> None:
    func = product(40, 5, columns, constant=False)
    func = optimize(scheduled("x86-64-v3", func, tile=(4, 3)).func)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, s).astype(np.float32) for s in ((40, 5), (5, columns)))
    y = np.zeros((40, columns), np.float32)
    (buffer,) = (p for p in func.params if p.role == "scratch")
    run_func(func, [x, w, y, np.zeros(buffer.type.static_shape, np.float32)])
    np.testing.assert_array_equal(y, np.maximum(x @ w, 0))
    stores = [n for n in walk(func.body) if isinstance(n, Store) and n.buffer == buffer]
    if columns >= 24:
        assert not any(isinstance(n, Select) for n in walk(stores[0]))


@pytest.mark.parametrize(
    ("machine", "columns", "tile", "narrow"),
    [
        ("x86-64-v3", 37, (4, 3), True),  # 24 and 16 columns, not 48
        ("x86-64-v3", 40, (4, 3), True),
        ("x86-64-v3", 48, (4, 3), None),
        ("x86-64-v3", 128, (6, 2), None),  # whole panels of another tile are nearly as good
        ("x86-64-v4", 37, (8, 3), None),
        ("x86-64-v4", 80, (8, 3), True),
    ],
)
def test_the_last_panel_has_the_vectors_that_it_needs(
    machine: str, columns: int, tile: tuple[int, int], narrow: bool | None
) -> None:
    made = picks(scheduled(machine, product(128, 256, columns)))
    assert (made["tile"], made.get("narrow")) == (tile, narrow)


@pytest.mark.parametrize("outside", ["rows", "panels"])
@pytest.mark.parametrize(("rows", "columns"), [(9, 25), (12, 37), (8, 40), (5, 56), (21, 63)])
def test_narrow_panels_give_the_same_bits(rows: int, columns: int, outside: str) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, s).astype(np.float32) for s in ((rows, 17), (17, columns)))
    found = []
    for narrow in (False, True):
        s = scheduled(
            "x86-64-v3", product(rows, 17, columns), tile=(4, 3), narrow=narrow, outside=outside
        )
        assert picks(s)["narrow"] == narrow
        assert (str(s.trace).count("remove_unread") == 2) == narrow
        found.append(result(s, x, w))
    np.testing.assert_array_equal(found[0], np.maximum(x @ w, 0))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("rows", [2, 9, 12])
@pytest.mark.parametrize("columns", [25, 37, 48, 63, 71, 7])
def test_only_the_last_panel_of_what_is_not_packed_has_masks(rows: int, columns: int) -> None:
    func = product(rows, 5, columns, constant=False)
    func = optimize(scheduled("x86-64-v3", func, tile=(2, 3)).func)
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, s).astype(np.float32) for s in ((rows, 5), (5, columns)))
    y = np.zeros((rows, columns), np.float32)
    run_func(func, [x, w, y])
    np.testing.assert_array_equal(y, np.maximum(x @ w, 0))
    sums = [n for n in walk(func.body) if isinstance(n, Store) and func.params[1] in reads(n)]
    masked = [any(isinstance(n, Select) for n in walk(store)) for store in sums]
    whole, rest = divmod(columns, 24)
    assert masked == [False] * min(whole, 1) + [columns % 8 > 0] * min(rest, 1)


def reads(store: Store) -> set[Buffer]:
    """What a store reads."""
    return {n.buffer for n in walk(store.value) if isinstance(n, Load)}


@pytest.mark.parametrize("machine", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(("rows", "columns"), [(9, 25), (12, 37), (1, 40), (8, 96)])
def test_maps_that_call_functions_are_there_once(machine: str, rows: int, columns: int) -> None:
    """The same bits from registers as from a copy of the tile."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((rows, 17), (17, columns)))
    found = []
    for rolled in (False, True):
        func = product(rows, 17, columns, op="tanh")
        s = scheduled(machine, func, rolled=rolled)
        found.append(result(s, x, w))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], np.tanh(x @ w), rtol=1e-5, atol=1e-6)
    own = default_schedule(product(rows, 17, columns, op="tanh"), Chooser(resolve_target(machine)))
    (pick,) = (p for p in own.picks if p.name.endswith(".rolled"))
    assert pick.choice == (rows > 1)


@pytest.mark.parametrize(
    ("op", "depth", "width"), [("relu", 64, 24), ("tanh", 64, 16), ("tanh", 768, 24)]
)
def test_maps_that_call_functions_have_pairs_of_vectors(op: str, depth: int, width: int) -> None:
    func = product(128, depth, 768, op=op)
    s = scheduled("x86-64-v3", func)
    tile = picks(s)["tile"]
    assert isinstance(tile, tuple)
    assert tile[1] * 8 == width
    lanes = [n.extent for n in walk(s.func.body) if isinstance(n, For) and n.kind == "vectorize"]
    assert (Const(16) in lanes) is (width == 16)

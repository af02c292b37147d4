"""SIMT kernels: bound loops, barriers proved sufficient, PTX, and the same kernel on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm.link import Linked, complete
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import walk
from aisc.ir.target import host, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Expr, Load, Var, binary, maximum
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Alloc, Barrier, For, If, Seq, Stmt, Store, seq
from aisc.ir.tensor.thread_trace import Event, trace_block
from aisc.ir.tensor.tree import loops_of
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.tensor.visitor import substitute
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.analysis.simt_kernel import Kernel
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import in_place_reader
from aisc.passes.schedule.rules.simt_product import simt_product
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.simt_barriers import (
    InsertBlockBarriers,
    Race,
    RaceError,
    check_barriers,
    check_private,
)
from aisc.passes.tensor.simt_form import UnifyThreads
from aisc.passes.tensor.simt_optimize import simt_optimize
from aisc.passes.tensor.thread_loops import ThreadLoops

f32 = dtypes.f32
SM90 = resolve("nvidia_sm90")
# Threads along both sides, pieces of a thread along both; depth of a chunk, stages.
Tile = tuple[tuple[int, int, int, int], tuple[int, int]]
SMALL: Tile = ((2, 2, 1, 1), (4, 1))
STAGED: Tile = ((2, 2, 1, 1), (4, 2))
LARGE: Tile = ((16, 16, 2, 2), (8, 2))


def product(m: int, k: int, n: int, relu: bool = False) -> Func:
    a, w = buffer("a", f32, (m, k), "input"), buffer("w", f32, (k, n), "weight")
    c, bias = buffer("c", f32, (m, n), "output"), buffer("bias", f32, (n,), "weight")
    b = ComputeBuilder()
    out = b.alloc("acc", f32, (m, n)) if relu else c
    b.reduce(out, (k,), "sum", lambda i, r: Load(a, (i[0], r[0])) * Load(w, (r[0], i[1])), "mm")
    if relu:
        b.map(c, lambda i, j: maximum(Load(out, (i, j)) + Load(bias, (j,)), 0.0), "relu")
    return b.func("product", (a, w, bias, c) if relu else (a, w, c))


def arguments(m: int, k: int, n: int, relu: bool) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(m + k + n)
    a, w, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in ((m, k), (k, n), (n,)))
    c = np.full((m, n), np.nan, np.float32)
    want = np.maximum(a @ w + bias, 0) if relu else a @ w
    return ([a, w, bias, c] if relu else [a, w, c]), want


def with_tile(tile: Tile) -> Chooser:
    """What prefers a tile."""
    return Chooser(SM90, {}, {"mm.tile": tile[0], "mm.chunk": tile[1]})


def tiled(func: Func, tile: Tile = SMALL) -> Schedule:
    return simt_product(Schedule.of(func), "mm", with_tile(tile))


def kernel_of(m: int, k: int, n: int, tile: Tile = SMALL, relu: bool = False) -> Func:
    return simt_optimize(tiled(product(m, k, n, relu), tile).func)


def compiled(func: Func, args: list[np.ndarray]) -> None:
    """Run a function through the CPU back end."""
    backend = CpuBackend(complete(host()))
    code = backend.assemble(backend.emit([func])).object
    linked = Linked([backend.runtime, code], [func.name])
    kinds = [ctypes.c_void_p] * len(args) + [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    call = ctypes.CFUNCTYPE(None, *kinds)(linked.addresses[func.name])
    call(*(a.ctypes.data for a in args), 0, 1, None)


# -- one kernel, every way of running it ----------------------------------------------------------


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("tile", [SMALL, STAGED])
@pytest.mark.parametrize("size", [(9, 7, 10), (8, 8, 8), (3, 1, 17), (12, 16, 8)])
def test_every_form_computes_the_product(
    size: tuple[int, int, int], tile: Tile, relu: bool
) -> None:
    schedule = tiled(product(*size, relu), tile)
    kernel = simt_optimize(schedule.func)
    for func in (schedule.func, kernel, ThreadLoops().run(kernel)):
        verify_func(func)
        assert parse_func(print_func(func)) == func
        args, want = arguments(*size, relu)
        run_func(func, args, nthreads=2)
        np.testing.assert_array_equal(args[-1], want)


@pytest.mark.parametrize("relu", [False, True])
def test_thread_loops_compile_for_the_cpu(relu: bool) -> None:
    size = (130, 50, 70)
    func = ThreadLoops().run(kernel_of(*size, LARGE, relu))
    args, want = arguments(*size, relu)
    compiled(func, args)
    np.testing.assert_array_equal(args[-1], want)


def test_trace_replays_from_json() -> None:
    schedule = tiled(product(9, 7, 10))
    steps = trace_from_json(trace_to_json(schedule.trace))
    assert Schedule.of(product(9, 7, 10)).replay(steps).func == schedule.func


def test_sizes_may_be_known_at_run_time() -> None:
    m, k = symbol("m", 1, 4096), symbol("k", 1, 4096)
    a, w = buffer("a", f32, (m, k), "input"), buffer("w", f32, (k, 10), "weight")
    c, b = buffer("c", f32, (m, 10), "output"), ComputeBuilder()
    b.reduce(c, (k,), "sum", lambda i, r: Load(a, (i[0], r[0])) * Load(w, (r[0], i[1])), "mm")
    func = b.func("product", (a, w, c), (Var("m"), Var("k")))
    kernel = simt_optimize(tiled(func).func)
    for form in (kernel, ThreadLoops().run(kernel)):
        for sizes in ((9, 7), (1, 1), (16, 4)):
            args, want = arguments(*sizes, 10, False)
            run_func(form, args)
            np.testing.assert_array_equal(args[-1], want)
    text, (launch,) = module_of([kernel], SM90)
    assert launch.grid == (Const(2), binary("floordiv", Var("m") + 7, 8), None)
    assert ".shared" in ptx_of(text, SM90)


# -- PTX ------------------------------------------------------------------------------------------


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
@pytest.mark.parametrize("tile", [((8, 8, 2, 2), (8, 1)), LARGE])
@pytest.mark.parametrize("size", [(256, 256, 256), (130, 50, 70)])
def test_ptxas_accepts_without_spills(size: tuple[int, int, int], tile: Tile) -> None:
    (ty, tx, hm, hn), (depth, stages) = tile
    text, (launch,) = module_of([kernel_of(*size, tile)], SM90)
    usage = run_ptxas(ptx_of(text, SM90), SM90.arch)["product"]
    assert usage.spills == usage.stack == 0
    assert usage.shared == launch.shared_bytes
    panels = 4 * depth * stages * 4 * (ty * hm + tx * hn)
    assert panels < launch.shared_bytes < 1.1 * panels, "data is put across its panel"
    assert usage.registers <= 65536 // (ty * tx)


def test_ptx_is_the_same_every_time() -> None:
    texts = [ptx_of(module_of([kernel_of(130, 50, 70)], SM90)[0], SM90) for _ in range(2)]
    assert texts[0] == texts[1]
    assert ".reqntid 2, 2, 1" in texts[0]
    assert texts[0].count("bar.sync") == 2
    assert "local" not in texts[0]


def test_limits_of_the_target_are_kept() -> None:
    with pytest.raises(CompileError) as caught:
        tiled(product(64, 64, 64), ((64, 64, 1, 1), (4, 1)))
    assert caught.value.codes == ("E402",)
    with pytest.raises(CompileError) as caught:
        tiled(product(64, 64, 64), ((16, 16, 2, 2), (128, 2)))
    assert caught.value.codes == ("E402",)


# -- barriers -------------------------------------------------------------------------------------


def barriers(func: Func) -> list[Barrier]:
    return [n for n in walk(func.body) if isinstance(n, Barrier)]


def without(func: Func, number: int) -> Func:
    """`func` without one of its barriers, by position."""
    seen = -1

    def drop(s: Stmt) -> Stmt:
        nonlocal seen
        if isinstance(s, Barrier):
            seen += 1
            return Seq(()) if seen == number else s
        if isinstance(s, Seq):
            return seq(*map(drop, s.stmts))
        if isinstance(s, For):
            return For(s.var, s.low, s.extent, s.kind, drop(s.body), s.annotations)
        if isinstance(s, If):
            return If(s.cond, drop(s.then), None if s.other is None else drop(s.other))
        return s

    return Func(func.name, func.params, func.dims, drop(func.body), func.attrs, func.target)


def events_of(func: Func, race: Race) -> tuple[Event, Event]:
    """Both accesses of a race, found by running the block in lockstep."""
    kernel = Kernel.of(func)
    trace = trace_block(kernel.body, kernel.threads, dict(race.first.blocks))
    found = [
        [
            e
            for e in trace
            if (e.threads, e.loops, e.write) == (side.threads, side.loops, side.write)
            and (e.buffer, e.index) == (race.buffer, race.index)
        ]
        for side in (race.first, race.second)
    ]
    assert all(found), f"no such accesses: {race}"
    pairs = [(a, b) for a in found[0] for b in found[1] if a.epoch == b.epoch]
    assert pairs, f"a barrier separates the accesses: {race}"
    return pairs[0]


@pytest.mark.parametrize("size", [(9, 7, 10), (8, 12, 8)])
def test_each_barrier_is_needed(size: tuple[int, int, int]) -> None:
    kernel = kernel_of(*size)
    assert len(barriers(kernel)) == 2
    for number in range(2):
        broken = without(kernel, number)
        with pytest.raises(RaceError) as caught:
            check_barriers(broken)
        race = caught.value.race
        assert caught.value.codes == ("E306",)
        first, second = events_of(broken, race)
        assert first.threads != second.threads
        assert first.epoch == second.epoch
        assert first.write or second.write


def races_of(func: Func) -> bool:
    """Whether any two threads of the first block meet in one interval, by enumeration."""
    kernel = Kernel.of(func)
    touched: dict[tuple[int, str, tuple[int, ...]], list[Event]] = {}
    own = {n.buffer.name for n in walk(kernel.body) if isinstance(n, Alloc)}
    at = {f.var.name: 0 for f in kernel.grid}
    for e in trace_block(kernel.body, kernel.threads, at):
        if e.buffer not in own:
            touched.setdefault((e.epoch, e.buffer, e.index), []).append(e)
    return any(
        a.threads != b.threads and (a.write or b.write)
        for group in touched.values()
        for a in group
        for b in group
    )


T, U = Var("t"), Var("u")
X, Y = buffer("x", f32, (16,), "input"), buffer("y", f32, (16,), "output")
S = buffer("s", f32, (16,), space="shared")


def threads(*stmts: Stmt) -> Func:
    """A kernel of 16 threads, in kernel form."""
    loop = For(T, Const(0), Const(16), "thread.x", seq(*stmts))
    return Func("k", (X, Y), (), seq(Alloc(S), loop))


def repeat(count: int, *stmts: Stmt, low: int = 0) -> Stmt:
    return For(U, Const(low), Const(count), "serial", seq(*stmts))


def put(index: Expr, value: Expr | None = None) -> Stmt:
    return Store(S, (index,), value or Load(X, (T,)))


def take(index: Expr) -> Stmt:
    return Store(Y, (T,), Load(S, (index,)))


BAR = Barrier("block")
CASES: dict[str, tuple[Stmt, ...]] = {
    "own element": (put(T), take(T)),
    "mirrored": (put(T), take(15 - T)),
    "mirrored, barrier": (put(T), BAR, take(15 - T)),
    "loop, one barrier": (repeat(3, put(T), BAR, take(15 - T)),),
    "loop, two barriers": (repeat(3, put(T), BAR, take(15 - T), BAR),),
    "loop once": (repeat(1, put(T), BAR, take(15 - T)),),
    "next iteration's fill": (repeat(2, take(15 - T), BAR, put(T)),),
    "all write one": (put(Const(0)),),
    "one writes": (If(T < 1, put(Const(3))), BAR, take(Const(3))),
    "one writes, no barrier": (If(T < 1, put(Const(3))), take(Const(3))),
    "halves": (If(T < 8, put(T)), If(T >= 8, take(T))),
    "halves meet": (If(T < 9, put(T)), If(T >= 8, take(T - T % 2))),
    "after the loop": (repeat(2, put(T), BAR), take(15 - T)),
    "after the loop's barrier": (repeat(2, BAR, put(T)), take(15 - T)),
    "before the loop": (put(T), repeat(2, BAR, take(15 - T))),
    "around the loop": (put(T), repeat(2, BAR), take(15 - T)),
    "shifting": (repeat(3, put((T + U) % 16), BAR),),
    "shifting, no barrier": (repeat(3, put((T + U) % 16)),),
    "disjoint parts of iterations": (repeat(2, If(U < 1, put(T)), BAR),),
}


@pytest.mark.parametrize("name", CASES)
def test_proof_agrees_with_enumeration(name: str) -> None:
    func = threads(*CASES[name])
    if not races_of(func):
        check_barriers(func)
        return
    with pytest.raises(RaceError) as caught:
        check_barriers(func)
    first, second = events_of(func, caught.value.race)
    assert first.epoch == second.epoch and first.threads != second.threads


@pytest.mark.parametrize("name", CASES)
def test_inserted_barriers_suffice(name: str) -> None:
    func = without(without(threads(*CASES[name]), 1), 0)
    if name == "all write one":
        with pytest.raises(RaceError):
            InsertBlockBarriers().run(func)
        return
    fixed = InsertBlockBarriers().run(func)
    assert not races_of(fixed)
    for number in range(len(barriers(fixed))):
        assert races_of(without(fixed, number)), "a barrier too many"


V = Var("v")
INDICES = st.sampled_from([T, 15 - T, (T + U) % 16, (T + V) % 16, Const(2), T // 2, U * 4 + V])
CONDITIONS = st.sampled_from([T < 1, T >= 8, U < 1, V >= 1, T % 2 < 1])
LEAVES = st.one_of(st.builds(put, INDICES), st.builds(take, INDICES), st.just(BAR))


def nested(inner: st.SearchStrategy[Stmt]) -> st.SearchStrategy[Stmt]:
    body = st.lists(inner, min_size=1, max_size=4).map(lambda s: seq(*s))
    return st.builds(lambda n, s: For(V, Const(0), Const(n), "serial", s), st.integers(0, 2), body)


def conditional(cond: Expr, s: Stmt) -> Stmt:
    return s if isinstance(s, Barrier) else If(cond, s)


ACTIONS = st.one_of(LEAVES, st.builds(conditional, CONDITIONS, LEAVES))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(ACTIONS, nested(ACTIONS)), min_size=1, max_size=5), st.integers(0, 3))
def test_random_bodies(body: list[Stmt], count: int) -> None:
    """The proof, the enumeration and the insertion agree on random loops around barriers."""
    outside = For(V, Const(0), Const(1), "serial", repeat(count, *map(renamed, body)))
    func = threads(outside)
    try:
        check_barriers(func)
        proved = True
    except RaceError as refused:
        proved = False
        first, second = events_of(func, refused.race)
        assert first.epoch == second.epoch and first.threads != second.threads
    assert proved != races_of(func)
    try:
        fixed = InsertBlockBarriers().run(func)
    except RaceError:
        return  # one statement races with itself
    assert not races_of(fixed)


def renamed(s: Stmt) -> Stmt:
    """Inner loops get a variable of their own."""
    if not isinstance(s, For):
        return s
    inner = Var("inner")
    return For(inner, s.low, s.extent, s.kind, substitute(s.body, {V: inner}))


def test_a_loop_that_may_not_run_is_no_barrier() -> None:
    n = Var("n")
    loop = For(U, Const(0), n, "serial", BAR)
    body = For(T, Const(0), Const(16), "thread.x", seq(put(T), loop, take(15 - T)))
    with pytest.raises(RaceError):
        check_barriers(Func("k", (X, Y), (n,), seq(Alloc(S), body)))


def test_a_barrier_that_some_threads_miss_is_refused() -> None:
    with pytest.raises(CompileError) as caught:
        check_barriers(threads(If(T < 8, BAR)))
    assert caught.value.codes == ("E306",)


def test_undecidable_accesses_are_unproved() -> None:
    at = buffer("at", dtypes.i64, (16,), "input")
    func = threads(put(Load(at, (T,))))
    with pytest.raises(CompileError) as caught:
        check_barriers(Func("k", (X, Y, at), (), func.body))
    assert caught.value.codes == ("E304",)


# -- bind -----------------------------------------------------------------------------------------


def row_sums(m: int, n: int) -> Func:
    x, y = buffer("x", f32, (m, n), "input"), buffer("y", f32, (m,), "output")
    b = ComputeBuilder()
    b.reduce(y, (n,), "sum", lambda i, r: Load(x, (i[0], r[0])), "sums")
    return b.func("rows", (x, y))


def test_bind_keeps_the_meaning() -> None:
    s = Schedule.of(row_sums(12, 5)).split("sums_i0", 4, names=("b", "t"))
    s = s.bind("b", "block.x").bind("t", "thread.x")
    assert [f.kind for f in loops_of(s.func.body)] == ["block.x", "thread.x", "serial"]
    x, y = np.arange(60, dtype=np.float32).reshape(12, 5), np.zeros(12, np.float32)
    for func in (s.func, simt_optimize(s.func)):
        run_func(func, [x, y])
        np.testing.assert_array_equal(y, x.sum(1))


def halves(s: Schedule) -> Schedule:
    return s.split("sums_i0", 4, names=("o", "i"))


REFUSED: dict[str, tuple[Callable[[Schedule], Schedule], str]] = {
    "a reduction": (lambda s: s.bind("sums_r_i0", "thread.x"), "E303"),
    "no such axis": (lambda s: s.bind("sums_i0", "thread.w"), "E302"),
    "an axis inside itself": (
        lambda s: halves(s).bind("o", "thread.x").bind("i", "thread.x"),
        "E302",
    ),
    "blocks inside a loop": (
        lambda s: s.split("sums_i0", 4, names=("o", "i")).bind("i", "block.x"),
        "E302",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bind_refuses(name: str) -> None:
    step, code = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        step(Schedule.of(row_sums(12, 5)))
    assert caught.value.codes == (code,)


def two_maps(read: Callable[[Expr], Expr], first: int = 16, second: int = 16) -> Schedule:
    """A map into scratch and a map that reads it at ``read(i)``."""
    x, y = buffer("x", f32, (first,), "input"), buffer("y", f32, (second,), "output")
    b = ComputeBuilder()
    t = b.alloc("tmp", f32, (first,))
    b.map(t, lambda i: Load(x, (i,)), "fill")
    b.map(y, lambda i: Load(t, (read(i),)), "use")
    return Schedule.of(b.func("two", (x, y)))


def test_all_loops_of_an_axis_have_one_extent() -> None:
    s = two_maps(lambda i: i, 16, 8).bind("fill_i0", "thread.x")
    with pytest.raises(CompileError) as caught:
        s.bind("use_i0", "thread.x")
    assert caught.value.codes == ("E302",)


def test_registers_stay_with_their_thread() -> None:
    def both(read: Callable[[Expr], Expr], space: str) -> Func:
        s = two_maps(read).bind("fill_i0", "thread.x").bind("use_i0", "thread.x")
        return simt_optimize(s.set_scope("tmp", space).func)

    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    run_func(both(lambda i: i, "register"), [x, y])
    np.testing.assert_array_equal(y, x)
    with pytest.raises(RaceError) as caught:
        both(lambda i: 15 - i, "register")
    assert caught.value.codes == ("E303",)
    shared = both(lambda i: 15 - i, "shared")
    assert len(barriers(shared)) == 1
    run_func(shared, [x, y])
    np.testing.assert_array_equal(y, x[::-1])


def test_barriers_do_not_make_registers_shared() -> None:
    own = S.with_(space="register")
    moved = Store(Y, (T,), Load(own, (15 - T,)))
    body = seq(Alloc(own), Store(own, (T,), Load(X, (T,))), BAR, moved)
    with pytest.raises(RaceError) as caught:
        check_private(Func("k", (X, Y), (), For(T, Const(0), Const(16), "thread.x", body)))
    assert caught.value.codes == ("E303",)


def test_what_is_not_bound_runs_on_the_first_thread() -> None:
    s = two_maps(lambda i: 15 - i).bind("fill_i0", "thread.x").set_scope("tmp", "shared")
    func = simt_optimize(s.func)
    assert len(barriers(func)) == 1
    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    for form in (func, ThreadLoops().run(func)):
        run_func(form, [x, y])
        np.testing.assert_array_equal(y, x[::-1])


def test_a_kernel_has_one_grid() -> None:
    s = two_maps(lambda i: i).bind("fill_i0", "block.x").bind("use_i0", "block.x")
    with pytest.raises(CompileError) as caught:
        UnifyThreads().run(s.func)
    assert caught.value.codes == ("E302",)


def test_names_of_threads_are_free() -> None:
    """A loop of the kernel may have the name that a thread axis would get."""
    b = ComputeBuilder()
    x, y = buffer("x", f32, (8, 4), "input"), buffer("y", f32, (8, 4), "output")
    b.map(y, lambda i, j: Load(x, (i, j)) + 1.0, "m")
    s = Schedule.of(b.func("f", (x, y))).split("m_i1", 2, names=("tx", "r"))
    func = simt_optimize(s.bind("m_i0", "thread.x").func)
    verify_func(func)
    given = np.arange(32, dtype=np.float32).reshape(8, 4)
    out = np.zeros_like(given)
    run_func(func, [given, out])
    np.testing.assert_array_equal(out, given + 1)


def test_a_product_whose_reader_reduces_is_copied() -> None:
    """Only a map may run on the register tile: a sum over rows of the product reads a copy."""
    a, w = buffer("a", f32, (16, 8), "input"), buffer("w", f32, (8, 16), "weight")
    y = buffer("y", f32, (16,), "output")
    b = ComputeBuilder()
    t = b.alloc("acc", f32, (16, 16))
    b.reduce(t, (8,), "sum", lambda i, r: Load(a, (i[0], r[0])) * Load(w, (r[0], i[1])), "mm")
    b.reduce(y, (16,), "sum", lambda i, r: Load(t, (i[0], r[0])), "rows")
    assert in_place_reader(Schedule.of(b.func("f", (a, w, y))), "mm") is None

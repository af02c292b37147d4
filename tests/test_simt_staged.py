"""Products whose panels are filled by asynchronous copies: what they compute, that each copy is
waited for, and what a missing wait or barrier is found by."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from ptx.counters import Counters
from ptx.machine import LaunchFault, Machine
from ptx.memory import Space
from ptx.syntax import parse
from test_simt_rules import narrow_product

from aisc.codegen.backend import backend_of
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import DType
from aisc.ir.node import Node, walk
from aisc.ir.target import resolve
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Await, Barrier, For, Invoke, Seq
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.tensor.visitor import transform
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.analysis.simt_estimate import simt_estimate
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.rules.chooser import NONE
from aisc.passes.schedule.variants import staged_panels
from aisc.passes.tensor.copy_waits import InsertWaits, check_waits
from aisc.passes.tensor.simt_barriers import RaceError, check_barriers
from aisc.passes.tensor.thread_loops import ThreadLoops

GPU = resolve("nvidia_sm90")
TYPES = (dtypes.f16, dtypes.bf16, dtypes.i8)
Size = tuple[int, int, int]


@cache
def made(size: Size, dtype: DType, turned: bool = False, **choices: object) -> ScheduledKernel:
    func = narrow_product(*size, dtype, turned)
    choices = {"parts": 1, **choices}
    return backend_of(GPU).schedule(func, {f"mm.{k}": v for k, v in choices.items()})[0]  # type: ignore[misc]


def is_staged(kernel: Func) -> bool:
    return any(isinstance(n, Await) for n in walk(kernel.body))


def arrays_of(size: Size, dtype: DType, turned: bool) -> tuple[list[np.ndarray], np.ndarray]:
    m, k, n = size
    rng = np.random.default_rng(m + k)
    x, w = (rng.integers(-8, 9, s) for s in ((m, k), (n, k) if turned else (k, n)))
    kind = np.int32 if dtype is dtypes.i8 else np.float32
    given = [x.astype(dtype.numpy), w.astype(dtype.numpy), np.zeros((m, n), kind)]
    return given, x @ (w.T if turned else w)


def on_machine(
    kernel: Func, arrays: list[np.ndarray], edit: tuple[str, str] = ("", "")
) -> Counters:
    """Run a kernel as PTX, in which one text is exchanged for another."""
    text, (grid,) = module_of([kernel], GPU)
    ptx = ptx_of(text, GPU)
    assert edit[0] in ptx
    ptx = ptx.replace(*edit) if edit[0] else ptx
    memory = Space()
    args = [
        memory.add(x, b.name, b.role != "output")
        for b, x in zip(kernel.params, arrays, strict=True)
    ]
    blocks = tuple(1 if e is None else int(e.value) for e in grid.grid)  # type: ignore[attr-defined]
    return Machine(parse(ptx), memory).launch(grid.name, blocks, args, grid.block, grid.dynamic)  # type: ignore[arg-type]


SIZES = ((70, 64, 48), (16, 40, 16), (34, 72, 40))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TYPES)
def test_every_form_computes_the_product(dtype: DType, size: Size, turned: bool) -> None:
    kernel = made(size, dtype, turned).func
    pieces = size[1] * dtype.bytes % 16 == 0 and (turned or size[2] * dtype.bytes % 16 == 0)
    assert is_staged(kernel) == (pieces and (turned or dtype is not dtypes.i8))
    verify_func(kernel)
    assert parse_func(print_func(kernel)) == kernel
    given, want = arrays_of(size, dtype, turned)
    run_func(ThreadLoops(GPU).run(kernel), given)
    np.testing.assert_array_equal(given[-1], want)
    given, _ = arrays_of(size, dtype, turned)
    counters = on_machine(kernel, given)
    np.testing.assert_array_equal(given[-1], want)
    if is_staged(kernel):
        assert counters.bank_conflicts() == 0
        assert set(counters.widths("shared")) == {128}


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_stages_are_under_way(stages: int) -> None:
    kernel = made((32, 256, 32), dtypes.f16, steps=(2, stages)).func
    (loop,) = (n for n in walk(kernel.body) if isinstance(n, For) and n.kind == "serial"
               and any(isinstance(s, Await) for s in walk(n)))  # fmt: skip
    (wait,) = (n for n in walk(loop) if isinstance(n, Await))
    assert wait.pending == stages - 2
    assert sum(isinstance(n, Barrier) for n in walk(loop)) == 1
    given, want = arrays_of((32, 256, 32), dtypes.f16, False)
    on_machine(kernel, given)
    np.testing.assert_array_equal(given[-1], want)


# -- what is missing is found ----------------------------------------------------------------------


def staged() -> Func:
    return made((32, 256, 32), dtypes.f16, steps=(2, 3)).func


WRONG = {
    "no wait": ("cp.async.wait_group \t1;", ""),
    "a wait too late": ("cp.async.wait_group \t1;", "cp.async.wait_group \t2;"),
    "no wait before the loop": ("cp.async.wait_group \t0;", ""),
    "no barrier": ("bar.sync \t0;", ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_missing_is_found_in_the_code(what: str) -> None:
    given, _ = arrays_of((32, 256, 32), dtypes.f16, False)
    with pytest.raises(LaunchFault) as caught:
        on_machine(staged(), given, WRONG[what])
    assert caught.value.kind == ("race" if what == "no barrier" else "pending")


def changed(kernel: Func, old: Node, new: Node) -> Func:
    body = transform(kernel.body, lambda n: new if n == old else n)
    assert body != kernel.body
    return replace(kernel, body=body)


@pytest.mark.parametrize(
    ("old", "new"),
    [(Await(1), Seq(())), (Await(1), Await(2)), (Await(0), Seq(())), (Await(0), Await(1))],
)
def test_waits_are_proved(old: Node, new: Node) -> None:
    check_waits(staged(), GPU)
    with pytest.raises(CompileError) as caught:
        check_waits(changed(staged(), old, new), GPU)
    assert caught.value.codes == ("E306",)


def test_barriers_are_proved() -> None:
    check_barriers(staged(), GPU)
    with pytest.raises(RaceError):
        check_barriers(changed(staged(), Barrier("block"), Seq(())), GPU)


def test_waits_are_inserted_again() -> None:
    bare = transform(staged().body, lambda n: Seq(()) if isinstance(n, Await) else n)
    again = InsertWaits(GPU).run(replace(staged(), body=bare))
    waits = [n.pending for n in walk(again.body) if isinstance(n, Await)]
    assert waits == [0, 1]


def test_rows_in_the_same_banks_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are whole multiples of all banks apart."""
    monkeypatch.setattr(staged_panels, "row_bytes", lambda n, dtype: 256)
    func = narrow_product(32, 256, 48, dtypes.f16, True)
    kernel = backend_of(GPU).schedule(func, {"mm.parts": 1})[0].func
    given, want = arrays_of((32, 256, 48), dtypes.f16, True)
    assert on_machine(kernel, given).bank_conflicts() > 0
    np.testing.assert_array_equal(given[-1], want)


def test_panels_may_be_larger_than_what_a_module_declares() -> None:
    """Launches ask for shared memory then."""
    kernel = made((128, 512, 128), dtypes.f16, warps=(2, 4, 4, 4), steps=(2, 4)).func
    _, (grid,) = module_of([kernel], GPU)
    assert grid.dynamic == grid.shared_bytes > GPU.limits["static_shared_bytes"]
    given, want = arrays_of((128, 512, 128), dtypes.f16, False)
    assert on_machine(kernel, given).bank_conflicts() == 0
    np.testing.assert_array_equal(given[-1], want)


# -- machines, kernels -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["nvidia_sm75", "warp16", "amd_gfx942"])
def test_machines_without_copies_fetch_themselves(target: str) -> None:
    kernel = backend_of(resolve(target)).schedule(narrow_product(64, 64, 64, dtypes.f16), NONE)[0]
    assert not any(isinstance(n, Await | Invoke) for n in walk(kernel.func.body))


def test_images_are_copied_with_their_borders() -> None:
    """A convolution of narrow types: what lies around an image is filled, not read."""
    func = narrow_convolution(2, 9, 16, 16)
    kernel = backend_of(GPU).schedule(func, NONE)[0].func
    assert is_staged(kernel)
    rng = np.random.default_rng(5)
    x = rng.integers(-4, 5, (2, 9, 9, 16)).astype(np.float16)
    w = rng.integers(-4, 5, (3, 3, 16, 16)).astype(np.float16)
    want = np.zeros((2, 9, 9, 16), np.float32)
    run_func(func, [x, w, want])
    got = np.zeros_like(want)
    on_machine(kernel, [x, w, got])
    np.testing.assert_array_equal(got, want)


def narrow_convolution(n: int, size: int, c: int, o: int) -> Func:
    """3 x 3 with borders, of f16."""
    from aisc.ir.tensor.builder import ComputeBuilder
    from aisc.ir.tensor.expr import Expr, Load, cast, const, logical_and, select
    from aisc.ir.tensor.func import buffer

    x, b = buffer("x", dtypes.f16, (n, size, size, c), "input"), ComputeBuilder()
    w, y = (
        buffer("w", dtypes.f16, (3, 3, c, o), "weight"),
        buffer("y", dtypes.f32, (n, size, size, o), "output"),
    )
    padded = b.alloc("padded", dtypes.f16, (n, size + 2, size + 2, c))

    def border(g: Expr, h: Expr, v: Expr, k: Expr) -> Expr:
        inside = logical_and(h - 1 >= 0, h - 1 < size, v - 1 >= 0, v - 1 < size)
        return select(inside, Load(x, (g, h - 1, v - 1, k)), const(0, dtypes.f16))

    def tap(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        a = Load(padded, (i[0], i[1] + r[0], i[2] + r[1], r[2]))
        return cast(a, dtypes.f32) * cast(Load(w, (*r, i[3])), dtypes.f32)

    b.map(padded, border, "pad")
    b.reduce(y, (3, 3, c), "sum", tap, "conv")
    return b.func("conv", (x, w, y))


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
@pytest.mark.parametrize("target", ["nvidia_sm80", "nvidia_sm90"])
@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16])
def test_the_main_loop_is_as_the_tile_demands(dtype: DType, target: str) -> None:
    machine = resolve(target)
    kernel = backend_of(machine).schedule(narrow_product(1024, 1024, 1024, dtype), NONE)[0]
    picks = {p.name: p.choice for p in kernel.picks}
    (_, _, hm, hn), (steps, stages) = picks["mm.warps"], picks["mm.steps"]  # type: ignore[misc]
    assert stages > 2
    ptx = ptx_of(module_of([kernel.func], machine)[0], machine)
    assert ptx.count("mma.sync") == hm * hn * steps
    assert ptx.count("ldmatrix") == (hm + hn // 2) * steps
    assert len(set(re.findall(r"(?:ld|st)\.shared\S*", ptx))) == 0
    assert not re.findall(r"\bld\.global", ptx)
    (usage,) = run_ptxas(ptx, machine.arch).values()
    assert usage.spills == usage.stack == 0
    assert simt_estimate(kernel.func, machine).conflicts == 1.0

"""Kernels at any size: more blocks than an axis has, numbers that 32 bits hold and others."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import zoo
from ptx.device import Checked
from ptx.machine import LaunchFault, Machine
from ptx.memory import Space
from ptx.syntax import parse
from test_simt_rules import batched, kernel_of, mapped

import aisc
from aisc.codegen.simt.launches import DeviceKernel, Launch
from aisc.codegen.simt.module import GENERAL, module_of, ptx_of
from aisc.codegen.simt.narrow import MOST, Magnitudes, TooWide
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var, binary, within
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.linear import Indexer

ROOT = Path(__file__).parent.parent
GPU = resolve("nvidia_sm90")
f32 = dtypes.f32


def with_blocks(x: int, y: int, z: int) -> Target:
    """The machine with this many blocks along the axes."""
    limits = {**GPU.limits, "blocks_x": x, "blocks_y": y, "blocks_z": z}
    return replace(GPU, limits=limits)


def launched(
    func: Func, target: Target, arrays: list[np.ndarray], dims: dict[str, int], edit: str = ""
) -> list[Launch]:
    """Run a kernel by the PTX machine; `edit`: what is left out of its text."""
    text, grids = module_of([func], target)
    ptx = ptx_of(text, target)
    if edit:
        head, found, tail = ptx.rpartition(edit)
        assert found
        ptx = head + tail
    about = DeviceKernel.of(func, grids)
    about = DeviceKernel.from_json(about.to_json())
    memory, used = Space(), []
    args = [
        memory.add(x, b.name, b.role not in ("output", "scratch"))
        for b, x in zip(func.params, arrays, strict=True)
    ]
    words = np.zeros(4, np.int64)
    status = [memory.add(words, "status"), 0] if about.reports else []
    for launch, grid in about.launched([dims[n] for n in about.dims]):
        limits = [target.limits[f"blocks_{axis}"] for axis in "xyz"]
        assert all(n <= most for n, most in zip(grid, limits, strict=True))
        Machine(parse(ptx), memory).launch(
            launch.entry,
            grid,
            [*args, *(dims[n] for n in about.dims), *status],
            launch.block,
            launch.dynamic,
        )
        assert not words[0]
        used.append(launch)
    return used


def product_arrays(b: int, m: int, k: int, n: int) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(b + m + k + n)
    x = rng.integers(-3, 4, (b, m, k)).astype(np.float32)
    w = rng.integers(-3, 4, (b, k, n)).astype(np.float32)
    return [x, w, np.full((b, m, n), 7, np.float32)], x @ w


# -- more blocks than an axis has ------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 2, 1), (65535, 3, 2)])
def test_blocks_do_several_tiles(blocks: tuple[int, int, int]) -> None:
    func = kernel_of(batched(3, 150, 20, 140, ""))
    arrays, want = product_arrays(3, 150, 20, 140)
    (launch,) = launched(func, with_blocks(*blocks), arrays, {})
    assert not launch.general
    np.testing.assert_array_equal(arrays[-1], want)


def test_what_a_tile_shares_is_kept_until_all_have_read_it() -> None:
    func = kernel_of(batched(3, 150, 8, 140, ""))
    arrays, _ = product_arrays(3, 150, 8, 140)
    machine = with_blocks(1, 1, 1)
    with pytest.raises(LaunchFault) as caught:
        launched(func, machine, arrays, {}, edit="\tbar.sync \t0;\n")
    assert caught.value.kind == "race"


def test_maps_of_many_blocks() -> None:
    func = kernel_of(mapped((40, 7, 9), lambda i: i))
    x = np.arange(40 * 63, dtype=np.float32).reshape(40, 7, 9)
    arrays = [x, np.zeros_like(x)]
    launched(func, with_blocks(2, 1, 1), arrays, {})
    np.testing.assert_array_equal(arrays[1], x * 2)


def test_sizes_of_the_run_choose_the_entry() -> None:
    dims = symbol("b", 0), symbol("m", 0), symbol("k", 0)
    func = kernel_of(batched(*dims, 24, ""))
    for (b, m, k), general in {(1, 40, 9): False, (1, 300, 9): True, (3, 3, 4): True}.items():
        arrays, want = product_arrays(b, m, k, 24)
        (launch,) = launched(func, with_blocks(65535, 2, 2), arrays, {"b": b, "m": m, "k": k})
        assert launch.entry.endswith(GENERAL) == general
        np.testing.assert_array_equal(arrays[-1], want)


SMALL_GRID = """
blocks_x = 3
blocks_y = 1
blocks_z = 1
"""


def test_a_model_with_few_blocks(tmp_path: Path) -> None:
    """All kernels of a net on a machine that runs three blocks at most, as PTX."""
    shipped = (ROOT / "ir/targets/nvidia_sm80.toml").read_text()
    text = re.sub(r"blocks_[xyz] = \d+\n", "", shipped).replace(
        "[limits]\n", f"[limits]{SMALL_GRID}"
    )
    path = tmp_path / "few.toml"
    path.write_text(text.replace('name = "nvidia_sm80"', 'name = "few_blocks"'))
    model = zoo.ZOO["mlp"].build(sizes=(20, 70, 65))
    exe = aisc.compile(model, target=str(path), cache=False)
    (code,) = exe.image.devices
    program = aisc.lower(model, "program", target=str(path))
    checked = Checked(code, {k.name: k for k in program.kernels})
    exe._devices[code.target] = checked
    x = np.random.default_rng(2).standard_normal((200, 20)).astype(np.float32)
    got = exe(x)
    np.testing.assert_allclose(got, aisc.compile(model, cache=False)(x), rtol=1e-5, atol=1e-6)
    assert any(name.endswith(GENERAL) for name in checked.ran)


# -- numbers of 32 and of 64 bits ------------------------------------------------------------------

WIDE = re.compile(r"\b(?:mul|div|rem|mad|setp)[.\w]*\.[su]64\b")


@cache
def product() -> Func:
    return kernel_of(batched(2, 1024, 512, 768, ""))


def test_known_sizes_are_counted_in_32_bits() -> None:
    text, (grid,) = module_of([product()], GPU)
    assert not grid.short and not grid.general
    assert not {n for n in WIDE.findall(ptx_of(text, GPU)) if not n.startswith("mul.wide")}


def test_large_sizes_are_counted_in_64_bits() -> None:
    func = kernel_of(mapped((1 << 20, 1 << 12), lambda i: i))
    text, (grid,) = module_of([func], GPU)
    assert not grid.short and not grid.general
    assert "zext i32" in text


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
def test_short_numbers_take_fewer_registers() -> None:
    m = symbol("m", 0)
    func = kernel_of(batched(1, m, 96, 200, ""))
    text, (grid,) = module_of([func], GPU)
    found = run_ptxas(ptx_of(text, GPU), GPU.arch)
    assert set(grid.entries) == set(found)
    assert found[grid.name].registers < found[grid.general].registers


def test_a_bound_of_a_size_is_no_condition() -> None:
    for most, conditions in ((4096, False), (None, True)):
        func = kernel_of(batched(1, symbol("m", 0, most), 96, 200, ""))
        _, (grid,) = module_of([func], GPU)
        assert bool(grid.short) == bool(grid.general) == conditions


def test_places_that_data_give_are_tested_and_short() -> None:
    x, at = buffer("x", f32, (50, 8), "input"), buffer("at", dtypes.i64, (6,), "input")
    y, c = buffer("y", f32, (6, 8), "output"), ComputeBuilder()
    c.map(y, lambda i, j: Load(x, (within(Load(at, (i,)), 50), j)), "take")
    func = kernel_of(c.func("take", (x, at, y)))
    given = np.arange(400, dtype=np.float32).reshape(50, 8)
    places = np.array([3, 49, 0, 7, 7, 12])
    arrays = [given, places, np.zeros((6, 8), np.float32)]
    text, _ = module_of([func], GPU)
    assert "trunc i64" in text and "zext i32" not in text
    launched(func, GPU, arrays, {})
    np.testing.assert_array_equal(arrays[-1], given[places])


def test_magnitudes() -> None:
    m, n, i = Var("m"), Var("n"), Var("i")
    sizes = Magnitudes(dims={m: float("inf"), n: float("inf")}, last={i: m * 3})
    index = Indexer({"i": (0, float("inf"))})
    of = {
        "sum": (i * 8 - 5, 24 * symbol("m") + 5),
        "product": (m * n, symbol("m") * symbol("n")),
        "rest": (binary("mod", i, n) + binary("floordiv", i, n), 3 * symbol("m") + symbol("n")),
    }
    for what, (e, want) in of.items():
        assert sizes.of(index.linear(e), index) == want, what
    with pytest.raises(TooWide):
        sizes.of(index.linear(Var("data") + 1), index)
    for e in (m, m * 4, m * n, m * 2 + 1, n):
        sizes.require(index.linear(e), index)
    # 4 m bounds m; m * n and n bound nothing of each other
    assert [str(d) for d, _ in sizes.conditions()] == sorted(
        str(d) for d in (4 * symbol("m"), symbol("m") * symbol("n"), symbol("n"),
                         2 * symbol("m") + 1)
    )  # fmt: skip
    assert {most for _, most in sizes.conditions()} == {MOST - 1}

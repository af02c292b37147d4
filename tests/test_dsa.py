"""Accelerators: instructions declared with their meaning, tensorize, contractions by tiles, streams
of instructions and what they take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aisc.codegen.dsa.assembler import listing, utilization
from aisc.codegen.dsa.simulator import simulate, view
from aisc.codegen.dsa.stream import Place, Stream
from aisc.codegen.dsa.timing import timing
from aisc.ir import dtypes
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.node import walk
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    Expr,
    Load,
    Unary,
    cast,
    const,
    logical_and,
    maximum,
    minimum,
    select,
)
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.intrinsic import formula
from aisc.ir.tensor.stmt import Invoke
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa import dsa_schedule
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.schedule.variants.systolic import Tiles
from aisc.passes.tensor.dsa_optimize import dsa_optimize
from aisc.passes.tensor.inline_instructions import InlineInstructions
from aisc.passes.tensor.vector_programs import instructions_of

FIXED = str(Path(__file__).parent / "data/fixed8.toml")
SEMANTICS = {name: found.semantics for name, found in resolve(FIXED).instructions.items()}
CHIPS = {name: resolve(name) for name in ("systolic8", "gemmini16", "outputs8")}
i8, u8, i32, f32 = dtypes.i8, dtypes.u8, dtypes.i32, dtypes.f32


def product(m: int, k: int, n: int, bias: bool = False) -> Func:
    a, w = buffer("data", i8, (m, k), "input"), buffer("weights", i8, (k, n), "weight")
    c, added = buffer("c", i32, (m, n), "output"), buffer("bias", i32, (n,), "weight")
    b = ComputeBuilder()
    out = b.alloc("acc", i32, (m, n)) if bias else c

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        return cast(Load(a, (i[0], r[0])), i32) * cast(Load(w, (r[0], i[1])), i32)

    b.reduce(out, (k,), "sum", term, "mm")
    if bias:
        b.map(c, lambda i, j: Load(out, (i, j)) + Load(added, (j,)), "bias_add")
    return b.func("product", (a, w, added, c) if bias else (a, w, c), target="dsa")


@dataclass(frozen=True)
class Conv:
    """A convolution of bytes, channels last: image, channels to channels, window, its steps, and
    what lies around the image."""

    image: tuple[int, int]
    channels: tuple[int, int]
    window: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    batch: int = 1
    zero: int = 0
    fill: int = 3
    first: bool = False

    @property
    def out(self) -> tuple[int, int]:
        sizes = zip(self.image, self.window, self.strides, self.dilations, range(2), strict=True)
        return tuple(  # type: ignore[return-value]
            (n + self.pads[k] + self.pads[k + 2] - d * (f - 1) - 1) // s + 1
            for n, f, s, d, k in sizes
        )

    def func(self) -> Func:
        """It, scaled and rounded to bytes."""
        (h, w), (c, o), g, n = self.image, self.channels, self.groups, self.batch
        shape = (n, g, c, h, w) if self.first else (n, h, w, g, c)
        x = buffer("x", u8, shape, "input")
        f = buffer("f", i8, (g, *self.window, c, o), "weight")
        bias, scale = buffer("bias", i32, (g, o), "weight"), buffer("scale", f32, (g, o), "weight")
        y = buffer("y", u8, (n, *self.out, g, o), "output")
        b = ComputeBuilder()
        acc = b.alloc("acc", i32, y.shape)

        def element(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
            rows = [
                i[k + 1] * self.strides[k] + r[k] * self.dilations[k] - self.pads[k]
                for k in range(2)
            ]
            at = (i[0], i[3], r[2], *rows) if self.first else (i[0], *rows, i[3], r[2])
            inside = [
                t for e, size in zip(rows, self.image, strict=True) for t in (e >= 0, e < size)
            ]
            return select(logical_and(*inside), Load(x, at), const(self.fill, u8))

        def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
            weight = Load(f, (i[3], *r, i[4]))
            return cast(element(i, r), i32) * cast(weight, i32)

        b.reduce(acc, (*self.window, c), "sum", term, "conv")
        total = b.alloc("total", i32, y.shape)
        b.map(total, lambda *i: Load(acc, i) + Load(bias, i[3:]), "add")

        def rounded(*i: Expr) -> Expr:
            value = Unary("round", cast(Load(total, i), f32) * Load(scale, i[3:]))
            return cast(value + float(self.zero) if self.zero else value, u8)

        b.map(y, rounded, "scaled")
        return b.func("conv", (x, f, bias, scale, y), target="dsa")


def arguments(func: Func) -> list[np.ndarray]:
    """Arrays for the parameters: any bytes, small factors, results that are to be overwritten."""
    rng = np.random.default_rng(len(func.params[0].shape) + 7)
    found = []
    for p in func.params:
        shape, of = p.type.static_shape, p.dtype.numpy
        if p.dtype is f32:
            found.append(rng.uniform(0.001, 0.02, shape).astype(of))
        elif p.dtype is i32:
            found.append(rng.integers(-(2**31), 2**31, shape).astype(of) >> 12)
        else:
            found.append(rng.integers(0, 256, shape).astype(np.uint8).view(of))
    return found


def kernel_of(func: Func, chip: Target) -> Func:
    return dsa_optimize(dsa_schedule(func, Chooser(chip)).func, chip)


def agree(func: Func, chip: Target) -> Func:
    """All levels compute what the function says, bit by bit."""
    want = arguments(func)
    run_func(func, want)
    schedule = dsa_schedule(func, Chooser(chip))
    kernel = dsa_optimize(schedule.func, chip)
    model = InlineInstructions(chip).run(kernel)
    semantics = {name: found.semantics for name, found in instructions_of(kernel, chip).items()}
    for level in (schedule.func, kernel, model):
        verify_func(level, names=frozenset(semantics))
        assert parse_func(print_func(level)) == level
        args = arguments(func)
        more = [np.full(b.type.static_shape, 77, b.dtype.numpy) for b in level.params[len(args) :]]
        run_func(level, [*args, *more], intrinsics=semantics)
        np.testing.assert_array_equal(args[-1], want[-1])
    args = arguments(func)
    simulate(Stream(kernel, chip), chip, args)
    np.testing.assert_array_equal(args[-1], want[-1])
    return kernel


SIZES = [(8, 8, 8), (16, 24, 8), (9, 7, 10), (1, 1, 1), (3, 17, 8), (33, 40, 50), (1, 30, 19)]


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_products_are_exact(size: tuple[int, int, int], bias: bool, chip: str) -> None:
    agree(product(*size, bias), CHIPS[chip])


CONVS = {
    "1x1": Conv((5, 7), (3, 10)),
    "3x3": Conv((5, 6), (9, 17), (3, 3), pads=(1, 1, 1, 1)),
    "strided": Conv((9, 8), (18, 5), (3, 3), (2, 2), pads=(1, 1, 0, 0)),
    "1x1 strided": Conv((7, 6), (4, 9), strides=(2, 3)),
    "dilated": Conv((9, 9), (5, 8), (3, 2), dilations=(2, 3), pads=(2, 0, 1, 3)),
    "window beyond the image": Conv((2, 3), (4, 4), (5, 4), pads=(2, 2, 2, 2)),
    "zero point": Conv((4, 4), (6, 7), (3, 3), pads=(1, 1, 1, 1), zero=113, fill=124),
    "groups": Conv((5, 5), (3, 4), (3, 3), pads=(1, 1, 1, 1), groups=3, batch=2),
    "channels first": Conv((6, 5), (3, 9), (3, 3), (2, 1), pads=(1, 1, 1, 1), first=True),
    "padded points": Conv((3, 3), (5, 5), (1, 1), (2, 2), pads=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", CONVS)
def test_convolutions_are_exact(name: str, chip: str) -> None:
    agree(CONVS[name].func(), CHIPS[chip])


@pytest.mark.parametrize("name", ["3x3", "strided", "groups", "dilated"])
def test_tiles_of_small_memories(name: str) -> None:
    """Blocks of rows, columns and depth, and tails of each."""
    small = with_memory(with_memory(CHIPS["systolic8"], "accumulator", 1024), "scratchpad", 1600)
    kernel = agree(CONVS[name].func(), small)
    stream = Stream(kernel, small)
    assert stream.memory["accumulator"] <= 1024
    assert stream.memory["scratchpad"] <= 1600


def test_all_work_is_instructions() -> None:
    kernel = kernel_of(CONVS["3x3"].func(), CHIPS["gemmini16"])
    names = {n.intrinsic for n in walk(kernel.body) if isinstance(n, Invoke)}
    assert names == {
        "load_u8", "fill_u8", "load_bias", "load_weights", "preload", "compute_u8",
        "store_quantized_u8",
    }  # fmt: skip
    assert "block" not in print_func(kernel)


def test_few_channels_are_packed() -> None:
    """A row of the window and the channels are one depth where that fills the array better."""
    func, chip = (
        Conv((20, 18), (3, 20), (5, 5), (2, 2), pads=(2, 2, 2, 2)).func(),
        CHIPS["gemmini16"],
    )
    (pick,) = dsa_schedule(func, Chooser(chip)).picks
    assert pick.choice[-1] == 1  # type: ignore[index]
    found = timing(Stream(agree(func, chip), chip), chip)
    steps = 2 * 5  # tiles of columns, lines of the window: 15 of 16 rows of cells are used
    assert found.busy["array"] == steps * 10 * 9


def test_every_choice_of_tiles_gives_the_same_bits() -> None:
    func, chip = CONVS["strided"].func(), CHIPS["systolic8"]
    (pick,) = dsa_schedule(func, Chooser(chip)).picks
    want = arguments(func)
    run_func(func, want)
    for choice in pick.options[1:6]:
        schedule = dsa_schedule(func, Chooser(chip, {pick.name: choice}))
        args = arguments(func)
        simulate(Stream(dsa_optimize(schedule.func, chip), chip), chip, args)
        np.testing.assert_array_equal(args[-1], want[-1])


def test_trace_replays_from_json() -> None:
    func = CONVS["3x3"].func()
    schedule = dsa_schedule(func, Chooser(CHIPS["gemmini16"]))
    steps = trace_from_json(trace_to_json(schedule.trace))
    assert Schedule.of(func).replay(steps).func == schedule.func


def with_map(value: Callable[..., Expr], dtype: dtypes.DType) -> Func:
    """A product of bytes, and a map of its sums with what else may be read: a number for each
    column, one for all, and a tensor like the result."""
    x, w = buffer("x", i8, (9, 11), "input"), buffer("w", i8, (11, 13), "weight")
    row, one = buffer("row", f32, (13,), "weight"), buffer("one", f32, (), "weight")
    like, y = buffer("like", u8, (9, 13), "input"), buffer("y", dtype, (9, 13), "output")
    b = ComputeBuilder()
    acc = b.alloc("acc", i32, (9, 13))

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        return cast(Load(x, (i[0], r[0])), i32) * cast(Load(w, (r[0], i[1])), i32)

    b.reduce(acc, (11,), "sum", term, "mm")

    def mapped(i: Expr, j: Expr) -> Expr:
        return value(Load(acc, (i, j)), Load(row, (j,)), Load(one, ()), Load(like, (i, j)))

    b.map(y, mapped, "mapped")
    return b.func("f", (x, w, row, one, like, y), target="dsa")


MAPS: dict[str, tuple[Callable[..., Expr], dtypes.DType]] = {
    "squared": (lambda a, r, o, t: a * a, i32),
    "residual": (
        lambda a, r, o, t: cast(
            Unary("round", maximum(cast(a, f32) * r + cast(t, f32) * o, const(0, f32)) / 3.5), u8
        ),
        u8,
    ),
    "clipped": (
        lambda a, r, o, t: minimum(maximum(cast(a, f32) * r, const(-1.5, f32)), const(6, f32)),
        f32,
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_sums_are_programs_of_the_vector_unit(name: str) -> None:
    kernel = agree(with_map(*MAPS[name]), CHIPS["gemmini16"])
    names = [n.intrinsic for n in walk(kernel.body) if isinstance(n, Invoke)]
    assert names[-1] == "vector_0"
    assert "vector_0" in dict(kernel.attrs)


@pytest.mark.parametrize("name", MAPS)
def test_what_no_instruction_computes_is_named(name: str) -> None:
    chip = CHIPS["systolic8"]  # its vector unit scales and rounds
    with pytest.raises(CompileError, match="no instruction for mm_store") as caught:
        kernel_of(with_map(*MAPS[name]), chip)
    assert caught.value.codes == ("E402",)


def test_the_rule_refuses_what_is_no_product() -> None:
    x, y = buffer("x", i8, (8, 8), "input"), buffer("y", i8, (8, 8), "output")
    b = ComputeBuilder()
    b.map(y, lambda i, j: Load(x, (i, j)))
    with pytest.raises(CompileError) as caught:
        dsa_schedule(b.func("f", (x, y)), Chooser(CHIPS["gemmini16"]))
    assert caught.value.codes == ("E302",)


# -- the instruction stream -----------------------------------------------------------------------


def with_memory(chip: Target, name: str, size: int) -> Target:
    memories = tuple(replace(m, bytes=size) if m.name == name else m for m in chip.memories)
    return replace(chip, memories=memories)


def test_a_wrong_address_gives_a_wrong_result() -> None:
    """The stream is what is run: moving one tile elsewhere is seen."""
    func, chip = product(8, 8, 8), CHIPS["systolic8"]
    stream = Stream(kernel_of(func, chip), chip)
    steps = list(stream)
    at = next(k for k, s in enumerate(steps) if stream.sites[s[0]].name == "compute_i8")
    number, sizes, (data, *others) = steps[at]
    steps[at] = number, sizes, (data + 8, *others)
    want = arguments(func)
    run_func(func, want)
    args = arguments(func)
    simulate(stream, chip, args, steps)
    assert (args[-1] != want[-1]).any()
    steps[at] = number, sizes, (1 << 20, *others)
    with pytest.raises(ExecutionError, match=r"compute_i8 .* lie outside of scratchpad"):
        simulate(stream, chip, args, steps)
    steps[at] = number, (*sizes[:-1], 9), (data, *others)
    with pytest.raises(ExecutionError, match="n is 9, which is not 0 to 8"):
        simulate(stream, chip, args, steps)


def test_listing() -> None:
    chip = CHIPS["systolic8"]
    kernel = kernel_of(product(4, 8, 8), chip)
    assert listing(Stream(kernel, chip), chip).splitlines() == [
        "; product on systolic8",
        "; accumulator: 256 bytes",
        "; array: 64 bytes",
        "; scratchpad: 320 bytes",
        "; array: 4 cycles",
        "; load: 12 cycles",
        "; store: 16 cycles",
        "; weights: 8 cycles",
        "; all: 102 cycles, 3.9% of the array's multiply-adds",
        "load_i8 data+0x0/0/8, scratchpad:0x0000/32/8, #1, #4, #8",
        "clear accumulator:0x0000/128/32, #1, #4, #8",
        "load_weights weights+0x0/8, scratchpad:0x0040/8, #8, #8",
        "preload scratchpad:0x0040/8, array:0x0000/8, #8, #8",
        "compute_i8 scratchpad:0x0000/32/8, array:0x0000/8, accumulator:0x0000/128/32, "
        "#1, #4, #8, #8",
        "store accumulator:0x0000/128/32, c+0x0/0/32, #1, #4, #8",
    ]


def test_a_full_memory_is_reported() -> None:
    chip = CHIPS["systolic8"]
    kernel = kernel_of(product(8, 8, 8), chip)
    with pytest.raises(CompileError) as caught:
        Stream(kernel, with_memory(chip, "scratchpad", 127))
    assert caught.value.codes == ("E402",)
    with pytest.raises(CompileError, match="no tile of mm fits the memories"):
        kernel_of(product(8, 8, 8), with_memory(chip, "accumulator", 31))


def test_unknown_instruction() -> None:
    with pytest.raises(CompileError) as caught:
        CHIPS["systolic8"].intrinsic("mvsideways")
    assert caught.value.codes == ("E402",)
    assert "compute" in str(caught.value)


@pytest.mark.parametrize(("offset", "inside"), [(-1, False), (0, True), (60, True), (61, False)])
def test_operands_lie_within_their_memory(offset: int, inside: bool) -> None:
    memory: dict[str, Any] = {"scratchpad": np.zeros(64, np.uint8)}
    place = Place("scratchpad", True, buffer("a", i8, (4,)), (1,), (4,), False)
    if inside:
        assert view(place, offset, memory, {}).shape == (4,)
    else:
        with pytest.raises(IndexError, match="outside of scratchpad"):
            view(place, offset, memory, {})


# -- time -----------------------------------------------------------------------------------------

LAYERS = [
    (16, 16, 16), (64, 64, 64), (256, 256, 256), (128, 768, 768), (196, 2304, 256), (49, 512, 100),
    (1, 2048, 1000), (3136, 64, 64), (100, 3, 5), (7, 33, 129), (50, 147, 64), (17, 17, 17),
]  # fmt: skip
ARRAYS = [(16, 16), (8, 8), (32, 8), (8, 32), (5, 3)]


def array_of(rows: int, columns: int, chip: Target = CHIPS["gemmini16"]) -> Target:
    """A chip of another size with memories for all operands, of the same instructions."""
    old = chip.chip.array.rows if chip.chip else 0
    sizes = {m.name: m.bytes for m in chip.memories if m.name != "global"}
    changes = [(f"rows = {old}", f"rows = {rows}"), (f"columns = {old}", f"columns = {columns}")]
    for name, size in sizes.items():
        more = 2 * rows * columns if name == "array" else 1 << 30
        changes.append((f"bytes = {size}", f"bytes = {more}"))
    text = chip.source
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return from_toml(text, "other.toml")


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("layer", LAYERS)
def test_cycles_of_resident_operands(layer: tuple[int, int, int], array: tuple[int, int]) -> None:
    """Without overlap as SCALE-Sim 3.0 counts, which does not count the first cycle; with it as an
    array in Verilog that loads the next weights while it uses the current ones."""
    (m, k, n), (rows, columns), chip = layer, array, array_of(*array)
    deep, wide = -(-k // rows), -(-n // columns)
    tiles = Tiles(rows, columns, 1, m, wide, deep, deep, 1, 2, 2, 1)
    schedule = Schedule.of(product(m, k, n)).variant("mm", "systolic", *astuple(tiles))
    found = timing(Stream(dsa_optimize(schedule.func, chip), chip), chip, resident=True)
    assert found.serial == deep * wide * (m + 2 * rows + columns - 2) - 1
    between = (deep * wide - 1) * max(m, rows)
    assert found.cycles == rows + between + m + rows + columns - 2
    assert found.macs == m * k * n
    assert found.busy["array"] == deep * wide * m


@pytest.mark.parametrize("array", [(16, 16), (8, 8), (32, 8), (5, 3)])
@pytest.mark.parametrize("layer", LAYERS)
def test_cycles_of_sums_that_stay(layer: tuple[int, int, int], array: tuple[int, int]) -> None:
    """As SCALE-Sim 3.0 counts an output-stationary array."""
    (m, k, n), (rows, columns) = layer, array
    chip = array_of(rows, columns, CHIPS["outputs8"])
    tall, wide = -(-m // rows), -(-n // columns)
    tiles = Tiles(k, columns, 1, rows, wide, 1, 1, 1, 2, 0, 1)
    schedule = Schedule.of(product(m, k, n)).variant("mm", "systolic", *astuple(tiles))
    found = timing(Stream(dsa_optimize(schedule.func, chip), chip), chip, resident=True)
    assert found.serial == tall * wide * (k + rows + columns - 2) - 1
    assert found.macs == m * k * n


def test_engines_work_beside_the_array() -> None:
    chip = CHIPS["gemmini16"]
    found = timing(Stream(kernel_of(product(128, 768, 768), chip), chip), chip)
    resident = timing(Stream(kernel_of(product(128, 768, 768), chip), chip), chip, resident=True)
    assert resident.cycles <= found.cycles < sum(found.busy.values())
    assert found.loaded >= 128 * 768 + 768 * 768
    assert found.stored == 128 * 768 * 4
    assert utilization(found, chip) > 0.95


# -- descriptions ---------------------------------------------------------------------------------

TEXT = Path(FIXED).read_text(encoding="utf-8")
BROKEN = {
    "instruction.mvin.unit": ('unit = "dma"\ncost = "latency + tile"', 'cost = "latency + tile"'),
    "instruction.preload.cost": ('cost = "2 * rows + columns - 2"', 'cost = "2 * rose"'),
    "instruction.compute.cost": ('cost = "tile"', 'cost = "tile.__class__"'),
    "instruction.clear.cost": ('cost = "0"', "cost = 0"),
    "instruction.mvout.semantics": ("func @mvout(", "func @mvout{"),
    "instruction.clear.semantics": ("acc[vi, vj] = 0:i32", "acc[vi, vj] = 0:i8"),
    "memory 'scratchpad'": ("[memory.scratchpad]", "[memory.scratch]"),
    "instruction.mvin.colour": ('unit = "dma"', 'colour = "red"\nunit = "dma"'),
}


@pytest.mark.parametrize("key", BROKEN)
def test_broken_descriptions_name_the_key(key: str) -> None:
    old, new = BROKEN[key]
    assert old in TEXT
    with pytest.raises(CompileError) as caught:
        from_toml(TEXT.replace(old, new, 1), "t.toml")
    assert caught.value.codes == ("E401",)
    assert key in str(caught.value)


def test_instructions_are_part_of_the_key() -> None:
    other = from_toml(TEXT.replace("acc[vi, vj] = 0:i32", "acc[vi, vj] = 1:i32"))
    assert other.key != from_toml(TEXT).key


def test_cost_formulas() -> None:
    assert formula("max(a, 3) * 2 - b // 4", {"a": 5, "b": 9}) == 8
    for bad in ("a", "1 / 2", "(", "abs(3)", "1 // 0", "True", "2 ** 9", "max()"):
        with pytest.raises(CompileError) as caught:
            formula(bad, {})
        assert caught.value.codes == ("E401",)


# -- tensorize ------------------------------------------------------------------------------------


def tile_of(
    value: Callable[..., Expr] = lambda x, i, j: Load(x, (i, j)),
    dtype: dtypes.DType = i8,
    size: int = 8,
    space: str = "scratchpad",
) -> Schedule:
    """A copy of a tile, its last two loops named i and j."""
    x = buffer("x", dtype, (24, 32), "input")
    y = buffer("y", dtype, (16, size), "output", space)
    b = ComputeBuilder()
    b.map(y, lambda i, j: value(x, i, j), "move")
    s = Schedule.of(b.func("f", (x, y)))
    return s.split("move_i0", size, names=("o", "i")).split("move_i1", size, names=("p", "j"))


def test_tensorize_keeps_the_meaning() -> None:
    s = tile_of(lambda x, i, j: Load(x, (i + 3, j + 16))).reorder("o", "p", "i", "j")
    s = s.tensorize("i", "mvin", FIXED)
    (call,) = (n for n in walk(s.func.body) if isinstance(n, Invoke))
    assert [r.buffer.name for r in call.operands] == ["x", "y"]
    x = np.arange(24 * 32).reshape(24, 32).astype(np.int8)
    y = np.zeros((16, 8), np.int8)
    run_func(s.func, [x, y], intrinsics=SEMANTICS)
    np.testing.assert_array_equal(y, x[3:19, 16:24])
    with pytest.raises(CompileError) as caught:
        s.split("o", 2)
    assert caught.value.codes == ("E302",)
    with pytest.raises(CompileError) as caught:
        Schedule.of(s.func)
    assert caught.value.codes == ("E302",)


DIFFERENT: dict[str, Schedule] = {
    "got add": tile_of(lambda x, i, j: Load(x, (i, j)) + 1),
    "i16": tile_of(dtype=dtypes.i16),
    "iterator move_v0: 4": tile_of(size=4),
    "in register": tile_of(space="register"),
    "x for operand src": tile_of(lambda x, i, j: Load(x, (j, i))),
    "2*": tile_of(lambda x, i, j: Load(x, (i, j * 2))),
    "1*vi + 1*vj": tile_of(lambda x, i, j: Load(x, (i + j, j))),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_tensorize_says_what_differs(what: str) -> None:
    s = DIFFERENT[what].reorder("o", "p", "i", "j")
    with pytest.raises(CompileError) as caught:
        s.tensorize("i", "mvin", FIXED)
    assert caught.value.codes == ("E302",)
    assert what in str(caught.value)


def test_tensorize_refuses_tails_and_other_reductions() -> None:
    s = Schedule.of(product(9, 8, 8)).split("mm_i0", 8, names=("o", "i"))
    for loop in ("i", "mm_r_i0"):
        with pytest.raises(CompileError) as caught:
            s.tensorize(loop, "compute", FIXED)
        assert caught.value.codes == ("E302",)
    with pytest.raises(CompileError) as caught:  # it still initialises
        Schedule.of(product(8, 8, 8)).tensorize("mm_i0", "compute", FIXED)
    assert caught.value.codes == ("E302",)

"""DSAs: instructions declared with their meaning, tensorize, and the systolic matrix product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aisc.codegen.dsa.assembler import Instruction, Operand, assemble
from aisc.codegen.dsa.simulator import _view, simulate
from aisc.ir import dtypes
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.node import walk
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, cast
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.intrinsic import formula
from aisc.ir.tensor.stmt import Invoke
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa_matmul import dsa_matmul
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.dsa_optimize import dsa_optimize

SYSTOLIC = resolve("systolic8")
SEMANTICS = {name: found.semantics for name, found in SYSTOLIC.instructions.items()}
i8, i32 = dtypes.i8, dtypes.i32


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


def arguments(m: int, k: int, n: int, bias: bool) -> tuple[list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(m * k * n)
    a, w = (rng.integers(-128, 128, s).astype(np.int8) for s in ((m, k), (k, n)))
    added = rng.integers(2**31 - 999, 2**31, n).astype(np.int32)
    c = np.full((m, n), -1, np.int32)
    want = a.astype(np.int32) @ w.astype(np.int32)
    return ([a, w, added, c], want + added) if bias else ([a, w, c], want)


SIZES = [(8, 8, 8), (16, 24, 8), (9, 7, 10), (1, 1, 1), (3, 17, 8), (8, 8, 9)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_product_is_exact(size: tuple[int, int, int], bias: bool) -> None:
    schedule = dsa_matmul(product(*size, bias), Chooser(SYSTOLIC))
    for func in (schedule.func, dsa_optimize(schedule.func)):
        verify_func(func, names=frozenset(SYSTOLIC.intrinsics))
        assert parse_func(print_func(func)) == func
        args, want = arguments(*size, bias)
        scratch = [
            np.full(b.type.static_shape, 77, b.dtype.numpy) for b in func.params[len(args) :]
        ]
        run_func(func, [*args, *scratch], intrinsics=SEMANTICS)
        np.testing.assert_array_equal(args[-1], want)  # bit for bit; the bias wraps around


def test_all_work_of_the_product_is_instructions() -> None:
    func = dsa_matmul(product(16, 16, 16), Chooser(SYSTOLIC)).func
    names = {n.intrinsic for n in walk(func.body) if isinstance(n, Invoke)}
    assert names == {"mvin", "preload", "clear", "compute", "mvout"}
    assert "block" not in print_func(func)


def test_accumulators_wrap() -> None:
    a, w = np.full((8, 8), 127, np.int8), np.full((8, 8), 127, np.int8)
    acc = np.full((8, 8), 2**31 - 1, np.int32)
    run_func(SEMANTICS["compute"], [a, w, acc])
    assert (acc == 2**31 - 1 + 8 * 127 * 127 - 2**32).all()


def test_trace_replays_from_json() -> None:
    schedule = dsa_matmul(product(9, 7, 10), Chooser(SYSTOLIC))
    steps = trace_from_json(trace_to_json(schedule.trace))
    assert Schedule.of(product(9, 7, 10)).replay(steps).func == schedule.func


def test_rows_beyond_the_accumulators_are_blocked() -> None:
    small = with_memory("accumulator", 512)
    func = dsa_optimize(dsa_matmul(product(48, 8, 8), Chooser(small)).func)
    assert assemble(func, small).memory["accumulator"] == 512
    args, want = arguments(48, 8, 8, False)
    run_func(func, args, intrinsics=SEMANTICS)
    np.testing.assert_array_equal(args[-1], want)


# -- the instruction stream -----------------------------------------------------------------------


def with_memory(name: str, size: int) -> Target:
    memories = tuple(replace(m, bytes=size) if m.name == name else m for m in SYSTOLIC.memories)
    return replace(SYSTOLIC, memories=memories)


@pytest.mark.parametrize("size", [(8, 8, 8), (16, 24, 8), (64, 64, 64), (40, 16, 72)])
def test_cycles_of_the_plain_weight_stationary_array(size: tuple[int, int, int]) -> None:
    """SCALE-Sim 3.0, weight stationary without overlap of fill and drain: one cycle less, as it
    does not count the first."""
    m, k, n = size
    listing = assemble(dsa_optimize(dsa_matmul(product(*size), Chooser(SYSTOLIC)).func), SYSTOLIC)
    expected = (k // 8) * (n // 8) * (m + 2 * 8 + 8 - 2) - 1
    assert listing.cycles["array"] == expected + 1
    assert listing.counts["compute"] == m * k * n // 512
    assert listing.counts["mvin"] == (k // 8) * (n // 8) * (1 + m // 8)
    assert listing.overlapped <= listing.serial == sum(listing.cycles.values())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_stream_computes_the_product(size: tuple[int, int, int], bias: bool) -> None:
    func = dsa_optimize(dsa_matmul(product(*size, bias), Chooser(SYSTOLIC)).func)
    listing = assemble(func, SYSTOLIC)
    args, want = arguments(*size, bias)
    scratch = [np.full(b.type.static_shape, 77, b.dtype.numpy) for b in func.params[len(args) :]]
    simulate(listing, func, SYSTOLIC, [*args, *scratch])
    np.testing.assert_array_equal(args[-1], want)


def test_a_wrong_address_gives_a_wrong_result() -> None:
    """The stream is what is run: moving one tile elsewhere is seen."""
    func = dsa_optimize(dsa_matmul(product(8, 8, 8), Chooser(SYSTOLIC)).func)
    listing = assemble(func, SYSTOLIC)
    steps = list(listing.steps)
    at = next(k for k, s in enumerate(steps) if isinstance(s, Instruction) and s.name == "compute")
    step = steps[at]
    assert isinstance(step, Instruction)
    data = replace(step.operands[0], offset=step.operands[0].offset + 8)
    steps[at] = replace(step, operands=(data, *step.operands[1:]))
    args, want = arguments(8, 8, 8, False)
    simulate(replace(listing, steps=tuple(steps)), func, SYSTOLIC, args)
    assert (args[-1] != want).any()


def test_listing() -> None:
    listing = assemble(dsa_optimize(dsa_matmul(product(8, 8, 8), Chooser(SYSTOLIC)).func), SYSTOLIC)
    assert listing.text == (
        "; accumulator: 256 bytes\n"
        "; array: 64 bytes\n"
        "; scratchpad: 128 bytes\n"
        "; array: 30 cycles\n"
        "; dma: 96 cycles\n"
        "clear accumulator:0x0000/32\n"
        "mvin weights+0x0/8, scratchpad:0x0000/8\n"
        "preload scratchpad:0x0000/8, array:0x0000/8\n"
        "mvin data+0x0/8, scratchpad:0x0040/8\n"
        "compute scratchpad:0x0040/8, array:0x0000/8, accumulator:0x0000/32\n"
        "mvout accumulator:0x0000/32, c+0x0/32\n"
    )


def test_a_full_memory_is_reported() -> None:
    func = dsa_optimize(dsa_matmul(product(8, 8, 8), Chooser(SYSTOLIC)).func)
    with pytest.raises(CompileError) as caught:
        assemble(func, with_memory("scratchpad", 127))
    assert caught.value.codes == ("E402",)


def test_unknown_instruction() -> None:
    with pytest.raises(CompileError) as caught:
        SYSTOLIC.intrinsic("mvsideways")
    assert caught.value.codes == ("E402",)
    assert "compute" in str(caught.value)


# -- descriptions ---------------------------------------------------------------------------------

TEXT = (Path(__file__).parents[1] / "ir/targets/systolic8.toml").read_text(encoding="utf-8")
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
    s = s.tensorize("i", "mvin", "systolic8")
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
        s.tensorize("i", "mvin", "systolic8")
    assert caught.value.codes == ("E302",)
    assert what in str(caught.value)


def test_tensorize_refuses_tails_and_other_reductions() -> None:
    s = Schedule.of(product(9, 8, 8)).split("mm_i0", 8, names=("o", "i"))
    for loop in ("i", "mm_r_i0"):
        with pytest.raises(CompileError) as caught:
            s.tensorize(loop, "compute", "systolic8")
        assert caught.value.codes == ("E302",)
    with pytest.raises(CompileError) as caught:  # it still initialises
        Schedule.of(product(8, 8, 8)).tensorize("mm_i0", "compute", "systolic8")
    assert caught.value.codes == ("E302",)


def test_the_rule_refuses_what_is_no_product() -> None:
    x, y = buffer("x", i8, (8, 8), "input"), buffer("y", i8, (8, 8), "output")
    b = ComputeBuilder()
    b.map(y, lambda i, j: Load(x, (i, j)))
    with pytest.raises(CompileError) as caught:
        dsa_matmul(b.func("f", (x, y)), Chooser(SYSTOLIC))
    assert caught.value.codes == ("E302",)


@pytest.mark.parametrize(("offset", "inside"), [(-1, False), (0, True), (60, True), (61, False)])
def test_operands_lie_within_their_memory(offset: int, inside: bool) -> None:
    memory, param = {"spad": np.zeros(64, np.uint8)}, buffer("a", dtypes.i8, (4,))
    operand = Operand("spad", True, offset, (1,))
    if inside:
        assert _view(operand, param, memory).shape == (4,)
    else:
        with pytest.raises(ExecutionError, match="outside of its memory"):
            _view(operand, param, memory)

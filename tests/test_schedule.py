"""Schedule primitives: legal steps keep the interpreter's result, illegal ones are refused with a
witness; traces print, round-trip and replay."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from aisc.fuzz.witness import assert_replays
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ONE, Const, Load, Var, maximum
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Block, For, Iter, Region, Seq, Store
from aisc.ir.tensor.tree import loops_of, places
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.legality import ScheduleError
from aisc.passes.schedule.schedule import Schedule, Step, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

M, K, N = 7, 5, 18


def matmul_relu(role: str = "weight") -> Func:
    """``y = max(a @ b + bias, 0)`` on integers, so that results are exact."""
    a = buffer("a", dtypes.i32, (M, K), "input")
    b = buffer("b", dtypes.i32, (K, N), "weight" if role == "weight" else "input")
    bias = buffer("bias", dtypes.i32, (N,), "input")
    y = buffer("y", dtypes.i32, (M, N), "output")
    cb = ComputeBuilder()
    acc = cb.alloc("acc", dtypes.i32, (M, N))
    cb.reduce(acc, (K,), "sum", lambda i, r: Load(a, (i[0], r[0])) * Load(b, (r[0], i[1])), "mm")
    cb.map(y, lambda i, j: maximum(Load(acc, (i, j)) + Load(bias, (j,)), 0), "relu")
    return cb.func("f", (a, b, bias, y))


def data(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(np.int32)


def result(s: Schedule) -> np.ndarray:
    """Run a schedule of matmul_relu, packers first."""
    arrays = {"a": data((M, K), 0), "b": data((K, N), 1), "bias": data((N,), 2)}
    for packer in s.packers:
        out = np.zeros(packer.params[1].type.static_shape, np.int32)
        run_func(packer, [arrays[packer.params[0].name], out])
        arrays[packer.params[1].name] = out
    y = np.zeros((M, N), np.int32)
    run_func(s.func, [arrays.get(b.name, y) for b in s.func.params])
    lowered = optimize(s.func)
    again = np.zeros((M, N), np.int32)
    scratch = [
        arrays.get(b.name, again if b.role == "output" else np.zeros(b.type.static_shape, np.int32))
        for b in lowered.params
    ]
    run_func(lowered, scratch)
    assert np.array_equal(y, again), "step 8 changed the result"
    return y


EXPECTED = np.maximum(data((M, K), 0) @ data((K, N), 1) + data((N,), 2), 0)

LEGAL: dict[str, Callable[[Schedule], Schedule]] = {
    "nothing": lambda s: s,
    "split": lambda s: s.split("mm_i0", 3),
    "split whole": lambda s: s.split("mm_i1", 6),
    "fuse": lambda s: s.fuse("mm_i0", "mm_i1"),
    "reorder": lambda s: s.reorder("mm_r_i0", "mm_i1", "mm_i0"),
    "unroll": lambda s: s.unroll("mm_i0"),
    "vectorize": lambda s: s.vectorize("relu_i1"),
    "parallel": lambda s: s.parallel("mm_i0").parallel("relu_i0"),
    "parallel after fuse": lambda s: s.fuse("relu_i0", "relu_i1", name="t").parallel("t"),
    "annotate": lambda s: s.annotate("mm_i0", "hint", 3),
    "decompose": lambda s: s.decompose_reduction("mm", "mm_i1"),
    "cache_write": lambda s: s.cache_write("mm", "global"),
    "cache_read": lambda s: s.cache_read("mm", "a", "global"),
    "compute_at": lambda s: s.cache_read("mm", "a", "global", "ac").compute_at("ac_fill", "mm_i0"),
    "reverse_compute_at": lambda s: s.reverse_compute_at("relu", "mm_i0"),
    "pack weight": lambda s: s.pack("b", 1, 4, (1, 0, 2)),
    "pack input": lambda s: s.pack("a", 0, 3, (0, 2, 1)),
    "chunks": lambda s: s.split_chunks("mm", "mm_r_i0", 2).vectorize("mm_r_i0_c"),
    "chunks apart": lambda s: (
        s.split_chunks("mm", "mm_r_i0", 4)
        .decompose_reduction("mm", "mm_r_i0_o")
        .parallel("mm_combine_i0")
    ),
    "clamp": lambda s: s.clamp_tail("mm", "mm_i0", 4).split("mm_i0", 4),
    "clamp zero": lambda s: s.clamp_tail("mm", "mm_i1", 16, zero=True).split("mm_i1", 16),
    "remove what nothing reads": lambda s: (
        s.clamp_tail("mm", "mm_i1", 16, zero=True)
        .decompose_reduction("mm", "mm_r_i0")
        .partition("mm_i1", 18)
        .remove_unread("mm_1")
        .remove_unread("mm_init_1")
    ),
    "register tile": lambda s: (
        s.pack("b", 1, 8, (1, 0, 2))
        .clamp_tail("mm", "mm_i1", 8, zero=True)
        .clamp_tail("mm", "mm_i0", 4)
        .split("mm_i1", 8, names=("jt", "jl"))
        .split("mm_i0", 4, names=("it", "ir"))
        .reorder("jt", "it", "mm_r_i0", "ir", "jl")
        .reverse_compute_at("relu", "it")
        .set_scope("acc", "register")
        .unroll("ir")
        .vectorize("jl")
        .decompose_reduction("mm", "mm_r_i0")
        .parallel("jt")
    ),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_steps_keep_the_result(name: str) -> None:
    s = LEGAL[name](Schedule.of(matmul_relu()))
    assert np.array_equal(result(s), EXPECTED)


@pytest.mark.parametrize("name", LEGAL)
def test_scheduled_functions_parse_back(name: str) -> None:
    s = LEGAL[name](Schedule.of(matmul_relu()))
    for func in (s.func, optimize(s.func)):
        assert parse_func(print_ir(func)) == func


@pytest.mark.parametrize("name", LEGAL)
def test_traces_replay_and_round_trip(name: str) -> None:
    start = Schedule.of(matmul_relu())
    s = LEGAL[name](start)
    again = trace_from_json(trace_to_json(s.trace))
    assert again == s.trace
    replayed = start.replay(again)
    assert replayed.func == s.func
    assert replayed.packers == s.packers
    scope: dict[str, object] = {"Schedule": Schedule, "func": matmul_relu()}
    lines = s.to_python().splitlines()
    assert len(lines) == len(s.trace) + 1
    for line in lines:  # our own trace text, no user content
        exec(line, scope)
    assert scope["s"] == s


ILLEGAL: dict[str, tuple[Callable[[Schedule], Schedule], str]] = {
    "no loop": (lambda s: s.split("nix", 3), "E302"),
    "no block": (lambda s: s.inline("nix"), "E302"),
    "no primitive": (lambda s: s.nix("mm_i0"), "E302"),
    "bad factor": (lambda s: s.split("mm_i0", 0), "E302"),
    "parallel reduction": (lambda s: s.parallel("mm_r_i0"), "E303"),
    "vector reduction": (lambda s: s.vectorize("mm_r_i0"), "E303"),
    "fuse apart": (lambda s: s.fuse("mm_i0", "mm_r_i0"), "E302"),
    "reorder apart": (lambda s: s.reorder("mm_i0", "relu_i0"), "E302"),
    "inline reduction": (lambda s: s.inline("mm"), "E302"),
    "inline output": (lambda s: s.inline("relu"), "E302"),
    "early consumer": (
        lambda s: s.reorder("mm_r_i0", "mm_i0", "mm_i1").reverse_compute_at("relu", "mm_i0"),
        "E303",
    ),
    "reset of a partial sum": (
        lambda s: s.reorder("mm_r_i0", "mm_i0", "mm_i1").decompose_reduction("mm", "mm_i0"),
        "E303",
    ),
    "decompose twice": (
        lambda s: s.decompose_reduction("mm", "mm_r_i0").decompose_reduction("mm", "mm_r_i0"),
        "E302",
    ),
    "chunks of a spatial loop": (lambda s: s.split_chunks("mm", "mm_i0", 2), "E302"),
    "chunks of a map": (lambda s: s.split_chunks("relu", "relu_i0", 2), "E302"),
    "clamp a visible result": (lambda s: s.clamp_tail("relu", "relu_i0", 4), "E303"),
    "remove what is read": (lambda s: s.remove_unread("mm"), "E303"),
    "remove a result": (lambda s: s.remove_unread("relu"), "E302"),
    "read what it writes": (lambda s: s.cache_read("mm", "acc", "global"), "E303"),
    "move an input": (lambda s: s.set_scope("a", "register"), "E302"),
    "pack with a bad order": (lambda s: s.pack("b", 1, 4, (0, 0, 1)), "E302"),
    "unroll too much": (
        lambda s: s.fuse("mm_i0", "mm_i1", name="t").unroll("t"),
        "E302",
    ),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_steps_are_refused(name: str) -> None:
    step, code = ILLEGAL[name]
    with pytest.raises(CompileError) as caught:
        step(Schedule.of(matmul_relu()))
    assert caught.value.codes == (code,)


def test_a_witness_replays_to_two_conflicting_accesses() -> None:
    s = Schedule.of(matmul_relu())
    with pytest.raises(ScheduleError) as caught:
        s.parallel("mm_r_i0")
    w = caught.value.witness
    assert w is not None
    assert dict(w.first_loops)["mm_r_i0"] != dict(w.second_loops)["mm_r_i0"]
    assert_replays(s.func, w)


def recurrence() -> Func:
    """``y[t] = y[t-1] + x[t]``: an ordered iterator."""
    x = buffer("x", dtypes.i32, (8,), "input")
    y = buffer("y", dtypes.i32, (9,), "output")
    t, v = Var("t"), Var("v")
    body = Store(y, (v + 1,), Load(y, (v,)) + Load(x, (v,)))
    reads = (Region(y, (v,), (ONE,)), Region(x, (v,), (ONE,)))
    writes = (Region(y, (v + 1,), (ONE,)),)
    block = Block("scan", (Iter(v, Const(8), "ordered"),), (t,), reads, writes, None, body)
    zero = Store(y, (Const(0),), Const(0, dtypes.i32))
    start = Block("zero", (), (), (), (Region(y, (Const(0),), (ONE,)),), None, zero)
    return Func("scan", (x, y), (), Seq((start, For(t, Const(0), Const(8), "serial", block))))


@pytest.mark.parametrize("step", ["parallel", "vectorize"])
def test_recurrences_stay_in_order(step: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.of(recurrence()).apply(step, "t")
    assert caught.value.codes == ("E303",)
    assert caught.value.witness is not None
    assert caught.value.witness.buffer == "y"


def test_reorder_refuses_ordered_iterators() -> None:
    s = Schedule.of(recurrence()).split("t", 4, names=("to", "ti"))
    with pytest.raises(CompileError) as caught:
        s.reorder("ti", "to")
    assert caught.value.codes == ("E303",)


def test_undecidable_steps_are_refused_as_unproved() -> None:
    n = Var("n")
    x = buffer("x", dtypes.i32, (64,), "output")
    i, v = Var("i"), Var("v")
    at = (v * n) % 64
    block = Block(
        "b", (Iter(v, Const(8), "spatial"),), (i,), (), (Region(x, (at,), (ONE,)),), None,
        Store(x, (at,), Const(1, dtypes.i32)),
    )  # fmt: skip
    func = Func("f", (x,), (n,), For(i, Const(0), Const(8), "serial", block))
    with pytest.raises(CompileError) as caught:
        Schedule.of(func).parallel("i")
    assert caught.value.codes == ("E304",)


@pytest.mark.parametrize("seed", range(40))
def test_random_sequences_keep_the_result(seed: int) -> None:
    """Random primitives on random loops: whatever is accepted keeps the integer result."""
    rng = random.Random(seed)
    s = Schedule.of(matmul_relu())
    accepted, refused = 0, set[str]()
    for _ in range(14):
        loops = [f.var.name for f in loops_of(s.func.body)]
        a, b = rng.choice(loops), rng.choice(loops)
        block = rng.choice([p.block.name for p in places(s.func.body)])
        steps: list[tuple[str, tuple[object, ...]]] = [
            ("split", (a, rng.randint(1, 5))), ("fuse", (a, b)), ("reorder", (a, b)),
            ("unroll", (a,)), ("vectorize", (a,)), ("parallel", (a,)),
            ("reverse_compute_at", (block, a)), ("compute_at", (block, a)),
            ("decompose_reduction", (block, a)), ("cache_write", (block, "global")),
            ("clamp_tail", (block, a, rng.randint(2, 5))), ("inline", (block,)),
            ("split_chunks", (block, a, rng.randint(2, 4))),
            ("cache_read", (block, rng.choice(["a", "b", "bias"]), "global")),
        ]  # fmt: skip
        name, args = rng.choice(steps)
        try:
            s = s.apply(name, *args)
            accepted += 1
        except CompileError as refusal:
            refused.update(refusal.codes)
    assert accepted > 0
    assert refused <= {"E302", "E303", "E304"}
    out = np.zeros((M, N), np.int32)
    arrays = {"a": data((M, K), 0), "b": data((K, N), 1), "bias": data((N,), 2), "y": out}
    run_func(s.func, [arrays[b.name] for b in s.func.params])
    assert np.array_equal(out, EXPECTED), s.to_python()


def test_steps_print_as_python() -> None:
    assert str(Step("split", ("i", 4), (("names", ("a", "b")),))) == (
        "split('i', 4, names=('a', 'b'))"
    )


def test_buffers_are_values() -> None:
    a: Buffer = buffer("a", dtypes.f32, (2, 3))
    assert a.strides == (3, 1)
    assert a.with_(space="register").space == "register"

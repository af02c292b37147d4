"""What schedules refuse: the code, and a witness that the interpreter replays."""

from __future__ import annotations

import pytest
from schedule_texts import (
    CHAIN,
    DOUBLE,
    DOUBLE_N,
    FILL,
    GRID,
    GROUPED,
    MIRROR,
    PASSED,
    STENCIL,
    STEPS,
    SUM,
    SUM_N,
    TWO,
    UPDATE,
    Steps,
)

from aisc.fuzz.witness import assert_replays
from aisc.ir.diagnostics import CompileError
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.legality import ScheduleError
from aisc.passes.schedule.schedule import Schedule

REFUSED: dict[str, tuple[str, Steps, str]] = {
    "tile without factors": (GRID, lambda s: s.tile(("i", "j"), (2,)), "E302"),
    "tile of nothing": (GRID, lambda s: s.tile((), ()), "E302"),
    "tile with a taken name": (GRID, lambda s: s.tile(("i",), (2,), (("j", "b"),)), "E302"),
    "predicate of zero": (DOUBLE, lambda s: s.predicate("i", 0), "E302"),
    "predicate beyond the lanes": (
        DOUBLE,
        lambda s: s.vectorize("i").predicate("i", 100),
        "E302",
    ),
    "partition at no point": (DOUBLE, lambda s: s.partition("i"), "E302"),
    "partition of nothing": (DOUBLE, lambda s: s.partition("i", 0), "E302"),
    "partition at an unknown size": (DOUBLE, lambda s: s.partition("i", "n"), "E302"),
    "partition at no expression": (DOUBLE_N, lambda s: s.partition("i", "n % 2"), "E302"),
    "partition at no text": (DOUBLE_N, lambda s: s.partition("i", "n //"), "E302"),
    "partition of threads": (DOUBLE, lambda s: s.bind("i", "block.x").partition("i", 2), "E302"),
    "a start in several pieces": (SUM_N, lambda s: s.partition("k", "n // 2"), "E302"),
    "fission after the last": (TWO, lambda s: s.fission("i", "b"), "E302"),
    "fission of one block": (DOUBLE, lambda s: s.fission("i", "m"), "E302"),
    "fission of a passed value": (PASSED, lambda s: s.fission("i", "a"), "E303"),
    "fission of a chain": (CHAIN, lambda s: s.fission("k", "fill"), "E303"),
    "fuse_loops out of order": (MIRROR, lambda s: s.fuse_loops("j", "i"), "E302"),
    "fuse_loops too early": (MIRROR, lambda s: s.fuse_loops("i", "j"), "E303"),
    "fuse_loops of other sizes": (
        MIRROR,
        lambda s: s.split("i", 2).fuse_loops("i_o", "j"),
        "E302",
    ),
    "rfactor of a map": (DOUBLE, lambda s: s.rfactor("m", "i"), "E302"),
    "rfactor of a spatial loop": (SUM, lambda s: s.rfactor("s", "i"), "E302"),
    "rfactor of mixed loops": (SUM, lambda s: s.fuse("i", "k", "f").rfactor("s", "f"), "E302"),
    "pipeline of a user": (FILL, lambda s: s.pipeline("k", "use"), "E302"),
    "pipeline of inner loops": (FILL, lambda s: s.pipeline("a", "fill"), "E302"),
    "pipeline of a chain": (CHAIN, lambda s: s.pipeline("k", "fill"), "E303"),
    "pipeline of lanes": (FILL, lambda s: s.unroll("k").pipeline("k", "fill"), "E302"),
    "threads in a chain": (CHAIN, lambda s: s.parallel("k"), "E303"),
    "a copy of half a result": (
        DOUBLE,
        lambda s: s.partition("i", 3).cache_write("m", "stack"),
        "E303",
    ),
    "an empty reduction fused": (SUM_N, lambda s: s.fuse("i", "k"), "E303"),
    "a private copy of what is passed": (
        PASSED,
        lambda s: s.partition("i", 3).set_scope("t", "stack").fission("i_1", "a_1"),
        "E303",
    ),
    "threads beside a block": (FILL, lambda s: s.parallel("a"), "E302"),
    "threads with shared registers": (
        MIRROR,
        lambda s: s.set_scope("t", "register").parallel("i"),
        "E302",
    ),
    "fuse of threads with a sum": (SUM, lambda s: s.parallel("i").fuse("i", "k"), "E302"),
    "an update moved where it repeats": (
        UPDATE,
        lambda s: s.cache_read("u", "x", "global", "t").reverse_compute_at("u", "t_fill_i0"),
        "E302",
    ),
    "an update moved beyond its steps": (
        STEPS,
        lambda s: s.reverse_compute_at("add", "c"),
        "E302",
    ),
    "an update cut off": (
        STEPS,
        lambda s: s.split("i", 4).reverse_compute_at("add", "i_o"),
        "E302",
    ),
    "a sum moved beside two of its steps": (
        GROUPED,
        lambda s: (
            s.variant("b", "grouped_sums")
            .split("g", 2)
            .reorder("g_o", "m", "n", "g_i", "k")
            .reverse_compute_at("b_groups", "g_o")
        ),
        "E302",
    ),
    "a sum moved into threads": (
        GROUPED,
        lambda s: (
            s.variant("b", "grouped_sums")
            .reorder("g", "m", "n", "k")
            .parallel("g")
            .reverse_compute_at("b_groups", "g")
        ),
        "E302",
    ),
    "groups of a sum without scales": (SUM, lambda s: s.variant("s", "grouped_sums"), "E302"),
    "an update inlined": (UPDATE, lambda s: s.inline("u"), "E302"),
    "threads that fill one window": (
        STENCIL,
        lambda s: s.parallel("j").compute_at("a", "j"),
        "E303",
    ),
    "a stencil moved too early": (STENCIL, lambda s: s.reverse_compute_at("b", "i"), "E303"),
    "a written buffer packed": (STENCIL, lambda s: s.pack("t", 0, 2, (1, 0)), "E303"),
    "chunks of a private sum": (
        SUM,
        lambda s: (
            s.cache_write("s", "register", "t")
            .reverse_compute_at("s_copy", "i")
            .set_scope("t", "register")
            .split_chunks("s", "k", 2)
        ),
        "E302",
    ),
    "a taken name": (GRID, lambda s: s.split("i", 2, names=("j", "k")), "E302"),
    "one name for two loops": (GRID, lambda s: s.split("i", 2, names=("a", "a")), "E302"),
    "reset by a later piece": (
        SUM,
        lambda s: s.split("k", 4).partition("k_o", 1).decompose_reduction("s_1", "k_o_1"),
        "E302",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_have_a_code_and_a_witness_that_replays(name: str) -> None:
    text, steps, code = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        steps(Schedule.of(parse_func(text)))
    assert caught.value.codes == (code,)
    if isinstance(caught.value, ScheduleError) and caught.value.witness is not None:
        assert_replays(caught.value.func, caught.value.witness)
        assert str(caught.value.witness) in str(caught.value)


def test_an_update_is_not_inlined() -> None:
    text = UPDATE.replace("y: i32[4] output", "z: i32[4] output").replace(
        "target cpu {", "target cpu { alloc y: i32[4]", 1
    )
    with pytest.raises(CompileError, match="it updates y in place"):
        Schedule.of(parse_func(text)).inline("u")


def test_what_lanes_cannot_hold_is_named() -> None:
    text = "func @f(a: f32[8] input, o: f32[8] output) target cpu { serial i in 0 .. 8 { BODY } }"
    storage = "alloc t: f32[1] block b(v spatial 8 = i) reads(a[v]) writes(o[v]) { o[v] = a[v] }"
    with pytest.raises(CompileError, match="loop i would hold storage t"):
        Schedule.of(parse_func(text.replace("BODY", storage))).vectorize("i")
    with pytest.raises(CompileError, match="loop i would hold lanes j"):
        Schedule.of(parse_func(GRID)).vectorize("j").vectorize("i")


WITNESSED = [
    "fission of a passed value", "fission of a chain", "fuse_loops too early",
    "pipeline of a chain", "threads in a chain", "threads that fill one window",
    "a stencil moved too early", "a private copy of what is passed",
]  # fmt: skip


@pytest.mark.parametrize("name", WITNESSED)
def test_conflicts_have_a_witness(name: str) -> None:
    text, steps, _ = REFUSED[name]
    with pytest.raises(ScheduleError) as caught:
        steps(Schedule.of(parse_func(text)))
    assert caught.value.witness is not None


def test_a_witness_of_a_symbolic_loop_names_its_size() -> None:
    text = PASSED.replace("8", "n").replace("output)", "output; n)")
    with pytest.raises(ScheduleError) as caught:
        Schedule.of(parse_func(text)).fission("i", "a")
    witness = caught.value.witness
    assert witness is not None
    assert dict(witness.dims)["n"] > dict(witness.first_loops)["i"]
    assert_replays(caught.value.func, witness)

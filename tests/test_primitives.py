"""Primitives on whole loops and nests: tile, predicate, partition, fission, fuse_loops, rfactor,
pipeline, split_iter, split_axis. Text before and after, and the meaning under the interpreter."""

from __future__ import annotations

import random

import pytest
from schedule_texts import (
    DOUBLE,
    DOUBLE_N,
    FILL,
    GRID,
    GROUPED,
    LARGEST,
    STEPS,
    SUM,
    SUM_N,
    TWO,
    Steps,
    checked,
)

from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.tree import loops_of
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.schedule import Schedule

GOLDEN: dict[str, tuple[str, Steps, str]] = {
    "tile": (
        GRID,
        lambda s: s.tile(("i", "j"), (2, 4)),
        """
  serial i_o in 0 .. 3 {
    serial j_o in 0 .. 3 {
      serial i_i in 0 .. 2 {
        serial j_i in 0 .. 4 {
          if j_o * 4 + j_i < 10 {
            block m(v spatial 6 = i_o * 2 + i_i, w spatial 10 = j_o * 4 + j_i)
        """,
    ),
    "tile with names": (
        GRID,
        lambda s: s.tile(("i", "j"), (3, 5), (("a", "b"), ("c", "d"))),
        """
  serial a in 0 .. 2 {
    serial c in 0 .. 2 {
      serial b in 0 .. 3 {
        serial d in 0 .. 5 {
          block m(v spatial 6 = a * 3 + b, w spatial 10 = c * 5 + d)
        """,
    ),
    "predicate": (
        DOUBLE,
        lambda s: s.predicate("i", 4),
        """
  serial i in 0 .. 12 {
    if i < 10 {
      block m(v spatial 10 = i)
        """,
    ),
    "predicate of a size": (
        DOUBLE_N,
        lambda s: s.predicate("i", 4).split("i", 4).vectorize("i_i"),
        """
  serial i_o in 0 .. (n + 3) // 4 {
    vectorize i_i in 0 .. 4 {
      if i_o * 4 + i_i < n {
        block m(v spatial n = i_o * 4 + i_i)
        """,
    ),
    "an update moved beside a shared loop": (
        STEPS,
        lambda s: s.split("i", 3).reverse_compute_at("add", "i_o").set_scope("t", "register"),
        """
  serial c in 0 .. 6 {
    block clear(v spatial 6 = c) writes(y[v]) {
  serial k in 0 .. 4 {
    serial i_o in 0 .. 2 {
      alloc t: i32[6] space register
      serial i_i in 0 .. 3 {
        block part(p spatial 4 = k, w spatial 6 = i_o * 3 + i_i)
      serial add_u in 0 .. 3 {
        block add(q ordered 4 = k, u spatial 6 = i_o * 3 + add_u)
        """,
    ),
    "peel both ends": (
        DOUBLE,
        lambda s: s.partition("i", 1, -1),
        """
  serial i in 0 .. 1 {
    block m(v spatial 10 = i)
  serial i_1 in 0 .. 8 {
    block m_1(v_1 spatial 10 = 1 + i_1)
  serial i_2 in 0 .. 1 {
    block m_2(v_2 spatial 10 = 9 + i_2)
        """,
    ),
    "partition of a size": (
        DOUBLE_N,
        lambda s: s.partition("i", "n // 2"),
        """
  serial i in 0 .. n // 2 {
    block m(v spatial n = i)
  serial i_1 in 0 .. n - n // 2 {
    block m_1(v_1 spatial n = n // 2 + i_1)
        """,
    ),
    "partition decides guards": (
        DOUBLE_N,
        lambda s: s.split("i", 4).partition("i_o", "n // 4", names=("whole", "rest")),
        """
  serial whole in 0 .. n // 4 {
    serial i_i in 0 .. 4 {
      block m(v spatial n = whole * 4 + i_i)
  serial rest in 0 .. (n + 3) // 4 - n // 4 {
    serial i_i_1 in 0 .. 4 {
      if (n // 4 + rest) * 4 + i_i_1 < n {
        block m_1(v_1 spatial n = (n // 4 + rest) * 4 + i_i_1)
        """,
    ),
    "partition of a reduction": (
        SUM,
        lambda s: s.partition("k", 3),
        """
  serial i in 0 .. 3 {
    serial k in 0 .. 3 {
      block s(v spatial 3 = i, r reduce 8 = k) combiner sum init
        y[v] = 0:i32
    serial k_1 in 0 .. 5 {
      block s_1(v_1 spatial 3 = i, r_1 reduce 8 = 3 + k_1) combiner sum
        """,
    ),
    "fission": (
        TWO,
        lambda s: s.fission("i", "a"),
        """
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i)
  serial i_1 in 0 .. 8 {
    block b(w spatial 8 = i_1)
        """,
    ),
    "fission of a private buffer": (
        FILL,
        lambda s: s.fission("k", "fill", "l"),
        """
  alloc t: i32[24] space register
  serial k in 0 .. 6 {
    serial a in 0 .. 4 {
      block fill(v spatial 24 = k * 4 + a)
  serial l in 0 .. 6 {
    serial b in 0 .. 4 {
      block use(w spatial 24 = l * 4 + b)
        """,
    ),
    "fuse_loops": (
        TWO,
        lambda s: s.fission("i", "a").fuse_loops("i", "i_1"),
        """
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i)
    block b(w spatial 8 = i)
        """,
    ),
    "rfactor": (
        SUM,
        lambda s: s.split("k", 3).rfactor("s", "k_i"),
        """
  alloc y_part: i32[3, 3]
  serial i in 0 .. 3 {
    serial k_o in 0 .. 3 {
      serial k_i in 0 .. 3 {
        block s(v spatial 3 = i, k_i_v spatial 3 = k_i, k_o_v reduce 3 = k_o) combiner sum init
          y_part[v, k_i_v] = 0:i32
          if k_o_v * 3 + k_i_v < 8 {
    serial s_combine_1 in 0 .. 3 {
      block s_combine(s_combine_v spatial 3 = i, s_combine_v_1 reduce 3 = s_combine_1) combiner sum init
        y[s_combine_v] = 0:i32
        """,  # noqa: E501
    ),
    "pipeline": (
        FILL,
        lambda s: s.pipeline("k", "fill"),
        """
  alloc t: i32[2, 4] space register
  serial a_1 in 0 .. 4 {
    block fill_1(v_1 spatial 24 = 0 * 4 + a_1, fill_1_half spatial 2 = 0 % 2, fill_1_base spatial 24 = 0 * 4)
  serial k in 0 .. 6 {
    serial a in 0 .. 4 {
      if k + 1 < 6 {
        block fill(v spatial 24 = (k + 1) * 4 + a, fill_half spatial 2 = (k + 1) % 2, fill_base spatial 24 = (k + 1) * 4)
    serial b in 0 .. 4 {
      block use(w spatial 24 = k * 4 + b, use_half spatial 2 = k % 2, use_base spatial 24 = k * 4)
        """,  # noqa: E501
    ),
    "split_iter": (
        GRID,
        lambda s: s.split("j", 5).split_iter("m", 1, 5),
        """
  serial i in 0 .. 6 {
    serial j_o in 0 .. 2 {
      serial j_i in 0 .. 5 {
        block m(v spatial 6 = i, w_o spatial 2 = j_o, w_i spatial 5 = j_i)
        """,
    ),
    "fuse_iters": (
        GRID,
        lambda s: s.fuse("i", "j").fuse_iters("m", 0),
        """
  serial i_j in 0 .. 60 {
    block m(v_w spatial 60 = i_j)
        """,
    ),
}


def outline(func: Func) -> str:
    """Loops, storage, guards, heads of blocks and initialisations of a printed function."""
    kept = []
    for line in print_ir(func).splitlines()[1:]:
        word = line.strip().partition(" ")[0]
        if word == "block":
            head, _, rest = line.partition(" reads(")
            combiner = rest.partition(" combiner ")[2].removesuffix(" {")
            kept.append(f"{head} combiner {combiner}" if combiner else head)
        elif word in ("serial", "vectorize", "alloc", "if") or "] = 0:" in line:
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.parametrize("name", GOLDEN)
def test_primitives_rewrite_as_they_say(name: str) -> None:
    text, steps, expected = GOLDEN[name]
    assert outline(checked(text, steps)) == expected.strip("\n").rstrip()


MEANING: dict[str, tuple[str, Steps]] = {
    "tile of a reduction": (SUM, lambda s: s.tile(("i", "k"), (2, 3))),
    "three pieces": (DOUBLE_N, lambda s: s.partition("i", 2, "n // 2")),
    "pieces of pieces": (DOUBLE, lambda s: s.partition("i", 4).partition("i_1", -2)),
    "beyond the end": (DOUBLE_N, lambda s: s.partition("i", 3, 100)),
    "reduction of a size": (SUM_N, lambda s: s.partition("k", 2)),
    "decomposed reduction": (
        SUM_N,
        lambda s: s.decompose_reduction("s", "k").partition("k", "n // 2"),
    ),
    "lanes of a piece": (DOUBLE, lambda s: s.partition("i", 2).vectorize("i_1")),
    "threads of both pieces": (DOUBLE, lambda s: s.parallel("i").partition("i", 3)),
    "fused in parallel": (
        TWO,
        lambda s: s.fission("i", "a").parallel("i").parallel("i_1").fuse_loops("i", "i_1"),
    ),
    "rfactor of a whole loop": (SUM, lambda s: s.rfactor("s", "k")),
    "rfactor of a size": (SUM_N, lambda s: s.split("k", 4).rfactor("s", "k_o")),
    "rfactor as lanes": (
        SUM_N,
        lambda s: (
            s.split("k", 4)
            .rfactor("s", "k_i")
            .decompose_reduction("s", "k_o")
            .vectorize("k_i")
            .vectorize("k_i_init")
        ),
    ),
    "rfactor of two results": (LARGEST, lambda s: s.split("k", 4).rfactor("s", "k_o")),
    "rfactor after decompose": (
        SUM,
        lambda s: s.split("k", 2).decompose_reduction("s", "k_o").rfactor("s", "k_i"),
    ),
    "rfactor in parallel": (
        SUM,
        lambda s: s.split("k", 2).reorder("k_o", "i", "k_i").rfactor("s", "k_o").parallel("k_o"),
    ),
    "rfactor of a piece": (SUM, lambda s: s.partition("k", 3).rfactor("s_1", "k_1")),
    "iterator of a whole loop": (GRID, lambda s: s.split_iter("m", 0, 2)),
    "axis of a buffer": (FILL, lambda s: s.split_axis("t", 0, 4).split_iter("use", 0, 4)),
    "iterators as one": (GRID, lambda s: s.fuse_iters("m", 0)),
    "iterators apart and as one": (GRID, lambda s: s.split_iter("m", 1, 5).fuse_iters("m", 0)),
    "axes as one": (FILL, lambda s: s.split_axis("t", 0, 4).fuse_axes("t", 0)),
    "iterators of a reduction": (SUM, lambda s: s.split_iter("s", 1, 4).split_iter("s", 2, 2)),
    "sums of groups": (GROUPED, lambda s: s.variant("b", "grouped_sums")),
    "sums of groups, each scaled where it is": (
        GROUPED,
        lambda s: (
            s.variant("b", "grouped_sums")
            .reorder("g", "m", "n", "k")
            .reverse_compute_at("b_groups", "g")
            .set_scope("y_part", "register")
            .decompose_reduction("b_groups", "g")
        ),
    ),
    "partial sums added up where they are": (
        SUM,
        lambda s: s.split("k", 2).rfactor("s", "k_o").reverse_compute_at("s_combine", "k_o"),
    ),
    "pipeline in global memory": (
        FILL,
        lambda s: s.set_scope("t", "global").pipeline("k", "fill"),
    ),
    "pipeline after split": (
        FILL,
        lambda s: s.split("a", 3).split("b", 2).pipeline("k", "fill").unroll("k"),
    ),
    "pipeline of a size": (
        DOUBLE_N,
        lambda s: (
            s.split("i", 4)
            .cache_read("m", "x", "stack", "t")
            .compute_at("t_fill", "i_o")
            .set_scope("t", "stack")
            .pipeline("i_o", "t_fill")
        ),
    ),
    "two pipelines": (
        SUM,
        lambda s: (
            s.split("k", 2)
            .cache_read("s", "x", "register", "t")
            .cache_read("s", "t", "register", "u")
            .compute_at("u_fill", "k_o")
            .compute_at("t_fill", "k_o")
            .pipeline("k_o", "t_fill")
        ),
    ),
}


@pytest.mark.parametrize("name", MEANING)
def test_primitives_keep_the_result(name: str) -> None:
    checked(*MEANING[name])


def test_pieces_cover_the_loop_at_every_size() -> None:
    rng = random.Random(0)
    for _ in range(20):
        points = [rng.choice([rng.randint(-4, 6), "n - 2", "n // 3", "2 * n"]) for _ in range(2)]
        try:
            checked(DOUBLE_N, lambda s, points=points: s.partition("i", *points))  # type: ignore[misc]
        except CompileError as refusal:
            assert "cut nothing off" in str(refusal), points  # noqa: PT017


def test_tile_is_one_step() -> None:
    s = Schedule.of(parse_func(GRID)).tile(("i", "j"), (2, 4))
    assert [str(step) for step in s.trace] == ["tile(('i', 'j'), (2, 4))"]
    assert len(list(loops_of(s.func.body))) == 4


@pytest.mark.parametrize(("text", "args"), [(GRID, ("m", 1)), (GRID, ("m", -1)), (SUM, ("s", 0))])
def test_fuse_iters_is_refused(text: str, args: tuple[str, int]) -> None:
    with pytest.raises(CompileError) as refusal:
        Schedule.of(parse_func(text)).fuse_iters(*args)
    assert refusal.value.codes == ("E302",)


@pytest.mark.parametrize("args", [("m", 1, 3), ("m", 2, 2), ("m", 0, 0), ("none", 0, 2)])
def test_split_iter_is_refused(args: tuple[str, int, int]) -> None:
    with pytest.raises(CompileError) as refusal:
        Schedule.of(parse_func(GRID)).split_iter(*args)
    assert refusal.value.codes == ("E302",)

"""Places in memory: the planner's algorithm and its compiled twin, on random lifetimes."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from random import Random

import pytest
from stretches import Stretches

import aisc
from aisc.codegen.llvm.link import Linked
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.tensor.first_fit import ALIGNMENT, aligned, first_fit
from aisc.ir.tensor.func import Program
from aisc.ir.text.parser import parse
from aisc.ir.types import TensorType
from aisc.passes.plan.arena import plan_memory
from aisc.passes.plan.barriers import with_barriers

Item = tuple[int, int, int]


def lifetimes(seed: int) -> list[Item]:
    """Sizes of all magnitudes, zero and equal ones among them, and spans of all lengths."""
    rng = Random(seed)
    items: list[Item] = []
    for _ in range(rng.randint(0, 40)):
        size = rng.choice([0, 1, 64, 65, 4096, rng.randint(1, 1 << rng.randint(1, 24))])
        first = rng.randint(0, 60)
        items.append((size, first, first + rng.choice([0, 1, 3, rng.randint(0, 60)])))
    return items


@pytest.fixture(scope="module")
def linked() -> Linked:
    b = GraphBuilder()
    x = b.input("x", TensorType((4,), dtypes.f32))
    exe = aisc.compile(b.finish([b.add("neg", (x,))]), threads=1)
    return Linked([exe.image.runtime], ["aisc_place"])


def compiled_places(linked: Linked, items: list[Item]) -> tuple[list[int], int]:
    """Offsets and total by the run time's own function."""
    place = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64)(
        linked.addresses["aisc_place"]
    )
    words = ctypes.c_int64 * max(1, len(items))
    sizes, offsets = words(*(aligned(n) for n, _, _ in items)), words()
    spans = (ctypes.c_int64 * max(1, 2 * len(items)))(*(x for item in items for x in item[1:]))
    total = place(sizes, offsets, spans, len(items))
    return list(offsets)[: len(items)], total


def test_compiled_places_are_those_of_the_planner(linked: Linked) -> None:
    for seed in range(500):
        items = lifetimes(seed)
        assert compiled_places(linked, items) == first_fit(items), seed


def largest_live_set(items: list[Item]) -> int:
    times = {first for _, first, _ in items}
    return max((sum(aligned(n) for n, a, b in items if a <= t <= b) for t in times), default=0)


def test_what_lives_at_once_does_not_overlap() -> None:
    ratios: list[float] = []
    for seed in range(500):
        items = lifetimes(seed)
        offsets, total = first_fit(items)
        for k, (size, first, last) in enumerate(items):
            assert offsets[k] % ALIGNMENT == 0
            assert offsets[k] + aligned(size) <= total
            for j in range(k):
                other, begin, end = items[j]
                meet = first <= end and begin <= last
                apart = offsets[k] + aligned(size) <= offsets[j]
                assert not meet or apart or offsets[j] + aligned(other) <= offsets[k], seed
        if total:
            ratios.append(total / largest_live_set(items))
    ratios.sort()
    assert ratios[0] >= 1
    assert ratios[len(ratios) // 2] < 1.05
    assert ratios[-1] < 1.6


TEXT = """program @p {{
  func @all(a: f32[16] input, b: f32[16] output) target cpu with {{parallel = true}} {{
    parallel i in 0 .. 16 {{
      b[i] = a[i]
    }}
  }}
  func @one(a: i64[] input, b: i64[] output) target cpu {{
    b[] = a[] - 1
  }}
  entry func @entry(x: f32[16] input, m: i64[] input, y: f32[16] output, z: f32[16] output)
      target cpu {{
{body}
  }}
}}
"""
SKIPPED = """
    alloc s: f32[16]
    alloc t: f32[16]
    call all(x, s)
    {way}
    alloc u: f32[16]
    call all(x, u)
    alloc v: f32[16]
    call all(u, v)
    call all(v, z)
"""
# Thread 0 still copies from `s` when others, which have met no barrier, write `u`.
AN_ARM = "if m[] > 0 { copy s -> t } else { call all(s, y) call all(y, t) }"
A_LOOP = "copy s -> t while m[] > 0 { call all(x, y) call all(y, z) }"
# Others may still read `t` when thread 0 writes `s` in the next turn.
A_TURN = """
    bind go = 1
    while go > 0 {
      alloc s: i64[]
      call one(m, s)
      alloc u: i64[]
      call one(s, u)
      alloc t: i64[]
      call one(u, t)
      bind go = t[]
    }
    call all(x, y)
"""
# Others may write `t` at once, while thread 0 is still at what it computes alone.
A_STRETCH = """
    alloc s: i64[]
    call one(m, s)
    alloc u: i64[]
    call one(s, u)
    alloc t: f32[16]
    call all(x, t)
    call all(t, y)
"""
BODIES = {
    "a stretch": A_STRETCH,
    "an arm": SKIPPED.format(way=AN_ARM), "a loop": SKIPPED.format(way=A_LOOP), "a turn": A_TURN,
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_threads_on_any_way_share_no_memory(name: str) -> None:
    """A barrier that may be passed by ends no lifetime, and neither does the end of a turn."""
    program = parse(TEXT.format(body=BODIES[name]))
    assert isinstance(program, Program)
    kernels = {k.name: k for k in program.kernels}
    body = with_barriers(program.entry.body, kernels)
    synchronized = replace(program, entry=replace(program.entry, body=body))
    assert not Stretches(plan_memory(synchronized).program).faults

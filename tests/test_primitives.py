"""Primitives on whole loops and nests: tile, predicate, partition, fission, fuse_loops, rfactor,
pipeline. Text before and after, the meaning under the interpreter, refusals with their witness."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from replay import assert_replays

from aisc.ir.arith.poly import evaluate
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import bind_dims, run_func
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.legality import ScheduleError
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.schedule.tree import loops_of
from aisc.passes.tensor.optimize import optimize

Steps = Callable[[Schedule], Schedule]

DOUBLE = """
func @f(x: i32[10] input, y: i32[10] output) target cpu {
  serial i in 0 .. 10 {
    block m(v spatial 10 = i) reads(x[v]) writes(y[v]) {
      y[v] = x[v] * 2:i32
    }
  }
}
"""
DOUBLE_N = """
func @f(x: i32[n] input, y: i32[n] output; n) target cpu {
  serial i in 0 .. n {
    block m(v spatial n = i) reads(x[v]) writes(y[v]) {
      y[v] = x[v] * 2:i32
    }
  }
}
"""
GRID = """
func @f(x: i32[6, 10] input, y: i32[6, 10] output) target cpu {
  serial i in 0 .. 6 {
    serial j in 0 .. 10 {
      block m(v spatial 6 = i, w spatial 10 = j) reads(x[v, w]) writes(y[v, w]) {
        y[v, w] = x[v, w] * 2:i32
      }
    }
  }
}
"""
TWO = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[v]) {
      t[v] = x[v] + 1:i32
    }
    block b(w spatial 8 = i) reads(t[w]) writes(y[w]) {
      y[w] = t[w] * 2:i32
    }
  }
}
"""
SUM = """
func @f(x: i32[3, 8] input, y: i32[3] output) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. 8 {
      block s(v spatial 3 = i, r reduce 8 = k) reads(x[v, r]) writes(y[v]) combiner sum init {
        y[v] = 0:i32
      } body {
        y[v] = y[v] + x[v, r]
      }
    }
  }
}
"""
SUM_N = """
func @f(x: i32[3, n] input, y: i32[3] output; n) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. n {
      block s(v spatial 3 = i, r reduce n = k) reads(x[v, r]) writes(y[v]) combiner sum init {
        y[v] = 0:i32
      } body {
        y[v] = y[v] + x[v, r]
      }
    }
  }
}
"""
LARGEST = """
func @f(x: i32[3, 10] input, y: i32[3] output, z: i64[3] output) target cpu {
  serial i in 0 .. 3 {
    serial k in 0 .. 10 {
      block s(v spatial 3 = i, r reduce 10 = k) reads(x[v, r]) writes(y[v], z[v]) combiner argmax init {
        y[v] = -2147483648:i32
        z[v] = 9223372036854775807
      } body {
        let better:bool = x[v, r] > y[v] | x[v, r] == y[v] & r < z[v]
        let new_y:i32 = select(better:bool, x[v, r], y[v])
        let new_z = select(better:bool, r, z[v])
        y[v] = new_y:i32
        z[v] = new_z
      }
    }
  }
}
"""  # noqa: E501
FILL = """
func @f(x: i32[24] input, y: i32[24] output) target cpu {
  serial k in 0 .. 6 {
    alloc t: i32[24] space register
    serial a in 0 .. 4 {
      block fill(v spatial 24 = k * 4 + a) reads(x[v]) writes(t[v]) {
        t[v] = x[v] + 1:i32
      }
    }
    serial b in 0 .. 4 {
      block use(w spatial 24 = k * 4 + b) reads(t[w]) writes(y[w]) {
        y[w] = t[w] * 2:i32
      }
    }
  }
}
"""
# Each turn uses what the one before has left in y.
CHAIN = """
func @f(x: i32[8] input, y: i32[9] output) target cpu {
  alloc t: i32[8]
  block zero() reads() writes(y[0]) {
    y[0] = 0:i32
  }
  serial k in 0 .. 8 {
    block fill(v spatial 8 = k) reads(y[v]) writes(t[v]) {
      t[v] = y[v] + 1:i32
    }
    block use(w spatial 8 = k) reads(t[w], x[w]) writes(y[w + 1]) {
      y[w + 1] = t[w] * x[w]
    }
  }
}
"""
# One element passes every turn's value on.
PASSED = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[1]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[0]) {
      t[0] = x[v]
    }
    block b(w spatial 8 = i) reads(t[0]) writes(y[w]) {
      y[w] = t[0] * 2:i32
    }
  }
}
"""
MIRROR = """
func @f(x: i32[8] input, y: i32[8] output) target cpu {
  alloc t: i32[8]
  serial i in 0 .. 8 {
    block a(v spatial 8 = i) reads(x[v]) writes(t[v]) {
      t[v] = x[v]
    }
  }
  serial j in 0 .. 8 {
    block b(w spatial 8 = j) reads(t[7 - w]) writes(y[w]) {
      y[w] = t[7 - w]
    }
  }
}
"""


def outputs(func: Func, start: Func, dims: dict[str, int]) -> list[np.ndarray]:
    """What a function, whose first parameters are those of `start`, computes."""
    rng = np.random.default_rng(0)
    values = {v.name: dims.get(v.name, 0) for v in start.dims}
    shapes = [tuple(evaluate(d, values) for d in b.shape) for b in func.params]
    arrays = [
        rng.integers(-9, 9, shape).astype(b.dtype.numpy)
        if b.role == "input"
        else np.full(shape, 5, b.dtype.numpy)
        for b, shape in zip(func.params, shapes, strict=True)
    ]
    run_func(func, arrays, bind_dims(func, arrays, values))
    return [a for a, b in zip(arrays, func.params, strict=True) if b.role == "output"]


def checked(text: str, steps: Steps) -> Func:
    """The scheduled function, after its result was compared at several sizes."""
    start = parse_func(text)
    s = steps(Schedule.of(start))
    verify_func(s.func)
    assert parse_func(print_ir(s.func)) == s.func
    assert Schedule.of(start).replay(trace_from_json(trace_to_json(s.trace))).func == s.func
    for n in (0, 1, 2, 5, 9):
        expected = outputs(start, start, {"n": n})
        for func in (s.func, optimize(s.func)):
            for got, want in zip(outputs(func, start, {"n": n}), expected, strict=True):
                assert np.array_equal(got, want), f"n={n}\n{print_ir(func)}"
    return s.func


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


WITNESSED = [
    "fission of a passed value", "fission of a chain", "fuse_loops too early",
    "pipeline of a chain", "threads in a chain", "a private copy of what is passed",
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

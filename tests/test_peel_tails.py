"""Loops over vectors are divided into whole turns and the last ones, which alone need masks."""

from __future__ import annotations

import numpy as np
import pytest

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Select
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import For, If, Seq
from aisc.ir.tensor.verify import verify_func
from aisc.ir.text.parser import parse_func
from aisc.passes.tensor.peel_tails import PeelTails

MAP = """
func @f(x: i32[{size}] input, y: i32[{size}] output{dims}) target cpu {{
  serial o in 0 .. {turns} {{
    vectorize l in 0 .. 4 {{
      if o * 4 + l < {size} {{
        y[l + o * 4] = x[l + o * 4] * 2:i32
      }}
    }}
  }}
}}
"""
SUM = """
func @f(x: i32[3, 22] input, y: i32[3, 8] output) target cpu {
  serial i in 0 .. 3 {
    unroll u in 0 .. 2 {
      vectorize l in 0 .. 4 {
        y[i, l + u * 4] = 0:i32
      }
    }
    serial o in 0 .. 3 {
      unroll v in 0 .. 2 {
        vectorize m in 0 .. 4 {
          y[i, m + v * 4] = y[i, m + v * 4] + select(m + v * 4 + o * 8 < 22, x[i, m + v * 4 + o * 8], 0:i32)
        }
      }
    }
  }
}
"""  # noqa: E501
rng = np.random.default_rng(0)


def text_of(size: int | str) -> str:
    known = isinstance(size, int)
    turns = -(-size // 4) if isinstance(size, int) else f"({size} + 3) // 4"
    return MAP.format(size=size, turns=turns, dims="" if known else f"; {size}")


def run(func: Func, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    y = np.full(shape, -1, np.int32)
    run_func(func, [x, y])
    return y


def conditions(func: Func) -> int:
    return sum(isinstance(n, If | Select) for n in walk(func.body))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 22])
def test_known_sizes(size: int) -> None:
    before = parse_func(text_of(size))
    after = PeelTails().run(before)
    verify_func(after)
    x = rng.integers(-99, 99, size).astype(np.int32)
    assert np.array_equal(run(after, x, (size,)), run(before, x, (size,)))
    divided = size > 4 and size % 4 != 0
    assert isinstance(after.body, Seq) == divided
    if divided:
        assert conditions(after) == 1


@pytest.mark.parametrize("size", [3, 22, "n"])
def test_parallel_loops_stay_one(size: int | str) -> None:
    before = parse_func(text_of(size).replace("serial", "parallel"))
    after = PeelTails().run(before)
    verify_func(after)
    assert isinstance(after.body, For)
    assert isinstance(after.body.body, If)
    assert not any(isinstance(n, If) for n in walk(after.body.body.then))
    for n in range(14) if size == "n" else (int(size),):
        x = rng.integers(-99, 99, n).astype(np.int32)
        assert np.array_equal(run(after, x, (n,)), run(before, x, (n,)))


def test_sizes_that_the_run_knows() -> None:
    before = parse_func(text_of("n"))
    after = PeelTails().run(before)
    verify_func(after)
    assert isinstance(after.body, Seq)
    whole = after.body.stmts[0]
    assert isinstance(whole, For)
    assert not any(isinstance(n, If) for n in walk(whole))
    for n in range(14):
        x = rng.integers(-99, 99, n).astype(np.int32)
        assert np.array_equal(run(after, x, (n,)), run(before, x, (n,)))


def test_copies_and_lanes_of_a_reduction() -> None:
    before = parse_func(SUM)
    after = PeelTails().run(before)
    verify_func(after)
    x = rng.integers(-99, 99, (3, 22)).astype(np.int32)
    assert np.array_equal(run(after, x, (3, 8)), run(before, x, (3, 8)))
    rows = after.body
    assert isinstance(rows, For)
    assert isinstance(rows.body, Seq)
    whole = [s for s in rows.body.stmts if isinstance(s, For) and s.kind == "serial"]
    assert [s.extent for s in whole] == [Const(2)]
    assert conditions(after) == 1


def test_other_conditions_stay() -> None:
    text = text_of("n").replace("o * 4 + l < n", "l - o * 4 < n")
    func = parse_func(text)
    assert PeelTails().run(func) is func


def test_a_number_that_may_be_negative_divides_nothing() -> None:
    text = text_of("n").replace("(n + 3) // 4", "(n - 1) // 4")
    func = parse_func(text.replace("o * 4 + l < n", "o * 4 + l < n - 4"))
    assert PeelTails().run(func) is func


TILES = """
func @f(x: i32[{rows}, {size}] input, y: i32[{rows}, {size}] output) target cpu {{
  serial t in 0 .. {turns} {{
    serial i in 0 .. {tiles} {{
      unroll r in 0 .. 3 with {{whole_apart = 1}} {{
        unroll v in 0 .. 2 {{
          vectorize l in 0 .. 4 {{
            if {guard}t * 8 + v * 4 + l < {size} {{
              y[r + i * 3, l + v * 4 + t * 8] = x[r + i * 3, l + v * 4 + t * 8] * 2:i32
            }}
          }}
        }}
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize("rows", [6, 7])
@pytest.mark.parametrize("size", [3, 9, 10, 21])
def test_marked_tiles_are_whole_or_masked(rows: int, size: int) -> None:
    guard = f"r + i * 3 < {rows} & " if rows % 3 else ""
    sizes = {"rows": rows, "size": size, "turns": -(-size // 8), "tiles": -(-rows // 3)}
    before = parse_func(TILES.format(guard=guard, **sizes))
    after = PeelTails().run(before)
    verify_func(after)
    x = rng.integers(-99, 99, (rows, size)).astype(np.int32)
    assert np.array_equal(run(after, x, x.shape), run(before, x, x.shape))
    (choice,) = (n for n in walk(after.body) if isinstance(n, If) and n.other is not None)
    assert not any(isinstance(n, If) for n in walk(choice.then))


def test_marked_tiles_with_conditions_on_data_stay() -> None:
    sizes = {"rows": 6, "size": 21, "turns": 3, "tiles": 2}
    text = TILES.format(guard="x[r + i * 3, 0] < 5:i32 & ", **sizes)
    before = parse_func(text)
    after = PeelTails().run(before)
    x = rng.integers(-9, 9, (6, 21)).astype(np.int32)
    assert np.array_equal(run(after, x, x.shape), run(before, x, x.shape))


@pytest.mark.parametrize(
    ("size", "step", "masks"), [(40, 12, False), (40, 16, False), (38, 12, True), (40, 10, True)]
)
def test_what_all_lanes_pass_or_none_is_no_mask(size: int, step: int, masks: bool) -> None:
    func = parse_func(f"""
func @f(x: i32[{size}] input, y: i32[{size}] output) target cpu {{
  serial b in 0 .. 4 {{
    serial o in 0 .. 3 {{
      vectorize l in 0 .. 4 {{
        if b * {step} + o * 4 + l < {size} {{
          y[b * {step} + o * 4 + l] = x[b * {step} + o * 4 + l] + 1:i32
        }}
      }}
    }}
  }}
}}
""")
    after = PeelTails().run(func)
    verify_func(after)
    lanes = [n for n in walk(after) if isinstance(n, For) and n.kind == "vectorize"]
    asked = [n.cond for v in lanes for n in walk(v.body) if isinstance(n, If)]
    assert any(v.var in set(walk(c)) for v in lanes for c in asked) is masks
    x = rng.integers(-9, 9, size).astype(np.int32)
    np.testing.assert_array_equal(run(after, x, (size,)), run(func, x, (size,)))

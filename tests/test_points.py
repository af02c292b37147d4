"""Which points a block executes: what is seen without isl agrees with looking at every point."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest

from aisc.ir import dtypes
from aisc.ir.tensor.expr import Const, Expr, Var, of_dim
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import Block, For, If, Iter, Stmt, Store
from aisc.ir.tensor.tree import places
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.points import fills_domain


def nest(size: int, digits: list[tuple[int, int, int]], bound: int, const: int) -> Func:
    """``for d0: for d1: … if v < bound: y[v] = 1`` with v the sum of ``weight * digit`` and a
    constant; digits are (weight, low, extent)."""
    y = buffer("y", dtypes.f32, (size,), role="output")
    value: Expr = Const(const)
    for k, (weight, _, _) in enumerate(digits):
        value = value + Var(f"d{k}") * weight
    it = Var("i")
    store = Store(y, (it,), Const(1.0, dtypes.f32))
    body: Stmt = Block("m", (Iter(it, of_dim(size), "spatial"),), (value,), (), (), None, store)
    if bound:
        body = If(value < bound, body)
    for k, (_, low, extent) in reversed(list(enumerate(digits))):
        body = For(Var(f"d{k}"), Const(low), Const(extent), "serial", body)
    return Func("f", (y,), (), body)


def is_whole(size: int, digits: list[tuple[int, int, int]], bound: int, const: int) -> bool:
    """Whether that executes every point, tried."""
    ranges = [range(low, low + extent) for _, low, extent in digits]
    weights = [w for w, _, _ in digits]
    values = (
        const + sum(w * d for w, d in zip(weights, p, strict=True))
        for p in itertools.product(*ranges)
    )
    reached = {v for v in values if not bound or v < bound}
    return set(range(size)) <= reached


def test_tiles_fill_a_domain_where_every_point_is_reached() -> None:
    rng = np.random.default_rng(0)
    seen = [0, 0]
    for _ in range(3000):
        count, weight = int(rng.integers(1, 4)), 1
        digits = []
        for _ in range(count):
            extent, low = int(rng.integers(0, 6)), int(rng.random() < 0.05)
            digits.append((weight if rng.random() < 0.9 else weight + 1, low, extent))
            weight *= extent
        size = int(rng.integers(0, max(weight, 1) + 3))
        bound = int(rng.choice([0, size, max(size - 1, 1)], p=[0.3, 0.6, 0.1]))
        const = int(rng.random() < 0.05)
        order = [digits[k] for k in rng.permutation(count)]
        func = nest(size, order, bound, const)
        (place,) = places(func.body)
        whole, known = is_whole(size, order, bound, const), fills_domain(func, place)
        assert whole or not known, (order, size, bound, const)
        seen[known] += whole
    assert seen[1] > 3 * seen[0] > 0, "it sees most of them"


UNKNOWN = """
func @f(y: f32[n] output; n) target cpu {{
  serial t in 0 .. {turns} {{
    serial r in 0 .. 6 {{
      if t * 6 + r < {bound} {{
        block m(v spatial n = t * 6 + r) reads() writes(y[v]) {{
          y[v] = 1.0:f32
        }}
      }}
    }}
  }}
}}
"""


@pytest.mark.parametrize(
    ("turns", "bound", "known"),
    [("(n + 5) // 6", "n", True), ("(n + 6) // 6", "n", True), ("(n + 4) // 6", "n", False),
     ("(n + 5) // 6", "n - 1", False), ("(n + 5) // 7", "n", False)],
)  # fmt: skip
def test_tiles_of_a_size_that_only_the_run_knows(turns: str, bound: str, known: bool) -> None:
    func = parse_func(UNKNOWN.format(turns=turns, bound=bound))
    (place,) = places(func.body)
    assert fills_domain(func, place) == known


def test_a_plain_network_is_compiled_without_isl() -> None:
    """Loading it takes as long as a kernel."""
    code = (
        "import sys, numpy as np, aisc\n"
        "from aisc.ir import dtypes\n"
        "from aisc.ir.graph.builder import GraphBuilder\n"
        "from aisc.ir.types import TensorType\n"
        "b = GraphBuilder()\n"
        "x = b.input('x', TensorType((9, 20), dtypes.f32))\n"
        "y = b.add('matmul', (x, b.constant(np.ones((20, 33), np.float32))))\n"
        "exe = aisc.compile(b.finish([b.add('relu', (y,))]), threads=1, cache=False)\n"
        "assert (exe(np.ones((9, 20), np.float32)) == 20).all()\n"
        "sys.exit('islpy' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

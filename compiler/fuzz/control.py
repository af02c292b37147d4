"""Branches and loops over random regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.fuzz.maker import Fresh, Maker
from aisc.fuzz.values import Fill
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import Array
from aisc.ir.types import TensorType

# Adds some random nodes to a maker.
Grow = Callable[[Maker, int], None]
SCALAR = TensorType((), dtypes.boolean)


def region(m: Maker, captures: Sequence[Value], more: Sequence[tuple[TensorType, Array]]) -> Maker:
    """A maker for a region whose inputs are carried values, then captures."""
    inner = Maker(
        m.rng, m.style, dict(m.dims), m.main, m.symbols, True, m.depth + 1, GraphBuilder("region")
    )
    for t, array in (*more, *((v.type, m.held[v]) for v in captures)):
        value = inner.builder.input("r", t)
        inner.held[value] = array
    return inner


def condition(m: Maker) -> Value | Fresh:
    """A scalar bool: one that is there, or an input."""
    found = m.pick(lambda t: t == SCALAR)
    if found is not None:
        return found
    return Fresh(SCALAR, Fill(), constant=False)


def _captures(m: Maker, most: int) -> list[Value]:
    static = [v for v in m.held if not any(s.kind == "data" for s in v.type.symbols)]
    return m.rng.sample(static, min(len(static), m.rng.randint(1, most)))


def branch(m: Maker, grow: Grow) -> None:
    """An ``if`` whose arms give values of equal types."""
    captures = _captures(m, 3)
    then, other = region(m, captures, ()), region(m, captures, ())
    grow(then, 4)
    grow(other, 4)
    pairs = []
    for v in reversed(list(then.held)):
        found = [w for w in other.held if w.type == v.type and _same_sizes(v)]
        if found:
            pairs.append((v, m.rng.choice(found[-2:])))
        if len(pairs) == 2:
            break
    if not pairs:
        return
    first = then.builder.finish([a for a, _ in pairs])
    second = other.builder.finish([b for _, b in pairs])
    m.put_all("if", (condition(m), *captures), {"binds": ()}, (first, second))


def _same_sizes(v: Value) -> bool:
    """Whether the sizes of a value are known outside of its region."""
    return all(s.kind == "input" for s in v.type.symbols)


def loop(m: Maker, grow: Grow) -> None:
    """A ``loop`` over carried values that keep their types, with stacked results: of a number of
    turns that is known, symbolic, or an input, and sometimes ended by a condition."""
    captures = _captures(m, 2)
    carried = m.rng.sample(list(m.held), min(len(m.held), m.rng.randint(1, 2)))
    inner = region(m, captures, [(v.type, m.held[v]) for v in carried])
    count = len(m.builder.nodes)
    index = symbol(f"i{m.depth}_{count}", 0, None, "data")
    inner.dims[str(index)] = 0
    grow(inner, 4)
    nexts = [_next(inner, v) for v in inner.builder.inputs[: len(carried)]]
    conditional = m.chance(0.2)
    flags = [_flag(inner)] if conditional else []
    stacked = [v for v in list(inner.held)[-1:] if _same_sizes(v) and v.type.rank < 4]
    body = inner.builder.finish([*flags, *nexts, *stacked])
    trip, limit = _turns(m)
    binds = (symbol(f"turns{m.depth}_{count}", 0, None, "data"),)
    attrs: dict[str, AttrValue] = {
        "trip": () if trip is None else (trip,), "index": (index,), "carried": len(carried),
        "carried_dims": (), "conditional": conditional,
        "binds": binds if conditional or trip is None else (),
    }  # fmt: skip
    operands = (limit, None, *carried, *captures)
    m.put_all("loop", operands, attrs, (body,))


def _next(inner: Maker, v: Value) -> Value:
    """What a carried value becomes: the last value of its type."""
    return [w for w in inner.held if w.type == v.type][-1]


def _flag(inner: Maker) -> Value:
    found = inner.pick(lambda t: t == SCALAR)
    return found if found is not None else inner.builder.constant(np.array(True))


def _turns(m: Maker) -> tuple[Dim | None, Fresh | None]:
    """The number of turns, or the operand that gives it."""
    if m.symbols and m.chance(0.3):
        return m.rng.choice(m.symbols), None
    if m.chance(0.3):
        t = TensorType((), dtypes.i64)
        return None, Fresh(t, Fill(index=m.rng.randint(1, 4)), constant=False)
    return m.rng.choice([0, 1, 2, 3, 3, 4]), None

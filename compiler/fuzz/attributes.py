"""Values for attributes of operators that need no proposal of their own: by kind and name."""

from __future__ import annotations

from aisc.fuzz.maker import DTYPES, Maker
from aisc.ir.graph.core import AttrValue
from aisc.ir.graph.opdef import Attr, OpDef
from aisc.ir.types import TensorType

FLOATS = (0.5, 1.0, -0.3, 2.0, 0.01, 1.75)


def proposed(m: Maker, op: OpDef, first: TensorType | None) -> dict[str, AttrValue]:
    """Attributes for an operator whose first operand has a type."""
    rank = 0 if first is None else first.rank
    return {a.name: _value(m, a, rank) for a in op.attrs if a.default is None or m.chance(0.7)}


def _value(m: Maker, a: Attr, rank: int) -> AttrValue:
    if a.type == "bool":
        return m.chance(0.5)
    if a.type == "str":
        return m.rng.choice(a.choices)
    if a.type == "float":
        return _float(m, a)
    if a.type == "dtype":
        return m.rng.choice(list(DTYPES))
    if a.type == "int":
        return _int(m, a, rank)
    return _tuple(m, a, rank)


def _float(m: Maker, a: Attr) -> float:
    if a.name == "epsilon":
        return m.rng.choice([1e-5, 1e-3, 0.1])
    if a.name == "min":
        return m.rng.choice([-3.0, -1.0, 0.0])
    if a.name == "max":
        return m.rng.choice([0.5, 1.0, 6.0])
    return m.rng.choice(FLOATS)


def _int(m: Maker, a: Attr, rank: int) -> int:
    if a.name == "axis":
        return m.rng.randint(-rank, max(rank - 1, -rank))
    if a.name == "k":
        return m.rng.randint(-2, 3)
    return m.rng.randint(1, 3)


def _tuple(m: Maker, a: Attr, rank: int) -> tuple[object, ...]:
    if a.name == "perm":
        return tuple(m.rng.sample(range(rank), rank))
    if a.name == "axes":
        axes = m.rng.sample(range(rank), m.rng.randint(0, rank))
        return tuple(x - rank if m.chance(0.2) else x for x in axes)
    if a.name == "pads":
        return tuple(m.rng.choice([0, 0, 0, 1, 2, -1]) for _ in range(2 * rank))
    if a.name == "repeats":
        return tuple(m.rng.choice([1, 1, 2, 3]) for _ in range(rank))
    if a.name == "shape":
        return m.shape(1, 1)
    if a.type == "dims":
        return (m.size(),)
    return tuple(m.rng.randint(1, 3) for _ in range(rank))

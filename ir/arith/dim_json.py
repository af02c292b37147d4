"""Dimensions as JSON values: integers, or the terms of a polynomial.

``n*2 + 1`` is ``[[[[{"name": "n", …}, 1]], 2], [[], 1]]``: pairs of a monomial and a coefficient,
a monomial being pairs of an atom and its power. Reading checks the form of everything, since the
values may come from a damaged file.
"""

from __future__ import annotations

from typing import Any, get_args

from aisc.ir.arith.poly import Dim, DimCall, DimKind, Op, Poly, SymDim

# Larger numbers cannot be sizes in bytes of a 64-bit machine.
LIMIT = 1 << 62
MAX_POWER = 64
_ARITY = {"floordiv": 2, "ceildiv": 2, "mod": 2}


def dim_to_json(d: Dim) -> Any:
    """An int, or a list of terms."""
    if isinstance(d, int):
        return d
    return [[[[_atom_to_json(a), p] for a, p in mono], c] for mono, c in d.terms]


def dim_from_json(data: Any) -> Dim:
    """The dimension of :func:`dim_to_json`; ``ValueError`` when the form is wrong."""
    if isinstance(data, int):
        return integer(data)
    if not isinstance(data, list) or not data:
        raise ValueError("a dimension is an integer or a list of terms")
    return Poly(tuple((_monomial(mono), integer(c)) for mono, c in data))


def integer(data: Any) -> int:
    """An integer of a sensible size; ``ValueError`` for anything else."""
    if not isinstance(data, int) or isinstance(data, bool) or abs(data) > LIMIT:
        raise ValueError(f"expected an integer, got {str(data)[:40]}")
    return data


def text(data: Any) -> str:
    """A string; ``ValueError`` for anything else."""
    if not isinstance(data, str):
        raise ValueError(f"expected a string, got {str(data)[:40]}")
    return data


def _monomial(data: Any) -> tuple[tuple[SymDim | DimCall, int], ...]:
    factors = tuple((_atom_from_json(a), integer(p)) for a, p in data)
    if any(not 1 <= p <= MAX_POWER for _, p in factors):
        raise ValueError("a power is out of range")
    return factors


def _atom_to_json(atom: SymDim | DimCall) -> Any:
    if isinstance(atom, SymDim):
        return {"name": atom.name, "kind": atom.kind, "lower": atom.lower, "upper": atom.upper}
    return {"op": atom.op, "args": [dim_to_json(a) for a in atom.args]}


def _atom_from_json(data: Any) -> SymDim | DimCall:
    if not isinstance(data, dict):
        raise ValueError("an atom is a symbol or an operation")
    if "name" in data:
        kind, upper = data["kind"], data["upper"]
        if kind not in get_args(DimKind):
            raise ValueError(f"unknown kind of dimension {str(kind)[:40]}")
        limit = None if upper is None else integer(upper)
        return SymDim(text(data["name"]), kind, integer(data["lower"]), limit)
    op, args = data["op"], tuple(map(dim_from_json, data["args"]))
    if op not in get_args(Op) or len(args) != _ARITY.get(op, max(1, len(args))):
        raise ValueError(f"unknown operation {str(op)[:40]}")
    return DimCall(op, args)

"""Signatures of kernels as JSON: what the plan needs of a kernel whose code comes from the cache.

Reading a signature must be cheap, so it does not go through the parser of IR text.
"""

from __future__ import annotations

from typing import Any

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, DimCall, Poly, SymDim
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.func import Buffer, Func, empty_body


def to_json(func: Func) -> dict[str, Any]:
    """Name, parameters, dimensions, attributes and target of a function, without its body."""
    return {
        "name": func.name,
        "params": [_buffer_to_json(b) for b in func.params],
        "dims": [d.name for d in func.dims],
        "attrs": [list(a) for a in func.attrs],
        "target": func.target,
    }


def from_json(data: dict[str, Any]) -> Func:
    """The function of :func:`to_json`, with an empty body."""
    params = tuple(_buffer_from_json(b) for b in data["params"])
    dims = tuple(Var(name) for name in data["dims"])
    attrs = tuple((k, v) for k, v in data["attrs"])
    return Func(data["name"], params, dims, empty_body(), attrs, data["target"])


def _buffer_to_json(b: Buffer) -> list[Any]:
    shape, strides = [_dim_to_json(d) for d in b.shape], [_dim_to_json(d) for d in b.strides]
    return [b.name, b.dtype.name, shape, strides, b.space, b.alignment, b.alias_set, b.role]


def _buffer_from_json(data: list[Any]) -> Buffer:
    name, dtype, shape, strides, space, alignment, alias_set, role = data
    return Buffer(
        name, dtypes.dtype(dtype), tuple(map(_dim_from_json, shape)),
        tuple(map(_dim_from_json, strides)), space, alignment=alignment, alias_set=alias_set,
        role=role,
    )  # fmt: skip


def _dim_to_json(d: Dim) -> Any:
    """An int, or the terms of a polynomial: [[[atom, power], …], coefficient]."""
    if isinstance(d, int):
        return d
    return [[[[_atom_to_json(a), p] for a, p in mono], c] for mono, c in d.terms]


def _atom_to_json(atom: SymDim | DimCall) -> Any:
    if isinstance(atom, SymDim):
        return {"name": atom.name, "kind": atom.kind, "lower": atom.lower, "upper": atom.upper}
    return {"op": atom.op, "args": [_dim_to_json(a) for a in atom.args]}


def _dim_from_json(data: Any) -> Dim:
    if isinstance(data, int):
        return data
    return Poly(
        tuple((tuple((_atom_from_json(a), int(p)) for a, p in mono), int(c)) for mono, c in data)
    )


def _atom_from_json(data: dict[str, Any]) -> SymDim | DimCall:
    if "name" in data:
        return SymDim(data["name"], data["kind"], data["lower"], data["upper"])
    return DimCall(data["op"], tuple(map(_dim_from_json, data["args"])))

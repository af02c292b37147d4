"""Signatures of kernels as JSON: what the plan needs of a kernel whose code comes from the cache.

Reading a signature must be cheap, so it does not go through the parser of IR text.
"""

from __future__ import annotations

from typing import Any

from aisc.ir import dtypes
from aisc.ir.arith.dim_json import dim_from_json, dim_to_json
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
    shape, strides = [dim_to_json(d) for d in b.shape], [dim_to_json(d) for d in b.strides]
    return [b.name, b.dtype.name, shape, strides, b.space, b.alignment, b.alias_set, b.role]


def _buffer_from_json(data: list[Any]) -> Buffer:
    name, dtype, shape, strides, space, alignment, alias_set, role = data
    return Buffer(
        name, dtypes.dtype(dtype), tuple(map(dim_from_json, shape)),
        tuple(map(dim_from_json, strides)), space, alignment=alignment, alias_set=alias_set,
        role=role,
    )  # fmt: skip

"""A form of a Func that does not depend on the names of its buffers: the key of equal kernels."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.location import UNKNOWN
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc
from aisc.ir.tensor.visitor import replace_buffers


def canonical(func: Func) -> Func:
    """`func` with buffers renamed by position and without locations."""
    local = tuple(n.buffer for n in walk(func.body) if isinstance(n, Alloc))
    table = {b: _numbered(b, k) for k, b in enumerate((*func.params, *local))}
    params = tuple(table[b] for b in func.params)
    body = replace_buffers(func.body, table)
    return replace(func, name="kernel", params=params, body=body, loc=UNKNOWN)


def _numbered(b: Buffer, k: int) -> Buffer:
    return replace(b, name=f"b{k}", alias_set=f"b{k}")

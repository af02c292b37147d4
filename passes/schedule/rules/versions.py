"""Versions of a kernel for one value of a dimension, chosen at each call.

A tile of several rows computes all of them even where the input has one, as it is in decoding, in
recurrent cells and for a single sample. So a contraction with packed weights whose number of rows
is one symbolic dimension gets a second kernel for the value 1, over the same packed weights.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.poly import substitute as dim_substitute
from aisc.ir.target import Target
from aisc.ir.tensor.expr import ONE, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.visitor import buffers_of, replace_buffers, substitute
from aisc.passes.schedule.rules.codes import maker_of
from aisc.passes.schedule.rules.default import tiled_contractions
from aisc.passes.schedule.schedule import Schedule


def row_dimension(start: Schedule, target: Target) -> str | None:
    """The dimension that is the number of rows of the kernel's contraction, if it is worth a
    version of its own; `start` are the first steps of the kernel's schedule."""
    found = next(iter(tiled_contractions(start, target)), None)
    if found is None or found.weights is None or found.row is None:
        return None
    extent, stored = found.row.extent, found.weights.buffer.role == "weight"
    if not (stored or maker_of(start, found) is not None) or not isinstance(extent, Var):
        return None
    return extent.name if extent in start.func.dims else None


def for_one(func: Func, dimension: str) -> Func:
    """`func` for calls in which the dimension is 1, in loops and in the shapes of buffers."""
    body = substitute(func.body, {Var(dimension): ONE})
    every = dict.fromkeys((*func.params, *buffers_of(body)))
    table = {b: _for_one(b, dimension) for b in every}
    return replace(
        func, params=tuple(table[b] for b in func.params), body=replace_buffers(body, table)
    )


def _for_one(b: Buffer, dimension: str) -> Buffer:
    shape = tuple(dim_substitute(d, {dimension: 1}) for d in b.shape)
    strides = tuple(dim_substitute(d, {dimension: 1}) for d in b.strides)
    return replace(b, shape=shape, strides=strides)


def like(func: Func, general: Func) -> Func:
    """A version with the parameters of the function that it is a version of, scratch aside."""
    named = {b.name: b for b in general.params}
    table = {b: named[b.name] for b in func.params if b.role != "scratch" and b.name in named}
    params = tuple(table.get(b, b) for b in func.params)
    return replace(func, params=params, body=replace_buffers(func.body, table))

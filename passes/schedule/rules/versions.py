"""Versions of a kernel for one value of a dimension, chosen at each call.

A tile of several rows computes all of them even where the input has one, as it is in decoding, in
recurrent cells and for a single sample. So a contraction with packed weights whose number of rows
is one symbolic dimension gets a second kernel for the value 1, over the same packed weights.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.target import Target
from aisc.ir.tensor.expr import ONE, Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.rules.default import tiled_contraction
from aisc.passes.schedule.rules.tile import Tile
from aisc.passes.schedule.schedule import Schedule


def row_dimension(start: Schedule, target: Target) -> str | None:
    """The dimension that is the number of rows of the kernel's contraction, if it is worth a
    version of its own; `start` are the first steps of the kernel's schedule."""
    found = tiled_contraction(start, target)
    if found is None or found.weights is None or found.row is None:
        return None
    extent = found.row.extent
    if found.weights.buffer.role != "weight" or not isinstance(extent, Var):
        return None
    return extent.name if extent in start.func.dims else None


def for_one(func: Func, dimension: str) -> Func:
    """`func` for calls in which the dimension is 1; its parameters stay as they are."""
    return replace(func, body=substitute(func.body, {Var(dimension): ONE}))


def one_row(tile: Tile) -> Tile:
    """The tile of one row over weights packed for `tile`."""
    return replace(tile, rows=1)

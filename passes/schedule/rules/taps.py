"""Taps of a window in which the rows of a tile read the same places.

A tile of one vector loads an element for each multiply-add, as no other vector uses it. Where rows
are neighbours in an image, what row r reads in tap k is what row r + 1 reads in tap k - 1: with all
taps of a line inside of the loop over rows, each place is loaded once for all of them::

    for i { unroll r { unroll k { acc[r] += x[r + k, i] * w[k, i] } } }
"""

from __future__ import annotations

from aisc.ir.dtypes import f32
from aisc.ir.target import Target
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.structure import Reduction
from aisc.passes.schedule.rules.tile_cost import ONE_TAP, Taps, extent_of

# Rows of which it is asked whether they share what they read.
SOME_ROWS = 4
NONE = "", ONE_TAP


def vector_lanes(reduction: Reduction, target: Target) -> int:
    """Results of a reduction that a vector holds at most."""
    return min(target.lanes(reduction.block.writes[0].buffer.dtype), target.lanes(f32))


def is_one_vector(reduction: Reduction, target: Target) -> bool:
    """Whether a row of a contraction's result is no more than one vector, as a group of few
    channels is."""
    lanes = vector_lanes(reduction, target)
    return reduction.contraction and extent_of(reduction.lane) <= lanes


def shared_taps(reduction: Reduction, d: Chooser) -> tuple[str, Taps]:
    """The taps of a window in which rows of one vector read the same places, so that each place is
    loaded once for all of them: the iterator, and how rows and taps move; no name where there are
    none. A tile of several vectors uses what it loads often enough."""
    load, row = reduction.data, reduction.row
    if load is None or row is None or extent_of(row) < SOME_ROWS:
        return NONE
    if not is_one_vector(reduction, d.target):
        return NONE
    axis = [i for i in load.indices if mentions(i, row.var)]
    form = Indexer().linear(axis[0])
    steps = [it for it in reduction.block.iters if it.kind == "reduce"]
    most = (d.target.vector_registers - d.target.in_flight) // 2
    found = [it for it in steps if form.coeff(it.var) and 1 < extent_of(it) <= most]
    if len(axis) != 1 or len(found) != 1 or len(steps) == 1:
        return NONE
    stride, apart = form.coeff(row.var), form.coeff(found[0].var)
    if not stride or not apart:
        return NONE
    taps = Taps(extent_of(found[0]), stride, apart)
    own = taps.places(SOME_ROWS) < SOME_ROWS * taps.count
    if not d.pick(f"{reduction.block.name}.taps_shared", (False, True), own, exact=False):
        return NONE
    return found[0].var.name, taps

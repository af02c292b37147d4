"""Kernels of loops go to and fro through constants that are more than a cache holds.

Every turn of a loop reads the same weights. In one order the first of them have left the cache when
they are wanted again; where every other turn goes through them backwards, a turn begins with what
the one before has read last::

    parallel tile in 0 .. n to and fro by turn { … }

A hint: the iterations of such a loop are independent, and no reduction runs over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, Load
from aisc.ir.tensor.stmt import For, Stmt
from aisc.passes.lower.turns import TURN
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.parallel import spatial_chain
from aisc.passes.schedule.rules.row import top_loops
from aisc.passes.schedule.schedule import Schedule

# The annotation of a loop that names the dimension which tells its direction.
TO_AND_FRO = "to_and_fro"


def use_turns(s: Schedule, d: Chooser) -> Schedule:
    """Such an order for the divided loops over weights."""
    turn = s.func.attr(TURN)
    if not isinstance(turn, str):
        return s
    for loop in _apart(s.func.body, d.target.first_cache.bytes):
        if d.pick(f"{loop}.{TO_AND_FRO}", (True, False), True):
            s = s.annotate(loop, TO_AND_FRO, turn)
    return s


def _apart(s: Stmt, enough: int) -> Iterator[str]:
    """The outermost loops of several independent iterations that read more weights than `enough`
    together, and those inside of them."""
    for loop in top_loops(s):
        if loop.kind not in ("parallel", "serial") or _weights(loop) <= enough:
            continue
        chain = [loop] if loop.kind == "parallel" else spatial_chain(loop, 1)
        yield from (f.var.name for f in chain if f.extent != ONE)
        if chain:
            yield from _apart(chain[-1].body, enough)


def _weights(loop: For) -> int:
    """Bytes of the constants of which the iterations of a loop read different parts."""
    found = {
        n.buffer: prod(d for d in n.buffer.shape if isinstance(d, int)) * n.dtype.bytes
        for n in walk(loop)
        if isinstance(n, Load) and n.buffer.role == "weight"
    }
    return sum(found.values())

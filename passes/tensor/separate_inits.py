"""Reductions over extents that may be 0 start in a nest of their own.

before: ``for i: for k in 0..n: { if k == 0: c[i] = 0;  c[i] += a[i, k] }``
after:  ``for i: { c[i] = 0;  for k in 0..n: c[i] += a[i, k] }``
Otherwise nothing would be stored where n is 0. Postcondition: blocks that still initialise what
they reduce have at least one reduce point.
"""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.tree import Place, places
from aisc.passes.schedule.schedule import Schedule


@dataclass(frozen=True, slots=True)
class SeparateInits:
    """The pass; see the module's docstring."""

    name: str = "separate-inits"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        for place in list(places(func.body)):
            loop = _first_reduce_loop(place)
            if loop and place.block.init is not None and _may_be_empty(place):
                func = _decomposed(func, place.block.name, loop)
        return func


def _may_be_empty(place: Place) -> bool:
    extents = (it.extent for it in place.block.iters if it.kind == "reduce")
    return not all(isinstance(e, Const) and int(e.value) > 0 for e in extents)


def _first_reduce_loop(place: Place) -> str:
    values = [
        v
        for it, v in zip(place.block.iters, place.block.bindings, strict=True)
        if it.kind == "reduce"
    ]
    for loop in place.loops:
        if any(mentions(v, loop.var) for v in values):
            return loop.var.name
    return ""


def _decomposed(func: Func, block: str, loop: str) -> Func:
    """A loop order that does not allow it keeps the guarded start."""
    try:
        return Schedule.of(func).decompose_reduction(block, loop).func
    except CompileError as refusal:
        if not set(refusal.codes) <= {"E302", "E303", "E304"}:
            raise
        return func

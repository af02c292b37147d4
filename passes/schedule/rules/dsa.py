"""The default schedule of a contraction on a systolic array.

Maps before it are read where they stand, those behind it are one, and the product goes by tiles
(:mod:`aisc.passes.schedule.variants.systolic`), of which an analytical model takes the best.
"""

from __future__ import annotations

from dataclasses import astuple, replace

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa_tiles import best_tiles
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.systolic_form import Form, form_of


def dsa_schedule(func: Func, d: Chooser) -> Schedule:
    """Schedule the one contraction of `func`; E302 when there is none, or when it does not have the
    form that the array computes."""
    name = _contraction(func)
    s = Schedule.of(func)
    for block in _maps(func, name):
        s = s.inline(block)
    forms = [form_of(s.func, name)]
    if _is_shallow(forms[0], d):
        forms.append(form_of(s.func, name, packed=True))
    tiles = best_tiles(forms, d)
    s = s.variant(name, "systolic", *astuple(tiles))
    return replace(s, picks=d.picks)


def _is_shallow(form: Form, d: Chooser) -> bool:
    """Whether a place of the window has so little depth that several fit the array at a time."""
    chip = d.target.chip
    window = () if form.q is None else tuple(form.q.window)
    return chip is not None and len(window) == 1 and 2 * form.depth <= chip.array.rows


def _contraction(func: Func) -> str:
    found = [p.block.name for p in places(func.body) if p.block.combiner]
    if len(found) != 1:
        what = ", ".join(found) or "none"
        raise error("E302", f"{func.name} is not one product", f"sums and the like: {what}")
    return found[0]


def _maps(func: Func, name: str) -> list[str]:
    """The maps whose results nothing else needs, in order."""

    def inner(b: Block) -> bool:
        return b.name != name and isinstance(b.body, Store) and b.body.buffer.role == "scratch"

    return [p.block.name for p in places(func.body) if inner(p.block)]

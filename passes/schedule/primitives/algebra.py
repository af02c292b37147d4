"""The primitive that chooses an algebraic alternative: variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.schedule import primitive
from aisc.passes.schedule.variants.winograd import winograd

# Name -> what rewrites a block that matches it, and gives the packer of its weights.
VARIANTS: Mapping[str, Callable[[Func, str], tuple[Func, Func]]] = {"winograd": winograd}


@primitive(reassociating=True)
def variant(func: Func, block: str, name: str) -> tuple[Func, Func]:
    """Compute a block by another algorithm, which is chosen by name and found by structure.

    before: ``conv[n,h,w,o] += x[n,h+kh,w+kw,c] * w[kh,kw,c,o]``   after ``variant("conv",
    "winograd")``: ``v = B^T d B;  m[p,t,o] += v[p,t,c] * u[p,c,o];  conv = A^T m A`` by tiles of
    4×4 results. Legal for an unscheduled block that the variant matches (E302 otherwise); results
    differ within the variant's stated bound.
    """
    if name not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise error("E302", f"variant({block}): there is no variant '{name}'", f"known: {known}")
    return VARIANTS[name](func, block)

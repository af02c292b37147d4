"""The primitive that chooses an algebraic alternative: variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.schedule import primitive
from aisc.passes.schedule.variants.decoding import streaming_rows
from aisc.passes.schedule.variants.grouped import grouped_sums
from aisc.passes.schedule.variants.panels import shared_panels
from aisc.passes.schedule.variants.row_registers import row_registers
from aisc.passes.schedule.variants.staged_panels import staged_panels
from aisc.passes.schedule.variants.streaming import streaming_attention
from aisc.passes.schedule.variants.systolic import systolic
from aisc.passes.schedule.variants.warp_panels import warp_panels
from aisc.passes.schedule.variants.winograd import winograd, winograd_blocks

# Name -> what rewrites a block that matches it, with sizes that are its own; with the packer of
# the block's weights, where they are transformed.
VARIANTS: Mapping[str, Callable[..., Func | tuple[Func, Func]]] = {
    "winograd": winograd,
    "winograd_blocks": winograd_blocks,
    "streaming_attention": streaming_attention,
    "streaming_rows": streaming_rows,
    "grouped_sums": grouped_sums,
    "systolic": systolic,
    "shared_panels": shared_panels,
    "warp_panels": warp_panels,
    "staged_panels": staged_panels,
    "row_registers": row_registers,
}


@primitive(reassociating=True)
def variant(func: Func, block: str, name: str, *sizes: int) -> Func | tuple[Func, Func]:
    """Compute a block by another algorithm, which is chosen by name and found by structure.

    before: ``conv[n,h,w,o] += x[n,h+kh,w+kw,c] * w[kh,kw,c,o]``   after ``variant("conv",
    "winograd")``: ``v = B^T d B;  m[p,t,o] += v[p,t,c] * u[p,c,o];  conv = A^T m A`` by tiles of
    4×4 results. Some take `sizes`: ``variant("out", "streaming_attention", 32, 64, 8)`` walks over
    blocks of 64 keys for 32 queries, with 8 rows of scores at a time. Legal for an unscheduled
    block that the variant matches (E302 otherwise); results differ within the variant's stated
    bound.
    """
    if name not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise error("E302", f"variant({block}): there is no variant '{name}'", f"known: {known}")
    taken = len(signature(VARIANTS[name]).parameters) - 2
    if len(sizes) != taken or not all(isinstance(n, int) for n in sizes):
        raise error("E302", f"variant({block}, '{name}'): it takes {taken} sizes, got {sizes}")
    return VARIANTS[name](func, block, *sizes)

"""The default schedule of a kernel on a SIMT machine: the first of these that is legal.

1. A matrix product gets tiles in shared memory (:mod:`aisc.passes.schedule.rules.simt_matmul`).
2. One nest without others around it is divided among blocks of threads, an element for each.
3. Several nests are divided among the threads of one block, which meet between them.
4. What is left is run by one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aisc.ir.diagnostics import CompileError, error
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import For
from aisc.ir.tensor.tree import Place, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.inlining import inline_maps
from aisc.passes.schedule.rules.simt_matmul import simt_matmul
from aisc.passes.schedule.schedule import Schedule

# Threads of a block, four warps: enough of them hide latencies, and few blocks have idle ones.
OWN_THREADS, THREADS = 128, (32, 64, 256, 512)
# Elements of a result from which on tiles of a product are filled well enough.
MIN_PRODUCT = 64 * 64
# The decision among the ways below, which concerns a kernel as a whole.
FORM, FORMS = "kernel.form", ("product", "grid", "block", "thread")


def simt_schedule(func: Func, d: Chooser) -> Schedule:
    """The schedule of a kernel by the first way that is legal, or the one that `d` prefers; E302
    where none is."""
    refused: CompileError | None = None
    forms = _forms(func)
    for form in (str(d.preferred[FORM]),) if FORM in d.preferred else forms:
        trial = d.fork(d.choices, {**d.preferred, FORM: form})
        try:
            made = _WAYS[trial.pick(FORM, forms, form)](func, trial)
        except CompileError as fault:
            refused = fault
            continue
        return replace(made, picks=trial.picks)
    raise refused or error("E302", f"{func.name} has no schedule")


def _forms(func: Func) -> list[str]:
    """The ways that the structure of a kernel allows."""
    found = [p.block for p in places(func.body)]
    reductions = [b for b in found if b.combiner]
    product = len(reductions) == 1 and len(reductions[0].iters) == 3 and _has_tile(func)
    fits = {"product": product, "grid": not reductions or len(found) == 1}
    return [form for form in FORMS if fits.get(form, True)]


def _has_tile(func: Func) -> bool:
    """Whether the result has a tile of elements."""
    size = next((b.type.size for b in func.params if b.role == "output"), 0)
    return isinstance(size, int) and size >= MIN_PRODUCT


def _product(func: Func, d: Chooser) -> Schedule:
    """Shared panels, where the result has a tile of elements."""
    if not _has_tile(func):
        raise error("E302", f"{func.name} gives less than a tile of elements")
    return simt_matmul(func, d)


def _threads(d: Chooser) -> int:
    most = d.target.limits.get("threads_per_block", 1024)
    return d.pick("kernel.threads", (n for n in THREADS if n <= most), OWN_THREADS)


def _grid(func: Func, d: Chooser) -> Schedule:
    """One nest: the elements of the result among blocks of threads."""
    s = inline_maps(Schedule.of(func), d)
    names = [p.block.name for p in places(s.func.body)]
    if len(names) != 1:
        raise error("E302", f"{func.name} is not one nest")
    s, loop = _flat(s, names[0])
    s = s.split(loop, _threads(d), names=(f"{loop}_b", f"{loop}_t"))
    return s.bind(f"{loop}_b", "block.x").bind(f"{loop}_t", "thread.x")


def _block(func: Func, d: Chooser) -> Schedule:
    """Nest after nest, each divided among the threads of one block."""
    s, threads = inline_maps(Schedule.of(func), d), _threads(d)
    for name in [p.block.name for p in places(s.func.body)]:
        loops = _spatial(find_place(s.func, name))
        if not loops:
            continue
        s, loop = _flat(s, name)
        s = s.split(loop, threads, names=(f"{loop}_o", f"{loop}_t"))
        s = s.reorder(f"{loop}_t", f"{loop}_o").bind(f"{loop}_t", "thread.x")
    return s


def _thread(func: Func, d: Chooser) -> Schedule:
    """The loops as they are, in one thread."""
    return Schedule.of(func)


_WAYS: dict[str, Callable[[Func, Chooser], Schedule]] = {
    "product": _product, "grid": _grid, "block": _block, "thread": _thread,
}  # fmt: skip


def _spatial(place: Place) -> list[For]:
    """The loops around a block that only choose among its results."""
    block = place.block
    chosen = {
        value for it, value in zip(block.iters, block.bindings, strict=True) if it.kind == "spatial"
    }
    return [f for f in place.loops if f.var in chosen]


def _flat(s: Schedule, block: str) -> tuple[Schedule, str]:
    """The spatial loops of a block as one, those of constant extents at least, innermost last; E302
    without any."""
    loops = _spatial(find_place(s.func, block))
    if not loops:
        raise error("E302", f"block {block} gives a single element")
    while len(loops) > 1 and not all(isinstance(f.extent, Const) for f in loops[1:]):
        loops = loops[1:]
    first, *others = (f.var.name for f in loops)
    fused = first
    for k, name in enumerate(others):
        s = s.fuse(fused, name, name=f"{first}_g{k}")
        fused = f"{first}_g{k}"
    return s, fused

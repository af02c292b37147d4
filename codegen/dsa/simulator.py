"""The functional simulator of accelerators: runs an instruction stream on bytes.

Memories of the target are arrays of bytes, instructions are executed by their declared meaning at
the addresses of the stream, one by one: wrong addresses give wrong results. Fresh memory is
poisoned. It is the reference for small programs; what runs is the model in machine code
(:mod:`aisc.codegen.dsa.model`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.dsa.assembler import executed
from aisc.codegen.dsa.stream import Code, Execution, Place, Site
from aisc.ir.diagnostics import execution_error
from aisc.ir.target import Target
from aisc.ir.tensor.interpret import run_func

Array = NDArray[Any]
POISON = 0xA5


def simulate(
    stream: Code,
    target: Target,
    args: Sequence[Array],
    executions: Iterable[Execution] | None = None,
) -> None:
    """Run a stream, or `executions` of its sites, on one C-contiguous array per parameter, written
    in place.

    E501 when the arrays do not fit, E502 when an operand lies outside of its memory or a size is
    none that the instruction can have."""
    places = memories(stream, target, args)
    for execution in stream if executions is None else executions:
        site = stream.sites[execution[0]]
        if isinstance(site, Site):  # in program order every token is there
            execute(site, execution, places)


def memories(stream: Code, target: Target, args: Sequence[Array]) -> dict[str, Array]:
    """The bytes of all memories by name, those of arrays in brackets; E501 where arrays do not
    fit."""
    if len(args) != len(stream.params):
        raise execution_error("E501", f"{stream.name} takes {len(stream.params)} arrays")
    places: dict[str, Array] = {
        space: np.full(target.memory(space).bytes, POISON, np.uint8) for space in stream.memory
    }
    for p, a in zip(stream.params, args, strict=True):
        if a.shape != p.type.static_shape or a.dtype != p.dtype.numpy or not a.flags.c_contiguous:
            raise execution_error("E501", f"the array for {p.name} does not fit {p.type}")
        places[f"[{p.name}]"] = a.reshape(-1).view(np.uint8)
    return places


def execute(site: Site, execution: Execution, places: dict[str, Array]) -> None:
    """One instruction."""
    _, args, offsets = execution
    found, sizes = site.intrinsic, dict(zip(site.dims, args, strict=True))
    for name, value in sizes.items():
        most = found.most.get(name)
        if most is not None and not 0 <= value <= most:
            what = f"{name} is {value}, which is not 0 to {most}"
            raise execution_error("E502", f"{executed(site, execution)}: {what}")
    pairs = zip(site.places, offsets, strict=True)
    try:
        views = [view(p, at, places, sizes) for p, at in pairs]
    except IndexError as fault:
        raise execution_error("E502", f"{executed(site, execution)}: {fault}") from None
    if all(v.size for v in views):
        run_func(found.semantics, views, sizes)


def view(place: Place, offset: int, places: Mapping[str, Array], sizes: Mapping[str, int]) -> Array:
    """The bytes of an operand as an array of its type; ``IndexError`` where they lie outside."""
    memory = places[place.name if place.local else f"[{place.name}]"]
    shape, size = place.shape(sizes), place.param.dtype.bytes
    if 0 in shape:
        return np.zeros(shape, place.param.dtype.numpy)
    last = sum((n - 1) * s for n, s in zip(shape, place.strides, strict=True))
    if offset < 0 or offset + last + size > memory.size:
        raise IndexError(
            f"bytes {offset} to {offset + last + size} lie outside of {place.name}, "
            f"which has {memory.size}"
        )
    start = memory[offset : offset + last + size]
    return np.ndarray(shape, place.param.dtype.numpy, start.data, strides=place.strides)

"""The functional simulator of DSAs: runs an instruction stream on bytes.

Memories of the target are arrays of bytes, instructions are executed by their declared semantics
at the addresses of the stream: wrong addresses give wrong results. Fresh memory is poisoned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.dsa.assembler import HostStep, Instruction, Listing, Operand
from aisc.ir.diagnostics import execution_error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.interpret import run_func

Array = NDArray[Any]
POISON = 0xA5


def simulate(listing: Listing, func: Func, target: Target, args: Sequence[Array]) -> None:
    """Run the stream of `func` on one C-contiguous array per parameter, written in place.

    E501 when the arrays do not fit, E502 when an operand lies outside of its memory.
    """
    if len(args) != len(func.params):
        raise execution_error("E501", f"{func.name} takes {len(func.params)} arrays")
    places: dict[str, Array] = {
        space: np.full(target.memory(space).bytes, POISON, np.uint8) for space in listing.memory
    }
    for p, a in zip(func.params, args, strict=True):
        if a.shape != p.type.static_shape or a.dtype != p.dtype.numpy or not a.flags.c_contiguous:
            raise execution_error("E501", f"the array for {p.name} does not fit {p.type}")
        places[f"[{p.name}]"] = a.reshape(-1).view(np.uint8)
    for step in listing.steps:
        if isinstance(step, HostStep):
            run_func(Func("host", func.params, (), step.work), args)
        else:
            _execute(step, target, places)


def _execute(step: Instruction, target: Target, places: dict[str, Array]) -> None:
    semantics = target.intrinsic(step.name).semantics
    views = [_view(o, p, places) for o, p in zip(step.operands, semantics.params, strict=True)]
    names = (v.name for v in semantics.dims)
    run_func(semantics, views, dict(zip(names, step.args, strict=True)))


def _view(operand: Operand, param: Buffer, places: dict[str, Array]) -> Array:
    """The bytes of an operand as an array of the parameter's type."""
    memory = places[operand.place if operand.local else f"[{operand.place}]"]
    shape, size = param.type.static_shape, param.dtype.bytes
    last = sum((n - 1) * s for n, s in zip(shape, operand.strides, strict=True))
    if operand.offset < 0 or operand.offset + last + size > memory.size:
        raise execution_error("E502", f"operand {operand} lies outside of its memory")
    start = memory[operand.offset : operand.offset + last + size]
    typed = np.ndarray(shape, param.dtype.numpy, start.data, strides=operand.strides)
    return typed

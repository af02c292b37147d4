"""Calls like the one before: nothing is worked out again.

Most programs call a model with arrays of the same types and sizes. Once such a call has been
checked, the next one only compares, fills in addresses and enters compiled code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aisc.codegen.arrays import Array, address
from aisc.codegen.cpu import pool as pools

if TYPE_CHECKING:
    from aisc.codegen.run.executable import Executable
    from aisc.codegen.signature import Values

# Bytes of a result for which lines of the cache that a store crosses cost less than alignment.
UNALIGNED = 16 << 10

Repeated = Callable[[Sequence[Any]], "list[Array] | None"]


def repeated(exe: Executable, shapes: Sequence[Values], sizes: Sequence[Values | None],
             dims: Values) -> Repeated | None:  # fmt: skip
    """A function for calls with inputs of these shapes, for which the outputs have these `sizes`
    and the symbolic dimensions the values `dims`. It gives the results, or ``None`` where the call
    is another one, or fails: then nothing has been done that the general way does not do again.
    ``None`` instead of it where a call must look at more than sizes and types, or calls back.
    """
    if any(s is None for s in sizes) or any(t == np.bool_ for t in exe.input_dtypes):
        return None
    if exe.image.calls:
        return None
    checks = [
        (k, s, t, t.alignment - 1)
        for k, (s, t) in enumerate(zip(shapes, exe.input_dtypes, strict=True))
    ]
    makers = [
        (k, s, t, _maker(exe, s, t))
        for k, (s, t) in enumerate(zip(sizes, exe.output_dtypes, strict=True))
        if s is not None
    ]
    count, values, threads = len(checks), list(enumerate(dims)), exe.threads
    idle, entry, runtime, ndarray = exe.idle, exe.entry, exe.image.runtime, np.ndarray
    passive = exe.wait == "passive"

    # Every name and call here counts: the whole takes two microseconds.
    def call(arrays: Sequence[Any]) -> list[Array] | None:
        if len(arrays) != count:
            return None
        try:
            space = idle.pop()
        except IndexError:  # other threads have taken all
            return None
        try:
            table = space.inputs
            for k, shape, dtype, low in checks:
                array = arrays[k]
                if type(array) is not ndarray or array.dtype is not dtype or array.shape != shape:
                    return None
                table[k] = at = address(array)
                if at & low or not array.flags.c_contiguous:
                    return None
            table, results = space.outputs, []
            for k, shape, dtype, make in makers:
                result = make(shape, dtype)
                table[k] = address(result)
                results.append(result)
            if values:
                for k, value in values:
                    space.dims[k] = value
            frame = space.frame
            frame.error = 0
            if threads == 1:
                frame.pool, frame.threads = 0, 1
                return None if entry(space.at) else results
            status = pools.entered(entry, frame, space.at, runtime, threads, passive)
            return None if status else results
        finally:
            idle.append(space)

    return call


def _maker(exe: Executable, shape: Values, dtype: np.dtype[Any]) -> Callable[..., Array]:
    """What makes an array of a shape and a type."""
    small = math.prod(shape) * dtype.itemsize <= UNALIGNED
    return np.empty if small else exe.results.array

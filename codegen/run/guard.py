"""Runs under guard: every buffer lies against a page that may not be touched, or is poisoned.

Inputs, results, weights and, in programs planned with `apart`, each storage of the arena end at the
start of such a page (or start at the end of one): an access outside of them ends the process with a
signal, so whoever runs this does so in a process that may end. Poisoned memory holds nothing that
could be right by chance: what a program gives back without having written it shows.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aisc.codegen.arrays import Array, address
from aisc.codegen.cpu.runtime_object import guarded_runtime
from aisc.codegen.image import Image
from aisc.codegen.run.executable import Executable
from aisc.codegen.signature import Values

PAGE = mmap.PAGESIZE
_NONE = 0  # PROT_NONE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded_array(shape: Sequence[int], dtype: np.dtype[Any], at_end: bool) -> Array:
    """An array of zeros whose last byte (or first one) lies against a page without access."""
    size = math.prod(shape) * dtype.itemsize
    inner = -(-size // PAGE) * PAGE
    block = mmap.mmap(-1, inner + 2 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for page in (address, address + PAGE + inner):
        if _libc.mprotect(page, PAGE, _NONE):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = PAGE + (inner - size if at_end else 0)
    return np.ndarray(tuple(shape), dtype, block, start)


def guarded_copy(array: Any, at_end: bool) -> Array:
    """A copy under guard."""
    source = np.asarray(array)
    made = guarded_array(source.shape, source.dtype, at_end)
    made[...] = source
    return made


class GuardedExecutable(Executable):
    """An executable of an image, all of whose memory is under guard."""

    REPEATS = False

    def __init__(self, image: Image, threads: int = 1, at_end: bool = True) -> None:
        weights = tuple(guarded_copy(w, at_end) for w in image.weights)
        runtime = guarded_runtime(at_end)
        super().__init__(replace(image, weights=weights, runtime=runtime), threads)
        self._at_end = at_end

    def _run(self, arrays: Sequence[Any], out: Any) -> list[Array]:
        return super()._run([guarded_copy(a, self._at_end) for a in arrays], out)

    def _allocate(
        self, shapes: list[Values | None], out: Any, inputs: list[Array]
    ) -> list[Array | None]:
        return [
            None if s is None else guarded_array(s, t, self._at_end)
            for s, t in zip(shapes, self.output_dtypes, strict=True)
        ]


_POISON = 0xFF  # NaN for floats, -1 for integers


class PoisonedExecutable(Executable):
    """An executable of an image, whose memory and results hold poison when a run begins."""

    REPEATS = False

    def _invoke(self, space: Any, inputs: list[Array], outputs: Any, dims: Values) -> int:
        if not space.memory.any():  # only a run makes the memory it needs
            super()._invoke(space, inputs, outputs, dims)
        for result in outputs:
            if result is not None:
                ctypes.memset(address(result), _POISON, result.nbytes)
        for k in self.image.signature.segments:
            base, size = map(int, space.memory[k : k + 2])
            ctypes.memset(base, _POISON, size)
        return super()._invoke(space, inputs, outputs, dims)

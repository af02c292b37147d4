"""Weights as compiled code reads them, made one after the other and handed on.

A model's weights may be as large as memory. So nobody asks for all of them as they are made: what
consumes them, a file or a list in memory, asks for one at a time, and what it was made of is given
back to the system.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from aisc.codegen.arrays import Array, aligned
from aisc.codegen.image import Image
from aisc.ir.blob import Blob

# Memory for an array of a shape and a type: new, or that of an array which is no longer used.
Allocate = Callable[[tuple[int, ...], np.dtype[np.generic]], Array]


class WeightSource(Protocol):
    """Weights by their number in a signature."""

    def array(self, k: int, allocate: Allocate) -> Array:
        """A weight, C-contiguous and aligned: in memory of `allocate`, or where the model has it,
        if that is memory of this process alone."""


# Stores the weights of an image in a file and maps them; ``None`` when it does not keep them, be it
# that it has asked for some or none.
Keep = Callable[[Image, WeightSource], "tuple[Array, ...] | None"]


class Ready:
    """Weights that are there."""

    def __init__(self, weights: Sequence[Array]) -> None:
        self._weights = weights

    def array(self, k: int, allocate: Allocate) -> Array:
        """The weight itself."""
        return self._weights[k]


class Scratch:
    """Memory for one array at a time, as large as the largest so far."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """An uninitialised array, in the place of the one before."""
        size = math.prod(shape) * dtype.itemsize
        if size > self._block.size:
            self._block = np.empty(0, np.uint8)  # the old one goes before the new one comes
            self._block = aligned((size,), np.dtype(np.uint8))
        return np.ndarray(shape, dtype, self._block)


def with_weights(image: Image, source: WeightSource, keep: Keep | None) -> Image:
    """An image with its weights, in a file where `keep` has stored them, else in memory."""
    kept = None if keep is None else keep(image, source)
    return replace(image, weights=_in_memory(image, source) if kept is None else kept)


def _in_memory(image: Image, source: WeightSource) -> tuple[Array, ...]:
    """All weights, equal ones as one array: kernels that differ may pack alike. The largest come
    first, as more memory is needed while a weight is made than afterwards."""
    sizes = [math.prod(p.type.static_shape) * p.dtype.bytes for p in image.signature.weights]
    first: dict[Blob, Array] = {}
    found: dict[int, Array] = {}
    for k in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        array = source.array(k, aligned)
        array.flags.writeable = False
        found[k] = first.setdefault(Blob(array), array)
    return tuple(found[k] for k in range(len(sizes)))

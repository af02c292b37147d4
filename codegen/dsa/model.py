"""Kernels of an accelerator as machine code of the host: what their instructions mean, in order.

Each launch has tiles of its own, as the memories of the accelerator hold nothing from one kernel to
the next.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import numpy as np

from aisc.codegen.arrays import aligned
from aisc.codegen.backend import host_of
from aisc.codegen.llvm.link import Linked
from aisc.ir.dataclass import dataclass
from aisc.ir.target import host


@dataclass(frozen=True, slots=True)
class ModelKernel:
    """How many buffers a kernel takes, and the bytes of its tiles."""

    operands: int
    tiles: tuple[int, ...]


class Model:
    """The kernels of a compiled model, linked."""

    def __init__(self, kernels: Mapping[str, ModelKernel], objects: Sequence[bytes]) -> None:
        self.kernels = kernels
        self.code = Linked([host_of(host()).runtime, *objects], list(kernels))

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a kernel on the operands, where they lie."""
        about = self.kernels[kernel]
        tiles = [aligned((n,), np.dtype(np.uint8)) for n in about.tiles]
        given = [*pointers, *(t.ctypes.data for t in tiles), 0, 1, None]
        kinds = [ctypes.c_void_p] * (len(pointers) + len(tiles))
        kinds += [ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]  # type: ignore[list-item]
        ctypes.CFUNCTYPE(None, *kinds)(self.code.addresses[kernel])(*given)


__all__ = ["Model", "ModelKernel"]

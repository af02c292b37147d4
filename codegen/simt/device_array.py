"""Arrays in the memory of a device: results of calls whose inputs lie there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen import dlpack

if TYPE_CHECKING:
    from aisc.codegen.simt.gpu import Gpu


class DeviceArray:
    """A C-contiguous array on a device. Libraries that know ``__cuda_array_interface__`` or DLPack
    use it where it lies; numpy gets a copy."""

    def __init__(self, gpu: Gpu, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype
        self.nbytes = prod(shape) * dtype.itemsize
        self._gpu = gpu
        self.address = gpu.pool.take(self.nbytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False),
            "version": 3, "strides": None, "stream": None,
        }  # fmt: skip

    def __dlpack__(self, **how: Any) -> Any:
        """A capsule; what it describes is complete, whatever queue it is read from."""
        return dlpack.give(self, self.address, self.shape, self.dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def numpy(self) -> NDArray[Any]:
        """A copy on the host."""
        found = np.empty(self.shape, self.dtype)
        self._gpu.read(found.ctypes.data, self.address, self.nbytes)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("an array of a device is copied to the host")
        found = self.numpy()
        return found if dtype is None else found.astype(dtype)

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype}{list(self.shape)} on {self._gpu.name}>"

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if not at_exit() and hasattr(self, "address"):
            self._gpu.pool.give(self.address)

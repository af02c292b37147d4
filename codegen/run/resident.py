"""Calls whose inputs lie in the memory of the device that runs the program: nothing of them comes
to the host, and results stay on the device.

The program is called as ever, with places on the host that nobody touches; the device is told which
of its own addresses stand behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from aisc.codegen import dlpack
from aisc.codegen.arrays import Array, address, as_input
from aisc.codegen.backend import Separate
from aisc.codegen.signature import Port, shape_error
from aisc.ir.diagnostics import execution_error

if TYPE_CHECKING:
    from aisc.codegen.run.executable import Executable

PROTOCOL = "__cuda_array_interface__"


def is_resident(value: Any) -> bool:
    """Whether a value lies on a device."""
    if type(value) is np.ndarray:
        return False
    if hasattr(value, PROTOCOL):
        return True
    return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] == dlpack.CUDA


class Resident:
    """Runs an executable that is one device's alone on arrays of that device."""

    def __init__(self, exe: Executable, device: Separate) -> None:
        self._exe, self._device = exe, device

    @staticmethod
    def takes(arrays: Sequence[Any]) -> bool:
        """Whether a call has inputs on the device."""
        return any(map(is_resident, arrays))

    def __call__(self, arrays: Sequence[Any]) -> list[Any]:
        """The results, as arrays of the device; E501 for inputs that do not fit. Those that lie on
        the host are copied."""
        exe = self._exe
        lent: list[tuple[int, int]] = []
        given: list[Array] = []
        for value, port, dtype in zip(arrays, exe.inputs, exe.input_dtypes, strict=True):
            if is_resident(value):
                place, at = self._place(value, port, dtype)
                lent.append((address(place), at))
                given.append(place)
            else:
                given.append(as_input(value, port, dtype))
        dims, shapes = exe.sizes(given)
        known = [s for s in shapes if s is not None]
        results = [self._device.array(s, t) for s, t in zip(known, exe.output_dtypes, strict=True)]
        places = [np.empty(s, t) for s, t in zip(known, exe.output_dtypes, strict=True)]
        lent += [(address(p), r.address) for p, r in zip(places, results, strict=True)]
        exe.run_at(given, places, dims, lent)
        return results

    def _place(self, value: Any, port: Port, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """An array of the host that nobody touches, and what stands behind it."""
        lying, queue = _lying(value)
        place = np.empty(lying.shape, lying.dtype)
        if lying.dtype != dtype or place.ndim != len(port.type.shape):
            raise shape_error("input", port, place)
        if lying.strides is not None and lying.strides != place.strides and place.size:
            what = f"input '{port.name}' does not lie in order on the device"
            raise execution_error("E501", what, f"strides {lying.strides}")
        if queue is not None:
            self._device.wait_for(queue)
        return place, lying.address


def _lying(value: Any) -> tuple[dlpack.Lying, int | None]:
    """Where an array of another library lies, and the queue whose work it waits for."""
    if not hasattr(value, PROTOCOL):
        return dlpack.read(value.__dlpack__(stream=dlpack.LEGACY_STREAM)), dlpack.LEGACY_STREAM
    about = getattr(value, PROTOCOL)
    strides, stream = about.get("strides"), about.get("stream")
    lying = dlpack.Lying(
        int(about["data"][0]), tuple(about["shape"]), np.dtype(about["typestr"]),
        None if strides is None else tuple(strides),
    )  # fmt: skip
    return lying, None if stream is None else int(stream)

"""Calls whose inputs lie in the memory of the device that runs the program: nothing of them comes
to the host, and results stay on the device.

The program is called as ever, with places on the host that nobody touches; the device is told which
of its own addresses stand behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from aisc.codegen.arrays import Array, address, as_input
from aisc.codegen.backend import Separate
from aisc.codegen.signature import Port, shape_error
from aisc.ir.diagnostics import execution_error

if TYPE_CHECKING:
    from aisc.codegen.run.executable import Executable

PROTOCOL = "__cuda_array_interface__"


def is_resident(value: Any) -> bool:
    """Whether a value lies on a device."""
    return type(value) is not np.ndarray and hasattr(value, PROTOCOL)


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
        about = getattr(value, PROTOCOL)
        shape, kind = tuple(about["shape"]), np.dtype(about["typestr"])
        place = np.empty(shape, kind)
        if kind != dtype or place.ndim != len(port.type.shape):
            raise shape_error("input", port, place)
        strides = about.get("strides")
        if strides is not None and tuple(strides) != place.strides and prod(shape):
            what = f"input '{port.name}' does not lie in order on the device"
            raise execution_error("E501", what, f"strides {tuple(strides)}")
        stream = about.get("stream")
        if stream is not None:
            self._device.wait_for(int(stream))
        return place, int(about["data"][0])

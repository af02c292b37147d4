"""What a running program calls back for: operators of the host, and kernels of devices.

A call passes its number and one array of words. Of an operator these are those of
:mod:`aisc.codegen.host`; of a kernel the addresses of its buffers, then the values of its
dimensions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from aisc.codegen.abi import HOST_FAILED
from aisc.codegen.backend import Device
from aisc.codegen.image import Launch
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.node import walk
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import CallKernel, HostCall

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


def calls_of(entry: Func, kernels: Mapping[str, Func]) -> tuple[HostCall | Launch, ...]:
    """What an entry calls back for, in the order of the numbers."""
    found: list[HostCall | Launch] = []
    for n in walk(entry.body):
        if isinstance(n, HostCall):
            found.append(n)
        elif isinstance(n, CallKernel) and kernels[n.kernel].target != entry.target:
            target = kernels[n.kernel].target
            found.append(Launch(target, n.kernel, len(n.args), len(n.dims)))
    return tuple(found)


class Callbacks:
    """The callback of one run at a time; `fault` is what a call raised."""

    def __init__(self, calls: Sequence[HostCall | Launch], devices: Mapping[str, Device]) -> None:
        self.calls, self.devices = calls, devices
        self.fault: Exception | None = None
        self._callback = _CALLBACK(self._run)

    @property
    def address(self) -> int:
        """Address of the callback."""
        return ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def raised(self) -> ExecutionError | None:
        """What a call raised, if anything, as an ``ExecutionError``."""
        fault, self.fault = self.fault, None
        if fault is None or isinstance(fault, ExecutionError):
            return fault
        return execution_error("E502", "an operator on the host or a device failed", str(fault))

    def _run(self, index: int, words: int, sizes: int) -> int:
        try:
            call = self.calls[index]
            if isinstance(call, Launch):
                self._launch(call, words)
            else:
                from aisc.codegen.host import run_host_call

                run_host_call(call, words, sizes)
        except Exception as fault:  # must not pass through native code
            self.fault = fault
            return HOST_FAILED
        return 0

    def _launch(self, call: Launch, words: int) -> None:
        given = list((ctypes.c_int64 * (call.buffers + call.dims)).from_address(words))
        device = self.devices[call.target]
        device.launch(call.kernel, given[: call.buffers], given[call.buffers :])

"""NVIDIA's driver as Python functions: what a program needs to run on a device, and no toolkit.

Each function here is one of the driver's (CUDA Driver API reference); what fails raises
:class:`DriverError` with the name that the driver gives it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error

LIBRARIES = ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so")
OUT_OF_MEMORY, NO_DEVICE = 2, 100
MAJOR, MINOR, PROCESSORS, SHARED_LIMIT = 75, 76, 16, 97  # attributes of devices
_INFO, _INFO_SIZE, _ERROR, _ERROR_SIZE = 3, 4, 5, 6  # options of loading: logs
LOG_BYTES = 1 << 14
_DYNAMIC_SHARED = 8  # an attribute of functions
_RELAXED = 2  # of capturing: what other threads do at the same time is their business

Handle = int
Size = tuple[int, int, int]


class DriverError(Exception):
    """What the driver has refused: the function, its status, and what it says."""

    def __init__(self, function: str, status: int, said: str, log: str = "") -> None:
        super().__init__(f"{function}: {said}")
        self.function, self.status, self.said, self.log = function, status, said, log

    def as_execution_error(self) -> ExecutionError:
        """For whoever runs a model: E502."""
        if self.status == OUT_OF_MEMORY:
            return execution_error("E502", "the device has too little memory", str(self))
        return execution_error("E502", "the device failed", str(self))


def find_driver() -> Driver | None:
    """The driver, where it is installed and has a device."""
    for name in LIBRARIES:
        try:
            functions = ctypes.CDLL(name)
        except OSError:
            continue
        driver = Driver(functions)
        try:
            driver.call("cuInit", 0)
            return driver if driver.devices() else None
        except (DriverError, AttributeError):
            return None
    return None


@dataclass(eq=False)
class Driver:
    """The driver, by its functions."""

    functions: Any

    def call(self, function: str, *args: Any) -> None:
        """One of its functions; ``DriverError`` where its status is not 0."""
        status = getattr(self.functions, function)(*args)
        if status:
            raise DriverError(function, status, self._name(status))

    def _name(self, status: int) -> str:
        text = ctypes.c_char_p()
        if (
            self.functions.cuGetErrorName(ctypes.c_int(status), ctypes.byref(text))
            or not text.value
        ):
            return f"status {status}"
        return text.value.decode("ascii", "replace")

    def _made(self, function: str, *args: Any) -> Handle:
        """The handle that a function gives as its first argument."""
        made = ctypes.c_void_p()
        self.call(function, ctypes.byref(made), *args)
        return made.value or 0

    # -- devices and contexts ------------------------------------------------------------------

    def devices(self) -> int:
        """How many devices there are."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def attribute(self, device: int, number: int) -> int:
        """A property of a device."""
        found = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(found), ctypes.c_int(number),
                  ctypes.c_int(device))  # fmt: skip
        return found.value

    def capability(self, device: int) -> tuple[int, int]:
        """Its architecture, as (9, 0)."""
        return self.attribute(device, MAJOR), self.attribute(device, MINOR)

    def device_name(self, device: int) -> str:
        """What its maker calls it."""
        text = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", text, ctypes.c_int(256), ctypes.c_int(device))
        return text.value.decode("ascii", "replace")

    @cached_property
    def context(self) -> Handle:
        """The context of the first device, which other libraries of the process share."""
        return self._made("cuDevicePrimaryCtxRetain", ctypes.c_int(0))

    def enter(self) -> None:
        """Let this thread use the context."""
        self.call("cuCtxSetCurrent", ctypes.c_void_p(self.context))

    # -- code ----------------------------------------------------------------------------------

    def load(self, ptx: str) -> Handle:
        """A module of PTX; the error carries the log of the driver's assembler."""
        log = ctypes.create_string_buffer(LOG_BYTES)
        options = (ctypes.c_int * 2)(_ERROR, _ERROR_SIZE)
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), LOG_BYTES)
        text = ctypes.create_string_buffer(ptx.encode("ascii"))
        try:
            return self._made("cuModuleLoadDataEx", text, ctypes.c_uint(2), options, values)
        except DriverError as fault:
            said = log.value.decode("ascii", "replace").strip()
            raise DriverError(fault.function, fault.status, fault.said, said) from None

    def unload(self, module: Handle) -> None:
        """Give a module back."""
        self.call("cuModuleUnload", ctypes.c_void_p(module))

    def function(self, module: Handle, name: str) -> Handle:
        """A kernel of a module."""
        return self._made("cuModuleGetFunction", ctypes.c_void_p(module), name.encode("ascii"))

    def allow_shared(self, function: Handle, size: int) -> None:
        """Let launches of a kernel ask for so many bytes of shared memory."""
        self.call("cuFuncSetAttribute", ctypes.c_void_p(function), ctypes.c_int(_DYNAMIC_SHARED),
                  ctypes.c_int(size))  # fmt: skip

    def launch(
        self, function: Handle, grid: Size, block: Size, args: Sequence[int], stream: Handle,
        shared: int = 0,
    ) -> None:  # fmt: skip
        """Run a kernel whose parameters are words of 64 bits, with so many bytes of shared memory
        beside what it declares."""
        words = (ctypes.c_int64 * max(1, len(args)))(*args)
        start = ctypes.addressof(words)
        table = (ctypes.c_void_p * max(1, len(args)))(*(start + 8 * k for k in range(len(args))))
        sizes = (ctypes.c_uint(n) for n in (*grid, *block, shared))
        self.call("cuLaunchKernel", ctypes.c_void_p(function), *sizes, ctypes.c_void_p(stream),
                  table, None)  # fmt: skip

    # -- memory --------------------------------------------------------------------------------

    def allocate(self, size: int) -> int:
        """The address of new memory of the device."""
        made = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(made), ctypes.c_size_t(size))
        return made.value

    def free(self, address: int) -> None:
        """Give memory of the device back."""
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, to: int, source: int, size: int, stream: Handle) -> None:
        """From the host to the device."""
        self.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(to), ctypes.c_void_p(source),
                  ctypes.c_size_t(size), ctypes.c_void_p(stream))  # fmt: skip

    def download(self, to: int, source: int, size: int, stream: Handle) -> None:
        """From the device to the host."""
        self.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(to), ctypes.c_uint64(source),
                  ctypes.c_size_t(size), ctypes.c_void_p(stream))  # fmt: skip

    def copy(self, to: int, source: int, size: int, stream: Handle) -> None:
        """Within the device."""
        self.call("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(to), ctypes.c_uint64(source),
                  ctypes.c_size_t(size), ctypes.c_void_p(stream))  # fmt: skip

    def clear(self, address: int, size: int, stream: Handle) -> None:
        """Fill memory of the device with zeros."""
        self.call("cuMemsetD8Async", ctypes.c_uint64(address), ctypes.c_ubyte(0),
                  ctypes.c_size_t(size), ctypes.c_void_p(stream))  # fmt: skip

    # -- streams, graphs, events ---------------------------------------------------------------

    def stream(self) -> Handle:
        """A new queue of work."""
        return self._made("cuStreamCreate", ctypes.c_uint(1))

    def destroy_stream(self, stream: Handle) -> None:
        """Give a queue back."""
        self.call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def wait(self, stream: Handle) -> None:
        """Until all work of a queue is done."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def begin_capture(self, stream: Handle) -> None:
        """From now on work is recorded instead of done."""
        self.call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(_RELAXED))

    def end_capture(self, stream: Handle) -> Handle:
        """What was recorded, ready to be launched."""
        graph = ctypes.c_void_p()
        self.call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        try:
            return self._made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
        finally:
            self.call("cuGraphDestroy", graph)

    def launch_graph(self, graph: Handle, stream: Handle) -> None:
        """Do all that was recorded."""
        self.call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))

    def destroy_graph(self, graph: Handle) -> None:
        """Give a recording back."""
        self.call("cuGraphExecDestroy", ctypes.c_void_p(graph))

    def event(self) -> Handle:
        """A mark for a queue that knows when it was passed."""
        return self._made("cuEventCreate", ctypes.c_uint(0))

    def record(self, event: Handle, stream: Handle) -> None:
        """Put a mark behind the work of a queue."""
        self.call("cuEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def milliseconds(self, first: Handle, last: Handle) -> float:
        """The time between two marks, once the later one is passed."""
        self.call("cuEventSynchronize", ctypes.c_void_p(last))
        found = ctypes.c_float()
        self.call("cuEventElapsedTime", ctypes.byref(found), ctypes.c_void_p(first),
                  ctypes.c_void_p(last))  # fmt: skip
        return found.value

    def destroy_event(self, event: Handle) -> None:
        """Give a mark back."""
        self.call("cuEventDestroy_v2", ctypes.c_void_p(event))

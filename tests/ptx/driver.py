"""A double of NVIDIA's driver library: its functions as ctypes calls them, over the PTX machine.

Work of a stream is done when somebody waits for it, so that a program that does not wait reads what
was there before. Everything is checked: handles, sizes, what belongs to whom, what may not happen
while work is recorded. `journal` lists the calls; `fail` makes one of them fail.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptx.machine import LaunchFault, Machine
from ptx.memory import Fault, Space
from ptx.syntax import Module, PtxError, parse

INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, INVALID_PTX = 1, 2, 3, 218
INVALID_HANDLE, NOT_FOUND, LAUNCH_FAILED, CAPTURING = 400, 500, 719, 900
NAMES = {
    INVALID_VALUE: b"CUDA_ERROR_INVALID_VALUE", OUT_OF_MEMORY: b"CUDA_ERROR_OUT_OF_MEMORY",
    NOT_INITIALIZED: b"CUDA_ERROR_NOT_INITIALIZED", INVALID_PTX: b"CUDA_ERROR_INVALID_PTX",
    INVALID_HANDLE: b"CUDA_ERROR_INVALID_HANDLE", NOT_FOUND: b"CUDA_ERROR_NOT_FOUND",
    LAUNCH_FAILED: b"CUDA_ERROR_LAUNCH_FAILED", 100: b"CUDA_ERROR_NO_DEVICE",
    CAPTURING: b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
}  # fmt: skip
Work = Callable[[], None]


class Refused(Exception):
    """A status other than 0."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass
class Stream:
    """Work that is to be done, and where it is recorded if it is."""

    queue: list[Work] = field(default_factory=list)
    recorded: list[Work] | None = None


@dataclass
class FakeCuda:
    """The library. capability: architecture of its device; memory_bytes: what it has."""

    capability: tuple[int, int] = (9, 0)
    memory_bytes: int = 1 << 30
    count: int = 1
    journal: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    failing: dict[str, list[int]] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    modules: dict[int, Module] = field(default_factory=dict)
    functions: dict[int, tuple[int, str]] = field(default_factory=dict)
    allowed: dict[int, int] = field(default_factory=dict)  # shared memory of functions
    graphs: dict[int, list[Work]] = field(default_factory=dict)
    events: dict[int, float] = field(default_factory=dict)
    blocks: dict[int, int] = field(default_factory=dict)
    launched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    started: bool = False
    current: bool = False
    now: float = 0.0

    def __post_init__(self) -> None:
        self.memory = Space()
        self._handles = itertools.count(0x1000, 0x10)

    def fail(self, function: str, status: int, after: int = 0) -> None:
        """Make a function fail once, after so many calls that succeed."""
        self.failing[function] = [after, status]

    def calls(self, *functions: str) -> list[str]:
        """The calls so far, or those of these functions."""
        return [name for name, _ in self.journal if not functions or name in functions]

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        does = getattr(type(self), "_" + name, None)
        if does is None:
            raise AttributeError(f"the driver has no function {name}")

        def call(*args: Any) -> int:
            plain = tuple(a.value if isinstance(a, ctypes._SimpleCData) else a for a in args)
            self.journal.append((name, plain))
            left = self.failing.get(name)
            if left is not None:
                if left[0] == 0:
                    del self.failing[name]
                    return left[1]
                left[0] -= 1
            try:
                does(self, *plain)
            except Refused as refused:
                return refused.status
            return 0

        return call

    # -- start ---------------------------------------------------------------------------------

    def _cuInit(self, flags: int) -> None:  # noqa: N802
        if self.count == 0:
            raise Refused(100)
        self.started = True

    def _cuGetErrorName(self, status: int, into: Any) -> None:  # noqa: N802
        if status not in NAMES:
            raise Refused(INVALID_VALUE)
        into._obj.value = NAMES[status]

    def _cuDeviceGetCount(self, into: Any) -> None:  # noqa: N802
        self._need(self.started, NOT_INITIALIZED)
        into._obj.value = self.count

    def _cuDeviceGetAttribute(self, into: Any, number: int, device: int) -> None:  # noqa: N802
        self._need(device < self.count, INVALID_VALUE)
        known = {75: self.capability[0], 76: self.capability[1], 16: 132, 97: 232448}
        into._obj.value = known[number]

    def _cuDeviceGetName(self, text: Any, size: int, device: int) -> None:  # noqa: N802
        ctypes.memmove(text, b"Pretended Device\0", min(size, 17))

    def _cuDevicePrimaryCtxRetain(self, into: Any, device: int) -> None:  # noqa: N802
        into._obj.value = 0xC0

    def _cuCtxSetCurrent(self, context: int) -> None:  # noqa: N802
        self._need(context == 0xC0, INVALID_HANDLE)
        self.current = True

    # -- code ----------------------------------------------------------------------------------

    def _cuModuleLoadDataEx(  # noqa: N802
        self, into: Any, text: Any, count: int, options: Any, values: Any
    ) -> None:
        self._need(self.current, INVALID_HANDLE)
        try:
            module = parse(text.value.decode("ascii"))
        except PtxError as fault:
            found = {options[k]: values[k] for k in range(count)}
            said = f"ptxas application ptx input, {fault}\0".encode()
            ctypes.memmove(found[5], said, min(len(said), found[6]))
            raise Refused(INVALID_PTX) from None
        handle = into._obj.value = next(self._handles)
        self.modules[handle] = module

    def _cuModuleUnload(self, module: int) -> None:  # noqa: N802
        self._need(module in self.modules, INVALID_HANDLE)
        del self.modules[module]

    def _cuModuleGetFunction(self, into: Any, module: int, name: bytes) -> None:  # noqa: N802
        self._need(module in self.modules, INVALID_HANDLE)
        self._need(name.decode() in self.modules[module].kernels, NOT_FOUND)
        handle = into._obj.value = next(self._handles)
        self.functions[handle] = module, name.decode()

    def _cuFuncSetAttribute(self, function: int, attribute: int, value: int) -> None:  # noqa: N802
        self._need(function in self.functions and attribute == 8, INVALID_VALUE)
        self.allowed[function] = value

    def _cuLaunchKernel(  # noqa: N802
        self, function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
        stream: int, params: Any, extra: Any,
    ) -> None:  # fmt: skip
        self._need(function in self.functions and extra is None, INVALID_HANDLE)
        self._need(min(gx, gy, gz, bx, by, bz) > 0 and bx * by * bz <= 1024, INVALID_VALUE)
        self._need(shared <= self.allowed.get(function, 48 << 10), INVALID_VALUE)
        handle, name = self.functions[function]
        module = self.modules[handle]
        kernel = module.kernels[name]
        self._need(kernel.threads in (None, (bx, by, bz)), INVALID_VALUE)
        args = [
            int.from_bytes(ctypes.string_at(params[k], size), "little", signed=True)
            for k, (_, size) in enumerate(kernel.params)
        ]

        def run() -> None:
            self.launched.append((name, (gx, gy, gz), (bx, by, bz)))
            machine = Machine(module, self.memory, count=False)
            try:
                machine.launch(name, (gx, gy, gz), args, (bx, by, bz), shared)
            except LaunchFault:
                raise Refused(LAUNCH_FAILED) from None

        self._put(stream, run)

    # -- memory --------------------------------------------------------------------------------

    def _cuMemAlloc_v2(self, into: Any, size: int) -> None:  # noqa: N802
        self._need(self.current and size > 0, INVALID_VALUE)
        self._need(not any(s.recorded is not None for s in self.streams.values()), CAPTURING)
        self._need(sum(self.blocks.values()) + size <= self.memory_bytes, OUT_OF_MEMORY)
        start = into._obj.value = self.memory.allocate(size, f"block of {size} bytes")
        self.blocks[start] = size

    def _cuMemFree_v2(self, start: int) -> None:  # noqa: N802
        self._need(start in self.blocks, INVALID_VALUE)
        del self.blocks[start]
        self.memory.free(start)

    def bytes_at(self, start: int, size: int) -> np.ndarray:
        """Memory of the device, all of it in one block; what is written there is known."""
        try:
            piece = self.memory.piece(start)
        except Fault:
            raise Refused(INVALID_VALUE) from None
        low = start - piece.start
        self._need(low + size <= piece.data.size, INVALID_VALUE)
        return piece.data[low : low + size]

    def _known(self, start: int, size: int) -> np.ndarray:
        piece = self.memory.piece(start)
        low = start - piece.start
        return piece.shadow.known[low : low + size]

    def _cuMemcpyHtoDAsync_v2(self, to: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        data = np.frombuffer(ctypes.string_at(source, size), np.uint8)  # pageable: staged now
        target = self.bytes_at(to, size)

        def run() -> None:
            target[:] = data
            self._known(to, size)[:] = True

        self._put(stream, run)

    def _cuMemcpyDtoHAsync_v2(self, to: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        data = self.bytes_at(source, size)
        self._put(stream, lambda: ctypes.memmove(to, data.ctypes.data, size) and None)

    def _cuMemcpyDtoDAsync_v2(self, to: int, source: int, size: int, stream: int) -> None:  # noqa: N802
        target, data = self.bytes_at(to, size), self.bytes_at(source, size)

        def run() -> None:
            target[:] = data
            self._known(to, size)[:] = self._known(source, size)

        self._put(stream, run)

    def _cuMemsetD8Async(self, to: int, value: int, size: int, stream: int) -> None:  # noqa: N802
        target = self.bytes_at(to, size)

        def run() -> None:
            target[:] = value
            self._known(to, size)[:] = True

        self._put(stream, run)

    # -- streams, graphs, events ---------------------------------------------------------------

    def _put(self, stream: int, work: Work) -> None:
        self._need(stream in self.streams, INVALID_HANDLE)
        s = self.streams[stream]
        (s.queue if s.recorded is None else s.recorded).append(work)

    def _cuStreamCreate(self, into: Any, flags: int) -> None:  # noqa: N802
        handle = into._obj.value = next(self._handles)
        self.streams[handle] = Stream()

    def _cuStreamDestroy_v2(self, stream: int) -> None:  # noqa: N802
        self._need(stream in self.streams and not self.streams[stream].queue, INVALID_HANDLE)
        del self.streams[stream]

    def _cuStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        self._need(stream in self.streams, INVALID_HANDLE)
        s = self.streams[stream]
        self._need(s.recorded is None, CAPTURING)
        while s.queue:
            self.now += 1.0
            s.queue.pop(0)()

    def _cuStreamBeginCapture_v2(self, stream: int, mode: int) -> None:  # noqa: N802
        self._need(self.streams[stream].recorded is None and mode == 2, CAPTURING)
        self.streams[stream].recorded = []

    def _cuStreamEndCapture(self, stream: int, into: Any) -> None:  # noqa: N802
        recorded = self.streams[stream].recorded
        self._need(recorded is not None, CAPTURING)
        assert recorded is not None
        self.streams[stream].recorded = None
        handle = into._obj.value = next(self._handles)
        self.graphs[handle] = recorded

    def _cuGraphInstantiateWithFlags(self, into: Any, graph: int, flags: int) -> None:  # noqa: N802
        self._need(graph in self.graphs, INVALID_HANDLE)
        handle = into._obj.value = next(self._handles)
        self.graphs[handle] = list(self.graphs[graph])

    def _cuGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        self._need(graph in self.graphs, INVALID_HANDLE)
        for work in self.graphs[graph]:
            self._put(stream, work)

    def _cuGraphDestroy(self, graph: int) -> None:  # noqa: N802
        self._need(graph in self.graphs, INVALID_HANDLE)
        del self.graphs[graph]

    _cuGraphExecDestroy = _cuGraphDestroy  # noqa: N815

    def _cuEventCreate(self, into: Any, flags: int) -> None:  # noqa: N802
        handle = into._obj.value = next(self._handles)
        self.events[handle] = -1.0

    def _cuEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self._need(event in self.events, INVALID_HANDLE)
        self._put(stream, lambda: self.events.__setitem__(event, self.now))

    def _cuEventSynchronize(self, event: int) -> None:  # noqa: N802
        self._need(event in self.events, INVALID_HANDLE)
        for s in self.streams.values():
            while s.queue and self.events[event] < 0:
                self.now += 1.0
                s.queue.pop(0)()

    def _cuEventElapsedTime(self, into: Any, first: int, last: int) -> None:  # noqa: N802
        self._need(min(self.events[first], self.events[last]) >= 0, INVALID_VALUE)
        into._obj.value = self.events[last] - self.events[first]

    def _cuEventDestroy_v2(self, event: int) -> None:  # noqa: N802
        self._need(event in self.events, INVALID_HANDLE)
        del self.events[event]

    @staticmethod
    def _need(holds: bool, status: int) -> None:
        if not holds:
            raise Refused(status)

"""Kernels on a device of this machine.

The device has memory of its own. What the entry of a program reserves for it on the host are places
only: an address there stands for the same place in a block of the device (:mod:`places`). Weights
are uploaded when they are first read, and stay. A program that does nothing else than to run
kernels of one device is recorded in its first call with some sizes; each later one is a launch of
the recording between copies of inputs and outputs.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Any

import numpy as np

from aisc.codegen.backend import Regions, Traced
from aisc.codegen.faults import error_of
from aisc.codegen.simt.device_array import DeviceArray
from aisc.codegen.simt.driver import Driver, DriverError, Handle
from aisc.codegen.simt.launches import DeviceKernel, DeviceModule
from aisc.codegen.simt.places import Places, Weights
from aisc.codegen.simt.pool import Pool
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import execution_error

RECORDINGS = 32  # that a session keeps, those of the newest sizes
STATUS_BYTES = 32  # of the slot in which kernels report errors


@dataclass(eq=False)
class Gpu:
    """A device with the kernels of a compiled model."""

    driver: Driver
    modules: Sequence[DeviceModule]
    pool: Pool = field(init=False)
    kernels: Mapping[str, DeviceKernel] = field(init=False)
    functions: dict[str, Handle] = field(default_factory=dict)
    weights: Weights = field(init=False)
    _loaded: list[Handle] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver.enter()
        self.pool = Pool(self.driver)
        self.weights = Weights(self.driver, self.pool)
        self.kernels = {k.name: k for m in self.modules for k in m.kernels}
        for module in self.modules:
            try:
                handle = self.driver.load(module.code)
            except DriverError as fault:
                raise execution_error(
                    "E506", "the driver of the device refuses the code", str(fault),
                    *fault.log.splitlines(),
                ) from None  # fmt: skip
            self._loaded.append(handle)
            for launch in (x for k in module.kernels for x in k.launches):
                for entry in launch.entries:
                    self.functions[entry] = found = self.driver.function(handle, entry)
                    if launch.dynamic:
                        self.driver.allow_shared(found, launch.dynamic)

    @cached_property
    def name(self) -> str:
        """What the device is called."""
        return self.driver.device_name(0)

    def session(
        self, regions: Regions, weights: Sequence[tuple[int, int]], timed: bool
    ) -> GpuSession:
        """What one call at a time uses: a queue, and memory for what lies in `regions`."""
        self.driver.enter()
        self.weights.known = weights
        return GpuSession(self, Places(self.driver, self.pool, regions, self.weights), timed)

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a kernel on memory of the device."""
        raise NotImplementedError("a device with memory of its own is used through a session")

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """A new array on the device."""
        try:
            self.driver.enter()
            return DeviceArray(self, shape, dtype)
        except DriverError as fault:
            raise fault.as_execution_error() from None

    def wait_for(self, stream: int) -> None:
        """Until the work of a queue of another library is done."""
        self.driver.enter()
        self.driver.wait(stream)

    def read(self, to: int, source: int, size: int) -> None:
        """Copy memory of the device to the host, and wait for it."""
        try:
            self.driver.enter()
            stream = self.driver.stream()
            if size:
                self.driver.download(to, source, size, stream)
            self.driver.wait(stream)
            self.driver.destroy_stream(stream)
        except DriverError as fault:
            raise fault.as_execution_error() from None

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():
            return
        for handle in self._loaded:
            self.driver.unload(handle)
        self.weights.release()
        self.pool.trim()


@dataclass(eq=False)
class GpuSession:
    """The device as one call at a time sees it. `timed`: whether launches are timed, each alone;
    `times`: what they took, in milliseconds, by kernel."""

    gpu: Gpu
    places: Places
    timed: bool = False
    times: dict[str, list[float]] = field(default_factory=dict)
    stream: Handle = field(init=False)
    lent: dict[int, int] = field(default_factory=dict)
    _status: int = 0
    _reporting: bool = False
    _graphs: dict[object, Recording] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stream = self.gpu.driver.stream()

    # -- what an entry asks for ----------------------------------------------------------------

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Put a kernel behind the work of this queue."""
        try:
            self.gpu.driver.enter()
            self.places.renew(self.stream)
            self._launch(kernel, pointers, dims)
        except DriverError as fault:
            raise fault.as_execution_error() from None

    def _launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        about, driver = self.gpu.kernels[kernel], self.gpu.driver
        found = list(about.launched(dims))
        if not found:
            return
        words = [self.places.of(p, self.stream) for p in pointers] + list(dims)
        if about.reports:
            words += [self._status_slot(), 0]
            self._reporting = True
        before = self._mark()
        for launch, grid in found:
            function = self.gpu.functions[launch.entry]
            driver.launch(function, grid, launch.block, words, self.stream, launch.dynamic)
        self._measure(kernel, before)

    def upload(self, source: int, place: int, size: int) -> None:
        """Copy to where a place of the host stands for."""
        self._copy(place, source, size, to_device=True)

    def download(self, place: int, to: int, size: int) -> None:
        """Copy from there, and wait for it; raises what kernels have reported."""
        self._copy(place, to, size, to_device=False)

    def lend(self, pairs: Sequence[tuple[int, int]]) -> None:
        """From now on copies from or to the host at these addresses stay on the device."""
        self.lent = dict(pairs)

    def _copy(self, place: int, other: int, size: int, to_device: bool) -> None:
        if not size:
            return
        try:
            self.gpu.driver.enter()
            self.places.renew(self.stream)
            at = self.places.of(place, self.stream)
            if to_device:
                self._to(at, other, size)
            else:
                self._from(other, at, size)
                self.finish()
        except DriverError as fault:
            raise fault.as_execution_error() from None

    def _to(self, at: int, source: int, size: int) -> None:
        here, driver = self.lent.get(source), self.gpu.driver
        if here is None:
            driver.upload(at, source, size, self.stream)
        else:
            driver.copy(at, here, size, self.stream)

    def _from(self, to: int, at: int, size: int) -> None:
        here, driver = self.lent.get(to), self.gpu.driver
        if here is None:
            driver.download(to, at, size, self.stream)
        else:
            driver.copy(here, at, size, self.stream)

    def finish(self) -> None:
        """Wait for all work; raise what kernels have reported."""
        driver = self.gpu.driver
        words = (ctypes.c_int64 * 4)()
        if self._reporting:
            driver.download(ctypes.addressof(words), self._status, STATUS_BYTES, self.stream)
        driver.wait(self.stream)
        if words[0]:
            driver.clear(self._status, STATUS_BYTES, self.stream)
            raise error_of(words[0], words[1:], ())
        self._reporting = False

    def _status_slot(self) -> int:
        if not self._status:
            self._status = self.gpu.pool.take(STATUS_BYTES)
            self.gpu.driver.clear(self._status, STATUS_BYTES, self.stream)
        return self._status

    # -- recordings ----------------------------------------------------------------------------

    def replay(self, key: object, uploads: Sequence[int], downloads: Sequence[int]) -> bool:
        """Do again what :meth:`keep` got under a key, with these addresses on the host; whether
        there is such a thing, and memory lies where it lay."""
        made = self._graphs.get(key)
        if made is None or self.timed:
            return False
        if made.lies != self.places.lie():
            self.forget()
            return False
        driver = self.gpu.driver
        try:
            driver.enter()
            for source, (at, size) in zip(uploads, made.uploads, strict=True):
                self._to(at, source, size)
            driver.launch_graph(made.graph, self.stream)
            for to, (at, size) in zip(downloads, made.downloads, strict=True):
                self._from(to, at, size)
            self._reporting = made.reporting
            self.finish()
        except DriverError as fault:
            raise fault.as_execution_error() from None
        return True

    def keep(self, key: object, steps: Sequence[Traced]) -> bool:
        """Record the kernels among the steps of a call; copies go before and behind them. No launch
        can be timed alone in a recording."""
        if self.timed:
            return False
        driver = self.gpu.driver
        try:
            driver.enter()
            uploads, downloads = (
                [(self.places.of(s.place, self.stream), s.size) for s in steps if s.kind == kind]
                for kind in ("upload", "download")
            )
            driver.wait(self.stream)
            driver.begin_capture(self.stream)
            try:
                for s in steps:
                    if s.kind == "launch":
                        self._launch(s.kernel, s.pointers, s.dims)
            finally:
                graph = driver.end_capture(self.stream)
        except DriverError as fault:
            raise fault.as_execution_error() from None
        reporting, self._reporting = self._reporting, False
        if len(self._graphs) == RECORDINGS:
            driver.destroy_graph(self._graphs.pop(next(iter(self._graphs))).graph)
        self._graphs[key] = Recording(graph, self.places.lie(), uploads, downloads, reporting)
        return True

    def forget(self) -> None:
        """Give all recordings back."""
        for made in self._graphs.values():
            self.gpu.driver.destroy_graph(made.graph)
        self._graphs.clear()

    # -- times ---------------------------------------------------------------------------------

    def measure(self, repeats: int) -> list[float]:
        """What the newest recording takes on the device, each time in milliseconds; nothing where
        there is none."""
        driver, found = self.gpu.driver, list[float]()
        made = next(reversed(self._graphs.values()), None)
        try:
            driver.enter()
            for _ in range(repeats if made is not None else 0):
                before, after = driver.event(), driver.event()
                driver.record(before, self.stream)
                driver.launch_graph(made.graph if made else 0, self.stream)
                driver.record(after, self.stream)
                found.append(driver.milliseconds(before, after))
                driver.destroy_event(before)
                driver.destroy_event(after)
        except DriverError as fault:
            raise fault.as_execution_error() from None
        return found

    def _mark(self) -> Handle:
        if not self.timed:
            return 0
        event = self.gpu.driver.event()
        self.gpu.driver.record(event, self.stream)
        return event

    def _measure(self, kernel: str, before: Handle) -> None:
        if not before:
            return
        driver = self.gpu.driver
        after = self._mark()
        self.times.setdefault(kernel, []).append(driver.milliseconds(before, after))
        driver.destroy_event(before)
        driver.destroy_event(after)

    def close(self) -> None:
        """Give back what the session has."""
        driver = self.gpu.driver
        try:
            driver.enter()
            driver.wait(self.stream)
            self.forget()
            self.places.release()
            if self._status:
                self.gpu.pool.give(self._status)
                self._status = 0
            driver.destroy_stream(self.stream)
        except DriverError as fault:
            raise fault.as_execution_error() from None


@dataclass(frozen=True, slots=True)
class Recording:
    """A graph, and where memory lay when it was made."""

    graph: Handle
    lies: object
    uploads: Sequence[tuple[int, int]]
    downloads: Sequence[tuple[int, int]]
    reporting: bool

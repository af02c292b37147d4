"""Where on a device lies what has a place on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from aisc.codegen.backend import Regions
from aisc.codegen.simt.driver import Driver, Handle
from aisc.codegen.simt.pool import Pool
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError

KNOWN = 1 << 14  # addresses whose places a session remembers


@dataclass(eq=False)
class Weights:
    """The weights of a model that the device has. `known`: where those of the model lie on the
    host, with their bytes."""

    driver: Driver
    pool: Pool
    known: Sequence[tuple[int, int]] = ()
    there: dict[int, int] = field(default_factory=dict)

    def find(self, address: int, stream: Handle) -> int | None:
        """Where a weight lies on the device, which gets it at its first use."""
        for start, size in self.known:
            if start <= address < start + size:
                if start not in self.there:
                    to = self.pool.take(size)
                    self.driver.upload(to, start, size, stream)
                    self.driver.wait(stream)  # other queues will read it
                    self.there[start] = to
                return self.there[start] + address - start
        return None

    def release(self) -> None:
        """Give their memory back."""
        for address in self.there.values():
            self.pool.give(address)
        self.there.clear()


@dataclass(slots=True)
class Mirror:
    """A block of the device that stands for one of the host."""

    host: int
    size: int
    device: int


@dataclass(eq=False)
class Places:
    """The blocks of one session, by the segments of the program's memory."""

    driver: Driver
    pool: Pool
    regions: Regions
    weights: Weights
    mirrors: dict[int, Mirror] = field(default_factory=dict)
    _found: dict[int, int] = field(default_factory=dict)

    def renew(self, stream: Handle) -> None:
        """Follow segments that have grown since; what they held stays there."""
        now = self.regions()
        for k, old in list(self.mirrors.items()):
            host, size = now[k]
            if (host, size) == (old.host, old.size):
                continue
            self._found.clear()
            new = self.pool.take(size)
            self.driver.copy(new, old.device, min(size, old.size), stream)
            self.driver.wait(stream)  # before another session gets the old block
            self.pool.give(old.device)
            self.mirrors[k] = Mirror(host, size, new)

    def of(self, address: int, stream: Handle) -> int:
        """The address on the device; null stays null."""
        known = self._found.get(address)
        if known is None:
            known = self._find(address, stream)
            if len(self._found) == KNOWN:
                self._found.clear()
            self._found[address] = known
        return known

    def _find(self, address: int, stream: Handle) -> int:
        if not address:
            return 0
        weight = self.weights.find(address, stream)
        if weight is not None:
            return weight
        regions = self.regions()
        for inclusive in (False, True):  # what has no elements may lie at the end of all
            for k, (start, size) in enumerate(regions):
                if start <= address < start + size + inclusive and start:
                    return self._mirror(k, start, size).device + address - start
        raise InternalError(f"nothing of the program lies at {address:#x}")

    def _mirror(self, k: int, start: int, size: int) -> Mirror:
        if k not in self.mirrors:
            self.mirrors[k] = Mirror(start, size, self.pool.take(size))
        return self.mirrors[k]

    def lie(self) -> object:
        """Where segments lie now: recordings are of use only as long as this stays."""
        return tuple(self.regions())

    def release(self) -> None:
        """Give all blocks back."""
        for mirror in self.mirrors.values():
            self.pool.give(mirror.device)
        self.mirrors.clear()
        self._found.clear()

"""Memory of a device: what is given back is kept for the next one who asks."""

from __future__ import annotations

from dataclasses import field

from aisc.codegen.simt.driver import OUT_OF_MEMORY, Driver, DriverError
from aisc.ir.dataclass import dataclass

GRAIN = 512  # sizes are multiples of this many bytes


@dataclass(eq=False)
class Pool:
    """Blocks of memory by their sizes: powers of two in eight steps each, so that a size that grows
    finds one."""

    driver: Driver
    sizes: dict[int, int] = field(default_factory=dict)
    idle: dict[int, list[int]] = field(default_factory=dict)

    def take(self, size: int) -> int:
        """The address of at least so many bytes; ``DriverError`` where there are none."""
        size = rounded(size)
        ready = self.idle.get(size)
        if ready:
            return ready.pop()
        try:
            found = self.driver.allocate(size)
        except DriverError as fault:
            if fault.status != OUT_OF_MEMORY or not any(self.idle.values()):
                raise
            self.trim()
            found = self.driver.allocate(size)
        self.sizes[found] = size
        return found

    def give(self, address: int) -> None:
        """Take a block back; work that still uses it must stand before what will."""
        self.idle.setdefault(self.sizes[address], []).append(address)

    def trim(self) -> None:
        """Give what nobody uses back to the driver."""
        for blocks in self.idle.values():
            while blocks:
                address = blocks.pop()
                del self.sizes[address]
                self.driver.free(address)


def rounded(size: int) -> int:
    """The size of the block that so many bytes get."""
    size = max(size, GRAIN)
    step = max(GRAIN, 1 << (size - 1).bit_length() - 4)
    return -(-size // step) * step

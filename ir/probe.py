"""The machine of this process as a description: what the kernel tells of cores, vectors, caches."""

from __future__ import annotations

import os
from pathlib import Path

from aisc.ir.target import Costs, Memory, Target

# Registers, vector width and the cycles of a masked store by instruction-set level, best first
# (x86-64, then AArch64). Without registers for masks, lanes are stored one by one: by branches, or
# in AVX2 by an instruction that takes as long on some cores (measured on Zen 3: 15 cycles).
_LEVELS: tuple[tuple[str, int, int, int], ...] = (
    ("avx512f", 512, 32, 1),
    ("avx2", 256, 16, 15),
    ("sve", 128, 32, 1),
    ("asimd", 128, 32, 8),
    ("sse2", 128, 16, 8),
)


def probe() -> Target:
    """The machine this process runs on: its cores and vector extensions from the kernel."""
    flags = _cpu_flags()
    bits, registers, masked = 128, 16, 8
    for flag, width, count, cycles in _LEVELS:
        if flag in flags:
            bits, registers, masked = width, count, cycles
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Target(
        "cpu", "cpu", features=(), vector_bits=bits, vector_registers=registers, cores=cores or 1,
        memories=_caches(), costs=Costs(masked_store=masked),
    )  # fmt: skip


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _caches() -> tuple[Memory, ...]:
    found: list[Memory] = []
    for index in range(4):
        folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{index}")
        try:
            level, kind = (folder / "level").read_text().strip(), (folder / "type").read_text()
            size = (folder / "size").read_text().strip()
            ways = int((folder / "ways_of_associativity").read_text())
        except (OSError, ValueError):
            continue
        if kind.strip() != "Instruction" and size.endswith("K"):
            found.append(Memory(f"L{level}", int(size[:-1]) * 1024, ways=ways if ways > 0 else 8))
    return tuple(found)

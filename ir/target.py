"""Target descriptions: data about a machine, from a TOML file or probed from the host.

Targets differ by data first; third parties register descriptions through the entry-point group
``aisc.targets`` (a callable without arguments that gives a :class:`Target`).
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aisc.ir.diagnostics import error

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

    from aisc.ir.tensor.intrinsic import Intrinsic

# Registers and vector width by instruction-set level, best first (x86-64, then AArch64).
_LEVELS: tuple[tuple[str, int, int], ...] = (
    ("avx512f", 512, 32),
    ("avx2", 256, 16),
    ("sve", 128, 32),
    ("asimd", 128, 32),
    ("sse2", 128, 16),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory of the target: its size in bytes and, where known, bytes per cycle."""

    name: str
    bytes: int
    bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """A machine. `arch` is LLVM's CPU name; `features` are its feature names, sorted.

    `rates` are operations per cycle and core by name (``fma_f32`` …); `limits` are hard bounds
    (threads per block, shared bytes …); `intrinsics` name the instructions that may be used, and
    `instructions` declare those with a meaning of their own.
    """

    name: str
    kind: str
    arch: str = ""
    triple: str = ""
    features: tuple[str, ...] = ()
    vector_bits: int = 128
    vector_registers: int = 16
    cores: int = 1
    memories: tuple[Memory, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict, hash=False)
    rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    intrinsics: tuple[str, ...] = ()
    source: str = ""
    instructions: Mapping[str, Intrinsic] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> str:
        """Everything that affects generated code, as one line of text."""
        parts = (
            self.kind,
            self.triple,
            self.arch,
            ",".join(self.features),
            str(self.vector_bits),
            str(self.vector_registers),
            str(self.cores),
            ",".join(f"{m.name}:{m.bytes}" for m in self.memories),
            ",".join(self.intrinsics),
            hashlib.sha256(self.source.encode()).hexdigest() if self.instructions else "",
        )
        return "|".join(parts)

    def memory(self, name: str) -> Memory:
        """A memory by name; E402 when the target has none."""
        for m in self.memories:
            if m.name == name:
                return m
        raise error("E402", f"target {self.name} has no memory '{name}'")

    def intrinsic(self, name: str) -> Intrinsic:
        """A declared instruction by name; E402 when the target has none."""
        if name not in self.instructions:
            known = ", ".join(self.instructions) or "none"
            raise error("E402", f"target {self.name} has no instruction '{name}'", f"has: {known}")
        return self.instructions[name]


_TYPES: dict[str, type] = {
    "name": str, "kind": str, "arch": str, "triple": str, "vector_bits": int,
    "vector_registers": int, "cores": int,
}  # fmt: skip


def from_toml(text: str, source: str = "") -> Target:
    """A target from its description; E401 with the key that is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise error("E401", f"{source or 'the target'} is not valid TOML", str(fault)) from None
    head = data.get("target")
    if not isinstance(head, dict):
        raise error("E401", f"{source or 'the target'} has no [target] table")
    fields: dict[str, Any] = {"name": Path(source).stem or "target", "source": text}
    for key, value in head.items():
        if key == "features":
            fields[key] = tuple(sorted(map(str, value)))
        elif key not in _TYPES or not isinstance(value, _TYPES[key]):
            raise error("E401", f"bad entry '{key}' in [target] of {source}", f"got {value!r}")
        else:
            fields[key] = value
    if not fields.get("kind"):
        raise error("E401", f"{source or 'the target'} does not say of which kind it is")
    fields["memories"] = tuple(_memory(n, m) for n, m in data.get("memory", {}).items())
    fields["limits"] = {k: int(v) for k, v in data.get("limits", {}).items()}
    fields["rates"] = {k: float(v) for k, v in data.get("rates", {}).items()}
    fields["instructions"] = _instructions(fields, data.get("instruction", {}))
    fields["intrinsics"] = tuple(fields["instructions"])
    return Target(**fields)


def _instructions(fields: Mapping[str, Any], table: Any) -> dict[str, Intrinsic]:
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise error("E401", "[instruction] must hold one table for each instruction")
    if not table:
        return {}
    # The parser of the tensor IR is only loaded for targets that declare instructions.
    from aisc.ir.tensor.intrinsic import from_table

    spaces = frozenset(m.name for m in fields["memories"])
    return {name: from_table(name, table[name], fields["limits"], spaces) for name in sorted(table)}


def _memory(name: str, data: Mapping[str, Any]) -> Memory:
    size = data.get("bytes")
    if not isinstance(size, int) or size <= 0:
        raise error("E401", f"memory '{name}' needs a positive size in bytes")
    return Memory(name, size, float(data.get("bandwidth", 0.0)))


def _plugins() -> EntryPoints:
    """What third parties register; looking for it takes longer than finding a built-in target."""
    from importlib.metadata import entry_points

    return entry_points(group="aisc.targets")


def builtin_names() -> tuple[str, ...]:
    """Names of the descriptions shipped with aisc, and ``cpu`` for the host."""
    folder = Path(__file__).parent / "targets"
    plugins = sorted(e.name for e in _plugins())
    return ("cpu", *sorted(p.stem for p in folder.glob("*.toml")), *plugins)


def resolve(name: str) -> Target:
    """A target by name, by the path of a TOML file, or ``cpu`` for the host; E401 if unknown."""
    if name == "cpu":
        return host()
    path = Path(name) if name.endswith(".toml") else Path(__file__).parent / f"targets/{name}.toml"
    if path.is_file():
        return from_toml(path.read_text(encoding="utf-8"), str(path))
    for entry in _plugins():
        if entry.name == name:
            found = entry.load()()
            if not isinstance(found, Target):
                raise error("E401", f"the plug-in '{name}' gives no Target")
            return found
    raise error("E401", f"there is no target '{name}'", f"known: {', '.join(builtin_names())}")


@cache
def host() -> Target:
    """The machine this process runs on: its cores and vector extensions from the kernel."""
    flags = _cpu_flags()
    bits, registers = 128, 16
    for flag, width, count in _LEVELS:
        if flag in flags:
            bits, registers = width, count
            break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Target(
        "cpu", "cpu", features=(), vector_bits=bits, vector_registers=registers, cores=cores or 1,
        memories=_caches(),
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
        except OSError:
            continue
        if kind.strip() != "Instruction" and size.endswith("K"):
            found.append(Memory(f"L{level}", int(size[:-1]) * 1024))
    return tuple(found)


def with_machine(target: Target, triple: str, arch: str, features: tuple[str, ...]) -> Target:
    """`target` with the back end's names for the machine filled in."""
    return replace(target, triple=triple, arch=arch, features=features)

"""Target descriptions: data about a machine, from a TOML file or probed from the host.

Targets differ by data first; third parties register descriptions through the entry-point group
``aisc.targets`` (a callable without arguments that gives a :class:`Target`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cache
from pathlib import Path
from platform import machine
from typing import TYPE_CHECKING

from aisc.ir import plugins
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType

if TYPE_CHECKING:
    from aisc.ir.accelerator import Accelerator
    from aisc.ir.tensor.intrinsic import Intrinsic


@dataclass(frozen=True, slots=True)
class Memory:
    """A memory of the target: its size in bytes and, where known, bytes per cycle. Caches have
    ways; lines that lie their distance apart compete for one set. Memories of accelerators have
    banks, each of which serves as many rows of `width` bytes in a cycle as it has ports."""

    name: str
    bytes: int
    bandwidth: float = 0.0
    ways: int = 8
    banks: int = 1
    ports: int = 1
    width: int = 0

    @property
    def way_bytes(self) -> int:
        """Bytes of one way."""
        return self.bytes // self.ways


@dataclass(frozen=True, slots=True)
class Costs:
    """What weighs against what on a machine. Units and meaning: :mod:`aisc.ir.description`."""

    parallel_work: int = 1 << 18
    fork_work: int = 1 << 21
    follow_work: int = 1 << 20
    far_bytes: int = 32 << 20
    fma_latency: int = 4
    fma_units: int = 2
    byte_work: int = 4
    masked_store: int = 1


# Bytes of a line of a cache.
LINE_BYTES = 64
# What is taken for caches that a description does not give.
FIRST_CACHE, SECOND_CACHE = Memory("L1", 32 << 10), Memory("L2", 1 << 20)


@dataclass(frozen=True, slots=True)
class Target:
    """A machine. `arch` is LLVM's CPU name; `features` are its feature names, sorted.

    `rates` are operations per cycle and core by name (``fma_f32`` …); `limits` are hard bounds
    (threads per block, shared bytes …); `intrinsics` name the instructions that may be used, and
    `instructions` declare those with a meaning of their own: `digest` stands for their text. `chip`
    is what an accelerator is made of.
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
    costs: Costs = Costs()
    instruction_set: str = ""
    chip: Accelerator | None = None
    digest: str = ""

    def lanes(self, dtype: DType) -> int:
        """Elements of a type in a vector register."""
        return max(1, self.vector_bits // (8 * dtype.bytes))

    @property
    def in_flight(self) -> int:
        """Multiply-adds under way at a time: as many accumulators hide their latency."""
        return self.costs.fma_latency * self.costs.fma_units

    @property
    def first_cache(self) -> Memory:
        """The cache next to a core."""
        return self._cache(FIRST_CACHE)

    @property
    def second_cache(self) -> Memory:
        """The cache behind it, of one core."""
        return self._cache(SECOND_CACHE)

    def _cache(self, usual: Memory) -> Memory:
        return next((m for m in self.memories if m.name == usual.name), usual)

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
            ",".join(f"{m.name}:{m.bytes}:{m.ways}" for m in self.memories),
            ",".join(f"{name}:{self.limits[name]}" for name in sorted(self.limits)),
            str(self.costs),
            ",".join(self.intrinsics),
            self.digest if self.instructions else "",
        )
        return "|".join(parts)

    def memory(self, name: str) -> Memory:
        """A memory by name; E402 when the target has none."""
        for m in self.memories:
            if m.name == name:
                return m
        raise error("E402", f"target {self.name} has no memory '{name}'")

    def intrinsic(self, name: str) -> Intrinsic:
        """An instruction by name: one that the target declares, or its architecture; E402 when
        neither has it."""
        if name in self.instructions:
            return self.instructions[name]
        shared = {} if self.chip is not None else instruction_set(self.triple).instructions
        if name not in shared:
            known = ", ".join([*self.instructions, *shared]) or "none"
            raise error("E402", f"target {self.name} has no instruction '{name}'", f"has: {known}")
        return shared[name]

    @property
    def available(self) -> tuple[Intrinsic, ...]:
        """The instructions of the architecture that this machine has the features for."""
        present, declared = set(self.features), instruction_set(self.triple).instructions
        return tuple(i for i in declared.values() if present.issuperset(i.needs))


# Where the instructions of architectures are described.
_INSTRUCTIONS = "instructions/"


def instructions_name(triple: str) -> str:
    """The name under which the instructions of a triple's architecture are described."""
    return f"{_INSTRUCTIONS}{(triple.split('-')[0] or machine()).replace('_', '-')}"


def instruction_set(triple: str) -> Target:
    """The description that holds the instructions of an architecture, with none where there is no
    such description."""
    return _shipped_instructions(instructions_name(triple)) or Target("none", "cpu")


@cache
def _shipped_instructions(name: str) -> Target | None:
    """A description by the name of its instructions, read once: kernels ask for it again and again;
    ``None`` where there is none."""
    path = Path(__file__).parent / f"targets/{name}.toml"
    if not name.startswith(_INSTRUCTIONS) or not path.is_file():
        return None
    from aisc.ir.description import from_toml

    return from_toml(path.read_text(encoding="utf-8"), str(path))


def builtin_names() -> tuple[str, ...]:
    """Names of the descriptions shipped with aisc, and ``cpu`` for the host."""
    folder = Path(__file__).parent / "targets"
    others = plugins.names("targets")
    return ("cpu", *sorted(p.stem for p in folder.glob("*.toml")), *others)


def resolve(name: str) -> Target:
    """A target by name, by the path of a TOML file, or ``cpu`` for the host; E401 if unknown."""
    if not isinstance(name, str):
        raise error("E401", "a target is given by its name", f"got {name!r}")
    if name == "cpu":
        return host()
    shared = _shipped_instructions(name)
    if shared is not None:
        return shared
    path = Path(name) if name.endswith(".toml") else Path(__file__).parent / f"targets/{name}.toml"
    if path.is_file():
        from aisc.ir.description import from_toml

        return from_toml(path.read_text(encoding="utf-8"), str(path))
    factory = plugins.find("targets", name)
    if factory is not None:
        found = factory()
        if not isinstance(found, Target):
            raise error("E401", f"the plug-in '{name}' gives no Target")
        return found
    raise error("E401", f"there is no target '{name}'", f"known: {', '.join(builtin_names())}")


@cache
def host() -> Target:
    """The machine this process runs on (:mod:`aisc.ir.probe`), with what was measured of it."""
    from aisc.ir.measured import with_measured
    from aisc.ir.probe import probe

    return with_measured(probe())


def with_machine(target: Target, triple: str, arch: str, features: tuple[str, ...]) -> Target:
    """`target` with the back end's names for the machine filled in."""
    return replace(target, triple=triple, arch=arch, features=tuple(sorted(features)))

"""What ``aisc targets probe --measure`` has found out about this machine, beside its description:
rates that models of cost go by, and that generated code does not depend on.

They lie in ``machine.toml`` in the user's folder of aisc, and hold for the processor they were
measured on; for another one they are as if there were none.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes per cycle that a core reads from each level (``memory`` the last), and operations per
    cycle by name."""

    processor: str
    reads: Mapping[str, float]
    rates: Mapping[str, float]

    def to_toml(self) -> str:
        """As :func:`read` reads it."""
        lines = [f'processor = "{self.processor}"', "", "[reads]"]
        lines += [f"{name} = {value:.3f}" for name, value in self.reads.items()]
        lines += ["", "[rates]", *(f"{name} = {value:.3f}" for name, value in self.rates.items())]
        return "\n".join([*lines, ""])


def default_folder() -> Path:
    """``AISC_CACHE_DIR``, else ``aisc`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("AISC_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aisc"


def measured_path() -> Path:
    """Where measured rates are."""
    return default_folder() / "machine.toml"


def processor() -> str:
    """What tells processors apart, as the system names this one."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in wanted:
                found.setdefault(name.strip(), value.strip())
    except OSError:
        return ""
    return "; ".join(found[n].replace('"', "'") for n in wanted if n in found)


def read() -> Measured | None:
    """What was measured on this processor; ``None`` where nothing was, or nothing that can be
    read."""
    try:
        data = tomllib.loads(measured_path().read_text(encoding="utf-8"))
        reads = {str(k): float(v) for k, v in data["reads"].items()}
        rates = {str(k): float(v) for k, v in data["rates"].items()}
        name = str(data["processor"])
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return None
    usable = all(v > 0 for v in (*reads.values(), *rates.values()))
    return Measured(name, reads, rates) if usable and name == processor() else None


def with_measured(target: Target) -> Target:
    """The host's description with the rates that were measured, if any were."""
    found = read()
    if found is None:
        return target
    memories = tuple(
        replace(m, bandwidth=found.reads.get(m.name, m.bandwidth)) for m in target.memories
    )
    rates = {**target.rates, **found.rates}
    if "memory" in found.reads:
        rates["read_memory"] = found.reads["memory"]
    return replace(target, memories=memories, rates=rates)

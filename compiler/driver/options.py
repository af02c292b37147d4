"""Options of a compilation: parsed once into a frozen object.

Fields marked *code* affect the generated code and are part of the cache key; the others are
neutral. A test asserts that each field is one or the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import get_args

from aisc.codegen.run.threads import Wait, default_threads, default_wait
from aisc.ir.arith.poly import Extent
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import Precision
from aisc.records.source import Source

STEPS = (
    "import", "specialize", "canonicalize", "legalize", "fuse", "lower", "schedule", "optimize",
    "plan", "emit", "assemble", "load",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose.

    level: 0 keeps operators apart and loops naive; 1 schedules what takes little time to make, so
    that code is there sooner and takes longer to run; 2 and 3 whatever makes code fast.
    shapes: values of symbolic dimensions by name, or their bounds as ``(least, greatest)``.
    overridable: inputs that have defaults in the model, and stay inputs.
    exact_quantization: no rule that may move a quantized value by a step of its quantizer.
    precision: in which type weights are stored: f32 as the model has them, bf16 or f16; devices
    that multiply it read both factors of products in it; keep_float: nodes of the model that stay.
    host: whether operators without native code may run on the host, through their references.
    verify: check the IR after each step (``AISC_VERIFY=each``).
    tuned: the database of tuned choices, whose effect stands in the key of each kernel; empty: that
    of the user if there is one, ``none``: the rules decide alone.
    locked: a lock file of ``aisc tune``: its choices are taken instead, its code must result.
    load: whether what was compiled is linked into this process, which must be able to run it.
    apart: give every buffer memory of its own, for runs under guard (`codegen/run/guard.py`).
    profile: make an entry that times its statements. Kernels are the same, and the key of an
    entry is its text, so this is neutral.
    """

    level: int = field(default=2, metadata={"code": True})
    shapes: Mapping[str, Extent] = field(default_factory=dict, metadata={"code": True})
    overridable: tuple[str, ...] = field(default=(), metadata={"code": True})
    exact_quantization: bool = field(default=False, metadata={"code": True})
    precision: Precision = field(default="f32", metadata={"code": True})
    keep_float: tuple[str, ...] = field(default=(), metadata={"code": True})
    threads: int = field(default=1, metadata={"code": False})
    wait: Wait = field(default="active", metadata={"code": False})
    host: bool = field(default=True, metadata={"code": False})
    stop_after: str = field(default="", metadata={"code": False})
    dump_dir: str = field(default="", metadata={"code": False})
    verify: bool = field(default=False, metadata={"code": False})
    use_cache: bool = field(default=True, metadata={"code": False})
    cache_dir: str = field(default="", metadata={"code": False})
    profile: bool = field(default=False, metadata={"code": False})
    apart: bool = field(default=False, metadata={"code": False})
    load: bool = field(default=True, metadata={"code": False})
    tuned: str = field(default="", metadata={"code": False})
    locked: str = field(default="", metadata={"code": False})

    def __post_init__(self) -> None:
        if self.level not in (0, 1, 2, 3):
            raise error("E401", "the optimisation level must be 0, 1, 2 or 3", f"got {self.level}")
        if self.threads < 1:
            raise error("E401", "the number of threads must be positive", f"got {self.threads}")
        if self.precision not in get_args(Precision):
            known = f"there are {', '.join(get_args(Precision))}"
            raise error("E401", f"there is no precision '{self.precision}'", known)
        if self.stop_after and self.stop_after not in STEPS:
            known = f"steps: {', '.join(STEPS)}"
            raise error("E401", f"there is no step '{self.stop_after}'", known)

    @property
    def records(self) -> Source:
        """Where tuned choices come from."""
        return Source(self.tuned, self.locked, self.cache_dir, self.threads)

    def until(self, step: str) -> Options:
        """These options, but the pipeline stops after a step."""
        return replace(self, stop_after=step)

    @property
    def key(self) -> str:
        """The code-affecting options as text."""
        parts = []
        for f in fields(self):
            if f.metadata["code"]:
                value = getattr(self, f.name)
                text = sorted(value.items()) if isinstance(value, Mapping) else value
                parts.append(f"{f.name}={text}")
        return ";".join(parts)


def from_environment(**given: object) -> Options:
    """Options with the environment's defaults: AISC_DUMP_DIR, AISC_VERIFY, AISC_CACHE_DIR,
    AISC_TUNED and those of :mod:`aisc.codegen.run.threads`."""
    defaults: dict[str, object] = {
        "dump_dir": os.environ.get("AISC_DUMP_DIR", ""),
        "verify": os.environ.get("AISC_VERIFY", "") == "each",
        "cache_dir": os.environ.get("AISC_CACHE_DIR", ""),
        "tuned": os.environ.get("AISC_TUNED", ""),
        "threads": default_threads(),
        "wait": default_wait(),
    }
    return Options(**{**defaults, **{k: v for k, v in given.items() if v is not None}})  # type: ignore[arg-type]

"""Lock files: the choices of a model's kernels and the hashes of the code that they gave.

A locked compilation takes these choices and no others, and ends where a kernel becomes other code:
then the machine, the compiler or LLVM is not that of the lock, and the message says which.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aisc.artifact.fingerprint import fingerprint
from aisc.codegen.backend import Backend
from aisc.codegen.files import write_whole
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.tensor.func import Func
from aisc.ir.version import VERSION
from aisc.passes.schedule.picks import Choices, choices_from_json, choices_to_json
from aisc.records.database import workload_key

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel of the lock: its choices, and the hash of its code."""

    choices: Choices
    digest: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The contents of a lock file; `kernels` by name and workload; `here`: the tools at hand."""

    target: str
    compiler: str
    tools: str
    kernels: Mapping[str, Entry]
    path: str = ""
    here: str = ""

    @staticmethod
    def read(path: Path) -> Lock:
        """A lock file; E503 when it is none."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise error("E503", f"{path} has format {data['format']}", f"expected {FORMAT}")
            kernels = {
                str(name): Entry(choices_from_json(json.dumps(k["choices"])), str(k["digest"]))
                for name, k in data["kernels"].items()
            }
            return Lock(
                str(data["target"]), str(data["compiler"]), str(data["tools"]), kernels, str(path)
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise error("E503", f"{path} is no lock file", str(fault)) from None

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        kernels = {
            name: {"choices": json.loads(choices_to_json(k.choices)), "digest": k.digest}
            for name, k in sorted(self.kernels.items())
        }
        data: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "compiler": self.compiler, "tools": self.tools,
            "target": self.target, "kernels": kernels,
        }  # fmt: skip
        write_whole(path, (json.dumps(data, indent=1) + "\n").encode())

    def lookup(self, func: Func) -> Choices:
        """The choices of a kernel."""
        return self._entry(func).choices

    def approve(self, func: Func, code: bytes) -> None:
        """Look at a kernel that was made; E402 where it is other code."""
        if digest_of(code) != self._entry(func).digest:
            raise self._other(f"kernel {func.name} became other code than that of {self.path}")

    def checked(self, backend: Backend) -> Lock:
        """The lock for compilations by a back end; E402 where it was made for another machine."""
        target = backend.target
        if target.key != self.target:
            raise error(
                "E402", f"{self.path} was made for another machine",
                f"expected {self.target}", f"got {target.key}",
                "tune here, or compile for the machine of the lock (--target)",
            )  # fmt: skip
        return replace(self, here=backend.version)

    def _entry(self, func: Func) -> Entry:
        found = self.kernels.get(name_of(func))
        if found is None:
            raise self._other(f"{self.path} does not have kernel {func.name}")
        return found

    def _other(self, what: str) -> CompileError:
        notes = []
        if self.compiler != fingerprint():
            notes.append("this is another version of aisc")
        if self.here and self.tools != self.here:
            notes.append(f"code generation: expected {self.tools}, got {self.here}")
        notes = notes or ["the model or its sizes differ from those that were tuned"]
        return error("E402", what, *notes, "make the lock again: aisc tune MODEL --lock FILE")


def name_of(func: Func) -> str:
    """What a lock file calls a kernel."""
    return f"{func.name}:{workload_key(func)}"


def digest_of(code: bytes) -> str:
    """The hash of a kernel's code."""
    return hashlib.sha256(code).hexdigest()

"""What the assembler has made of kernels: instructions of the machine, counted.

The disassembler is part of NVIDIA's toolkit, and of the package ``nvidia-cuda-nvdisasm``.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from aisc.codegen.simt.ptxas import assemble_ptx, run_tool
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error

PACKAGE = "nvidia-cuda-nvdisasm"
_KERNEL = re.compile(r"^\.text\.([\w$.]+):", re.MULTILINE)
NEVER = "@!PT"  # before what is never executed, as some units want it
_INSTRUCTION = re.compile(r"^\s+(?:/\*[0-9a-f]{4,}\*/)\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


@dataclass(frozen=True, slots=True)
class Sass:
    """The instructions of one kernel by their names, with modifiers."""

    counts: Mapping[str, int]

    def count(self, *names: str, parts: tuple[str, ...] = ()) -> int:
        """How many instructions have one of these names, and all of these modifiers."""
        found = 0
        for opcode, times in self.counts.items():
            name, *modifiers = opcode.split(".")
            if name in names and set(parts) <= set(modifiers):
                found += times
        return found

    @property
    def tensor_core(self) -> int:
        """Products of matrices."""
        return self.count("HMMA", "HGMMA", "IMMA", "IGMMA", "DMMA", "QGMMA")

    @property
    def wide_global(self) -> int:
        """Accesses of global memory that move 128 bits a thread."""
        return self.count("LDG", "STG", "LDGSTS", parts=("128",))

    @property
    def wide_shared(self) -> int:
        """The same of shared memory; a load of matrices is as wide."""
        return self.count("LDS", "STS", parts=("128",)) + self.count("LDSM")

    @property
    def local(self) -> int:
        """Accesses of a thread's stack, where spilled registers lie."""
        return self.count("LDL", "STL")


def find_nvdisasm() -> str | None:
    """The path of the disassembler, ``None`` where it is not installed."""
    found = shutil.which("nvdisasm")
    if found is not None:
        return found
    try:
        listed = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    paths = (Path(str(f.locate())) for f in listed if f.name.split(".")[0] == "nvdisasm")
    return next((str(p) for p in paths if p.is_file()), None)


def sass_of(ptx: str, arch: str) -> dict[str, Sass]:
    """The instructions of a module's kernels; E402 when a tool is missing."""
    tool = find_nvdisasm()
    if tool is None:
        raise error("E402", "nvdisasm is not installed", f"pip install {PACKAGE}")
    code, _ = assemble_ptx(ptx, arch)
    with tempfile.TemporaryDirectory(prefix="aisc-sass-") as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(code)
        return parse(run_tool([tool, "-c", str(path)]))


def parse(listing: str) -> dict[str, Sass]:
    """Instructions by kernel, from the text of the disassembler."""
    found: dict[str, Sass] = {}
    starts = [*_KERNEL.finditer(listing)]
    for k, start in enumerate(starts):
        end = starts[k + 1].start() if k + 1 < len(starts) else len(listing)
        lines = listing[start.end() : end].splitlines()
        names = (m[1] for line in lines if NEVER not in line and (m := _INSTRUCTION.match(line)))
        found[start[1]] = Sass(Counter(names))
    return found

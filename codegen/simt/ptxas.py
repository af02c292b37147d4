"""NVIDIA's assembler, where it is installed: does it accept a kernel, and what does it cost?"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError, error

TIMEOUT_SECONDS = 60.0
_ENTRY = re.compile(r"Compiling entry function '(\S+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of one kernel: registers of a thread, bytes of stack, spills and shared memory."""

    registers: int
    stack: int
    spills: int
    shared: int


def find_ptxas() -> str | None:
    """The path of the assembler, ``None`` where it is not installed."""
    return shutil.which("ptxas")


def run_ptxas(ptx: str, arch: str) -> dict[str, Usage]:
    """Resources by kernel; E402 when there is no assembler, ``InternalError`` when it rejects the
    code."""
    return assemble_ptx(ptx, arch)[1]


def assemble_ptx(ptx: str, arch: str) -> tuple[bytes, dict[str, Usage]]:
    """The code of a module for one architecture, and the resources of its kernels."""
    tool = find_ptxas()
    if tool is None:
        raise error("E402", "ptxas is not installed", "it is part of the CUDA toolkit")
    with tempfile.TemporaryDirectory(prefix="aisc-ptxas-") as folder:
        source, made = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx, encoding="ascii")
        command = [tool, f"-arch={arch}", "-v", "-o", str(made), str(source)]
        said = run_tool(command)
        return made.read_bytes(), _parse(said)


def run_tool(command: list[str]) -> str:
    """What a tool of the toolkit prints; ``InternalError`` where it fails or does not end."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InternalError(f"{name} did not end within {TIMEOUT_SECONDS} s") from None
    if done.returncode != 0:
        raise InternalError(f"{name} rejects the code: {done.stderr}")
    return done.stdout + done.stderr


def _parse(text: str) -> dict[str, Usage]:
    found: dict[str, Usage] = {}
    for part in re.split(r"(?=Compiling entry function)", text):
        name = _ENTRY.search(part)
        if name is None:
            continue
        spills, used, shared = _SPILLS.search(part), _USED.search(part), _SHARED.search(part)
        stack, stores, loads = (int(x) for x in spills.groups()) if spills else (0, 0, 0)
        found[name[1]] = Usage(
            int(used[1]) if used else 0, stack, stores + loads, int(shared[1]) if shared else 0
        )
    return found

"""Saving and opening bundles: compiled models as files. Imports nothing of the compiler."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from aisc.codegen.run import bundle
from aisc.codegen.run.bundle import Bundle
from aisc.codegen.run.executable import Executable
from aisc.codegen.run.threads import Wait, default_threads
from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import execution_error


@checked_arguments
def save(executable: Executable, path: str | PathLike[str], *, threads: int = 0) -> None:
    """Write an executable as a bundle, whole or not at all.

    threads: how many threads a call uses once it is opened; 0: the cores of that process.
    Raises ``CompileError`` E503 when the file cannot be written.
    """
    executable.save(path, threads=threads)


@checked_arguments
def load(
    path: str | PathLike[str], *, threads: int | None = None, wait: Wait | None = None,
    verify: bool = True,
) -> Executable:  # fmt: skip
    """Open a bundle. Its weights are mapped, not copied; nothing is compiled.

    threads: how many threads a call uses; by default what was saved, else the cores.
    wait: how they wait for each other: ``"active"`` or ``"passive"``.
    verify: compare the weights with their checksum, which reads them once.
    Raises ``ExecutionError``: E503 the file cannot be read, E504 it is damaged or no bundle, E505
    another version made it, E506 it does not suit this machine.
    The file holds machine code: open only what you would also run.
    """
    made = executable_of(bundle.read(Path(path), verify), Path(path), threads)
    if wait is not None:
        made.wait = wait
    return made


def executable_of(opened: Bundle, path: Path, threads: int | None = None) -> Executable:
    """The executable of a bundle that has been read; E506 when it does not suit this machine."""
    if threads is None:
        threads = opened.about.threads or default_threads()
    try:
        return Executable(opened.image, threads)
    except RuntimeError as fault:
        reason = str(fault).splitlines()[0] if str(fault) else ""
        raise execution_error("E504", f"{path} holds code that cannot be linked", reason) from None

"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aisc.ir.diagnostics import error


def write_whole(
    path: Path, data: bytes | Iterable[bytes | memoryview], durable: bool = True
) -> None:
    """Write a file as :func:`whole_file` does."""
    with whole_file(path, durable) as f:
        for piece in (data,) if isinstance(data, bytes) else data:
            f.write(piece)


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to be written, and read, in the block; then it is renamed. It
    is gone when the block fails, and E503 is raised when the system does not let it be written.
    `durable`: what was written is on the disk before it has its name."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w+b") as f:
                yield f
                if durable:
                    f.flush()
                    os.fsync(f.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise error("E503", f"cannot write {path}", str(fault.strerror or fault)) from None

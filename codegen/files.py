"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from aisc.ir.diagnostics import error


def write_whole(
    path: Path, data: bytes | Iterable[bytes | memoryview], durable: bool = True
) -> None:
    """Write to a temporary file beside `path`, then rename; E503 when that fails. `durable`: what
    was written is on the disk before it has its name."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as f:
                for piece in (data,) if isinstance(data, bytes) else data:
                    f.write(piece)
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

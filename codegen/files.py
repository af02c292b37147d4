"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from aisc.ir.diagnostics import error


def write_whole(path: Path, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write to a temporary file beside `path`, to the disk, then rename; E503 when that fails."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as f:
                for piece in (data,) if isinstance(data, bytes) else data:
                    f.write(piece)
                f.flush()
                os.fsync(f.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as fault:
        raise error("E503", f"cannot write {path}", str(fault.strerror or fault)) from None

"""Reading an ONNX file into a ModelProto: anything unreadable is E101, too large is E105."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aisc.ir.diagnostics import error
from aisc.ir.location import Loc

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_FILE_BYTES = (1 << 31) - 1  # what protocol buffers can hold


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed model, where it came from, and the folder of its external data (if any)."""

    model: ModelProto
    file: str
    folder: Path | None


def read(source: str | os.PathLike[str] | bytes | ModelProto) -> Source:
    """Parse a path, serialized bytes, or take a ModelProto as it is."""
    from onnx import ModelProto

    if isinstance(source, ModelProto):
        return Source(source, "<model>", None)
    if isinstance(source, bytes):
        return Source(_parse(source, "<bytes>"), "<bytes>", None)
    path = Path(source)
    return Source(_parse(_load(path), str(path)), str(path), path.absolute().parent)


def _load(path: Path) -> bytes:
    loc = Loc(str(path))
    try:
        if not path.is_file():
            raise error("E101", "no such file" if not path.exists() else "not a file", loc=loc)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            note = "store the weights as external data"
            raise error("E105", f"the file has {size} bytes", note, loc=loc)
        return path.read_bytes()
    except (OSError, ValueError) as fault:
        raise error("E101", "the file cannot be read", str(fault), loc=loc) from None


def _parse(data: bytes, file: str) -> ModelProto:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError, UnicodeDecodeError) as fault:
        raise error("E101", "not an ONNX model", str(fault), loc=Loc(file)) from None
    if not model.HasField("graph"):
        raise error("E101", "not an ONNX model: it has no graph", loc=Loc(file))
    return model

"""Models of ONNX from files and to files, weights of any size included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto

from aisc.codegen.files import write_whole
from aisc.frontend.onnx.reader import MAX_FILE_BYTES, parts, read
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc

# Beyond it, and where the model had them there, weights go into a file of their own.
INSIDE = MAX_FILE_BYTES // 2
SMALL, ALIGNED = 1024, 64


def open_model(source: Any) -> tuple[ModelProto, bool]:
    """A model with all of its weights, and whether these were in files of their own."""
    opened = read(source)
    if isinstance(source, ModelProto | bytes):
        return opened.model, False
    path = Path(os.fspath(source))
    try:
        return onnx.load(path), bool(parts(path))
    except (onnx.checker.ValidationError, OSError, ValueError) as fault:
        reason = str(fault).splitlines()[0]
        raise error("E104", "external data of the model", reason, loc=Loc(str(path))) from None


def save_model(model: ModelProto, path: Path, apart: bool) -> None:
    """Write a model, whole or not at all; large weights beside it where they are to be `apart`, or
    are more than a file holds."""
    tensors = [t for t in model.graph.initializer if len(t.raw_data) >= SMALL]
    if not apart and sum(len(t.raw_data) for t in tensors) < INSIDE:
        write_whole(path, model.SerializeToString(deterministic=True))
        return
    light, beside = ModelProto(), path.with_name(path.name + ".data")
    write_whole(beside, _padded(tensors))
    light.CopyFrom(model)
    offset = 0
    for t in light.graph.initializer:
        if len(t.raw_data) < SMALL:
            continue
        length = len(t.raw_data)
        t.ClearField("raw_data")
        t.data_location = TensorProto.EXTERNAL
        for key, value in (("location", beside.name), ("offset", offset), ("length", length)):
            t.external_data.add(key=key, value=str(value))
        offset += _up(length)
    write_whole(path, light.SerializeToString(deterministic=True))


def _padded(tensors: list[TensorProto]) -> Iterator[bytes]:
    for t in tensors:
        yield t.raw_data
        yield bytes(_up(len(t.raw_data)) - len(t.raw_data))


def _up(length: int) -> int:
    return -(-length // ALIGNED) * ALIGNED

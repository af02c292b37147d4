"""Reading an ONNX file into a ModelProto: anything unreadable is E101, too large is E105."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aisc.frontend.onnx.wire import Contents, lift_weights
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc
from aisc.ir.mapped import mapped

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto, TensorProto

MAX_FILE_BYTES = (1 << 31) - 1  # what protocol buffers can hold


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed model, where it came from, and the folder of its external data (if any). `weights`
    holds data of initializers that are left out of the model, by number."""

    model: ModelProto
    file: str
    folder: Path | None
    weights: Mapping[int, Contents] = field(default_factory=dict)


def read(source: str | os.PathLike[str] | bytes | ModelProto) -> Source:
    """Parse a path, serialized bytes, or take a ModelProto as it is."""
    from onnx import ModelProto

    if isinstance(source, ModelProto):
        _check_text(source, "<model>")
        return Source(source, "<model>", None)
    if isinstance(source, bytes):
        return Source(_parse(source, "<bytes>"), "<bytes>", None)
    if not isinstance(source, str | os.PathLike):
        raise error("E101", "a model is a path, bytes, a ModelProto or a graph of aisc",
                    f"got {type(source).__name__}")  # fmt: skip
    path = Path(source)
    light, weights = lift_weights(_load(path))
    return Source(_parse(light, str(path)), str(path), path.absolute().parent, weights)


def parts(path: Path) -> tuple[str, ...]:
    """The files in which tensors of a readable model have their data."""
    light, _ = lift_weights(_load(path))
    if b"location" not in light:  # the key of such an entry; most models need no parser
        return ()
    tensors = _tensors(_parse(light, str(path)))
    entries = (e for t in tensors if t.data_location == 1 for e in t.external_data)
    return tuple(sorted({e.value for e in entries if e.key == "location"}))


def _tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor in a message, wherever it stands."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for form, value in message.ListFields():
        if form.message_type is not None:
            for inner in (value,) if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


def _load(path: Path) -> Contents:
    loc = Loc(str(path))
    try:
        if not path.is_file():
            raise error("E101", "no such file" if not path.exists() else "not a file", loc=loc)
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            note = "store the weights as external data"
            raise error("E105", f"the file has {size} bytes", note, loc=loc)
        return mapped(path) if size else np.empty(0, np.uint8)
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
    _check_text(model, file)
    return model


def _check_text(model: ModelProto, file: str) -> None:
    """E101 unless every name is UTF-8: protobuf hands out others as bytes."""
    if not all(isinstance(text, str) for text in _texts(model)):
        raise error("E101", "not an ONNX model: a name is not UTF-8", loc=Loc(file))


def _texts(model: ModelProto) -> Iterator[object]:
    graph = model.graph
    yield graph.name
    for opset in model.opset_import:
        yield opset.domain
    for info in (*graph.input, *graph.output):
        yield info.name
        for dim in info.type.tensor_type.shape.dim:
            yield dim.dim_param
    for tensor in graph.initializer:
        yield from _tensor_texts(tensor)
    nodes = chain(graph.node, *(f.node for f in model.functions))
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, node.overload)
        yield from node.input
        yield from node.output
        for a in node.attribute:
            yield from (a.name, a.ref_attr_name)
            if a.HasField("t"):
                yield from _tensor_texts(a.t)
    for f in model.functions:
        yield from (f.name, f.domain, f.overload, *f.input, *f.output, *f.attribute)
        yield from (o.domain for o in f.opset_import)
        yield from (a.name for a in f.attribute_proto)


def _tensor_texts(tensor: TensorProto) -> Iterator[object]:
    yield tensor.name
    for entry in tensor.external_data:
        yield from (entry.key, entry.value)

"""Large weights out of a serialized model without copies.

Protobuf would copy each tensor's bytes twice. :func:`lift_weights` walks the wire format of
``ModelProto.graph.initializer[*].raw_data`` and takes long ones out: what is left is a small model
to parse, and the weights are views of the file's contents. Anything unusual is left as it is; the
parser then reports what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aisc.ir.mapped import give_back

# Field numbers of onnx.proto.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
LIFTED_BYTES = 1 << 12  # shorter data are not worth a view

Contents = np.ndarray[Any, np.dtype[np.uint8]]
Span = tuple[int, int]


class _Unusual(Exception):
    """Not a form that is lifted."""


def lift_weights(data: Contents) -> tuple[bytes, dict[int, Contents]]:
    """(the serialized model without long raw data, that data by number of the initializer)."""
    view = data.data
    try:
        graphs = [f for f in _fields(view, 0, len(view)) if f[0] == _GRAPH]
        if len(graphs) != 1:
            raise _Unusual
        (_, start, body, end) = graphs[0]
        light, lifted = _light_graph(view, body, end)
    except (_Unusual, IndexError):
        return bytes(view), {}
    if not lifted:
        return bytes(view), {}
    parts: list[bytes | memoryview] = [view[:start], _header(_GRAPH, len(light)), light, view[end:]]
    return b"".join(parts), {k: data[a:b] for k, (a, b) in lifted.items()}


def _light_graph(view: memoryview, start: int, end: int) -> tuple[bytes, dict[int, Span]]:
    parts: list[bytes | memoryview] = []
    lifted: dict[int, Span] = {}
    kept, number = start, 0
    for field, at, body, after in _fields(view, start, end):
        if field != _INITIALIZER:
            continue
        raw = [f for f in _fields(view, body, after) if f[0] == _RAW_DATA]
        if len(raw) == 1 and raw[0][3] - raw[0][2] >= LIFTED_BYTES:
            (_, raw_at, raw_body, raw_end) = raw[0]
            rest = bytes(view[body:raw_at]) + bytes(view[raw_end:after])
            parts += [view[kept:at], _header(_INITIALIZER, len(rest)), rest]
            lifted[number], kept = (raw_body, raw_end), after
            # Looking at its head may have brought in as much of a file as a large page holds.
            give_back(np.frombuffer(view[:raw_end], np.uint8))
        number += 1
    parts.append(view[kept:end])
    return b"".join(parts), lifted


def _fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, start, start of the contents, end) of each field of bytes of a message."""
    while at < end:
        start = at
        tag, at = _varint(view, at, end)
        kind = tag & 7
        if kind == _VARINT:
            body, after = at, _varint(view, at, end)[1]
        elif kind == _BYTES:
            size, body = _varint(view, at, end)
            after = body + size
        elif kind in (_FIXED64, _FIXED32):
            body, after = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise _Unusual
        if after > end:
            raise _Unusual
        if kind == _BYTES:
            yield tag >> 3, start, body, after
        at = after


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = view[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise _Unusual


def _header(field: int, size: int) -> bytes:
    """Tag and length of a field of bytes."""
    return _number(field << 3 | _BYTES) + _number(size)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)

"""Writing bundles: the format is that of :mod:`aisc.codegen.run.bundle`.

Weights are asked for one after the other and written as they come, with whatever stands before them
last, when their places and their checksum are known. Nothing is held in memory but two weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from aisc.codegen import faults, signature
from aisc.codegen.arrays import Array
from aisc.codegen.files import whole_file
from aisc.codegen.image import Image, Launch, Move
from aisc.codegen.run.bundle import (
    ALIGNMENT,
    FORMAT,
    HEAD_AT,
    MAGIC,
    PAGE,
    PREAMBLE,
    About,
    up,
)
from aisc.codegen.run.bundle import about as about_now
from aisc.codegen.run.weight_sum import WeightSum
from aisc.codegen.weights import Ready, Scratch, WeightSource
from aisc.ir.blob import Blob
from aisc.ir.mapped import Bytes

if TYPE_CHECKING:
    from aisc.ir.tensor.stmt import HostCall

# A place among the weights of a bundle, or the number of a lender and a place among its weights.
Place = int | tuple[int, int]
MAX_LENDERS = 8
_COMPARED = 1 << 20  # bytes of a weight that are read again at once


class Shelf(Protocol):
    """Where bundles lie together, which may have weights of each other."""

    def find(self, array: Array) -> tuple[str, str, int] | None:
        """Another bundle that holds an array itself: its name, its checksum, the place there."""

    def grow(self, size: int) -> None:
        """This bundle is about to have so many bytes of weights. ``OSError`` where they have no
        room."""

    def stored(self, array: Array, place: int) -> None:
        """This bundle holds an array itself, at a place among its weights."""


def write(image: Image, path: Path, threads: int = 0) -> None:
    """Write what was compiled, for whichever machine, whole or not at all; E503."""
    with whole_file(path) as file:
        write_into(file, image, Ready(image.weights), about_now(threads))


def write_into(
    file: BinaryIO, image: Image, source: WeightSource, about: About, shelf: Shelf | None = None
) -> None:
    """Write a bundle to an empty file that can be read as well. `source` gives the weights of the
    image, which are asked for one after the other; equal ones are stored once, and not at all when
    another bundle of the `shelf` has them."""
    on_devices = (o for d in image.devices for o in d.objects)
    objects = (image.runtime, *image.objects, *on_devices)
    sizes, code = [len(o) for o in objects], b"".join(objects)
    # The head is as long as it can become: its numbers are not known yet.
    most = size_of(image)
    places: list[Place] = [most if shelf is None else (MAX_LENDERS, most)]
    lenders = [("0" * 64, "0" * 64)] * (0 if shelf is None else MAX_LENDERS)
    places *= len(image.signature.weights)
    longest = _head(image, about, sizes, places, "0" * 64, lenders)
    code_at = up(HEAD_AT + len(longest), PAGE)
    weights_at = up(code_at + len(code), PAGE)
    section = _Section(file, weights_at, shelf)
    _fill(section, source, len(image.signature.weights))
    end = section.finish()
    total = section.sum.digest()
    head = _head(image, about, sizes, section.places, total, section.lenders).ljust(len(longest))
    preamble = PREAMBLE.pack(MAGIC, FORMAT, 0, len(head), len(code), weights_at, weights_at + end)
    body = (head + bytes(code_at - HEAD_AT - len(head)) + code).ljust(weights_at - HEAD_AT, b"\0")
    file.seek(0)
    file.write(preamble + hashlib.sha256(preamble + body).digest() + body)


def _fill(section: _Section, source: WeightSource, count: int) -> None:
    """Write weights; while one is written the next one is made."""
    room = Scratch(), Scratch()
    with ThreadPoolExecutor(1) as writer:
        writing: Future[None] | None = None
        for k in range(count):
            array = source.array(k, room[k % 2])
            if writing is not None:
                writing.result()
            writing = writer.submit(section.add, array)
        if writing is not None:
            writing.result()


def size_of(image: Image) -> int:
    """Bytes of the weights of an image where none are equal."""
    total = 0
    for port in image.signature.weights:
        count = int(np.prod(port.type.static_shape, dtype=object))
        total = up(total + count * port.dtype.bytes, ALIGNMENT)
    return up(total, PAGE)


class _Section:
    """The weights of a file in the making, from `start` on."""

    def __init__(self, file: BinaryIO, start: int, shelf: Shelf | None) -> None:
        self.places: list[Place] = []
        self.lenders: list[tuple[str, str]] = []
        self.sum = WeightSum()
        self._shelf = shelf
        self._file, self._start, self._end = file, start, 0
        self._known: dict[int, list[int]] = {}
        file.seek(start)

    def add(self, array: Array) -> None:
        """Write a weight, unless an equal one is there, or on the shelf."""
        flat = array.reshape(-1).view(np.uint8) if array.nbytes else np.empty(0, np.uint8)
        alike = self._known.setdefault(Blob(array).sketch, [])
        own = next((p for p in alike if self._holds(p, flat)), None)
        place: Place | None = self._borrowed(array) if own is None else own
        if place is None:
            place = self._end
            alike.append(place)
            if self._shelf is not None:
                self._shelf.grow(self._end + flat.size)
                self._shelf.stored(array, place)
            self._write(flat)
            self._write(np.zeros(-flat.size % ALIGNMENT, np.uint8))
        self.places.append(place)

    def _borrowed(self, array: Array) -> Place | None:
        """The place of an equal weight in another bundle."""
        found = None if self._shelf is None else self._shelf.find(array)
        if found is None:
            return None
        lender = found[:2]
        if lender not in self.lenders:
            if len(self.lenders) == MAX_LENDERS:
                return None
            self.lenders.append(lender)
        return self.lenders.index(lender), found[2]

    def finish(self) -> int:
        """Fill the last page; the size of the section."""
        self._write(np.zeros(-self._end % PAGE, np.uint8))
        return self._end

    def _write(self, data: Bytes) -> None:
        self._file.write(data.data)
        self.sum.add(data)
        self._end += data.size

    def _holds(self, place: int, data: Bytes) -> bool:
        """Whether the bytes at a place are these."""
        self._file.seek(self._start + place)
        parts = (data[k : k + _COMPARED] for k in range(0, data.size, _COMPARED))
        same = all(self._file.read(part.size) == part.tobytes() for part in parts)
        self._file.seek(self._start + self._end)
        return same


def _head(
    image: Image,
    about: About,
    objects: list[int],
    places: Sequence[Place],
    total: str,
    lenders: Sequence[tuple[str, str]],
) -> bytes:
    machine = image.machine
    data = {
        "version": about.version,
        "llvm": about.llvm,
        "convention": about.convention,
        "threads": about.threads,
        "target": [machine.kind, machine.triple, machine.arch, list(machine.features)],
        "signature": signature.to_json(image.signature),
        "objects": objects,
        "weights": places,
        "sum": total,
        **({"lenders": lenders} if lenders else {}),
        "calls": [_call_to_json(c) for c in image.calls],
        "host": _host_text([c for c in image.calls if not isinstance(c, Launch | Move)]),
        "straight": image.straight,
        "devices": [[d.target, d.kind, len(d.objects)] for d in image.devices],
        "faults": faults.to_json(image.faults),
    }
    return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()


def _host_text(calls: Sequence[HostCall]) -> str:
    """Operators without native code as IR text. Only where there are some the IR is loaded."""
    if not calls:
        return ""
    from aisc.codegen.host import to_text

    return to_text(calls)


def _call_to_json(c: HostCall | Launch | Move) -> list[object] | None:
    """A call by its parts; operators stand in a text of their own."""
    if isinstance(c, Move):
        return [c.source, c.target]
    return [c.target, c.kernel, c.buffers, c.dims] if isinstance(c, Launch) else None

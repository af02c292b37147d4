"""Bundles: an image as one file, opened without compiling and without copying the weights.

    offset      bytes
    0           8     magic
    8           4     format
    12          4     zero
    16          8     size of the head
    24          8     size of the code
    32          8     where the weights begin, a multiple of the page size
    40          8     size of the file
    48          32    SHA-256 of the bytes 0-47 and of 80 up to the weights
    80                head: JSON
    (page)            code: objects, one after the other; the first is the run time
    (page)            weights, each at a multiple of 64; up to the end of the file

The head holds the signature, what the code was made for and by, and the places of objects and
weights. Reading believes nothing: sizes are compared with the file before anything is read, all
before the weights with its SHA-256 before it is parsed, the weights with a faster sum.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
import struct
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from aisc.codegen import abi, faults, signature
from aisc.codegen.cpu.runtime import runtime_text
from aisc.codegen.files import write_whole
from aisc.codegen.image import DeviceCode, Image, Launch, Machine
from aisc.codegen.llvm import generate
from aisc.codegen.signature import Port
from aisc.ir.arith.dim_json import integer, text
from aisc.ir.diagnostics import CompileError, execution_error
from aisc.ir.version import VERSION

if TYPE_CHECKING:
    from aisc.ir.tensor.stmt import HostCall

MAGIC = b"\x89AISC\r\n\x1a"
FORMAT = 4
PAGE = 4096
ALIGNMENT = 64
_PREAMBLE = struct.Struct("<8sIIQQQQ")
_HEAD_AT = _PREAMBLE.size + 32
# No head of a real model comes near; a larger one is not worth hashing.
_MAX_HEAD = 1 << 28
_ROW = 4096  # words that the sum of the weights works on at once: fits the first-level cache
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class About:
    """Who made a bundle and for what. threads: of a call by default; 0 for the cores of the
    process that opens it. convention: see :func:`convention`."""

    version: str
    llvm: str
    threads: int
    convention: str


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """What a file holds; its weights stay mapped as long as they are used."""

    image: Image
    about: About
    size: int


def convention() -> str:
    """Identity of the calling convention and of the run time's layout: code of another one would
    misread its frame or the pool."""
    parts = (list(abi.FIELDS.items()), sorted(abi.ERRORS.items()), runtime_text("x86_64"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def about(threads: int = 0) -> About:
    """Who makes a bundle now."""
    return About(VERSION, generate.version(), threads, convention())


def write(image: Image, path: Path, threads: int = 0) -> None:
    """Write what was compiled, for whichever machine, whole or not at all; E503."""
    write_whole(path, encode(image, about(threads)))


def is_bundle(path: Path) -> bool:
    """Whether a regular file begins as a bundle does."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with open(path, "rb") as f:
            return f.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


# -- writing -------------------------------------------------------------------------------------


def encode(image: Image, about: About) -> Iterator[bytes | memoryview]:
    """The contents of a bundle, piece by piece; weights are not copied."""
    on_devices = (o for d in image.devices for o in d.objects)
    objects = (image.runtime, *image.objects, *on_devices)
    places, end = _places(image.weights)
    head = _head(image, about, [len(o) for o in objects], places, _sum_of(image.weights, places))
    code = b"".join(objects)
    code_at = _up(_HEAD_AT + len(head), PAGE)
    weights_at = _up(code_at + len(code), PAGE)
    numbers = (len(head), len(code), weights_at, weights_at + end)
    preamble = _PREAMBLE.pack(MAGIC, FORMAT, 0, *numbers)
    body = (head + bytes(code_at - _HEAD_AT - len(head)) + code).ljust(weights_at - _HEAD_AT, b"\0")
    yield preamble + hashlib.sha256(preamble + body).digest() + body
    yield from _pieces(image.weights, places, end)


def _head(image: Image, about: About, objects: list[int], places: list[int], total: str) -> bytes:
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
        "calls": [_launch_to_json(c) if isinstance(c, Launch) else None for c in image.calls],
        "host": _host_text([c for c in image.calls if not isinstance(c, Launch)]),
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


def _host_calls(text: str) -> tuple[HostCall, ...]:
    if not text:
        return ()
    from aisc.codegen.host import from_text

    return from_text(text)


def _up(n: int, step: int) -> int:
    return -(-n // step) * step


def _places(weights: Sequence[NDArray[Any]]) -> tuple[list[int], int]:
    """Offsets of weights in their section, and its size; an array that serves as several weights
    lies there once."""
    known: dict[int, int] = {}
    places, at = [], 0
    for w in weights:
        place = known.setdefault(id(w), at)
        places.append(place)
        if place == at:
            at = _up(at + w.nbytes, ALIGNMENT)
    return places, _up(at, PAGE)


def _pieces(weights: Sequence[NDArray[Any]], places: list[int], end: int) -> Iterator[memoryview]:
    """The bytes of the section of weights."""
    at = 0
    for w, place in zip(weights, places, strict=True):
        if place < at:
            continue  # it is there already
        if place > at:
            yield memoryview(bytes(place - at))
        if w.nbytes:
            yield w.reshape(-1).view(np.uint8).data
        at = place + w.nbytes
    yield memoryview(bytes(end - at))


def _sum_of(weights: Sequence[NDArray[Any]], places: list[int]) -> str:
    total = WeightSum()
    for piece in _pieces(weights, places, _places(weights)[1]):
        total.add(np.frombuffer(piece, np.uint8))
    return total.digest()


class WeightSum:
    """A checksum near the speed of memory: rows of words as coefficients of a polynomial modulo
    2^64, one for each column, and SHA-256 of the values. A change within one row is always found,
    any other but for a chance of 2^-64. Not meant to withstand an attacker."""

    def __init__(self) -> None:
        self._state = np.zeros(_ROW, np.uint64)
        self._rest = np.zeros(0, np.uint8)
        self._size = 0

    def add(self, data: Bytes) -> None:
        """Continue with `data`."""
        self._size += data.size
        row = _ROW * 8
        if self._rest.size:
            missing = row - self._rest.size
            self._rest = np.concatenate([self._rest, data[:missing]])
            data = data[missing:]
            if self._rest.size < row:
                return
            self._rows(self._rest)
        whole = data.size // row * row
        self._rows(data[:whole])
        self._rest = data[whole:].copy()

    def _rows(self, data: Bytes) -> None:
        state = self._state
        if data.ctypes.data % 8:
            data = data.copy()
        for row in data.view(np.uint64).reshape(-1, _ROW):
            np.multiply(state, _FACTOR, out=state)
            np.add(state, row, out=state)

    def digest(self) -> str:
        """The checksum as hex."""
        return hashlib.sha256(
            self._state.tobytes() + self._rest.tobytes() + self._size.to_bytes(8, "little")
        ).hexdigest()


# -- reading -------------------------------------------------------------------------------------


def read(path: Path, verify: bool = True) -> Bundle:
    """The bundle in a file. `verify`: whether the weights are compared with their checksum, which
    reads all of them.

    E503 when the file cannot be read, E504 when it is damaged or no bundle, E505 when another
    version made it. Whether it suits the machine is for :meth:`Machine.unfit` to say.
    """
    data = _mapped(path)
    head_size, code_size, weights_at = _check_preamble(path, data)
    body = data[_HEAD_AT:weights_at]
    sha = hashlib.sha256(data[: _PREAMBLE.size].data)
    sha.update(body.data)
    if sha.digest() != data[_PREAMBLE.size : _HEAD_AT].tobytes():
        _damaged(path, "its head or code does not match its checksum")
    try:
        head = json.loads(body[:head_size].tobytes())
        made_by = About(
            text(head["version"]), text(head["llvm"]), integer(head["threads"]),
            text(head["convention"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        _damaged(path, "its head has another form")
    _check_version(path, made_by)
    code_at = _up(_HEAD_AT + head_size, PAGE)
    code = data[code_at : code_at + code_size].tobytes()
    weights = data[weights_at:]
    try:
        image = _image(head, code, weights)
        expected = text(head["sum"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, CompileError):
        _damaged(path, "its head has another form")
    if verify:
        total = WeightSum()
        total.add(weights)
        if total.digest() != expected:
            _damaged(path, "its weights do not match their checksum")
    return Bundle(image, made_by, data.size)


def _mapped(path: Path) -> Bytes:
    """A file as bytes that cannot be written, read when they are touched."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise execution_error("E504", f"{path} is no bundle: not a regular file")
        with open(path, "rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size < _HEAD_AT or f.read(len(MAGIC)) != MAGIC:
                raise execution_error(
                    "E504", f"{path} is no bundle", "make one with aisc compile MODEL -o FILE.aisc"
                )
            return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as fault:
        raise execution_error("E503", f"cannot read {path}", fault.strerror or str(fault)) from None
    except ValueError:  # the file has become empty
        _damaged(path, "it is empty")


def _check_preamble(path: Path, data: Bytes) -> tuple[int, int, int]:
    """Sizes of head and code and the place of the weights, when they fit the file."""
    _, form, zero, head, code, weights_at, size = _PREAMBLE.unpack(data[: _PREAMBLE.size].tobytes())
    if form != FORMAT:
        raise execution_error(
            "E505", f"{path} has format {form}", f"expected format {FORMAT}", "compile it again"
        )
    if size != data.size:
        _damaged(path, f"it should have {size} bytes and has {data.size}")
    expected = _up(_up(_HEAD_AT + head, PAGE) + code, PAGE)
    if zero or head > _MAX_HEAD or weights_at != expected or weights_at > size:
        _damaged(path, "its sizes contradict each other")
    return head, code, weights_at


def _check_version(path: Path, about: About) -> None:
    if about.version != VERSION:
        raise execution_error(
            "E505", f"{path} was made by aisc {about.version}", f"this is aisc {VERSION}",
            "compile it again",
        )  # fmt: skip
    if about.convention != convention():
        raise execution_error(
            "E505", f"{path} was made with another calling convention",
            f"expected {convention()}, got {about.convention[:64]}", "compile it again",
        )  # fmt: skip


def _image(head: dict[str, Any], code: bytes, section: Bytes) -> Image:
    """The image of a head; ``ValueError`` and its like when something does not fit."""
    kind, triple, arch, features = head["target"]
    machine = Machine(text(kind), text(triple), text(arch), tuple(map(text, features)))
    made = signature.from_json(head["signature"])
    objects, at = [], 0
    for size in map(integer, head["objects"]):
        if size < 0 or at + size > len(code):
            raise ValueError("an object lies outside of the code")
        objects.append(code[at : at + size])
        at += size
    if at != len(code) or not objects:
        raise ValueError("objects do not fill the code")
    places = list(map(integer, head["weights"]))
    weights = tuple(_weight(section, p, at) for p, at in zip(made.weights, places, strict=True))
    devices = tuple(_devices(head["devices"], objects))
    calls = tuple(_calls(head["calls"], text(head["host"]), {d.target for d in devices}))
    said = faults.from_json(head["faults"])
    runtime, *own = objects
    return Image(made, machine, runtime, tuple(own), weights, calls, 0, said, devices)


def _devices(rows: Any, objects: list[bytes]) -> list[DeviceCode]:
    """The devices of a head; their objects, which are the last ones, are taken out of `objects`."""
    found = [(text(name), text(kind), integer(count)) for name, kind, count in rows]
    least = min((count for _, _, count in found), default=0)
    first = len(objects) - sum(count for _, _, count in found)
    if least < 0 or first < 1:
        raise ValueError("there are not so many objects")
    rest, objects[first:] = objects[first:], []
    devices = []
    for name, kind, count in found:
        devices.append(DeviceCode(name, kind, tuple(rest[:count])))
        rest = rest[count:]
    return devices


def _calls(rows: Any, host: str, devices: Container[str]) -> Iterator[HostCall | Launch]:
    """What the entry calls back for, in order; a row that is no kernel stands for an operator."""
    operators = list(_host_calls(host))
    if not isinstance(rows, list) or rows.count(None) != len(operators):
        raise ValueError("there are not so many operators")
    for row in rows:
        if row is None:
            yield operators.pop(0)
            continue
        target, kernel, buffers, dims = row
        if target not in devices or min(integer(buffers), integer(dims)) < 0:
            raise ValueError("a kernel of a device that is not there")
        yield Launch(text(target), text(kernel), buffers, dims)


def _launch_to_json(c: Launch) -> list[object]:
    return [c.target, c.kernel, c.buffers, c.dims]


def _weight(section: Bytes, port: Port, at: int) -> NDArray[Any]:
    """A weight as a view of the mapped file."""
    size = port.type.dtype.bytes
    for d in port.type.static_shape:
        size *= d
    if at < 0 or at % ALIGNMENT or at + size > section.size:
        raise ValueError("a weight lies outside of the file")
    return section[at : at + size].view(port.dtype.numpy).reshape(port.type.static_shape)


def _damaged(path: Path, reason: str) -> NoReturn:
    raise execution_error("E504", f"{path} is damaged: {reason}", "compile or copy it again")

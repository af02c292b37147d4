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

In a cache, a bundle may have weights of others: its head names these lenders with their sums, and a
place may be one in the weights of a lender.
"""

from __future__ import annotations

import hashlib
import json
import stat
import struct
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from aisc.codegen import abi, faults, signature
from aisc.codegen.cpu.runtime import runtime_text
from aisc.codegen.image import DeviceCode, Image, Launch, Machine, Move
from aisc.codegen.llvm import generate
from aisc.codegen.run.weight_sum import WeightSum
from aisc.codegen.signature import Port
from aisc.ir.arith.dim_json import integer, text
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, execution_error
from aisc.ir.mapped import Bytes, mapped
from aisc.ir.version import VERSION

if TYPE_CHECKING:
    from aisc.ir.tensor.stmt import HostCall

MAGIC = b"\x89AISC\r\n\x1a"
FORMAT = 4
PAGE = 4096
ALIGNMENT = 64
PREAMBLE = struct.Struct("<8sIIQQQQ")
HEAD_AT = PREAMBLE.size + 32
# No head of a real model comes near; a larger one is not worth hashing.
_MAX_HEAD = 1 << 28


# The weights of another bundle, by its name and their checksum; raises ``ExecutionError``.
Lend = Callable[[str, str], Bytes]


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


def is_bundle(path: Path) -> bool:
    """Whether a regular file begins as a bundle does."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with open(path, "rb") as f:
            return f.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read(path: Path, verify: bool = True, lend: Lend | None = None) -> Bundle:
    """The bundle in a file. `verify`: whether the weights are compared with their checksum, which
    reads all of them. `lend`: gives the weights of other bundles, some of which may be its own.

    E503 when the file cannot be read, E504 when it is damaged or no bundle, E505 when another
    version made it. Whether it suits the machine is for :meth:`Machine.unfit` to say.
    """
    found = _parts(path)
    try:
        lenders = [(text(name), text(total)) for name, total in found.head.get("lenders", ())]
    except (ValueError, TypeError):
        _damaged(path, "its head has another form")
    if lenders and lend is None:
        _damaged(path, "it has weights of other models: it belongs to a cache")
    sections = [found.weights, *(lend(name, total) for name, total in lenders if lend is not None)]
    try:
        image = _image(found.head, found.code, sections)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError, CompileError):
        _damaged(path, "its head has another form")
    if verify:
        _verify(path, found)
    return Bundle(image, found.about, found.size)


def own_weights(path: Path, verify: bool = True) -> tuple[Bytes, str]:
    """The weights that a bundle holds itself, and their checksum. Errors as those of
    :func:`read`."""
    found = _parts(path)
    if verify:
        _verify(path, found)
    return found.weights, found.sum


@dataclass(frozen=True, slots=True)
class _Parts:
    """A file whose head and code match their checksum; `sum`: that of the weights."""

    head: dict[str, Any]
    about: About
    sum: str
    code: bytes
    weights: Bytes
    size: int


def _parts(path: Path) -> _Parts:
    data = _mapped(path)
    head_size, code_size, weights_at = _check_preamble(path, data)
    body = data[HEAD_AT:weights_at]
    sha = hashlib.sha256(data[: PREAMBLE.size].data)
    sha.update(body.data)
    if sha.digest() != data[PREAMBLE.size : HEAD_AT].tobytes():
        _damaged(path, "its head or code does not match its checksum")
    try:
        head = json.loads(body[:head_size].tobytes())
        made_by = About(
            text(head["version"]), text(head["llvm"]), integer(head["threads"]),
            text(head["convention"]),
        )  # fmt: skip
        total = text(head["sum"])
    except (ValueError, KeyError, TypeError, RecursionError):
        _damaged(path, "its head has another form")
    _check_version(path, made_by)
    code_at = up(HEAD_AT + head_size, PAGE)
    code = data[code_at : code_at + code_size].tobytes()
    return _Parts(head, made_by, total, code, data[weights_at:], data.size)


def _verify(path: Path, found: _Parts) -> None:
    total = WeightSum()
    total.add(found.weights)
    if total.digest() != found.sum:
        _damaged(path, "its weights do not match their checksum")


def _mapped(path: Path) -> Bytes:
    """A file as bytes that cannot be written, read when they are touched."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise execution_error("E504", f"{path} is no bundle: not a regular file")
        data = mapped(path)
    except OSError as fault:
        raise execution_error("E503", f"cannot read {path}", fault.strerror or str(fault)) from None
    except ValueError:
        data = np.empty(0, np.uint8)
    if data.size < HEAD_AT or data[: len(MAGIC)].tobytes() != MAGIC:
        raise execution_error(
            "E504", f"{path} is no bundle", "make one with aisc compile MODEL -o FILE.aisc"
        )
    return data


def up(n: int, step: int) -> int:
    """The multiple of `step` that is `n` or follows it."""
    return -(-n // step) * step


def _check_preamble(path: Path, data: Bytes) -> tuple[int, int, int]:
    """Sizes of head and code and the place of the weights, when they fit the file."""
    _, form, zero, head, code, weights_at, size = PREAMBLE.unpack(data[: PREAMBLE.size].tobytes())
    if form != FORMAT:
        raise execution_error(
            "E505", f"{path} has format {form}", f"expected format {FORMAT}", "compile it again"
        )
    if size != data.size:
        _damaged(path, f"it should have {size} bytes and has {data.size}")
    expected = up(up(HEAD_AT + head, PAGE) + code, PAGE)
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


def _image(head: dict[str, Any], code: bytes, sections: Sequence[Bytes]) -> Image:
    """The image of a head; ``ValueError`` and its like when something does not fit. `sections`:
    the weights of the file itself, and those of its lenders."""
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
    places = [_place(at) for at in head["weights"]]
    if not all(0 <= k < len(sections) for k, _ in places):
        raise ValueError("a weight lies in no file")
    weights = tuple(
        _weight(sections[k], p, at) for p, (k, at) in zip(made.weights, places, strict=True)
    )
    devices = tuple(_devices(head["devices"], objects))
    calls = tuple(_calls(head["calls"], text(head["host"]), {d.target for d in devices}))
    said = faults.from_json(head["faults"])
    runtime, *own = objects
    straight = head["straight"] is True
    return Image(made, machine, runtime, tuple(own), weights, calls, 0, said, devices, straight)


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


def _host_calls(text: str) -> tuple[HostCall, ...]:
    if not text:
        return ()
    from aisc.codegen.host import from_text

    return from_text(text)


def _calls(rows: Any, host: str, devices: Container[str]) -> Iterator[HostCall | Launch | Move]:
    """What the entry calls back for, in order; a row that is no kernel stands for an operator."""
    operators = list(_host_calls(host))
    if not isinstance(rows, list) or rows.count(None) != len(operators):
        raise ValueError("there are not so many operators")
    for row in rows:
        if row is None:
            yield operators.pop(0)
            continue
        if len(row) == 2:
            source, target = map(text, row)
            if any(name and name not in devices for name in (source, target)) or source == target:
                raise ValueError("a copy from or to a device that is not there")
            yield Move(source, target)
            continue
        target, kernel, buffers, dims = row
        if target not in devices or min(integer(buffers), integer(dims)) < 0:
            raise ValueError("a kernel of a device that is not there")
        yield Launch(text(target), text(kernel), buffers, dims)


def _place(at: Any) -> tuple[int, int]:
    """The number of a section and the place there: one number alone is a place in the own one."""
    if isinstance(at, list):
        lender, place = map(integer, at)
        return lender + 1, place
    return 0, integer(at)


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

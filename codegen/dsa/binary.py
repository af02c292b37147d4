"""Kernels of an accelerator as a file that can be loaded: a header and their instructions.

``AISCDSA1``, the length of the header in 4 bytes, the header as JSON, then the instructions of each
kernel, one after the other (:mod:`aisc.codegen.dsa.encoding`). The header names the target and the
digest of its description, and says of each kernel what a loader needs: operands, bytes of memories,
programs of the vector unit, how many instructions and bytes there are, and their sum (CRC-32).
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

from aisc.codegen.dsa.recorded import Recorded, made_code, param_of, require_target
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target

MAGIC = b"AISCDSA1"
_LENGTH = 4


def digest(target: Target) -> str:
    """What tells descriptions apart that encode otherwise."""
    return target.digest or hashlib.sha256(target.source.encode()).hexdigest()


def encode(codes: Sequence[Recorded], target: Target) -> bytes:
    """Kernels as a file; E402 for a number that its field does not hold."""
    kernels, parts = [], []
    for code in codes:
        data = b"".join(_instruction(code, x) for x in code.executions)
        parts.append(data)
        kernels.append(
            {
                "name": code.name, "layer": code.layer, "memory": code.memory,
                "params": [
                    [p.name, p.dtype.name, ", ".join(map(str, p.type.static_shape)), p.role]
                    for p in code.params
                ],
                "programs": code.programs, "count": len(code.executions), "bytes": len(data),
                "sum": zlib.crc32(data),
            }
        )  # fmt: skip
    head = {"target": target.name, "digest": digest(target), "kernels": kernels}
    text = json.dumps(head, sort_keys=True).encode()
    sum_of_head = zlib.crc32(text).to_bytes(_LENGTH, "little")
    return b"".join([MAGIC, len(text).to_bytes(_LENGTH, "little"), sum_of_head, text, *parts])


def _instruction(code: Recorded, execution: tuple[int, tuple[int, ...], tuple[int, ...]]) -> bytes:
    number, args, offsets = execution
    site = code.sites[number]
    known = code.format.signals
    values = () if site.name in known else code.format.values(site, args, offsets, code.buffers)  # type: ignore[arg-type]
    return code.format.encode(site.name, values)


def is_binary(data: bytes) -> bool:
    """Whether bytes are such a file."""
    return data.startswith(MAGIC)


def decode(data: bytes, target: Target, file: str = "") -> list[Recorded]:
    """The kernels of a file; E504 where it is none or damaged, E506 for another description."""
    try:
        head, at = _head(data)
        require_target(str(head["target"]), target)
        if head["digest"] != digest(target):
            what = f"the program is for another description of {target.name}"
            raise error("E506", what, "compile it again for this one")
        codes = []
        for kernel in head["kernels"]:
            code, at = _kernel(kernel, data, at, target)
            codes.append(code)
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes follow the last kernel")
    except CompileError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        what = f"{file or 'the file'} is no program of an accelerator, or it is damaged"
        raise error("E504", what, str(fault)) from None
    return codes


def _head(data: bytes) -> tuple[dict[str, Any], int]:
    begin = len(MAGIC) + 2 * _LENGTH
    if not is_binary(data) or len(data) < begin:
        raise ValueError(f"it does not begin with {MAGIC.decode()}")
    size, known = (
        int.from_bytes(data[k : k + _LENGTH], "little") for k in (len(MAGIC), len(MAGIC) + _LENGTH)
    )
    text = data[begin : begin + size]
    if len(text) != size or zlib.crc32(text) != known:
        raise ValueError("its header is damaged")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("its header is no table")
    return found, begin + size


def _kernel(head: dict[str, Any], data: bytes, at: int, target: Target) -> tuple[Recorded, int]:
    """A kernel from its entry in the header and its instructions."""
    params = [param_of(*p) for p in head["params"]]
    code = made_code(target, head["name"], head["layer"], params, head["memory"], head["programs"])
    end = at + head["bytes"]
    if zlib.crc32(data[at:end]) != head["sum"]:
        raise ValueError(f"the instructions of {code.name} are damaged")
    part, place = data[at:end], 0
    for _ in range(head["count"]):
        name, values, place = code.format.decode(part, place)
        code.add(name, values)
    if place != len(part):
        raise ValueError(f"{len(part) - place} bytes follow the instructions of {code.name}")
    return code, end

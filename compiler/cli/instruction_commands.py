"""Instructions of accelerators: ``aisc compile --emit dsa`` and ``aisc assemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aisc.cli.commands import built
from aisc.codegen.backend import Encoded
from aisc.codegen.files import write_whole
from aisc.driver import api
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Program

# The suffix of the text.
TEXT = ".s"


def emit_instructions(
    model: str, target: str, output: Path | None, choices: dict[str, Any]
) -> None:
    """The kernels of the first device that has instructions: text, and beside a file the bytes."""
    product = built(model, target, {**choices, "stop_after": "plan"}).product
    assert isinstance(product, Program), "the product of plan is a Program"
    device = encoder_of(target)
    text = device.written([k for k in product.kernels if k.target == device.target.name])
    if output is None:
        print(text, end="")
        return
    if output.suffix == TEXT:
        raise error("E401", "the bytes need a file of their own", f"the text goes to *{TEXT}")
    write_whole(output, device.encoded(text))
    write_whole(output.with_suffix(TEXT), text.encode())


def encoder_of(target: str) -> Encoded:
    """The first device of a target that has instructions of its own; E402 without one."""
    devices = api.backends_of(target)[1]
    found = next((d for d in devices if isinstance(d, Encoded)), None)
    if found is None:
        names = ", ".join(d.target.name for d in devices) or "the host alone"
        raise error("E402", "only accelerators have such instructions", f"got {names}")
    return found


def assemble(file: Path, target: str, output: Path | None) -> None:
    """``aisc assemble``: text to bytes, or back."""
    device = encoder_of(target)
    try:
        data = file.read_bytes()
    except OSError as fault:
        raise error("E503", f"cannot read {file}", str(fault.strerror or fault)) from None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if text.lstrip().startswith((".", ";")):
        if output is None:
            raise error("E401", "the bytes need a file", "give -o FILE")
        write_whole(output, device.encoded(text, file.name))
        return
    text = device.decoded(data, file.name)
    if output is None:
        print(text, end="")
    else:
        write_whole(output, text.encode())

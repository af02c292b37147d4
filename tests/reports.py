"""What is told about the minimal failing inputs of `tests/errors/`, as it is now.

    python tests/reports.py

writes every report to `tests/golden/reports.txt` and prints what has changed.

The first line of an input is the command that fails on it (``FILE`` is the file, ``MODEL`` a small
model), or, in a ``.schedule``, the step that is refused. Binaries are written as text: models of
ONNX in the syntax of ``onnx.parser``, bundles in hexadecimal.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import io
import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import onnx.parser

from aisc.cli.main import main as command_line
from aisc.ir.diagnostics import USER, CompileError
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.schedule import Schedule

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "errors"
FILES = sorted(FOLDER.iterdir())
GOLDEN = HERE / "golden" / "reports.txt"
MODEL = """<ir_version: 8, opset_import: ["": 17]>
g (float[2] x) => (y) { y = Relu(x) }"""


def save(text: str, path: Path) -> None:
    """A model of ONNX from its text."""
    onnx.save(onnx.parser.parse_model(text), path)


def command(file: Path, folder: Path) -> list[str]:
    """The arguments that the first line names, with the file in a readable form in `folder`."""
    first, _, rest = file.read_bytes().partition(b"\n")
    place = folder / file.name.removesuffix(".txt")
    if file.suffix == ".onnx":
        first, rest = b"aisc check FILE", file.read_bytes()
    if file.name.endswith(".onnx.txt"):
        save(rest.decode(), place)
    elif file.suffix == ".hex":
        place = place.with_suffix(".aisc")
        place.write_bytes(bytes.fromhex(rest.decode()))
    elif file.suffix in (".aisc", ".onnx"):
        place.write_bytes(rest)
    else:
        place.write_bytes(file.read_bytes())
    save(MODEL, folder / "small.onnx")
    words = first.decode().lstrip("/# ").split()
    assert words[0] == "aisc", f"{file.name} names no command"
    names = {"FILE": place.name, "MODEL": "small.onnx"}
    parts = (w.partition(":") for w in words[1:])  # of FILE:function
    return [names.get(head, head) + colon + rest for head, colon, rest in parts]


def refused(file: Path) -> str:
    """What is told about a schedule step that is refused."""
    first, _, text = file.read_text(encoding="utf-8").partition("\n")
    call = ast.parse(first.lstrip("/ "), mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name), first
    try:
        Schedule.of(parse_func(text)).apply(call.func.id, *map(ast.literal_eval, call.args))
    except CompileError as fault:
        return f"{fault}\n"
    return ""


def report(file: Path) -> tuple[str, int]:
    """What an input makes aisc say on standard error, and its exit code."""
    if file.suffix == ".schedule":
        return refused(file), USER
    err = io.StringIO()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        words = command(file, Path(name))
        quiet = patch.dict(os.environ, {"AISC_CACHE_DIR": str(Path(name) / "cache")})
        streams = contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO())
        with quiet, streams[0], streams[1]:
            os.environ.pop("AISC_DEBUG", None)
            try:
                command_line(words)
            except SystemExit as leaving:
                return err.getvalue(), int(leaving.code or 0)
    return err.getvalue(), 0


def known() -> dict[str, str]:
    """The reports that were last agreed on, by the name of their input."""
    paragraphs = GOLDEN.read_text(encoding="utf-8").split("## ")[1:]
    return {head: text for head, _, text in (p.partition("\n") for p in paragraphs)}


def paragraph(file: Path) -> str:
    """What the golden file says of an input: the exit code and the report."""
    text, code = report(file)
    return f"exit code {code}\n{text}\n"


def main() -> None:
    before = GOLDEN.read_text(encoding="utf-8") if GOLDEN.exists() else ""
    after = "".join(f"## {file.name}\n{paragraph(file)}" for file in FILES)
    lines = (before.splitlines(), after.splitlines())
    print("\n".join(difflib.unified_diff(*lines, "before", "now", lineterm="")))
    GOLDEN.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

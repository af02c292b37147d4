"""Each file of tests/errors/ is a minimal input for the code that its name begins with.

The first line of a file is the command that fails on it (``FILE`` is the file, ``MODEL`` a small
model), or, in a ``.schedule``, the step that is refused.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import onnx.parser
import pytest

from aisc.cli.main import main
from aisc.ir.diagnostics import CODES, CompileError
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.schedule import Schedule

FOLDER = Path(__file__).resolve().parent / "errors"
FILES = sorted(FOLDER.iterdir())
MODEL = """<ir_version: 8, opset_import: ["": 17]>
g (float[2] x) => (y) { y = Relu(x) }"""
# External data needs a second file (tests/test_bad_models.py), E306 needs bound loops
# (tests/test_simt.py), E502 arrays (tests/test_executable.py), E506 a bundle for another machine
# (tests/test_bundle.py).
ELSEWHERE = {"E104", "E306", "E502", "E506"}


def save(text: str, path: Path) -> Path:
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def command(file: Path, folder: Path) -> list[str]:
    """The arguments that the first line names, with the file in a readable form."""
    if file.suffix == ".onnx":
        return ["check", str(file)]
    first, _, rest = file.read_text(encoding="utf-8").partition("\n")
    place = file
    if file.name.endswith(".onnx.txt"):
        place = save(rest, folder / "model.onnx")
    elif file.suffix == ".aisc":
        place = folder / "text.aisc"
        place.write_text(rest, encoding="utf-8")
    elif file.suffix == ".hex":
        place = folder / "bundle.aisc"
        place.write_bytes(bytes.fromhex(rest))
    model = save(MODEL, folder / "small.onnx")
    words = first.lstrip("/# ").split()
    assert words[0] == "aisc", f"{file.name} names no command"
    return [{"FILE": str(place), "MODEL": str(model)}.get(w, w) for w in words[1:]]


def refused(file: Path) -> tuple[str, ...]:
    """The codes of a refused schedule step."""
    first, _, text = file.read_text(encoding="utf-8").partition("\n")
    call = ast.parse(first.lstrip("/ "), mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name), first
    with pytest.raises(CompileError) as caught:
        Schedule.of(parse_func(text)).apply(call.func.id, *map(ast.literal_eval, call.args))
    return caught.value.codes


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.name)
def test_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = file.name[:4]
    if file.suffix == ".schedule":
        assert refused(file) == (code,)
        return
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AISC_DEBUG", raising=False)
    with pytest.raises(SystemExit) as leaving:
        main(command(file, tmp_path))
    err = capsys.readouterr().err
    assert re.findall(r"error\[(E\d+)\]", err) == [code], err
    assert leaving.value.code == (3 if code in ("E102", "E402") else 1)


def test_every_code_has_a_file() -> None:
    shown = {f.name[:4] for f in FILES}
    assert shown | ELSEWHERE == set(CODES)

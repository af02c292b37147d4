"""Each file of tests/errors/ is a minimal input for the code that its name begins with, and the
whole report about it is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reports

from aisc.ir.diagnostics import CODES

ROOT = Path(__file__).resolve().parent.parent
# E306 needs bound loops (tests/test_simt.py), E502 arrays (tests/test_executable.py), E506 a bundle
# for another machine (tests/test_bundle.py).
ELSEWHERE = {"E306", "E502", "E506", "E507", "E508", "E509"}
CODE = re.compile(r'"(E\d{3})"')
# What a front end's own files do not name, because the graph or the parser of texts says it.
SAID_BELOW = {"lang": {"E107", "E201", "E203", "E204"}, "onnx": {"E201", "E203", "E204"}}
SUFFIX = {"lang": ".aim", "onnx": (".onnx", ".onnx.txt")}


@pytest.mark.parametrize("file", reports.FILES, ids=lambda f: f.name)
def test_reports_are_known(file: Path) -> None:
    text, leaving = reports.report(file)
    code = file.name[:4]
    assert set(re.findall(r"error\[(E\d+)\]", text)) == {code}, text
    assert leaving == (3 if code in ("E102", "E402") else 1)
    known = reports.known().get(file.name)
    assert reports.paragraph(file) == known, "python tests/reports.py shows and renews them"


def test_no_report_is_left_over() -> None:
    assert set(reports.known()) == {f.name for f in reports.FILES}


def test_every_code_has_a_file() -> None:
    assert {f.name[:4] for f in reports.FILES} | ELSEWHERE == set(CODES)


@pytest.mark.parametrize("front", SUFFIX)
def test_every_code_of_a_front_end_has_a_file_of_its_language(front: str) -> None:
    found = (ROOT / "frontend" / front).rglob("*.py")
    sources = (p for p in found if "printing" not in p.parts)  # which writes what a graph says
    codes = {c for path in sources for c in CODE.findall(path.read_text(encoding="utf-8"))}
    shown = {f.name[:4] for f in reports.FILES if f.name.endswith(SUFFIX[front])}
    assert codes | SAID_BELOW[front] <= shown


def test_faults_in_a_text_have_a_place_and_a_caret() -> None:
    """Those of the file as a whole, and of an option, have none."""
    for name, text in reports.known().items():
        if name.endswith(".aim") and name[:4] not in ("E101", "E106"):
            assert re.search(r"--> \S+\.aim:\d+:\d+", text), name
            assert re.search(r"^ +\^$", text, re.MULTILINE), name
        elif name.endswith(".onnx.txt") and name[:4] in ("E102", "E103", "E201", "E203", "E204"):
            assert " node '" in text, name

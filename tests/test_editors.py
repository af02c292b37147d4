"""What editors know of the model language is what its grammar says."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aisc.frontend.lang.formulas import COMBINERS
from aisc.frontend.lang.reading import keywords, tokens, type_names

ROOT = Path(__file__).resolve().parent.parent
EDITORS = ROOT / "editors"
CODE = EDITORS / "vscode"
EXAMPLES = sorted((ROOT / "examples" / "lang").glob("*.aim"))


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", EDITORS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scope(patterns: list[dict[str, Any]], text: str) -> str:
    """What the first rule that takes the beginning of a text calls it."""
    for p in patterns:
        if re.match(p.get("match") or p["begin"], text):
            return str(p.get("name", "declaration"))
    return ""


def test_the_textmate_grammar_is_current(generate: ModuleType) -> None:
    written = generate.TARGET.read_text(encoding="utf-8")
    assert written == generate.current(), "run python editors/generate.py"


def test_every_word_of_the_language_has_its_colour(generate: ModuleType) -> None:
    patterns = generate.grammar()["patterns"]
    for word in keywords():
        assert scope(patterns, word).startswith(("keyword.", "storage.", "constant.")), word
        assert not scope(patterns, f"{word}s").startswith(("keyword.", "storage.")), word
    for word in type_names():
        assert scope(patterns, f"{word}[n]") == "support.type.aim"
    for word in COMBINERS:
        assert scope(patterns, f"{word}[i](x)") == "support.function.reduction.aim"
    declared = {*generate.DECLARING, *generate.STORING, *generate.LOGICAL, *generate.CONSTANTS}
    assert declared <= set(keywords())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_token_but_names_and_brackets_has_a_colour(path: Path, generate: ModuleType) -> None:
    patterns = generate.grammar()["patterns"]
    text = path.read_text()
    for t in tokens(text):
        plain = t.type in ("NAME", "_NL", "COMMA", "COLON", "DOT") or t in "()[]{}"
        assert plain or scope(patterns, text[t.start_pos :]), t


def test_the_extension_is_whole() -> None:
    manifest = json.loads((CODE / "package.json").read_text(encoding="utf-8"))
    assert (CODE / manifest["main"]).is_file()
    (language,) = manifest["contributes"]["languages"]
    (grammar,) = manifest["contributes"]["grammars"]
    assert language["extensions"] == [".aim"]
    assert json.loads((CODE / language["configuration"]).read_text(encoding="utf-8"))
    written = json.loads((CODE / grammar["path"]).read_text(encoding="utf-8"))
    assert written["scopeName"] == grammar["scopeName"]

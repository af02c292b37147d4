"""Write the TextMate grammar of the model language from its grammar.

    python editors/generate.py

A test holds the file against what this script would write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from aisc.frontend.lang.formulas import COMBINERS
from aisc.frontend.lang.reading import keywords, type_names

HERE = Path(__file__).resolve().parent
TARGET = HERE / "vscode" / "syntaxes" / "aim.tmLanguage.json"
# Words that are not control flow, which is what new ones are taken for.
DECLARING = ("layer", "model")
STORING = ("import", "param", "seed", "weights")
LOGICAL = ("and", "not", "or")
CONSTANTS = ("false", "true")
NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def words(*chosen: str) -> str:
    """A pattern for whole words."""
    return rf"\b(?:{'|'.join(chosen)})\b"


def rule(name: str, match: str, **more: Any) -> dict[str, Any]:
    """What is matched, and what it is called."""
    return {"name": f"{name}.aim", "match": match, **more}


def grammar() -> dict[str, Any]:
    """The grammar, first rules first."""
    others = (*DECLARING, *STORING, *LOGICAL, *CONSTANTS)
    control = tuple(w for w in keywords() if w not in others)
    declared = {
        "match": rf"\b({'|'.join(DECLARING)})\s+({NAME})",
        "captures": {
            "1": {"name": "storage.type.aim"},
            "2": {"name": "entity.name.function.aim"},
        },
    }
    escapes = [rule("constant.character.escape", r"\\.")]
    text = {"name": "string.quoted.double.aim", "begin": '"', "end": '"|$', "patterns": escapes}
    patterns = [
        rule("comment.line.number-sign", "#.*$"),
        text,
        declared,
        rule("storage.type", words(*DECLARING)),
        rule("storage.modifier", words(*STORING)),
        rule("keyword.control", words(*control)),
        rule("keyword.operator.logical", words(*LOGICAL)),
        rule("constant.language", words(*CONSTANTS, "inf", "nan")),
        rule("support.type", words(*type_names())),
        rule("support.function.reduction", rf"{words(*COMBINERS)}(?=\s*\[)"),
        rule("constant.numeric", r"\b[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\b"),
        rule("variable.parameter", rf"\b{NAME}(?=\s*=(?!=)[^,()]*[,)])"),
        rule("entity.name.function.call", rf"\b{NAME}(?=\s*\()"),
        rule("keyword.operator", r"->|\.\.|//|\*\*|[=!<>]=|[-+*/%@=<>]"),
    ]
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "aim",
        "scopeName": "source.aim",
        "fileTypes": ["aim"],
        "patterns": patterns,
    }


def current() -> str:
    """What the file should hold."""
    return json.dumps(grammar(), indent=2) + "\n"


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(current(), encoding="utf-8")

"""Instructions of accelerators as templates: one text for arrays of any size and type.

``$rows``, ``$columns`` and every other whole number of a description stand for its value,
``$input``, ``$weight``, ``$accumulator`` and ``$output`` for element types, and the same with
``_bytes`` for what these take. Where the array has several types, there is an instruction for each
that its text mentions, with the type behind its name; ``$name`` is what it is called, ``$zero``
what sums start with that have no bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

from aisc.ir.accelerator import Accelerator
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType


def shipped(name: str) -> str:
    """The text of an instruction set that comes with aisc; E401 where there is none."""
    folder = Path(__file__).parent / "targets/instructions"
    path = folder / f"{name}.toml"
    if not path.is_file() or "/" in name:
        sets = sorted(p.stem for p in folder.glob("*-stationary.toml"))
        raise error(
            "E401", f"target.instruction_set: there is no instruction set '{name}'",
            f"known: {', '.join(sets)}", "or write [instruction.NAME] tables of your own",
        )  # fmt: skip
    return path.read_text(encoding="utf-8")


def expanded(
    tables: Mapping[str, Mapping[str, Any]], chip: Accelerator, constants: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """The instructions of a chip, each template filled in."""
    found: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        for types in _variants(table, chip):
            several = [t.name for word, t in types.items() if len(_types(chip)[word]) > 1]
            full = "_".join((name, *several))
            zero = "0.0" if chip.array.accumulator.is_float else "0"
            words = {"name": full, "zero": zero, **{k: str(v) for k, v in constants.items()}}
            for word, t in types.items():
                words |= {word: t.name, f"{word}_bytes": str(t.bytes)}
            found[full] = {
                k: _filled(v, words, f"instruction.{name}.{k}") for k, v in table.items()
            }
    return found


def _types(chip: Accelerator) -> dict[str, tuple[DType, ...]]:
    array = chip.array
    return {
        "input": array.inputs,
        "weight": array.weights,
        "accumulator": (array.accumulator,),
        "output": array.outputs,
    }


def _variants(table: Mapping[str, Any], chip: Accelerator) -> list[dict[str, DType]]:
    """The types that stand for the words which a template mentions."""
    text = " ".join(str(v) for v in table.values())
    used = {w: t for w, t in _types(chip).items() if f"${w}" in text}
    return [dict(zip(used, choice, strict=True)) for choice in product(*used.values())]


def _filled(value: Any, words: Mapping[str, str], at: str) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, words, f"{at}.{k}") for k, v in value.items()}
    if not isinstance(value, str):
        return value
    try:
        return Template(value).substitute(words)
    except (KeyError, ValueError) as fault:
        known = ", ".join(f"${w}" for w in sorted(words))
        raise error(
            "E401", f"{at}: there is no {fault} in a description", f"known: {known}"
        ) from None

"""Reading assembly: does the hot loop of a kernel keep its values in registers?

The gate of a register tile is the assembly, not a rule of thumb: a loop that multiplies and adds
must not keep vectors on the stack. Addresses that it reads from there cost little, and a smaller
tile would need as many.
"""

from __future__ import annotations

import re

_LABEL = re.compile(r"^(\.?[\w.$]+):")
_FMA = re.compile(r"^\s+(vfn?m(add|sub)\w*p[sd]|vpmadd\w+|vpdp\w+|fml[as]|vfmacc)\b")
_STACK = re.compile(r"\(%[re]sp|\[sp\b|\bsp\)")
_VECTOR = re.compile(r"%[xyz]mm\d|\b[qvz]\d")


def basic_blocks(assembly: str) -> list[tuple[str, list[str]]]:
    """(label, instructions) in order of the text."""
    blocks: list[tuple[str, list[str]]] = []
    for line in assembly.splitlines():
        label = _LABEL.match(line)
        if label:
            blocks.append((label.group(1), []))
        elif blocks and line.startswith("\t") and not line.startswith("\t."):
            blocks[-1][1].append(line)
    return blocks


def hot_loop(assembly: str) -> list[str]:
    """Instructions of the block that jumps to itself and consists most of multiply-adds; what
    follows the jump without a label of its own is not part of it."""
    best: list[str] = []
    for label, lines in basic_blocks(assembly):
        back = [k for k, x in enumerate(lines) if label in x and label in re.split(r"[\s,]+", x)]
        if back and _density(lines[: back[-1] + 1]) > _density(best):
            best = lines[: back[-1] + 1]
    return best


def _density(lines: list[str]) -> float:
    return _fmas(lines) / len(lines) if lines else 0.0


def _fmas(lines: list[str]) -> int:
    return sum(bool(_FMA.match(x)) for x in lines)


def spills(assembly: str) -> int:
    """How many instructions of the hot loop store vectors on the stack or read them there."""
    lines = (x for x in hot_loop(assembly) if _STACK.search(x))
    return sum(bool(_VECTOR.search(x)) for x in lines)

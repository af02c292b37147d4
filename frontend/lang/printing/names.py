"""Identifiers for what graphs call in other ways: names of values, of dimensions, of layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aisc.ir.dtypes import CODED
from aisc.ir.graph.core import Value

_WORDS = """
    again and as bf16 bool collect else f16 f32 f64 false float for i16 i32 i64 i8 if import in inf
    int layer model nan not operator or param require return scan seed text true u16 u32 u64 u8
    weights while
"""
RESERVED = frozenset([*_WORDS.split(), *(t.name for t in CODED)])
MAX_NAME = 28  # longer ones say less than the operator
# Names that say little without what stands before them.
_VAGUE = frozenset(
    {"weight", "weights", "bias", "kernel", "gamma", "beta", "scale", "shift", "value", "output",
     "w", "b", "data", "running_mean", "running_var", "matmul", "quant"}
)  # fmt: skip


def identifier(text: str) -> str:
    """`text` with underscores for what no identifier has; never a word of the language."""
    found = re.sub(r"\W", "_", text, flags=re.ASCII)
    if not found or found[0].isdigit():
        found = f"v{found}" if found else "v"
    return f"{found}_" if found in RESERVED or not found.strip("_") else found


def hint_of(value: Value, op: str = "") -> str:
    """A short name from that of a value, which may be a path: its last part that says something."""
    parts = [p for p in re.split(r"[/.:]+", re.sub(r"_output_\d+$", "", value.name)) if p]
    if not parts:
        return op or "v"
    last = parts[-1]
    if last.isdigit() or not re.search(r"[A-Za-z]", last):
        last = op or f"v{last}"
    told = next((p for p in reversed(parts[:-1]) if not p.isdigit()), "")
    if last.lower() in _VAGUE and told:
        last = f"{told}_{last}"
    short = re.sub(r"(_\d+)+$", "", identifier(last).strip("_").lower())
    return identifier((op or "c") if len(short) > MAX_NAME else short or "v")


class Names:
    """The names of one layer or model: what is taken, and how often a hint was used."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = {*RESERVED, *taken}

    def exactly(self, wanted: str) -> str:
        """`wanted` as an identifier, if nothing has it already."""
        return self.fresh(identifier(wanted))

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet: `hint`, or `hint` with a number."""
        name, count = hint, 1
        while name in self.taken:
            count += 1
            name = f"{hint}_{count}"
        self.taken.add(name)
        return name

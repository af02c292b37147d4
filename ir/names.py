"""Names that nothing else has."""

from __future__ import annotations


def fresh_name(hint: str, taken: set[str]) -> str:
    """`hint`, with a number behind it where it is taken; it is taken from then on."""
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}_{count}"
    taken.add(name)
    return name

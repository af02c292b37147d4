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


def identifier(name: str) -> str:
    """A name of a model in letters, digits and underlines, as buffers have them."""
    text = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
    return text if text and not text[0].isdigit() else f"v{text}"

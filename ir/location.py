"""Source locations: where in the user's own model or text a piece of IR came from.

A location is provenance only: structural equality of IR is blind to it. Passes that merge
nodes merge their locations with :func:`fuse`.
"""

from __future__ import annotations

from collections.abc import Iterable

from aisc.ir.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Loc:
    """A place: file, line and column (1-based, 0 if unknown) and the name of the model's node.

    ``parts`` is non-empty for the *fused* form, made of several places.
    ``parent`` is the place from which this one was called or expanded.
    """

    file: str = ""
    line: int = 0
    column: int = 0
    node: str = ""
    parent: Loc | None = None
    parts: tuple[Loc, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the model's nodes that this place, or its parts, stands for."""
        names = [p.node for p in self.parts or (self,) if p.node]
        return tuple(dict.fromkeys(names))

    def __str__(self) -> str:
        if self.parts:
            return "fused(" + ", ".join(map(str, self.parts)) + ")"
        text = self.file or "?"
        if self.line:
            text += f":{self.line}"
            if self.column:
                text += f":{self.column}"
        if self.node:
            text += f" node '{self.node}'" if text != "?" else f"node '{self.node}'"
        if text.startswith("?node"):
            text = text[1:]
        return f"{text} (in {self.parent})" if self.parent else text


UNKNOWN = Loc()


def fuse(locs: Iterable[Loc]) -> Loc:
    """One location for several: flattened, without repeats or unknowns, in the given order."""
    flat: dict[Loc, None] = {}
    for loc in locs:
        for part in loc.parts or (loc,):
            if part != UNKNOWN:
                flat[part] = None
    if not flat:
        return UNKNOWN
    if len(flat) == 1:
        return next(iter(flat))
    return Loc(parts=tuple(flat))

"""One layer or model that is written: its names, its sizes, its parameters.

A layer may stand for several equal parts of a graph: `paths` are those of its parameters, one for
each part, and whatever is asked of a node is asked of its fellows in all parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field

from aisc.frontend.lang.printing import literals
from aisc.frontend.lang.printing.literals import Array
from aisc.frontend.lang.printing.names import Names
from aisc.frontend.lang.printing.sizes import Sizes
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, Value

Path = tuple[str, ...]


@dataclass(slots=True)
class Module:
    """What all of a file has in common. `exact`: constants stay where the graph has them;
    `arrays`: parameters whose contents a file gives, by path; `layers`: their texts by name, each
    before those that call it."""

    exact: bool
    blobs: dict[Value, Blob]
    names: Names
    arrays: dict[str, Array] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)

    def add_layer(self, text: str, place: str) -> str:
        """The name of a layer, whose text has `place` instead: that of an equal one, if any."""
        for name, other in self.layers.items():
            if other == text.replace(place, name):
                return name
        name = self.names.fresh("block")
        self.layers[name] = text.replace(place, name)
        return name


@dataclass(frozen=True, slots=True)
class Alias:
    """A line that gives a dimension a name, and is left out where nothing uses it."""

    symbol: str
    text: str


Line = str | Alias


@dataclass(slots=True)
class Function:
    """A layer or model. `texts`: what the values that it has so far are called."""

    module: Module
    paths: Sequence[Path]
    names: Names
    sizes: Sizes
    texts: dict[Value, str] = field(default_factory=dict)

    def literal(self, values: Sequence[Value]) -> str | None:
        """Constants of all parts as one literal, if they are equal scalars that have one."""
        blobs = [self.module.blobs.get(v) for v in values]
        first = blobs[0]
        if first is None or any(b is None or b != first for b in blobs):
            return None
        return literals.scalar(first.array)

    def parameter(self, name: str, values: Sequence[Value]) -> str:
        """The line that declares constants of all parts as a parameter."""
        arrays = [self.module.blobs[v].array for v in values]
        t = values[0].type
        start = literals.start(arrays)
        if start is None:
            for path, array in zip(self.paths, arrays, strict=True):
                self.module.arrays[".".join((*path, name))] = array
        given = "" if start is None else f" = {start}"
        return f"param {name}: {t.dtype.name}{self.sizes.list_of(t.shape)}{given}"

    def rendered(self, lines: Sequence[Line]) -> list[str]:
        """Lines as text, without the names of dimensions that nothing uses."""
        kept = (x for x in lines if isinstance(x, str) or x.symbol in self.sizes.used)
        found = [
            x if isinstance(x, str) else f"{self.sizes.texts[x.symbol]} = {x.text}" for x in kept
        ]
        return found if self.module.exact else list(_settled(found))


def _settled(lines: Sequence[str]) -> Iterator[str]:
    """Lines with each parameter directly before what reads it, or before the block that does."""
    held: dict[str, str] = {}
    for line in lines:
        words = set(re.findall(r"\w+", line))
        if line.startswith("param "):
            held[line.removeprefix("param ").partition(":")[0]] = line
            continue
        block = line.endswith("{") or line.startswith("}")
        for name in [n for n in held if block or n in words]:
            yield held.pop(name)
        yield line
    yield from held.values()


def blobs_of(graph: Graph) -> dict[Value, Blob]:
    """The contents of all constants of a graph, regions included."""
    found = graph.constants()
    for node in graph.nodes:
        for region in node.regions:
            found |= blobs_of(region)
    return found

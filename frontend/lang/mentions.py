"""Every name in a file: where it stands, what it is, and where that is defined.

Variables belong to their layer; a use means the last definition that runs before it in the order of
the text, or the first one where none does. Indices of a formula belong to the formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from typing import Literal

from aisc.frontend.lang import operators
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.parameters import STARTS
from aisc.ir.dataclass import dataclass
from aisc.ir.location import Loc

Kind = Literal[
    "layer", "model", "tensor", "hyper-parameter", "size", "parameter", "variable", "index",
    "operator", "reduction", "start", "argument", "property", "file",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mention:
    """A name at a place. `home`: the layer around it; `definition`: the place where the name is
    defined, if it is known; `defines`: whether that is here; `of`: what an argument belongs to."""

    at: Loc
    name: str
    kind: Kind
    home: str = ""
    definition: Loc | None = None
    defines: bool = False
    of: str = ""

    @property
    def end(self) -> int:
        """The column behind the name."""
        return self.at.column + len(self.name) + (2 if self.kind == "file" else 0)


def mentions_of(module: s.Module, layers: Mapping[str, s.Layer]) -> tuple[Mention, ...]:
    """The names in a file, in the order of the text. `layers`: those that it can call."""
    found: list[Mention] = []
    for name, at in (*module.imports, *([module.weights] if module.weights else ())):
        found.append(Mention(at, name, "file", definition=Loc(name, 1, 1)))
    for layer in module.layers:
        walk = _Walk(layer, layers)
        walk.layer()
        found += walk.resolved()
    return tuple(sorted(found, key=lambda m: (m.at.line, m.at.column)))


@dataclass(slots=True)
class _Walk:
    """One layer. `indices`: of the formula around, with their places."""

    home: s.Layer
    layers: Mapping[str, s.Layer]
    found: list[Mention] = field(default_factory=list)
    defined: dict[str, list[Mention]] = field(default_factory=dict)
    indices: dict[str, Loc] = field(default_factory=dict)

    def layer(self) -> None:
        """The names of the whole layer."""
        x = self.home
        kind: Kind = "model" if x.kind == "model" else "layer"
        self.found.append(Mention(x.at, x.name, kind, x.name, x.at, True))
        for f in x.formals:
            self._head(f.type)
            self.node(f.default)
            self._define(f.name, f.at, "hyper-parameter" if f.type.dims is None else "tensor")
        for t in x.results:
            self._head(t)
        self.node(x.body)

    def _head(self, t: s.Type) -> None:
        """Sizes in a head are defined where they are new."""
        for d in t.dims or ():
            if isinstance(d, s.Name) and d.text not in self.defined:
                self._define(d.text, d.at, "size")
            else:
                self.node(d)

    def _define(self, name: str, at: Loc, kind: Kind) -> None:
        made = Mention(at, name, kind, self.home.name, at, True)
        self.found.append(made)
        self.defined.setdefault(name, []).append(made)

    def _use(self, name: str, at: Loc, kind: Kind, definition: Loc | None = None) -> None:
        self.found.append(Mention(at, name, kind, self.home.name, definition))

    def node(self, x: object) -> None:
        """The names in a part of the tree."""
        match x:
            case s.Name():
                known = x.text in self.indices
                self._use(x.text, x.at, "index" if known else "variable", self.indices.get(x.text))
            case s.Assign():
                self.node(x.value)
                for name, at in zip(x.names, x.places, strict=True):
                    self._define(name, at, "variable")
            case s.Param():
                self.node(x.type.dims)
                self._start(x.start)
                self._define(x.name, x.at, "parameter")
            case s.For():
                self.node((x.low, x.high))
                self._define(x.name, x.name_at, "variable")
                self.node(x.body)
            case s.Formula():
                self._formula(x)
            case s.Reduction():
                self._use(x.combiner, x.at, "reduction")
                self._bind(x.indices)
                self.node(x.value)
            case s.Attribute():
                self.node(x.of)
                self._use(x.name, x.at, "property")
            case s.Call():
                self._call(x)
            case tuple():
                for part in x:
                    self.node(part)
            case _ if is_dataclass(x) and not isinstance(x, type | Loc):
                for part in fields(x):
                    self.node(getattr(x, part.name))

    def _formula(self, x: s.Formula) -> None:
        outside, self.indices = self.indices, {}
        self._bind(x.indices)
        self.node(x.value)
        self.indices = outside
        self._define(x.name, x.at, "variable")

    def _bind(self, items: tuple[object, ...]) -> None:
        """Indices of a formula or of a reduction in it."""
        for i in items:
            if isinstance(i, s.Ranged):
                self.node((i.low, i.high))
            name = i.text if isinstance(i, s.Name) else i.name if isinstance(i, s.Ranged) else ""
            if name and isinstance(i, s.Name | s.Ranged):
                self.indices[name] = i.at
                made = Mention(i.at, name, "index", self.home.name, i.at, True)
                self.found.append(made)

    def _start(self, x: object) -> None:
        if isinstance(x, s.Call) and x.name in STARTS:
            self._use(x.name, x.at, "start")
            self.node(x.args)
        else:
            self.node(x)

    def _call(self, x: s.Call) -> None:
        layer = self.layers.get(x.name)
        if layer is not None:
            self._use(x.name, x.at, "layer", layer.at)
        elif operators.exists(x.name):
            self._use(x.name, x.at, "operator")
        self.node(x.args)
        for name, value, at in x.keywords:
            formals = layer.formals if layer is not None else ()
            place = next((f.at for f in formals if f.name == name), None)
            self.found.append(Mention(at, name, "argument", self.home.name, place, of=x.name))
            self.node(value)
        self.node(x.path)

    def resolved(self) -> Iterator[Mention]:
        """The mentions, uses of variables with their definitions."""
        last: dict[str, Mention] = {}
        for m in self.found:
            if m.kind == "variable" and not m.defines and m.name in self.defined:
                meant = last.get(m.name, self.defined[m.name][0])
                yield Mention(m.at, m.name, meant.kind, m.home, meant.at)
                continue
            if m.defines and m.kind != "index":
                last[m.name] = m
            yield m

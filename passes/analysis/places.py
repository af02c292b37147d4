"""Which values are parts of others: what a concat reads may be made where the result lies.

before: ``%a = fused(…); %b = fused(…); %y = concat(%a, %b)``
after:  %a and %b lie in the storage of %y, from elements 0 and ``%a.size`` of an axis on

A *place* is where a value lies in the storage of the concat that is the last of a chain of them:
the elements before its first one, and strides. Places go from a concat to its parts, from a shape
to the one that it was given before, and from a part that is cut out of a value to the whole of it:
then the storage has room for what is cut off, its *frame*. A value gets a place where its maker
stores it, whoever reads it does so with strides, and the run has nothing to test before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field
from itertools import pairwise
from typing import Any

from aisc.ir.arith.poly import Dim, bounds, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.func import row_major

Strides = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies in the storage of `root`: elements before its first one, and strides."""

    root: Value
    start: Dim
    strides: Strides


@dataclass(frozen=True, slots=True)
class Frame:
    """The shape of the storage of a concat in which the whole of a value lies that a part of it is
    cut out of, and the slice that does so."""

    shape: tuple[Dim, ...]
    cut: GraphNode


@dataclass(slots=True)
class Places:
    """The places in one graph.

    made: whether a node is a kernel that stores wherever it is told to, and reads likewise.
    bare: the nodes that are to be no kernels: concats, slices. fixed: values that have storage.
    """

    graph: Graph
    made: Callable[[GraphNode], bool]
    bare: Collection[GraphNode]
    fixed: Collection[Value] = ()
    places: dict[Value, Place] = field(default_factory=dict)
    frames: dict[Value, Frame] = field(default_factory=dict)
    readers: dict[Value, list[GraphNode]] = field(default_factory=dict)
    producers: Mapping[Value, GraphNode] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for n in self.graph.nodes:
            for v in dict.fromkeys(n.input_values):
                self.readers.setdefault(v, []).append(n)
        self.producers = self.graph.producers()
        for node in reversed(self.graph.nodes):
            if node.op == "concat" and node in self.bare and self._is_known(node.output):
                self._concat(node)

    def _is_known(self, v: Value) -> bool:
        """Whether the sizes of a value are known before anything is computed."""
        return v.type.symbols <= {s for g in self.graph.inputs for s in g.type.symbols}

    def get(self, v: Value) -> Place | None:
        """The place of a value in the storage of another one, or in a frame."""
        return self.places.get(v)

    def parts(self, node: GraphNode) -> list[tuple[Value, Dim]]:
        """The parts of a concat, and where each begins along its axis."""
        found: list[tuple[Value, Dim]] = []
        at: Dim = 0
        for v in node.input_values:
            found.append((v, at))
            at = at + v.type.shape[axis_of(node)]
        return found

    def lies_in(self, node: GraphNode, v: Value, start: Dim) -> bool:
        """Whether the part of a concat that begins at `start` is made in its storage."""
        own, whole = self.places.get(v), self.place_of(node.output)
        step = whole.strides[axis_of(node)]
        return own == Place(whole.root, whole.start + start * step, whole.strides)

    def place_of(self, v: Value) -> Place:
        """Where the result of a concat lies: in another one, or in storage of its own."""
        return self.places.get(v) or Place(v, 0, row_major(v.type.shape))

    def _concat(self, node: GraphNode) -> None:
        """Give the parts of a concat their places: in its own storage, unless it has a place."""
        frame = None
        if node.output not in self.places and node.output not in self.fixed:
            frame = self._frame(node)
        if frame is not None:
            before = dict(self.places)
            self._set_frame(node.output, frame)
            self._parts(node)
            if frame.cut.output not in self.places:  # room for nothing
                self.places = before
                del self.frames[node.output]
                frame = None
        if frame is None:
            self._parts(node)

    def _parts(self, node: GraphNode) -> None:
        axis, whole = axis_of(node), self.place_of(node.output)
        rest = _without(node.output.type.shape, axis)
        for v, start in self.parts(node):
            if _without(v.type.shape, axis) == rest and not has_none(v):
                at = whole.start + start * whole.strides[axis]
                self._settle(v, Place(whole.root, at, whole.strides))

    def _settle(self, v: Value, place: Place) -> bool:
        """Give a value a place, if it can have one; whether it has."""
        node = self.producers.get(v)
        if node is None or v in self.places or v in self.fixed:
            return False
        if not self.reads_strided(v, place.strides):
            return False
        source = self._behind(node, place)
        if source is None or (source[0] is not v and not self._settle(*source)):
            return False
        self.places[v] = place
        return True

    def _behind(self, node: GraphNode, place: Place) -> tuple[Value, Place] | None:
        """The value that has to lie elsewhere for the result of a node to lie at a place, and
        where; nothing where none can."""
        v = node.output if len(node.outputs) == 1 else None
        if self.made(node) or (node.op == "concat" and node in self.bare):
            return (v, place) if v is not None else None
        if v is None or opdef.size_checks(node):
            return None
        if node.op == "reshape":
            (x,) = node.input_values
            strides = reshaped(v.type.shape, place.strides, x.type.shape)
            return None if strides is None else (x, Place(place.root, place.start, strides))
        frame = self.frames.get(place.root)
        if frame is not None and frame.cut is node:
            before = slice_start(node, place.strides)
            return node.input_values[0], Place(place.root, place.start - before, place.strides)
        return None

    def _frame(self, node: GraphNode) -> Frame | None:
        """Room for the whole of a value, where a part of a concat is a piece cut out of it."""
        axis, out = axis_of(node), node.output
        cuts = (self.producers.get(v) for v in node.input_values)
        cut = next((c for c in cuts if self._is_little(c, axis)), None)
        if cut is None or not self._is_known(cut.input_values[0]):
            return None
        sizes = zip(cut.input_values[0].type.shape, out.type.shape, strict=True)
        shape = tuple(own if a == axis else d for a, (d, own) in enumerate(sizes))
        return Frame(shape, cut) if self.reads_strided(out, row_major(shape)) else None

    def _set_frame(self, out: Value, frame: Frame) -> None:
        self.frames[out] = frame
        strides = row_major(frame.shape)
        self.places[out] = Place(out, slice_start(frame.cut, strides), strides)

    def _is_little(self, cut: GraphNode | None, axis: int) -> bool:
        """Whether a slice cuts little off, and nothing along the axis of a concat."""
        if cut is None or cut.op != "slice" or self.made(cut):
            return False
        if opdef.size_checks(cut) or has_none(cut.output):
            return False
        pairs = list(zip(cut.input_values[0].type.shape, cut.output.type.shape, strict=True))
        if any(s != 1 for s in slice_steps(cut)) or pairs[axis][0] != pairs[axis][1]:
            return False
        return all(bounds(d - n)[1] <= max(LITTLE, bounds(n)[0] // 8) for d, n in pairs)

    def reads_strided(self, v: Value, strides: Strides) -> bool:
        """Whether all readers of a value take it with strides."""
        if v in self.graph.outputs:
            return False
        return all(self._takes(n, v, strides) for n in self.readers.get(v, ()))

    def _takes(self, node: GraphNode, v: Value, strides: Strides) -> bool:
        if self.made(node) or (node.op == "concat" and node in self.bare):
            return True
        if node.op == "slice":  # one that is a kernel is made
            steps = tuple(s * n for s, n in zip(strides, slice_steps(node), strict=True))
            return self.reads_strided(node.output, steps)
        if node.op == "reshape":
            after = reshaped(v.type.shape, strides, node.output.type.shape)
            return after is not None and self.reads_strided(node.output, after)
        return False


# Elements of an axis that a frame has beside those that are read.
LITTLE = 16


def axis_of(node: GraphNode) -> int:
    """The axis of a concat."""
    axis = node.attr("axis")
    assert isinstance(axis, int), "an axis is a number"
    return axis % node.output.type.rank


def has_none(v: Value) -> bool:
    """Whether a value surely has no elements."""
    return any(d == 0 for d in v.type.shape)


def _without(shape: Sequence[Dim], axis: int) -> tuple[Dim, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def slice_steps(node: GraphNode) -> tuple[int, ...]:
    """Steps of a slice along its axes."""
    steps = node.attr("steps")
    assert isinstance(steps, tuple), "steps of a slice"
    return tuple(s for s in steps if isinstance(s, int))


def slice_start(node: GraphNode, strides: Strides) -> Dim:
    """Elements before the first one of a slice."""
    starts: Any = node.attr("starts")
    at: Dim = 0
    for a, s in zip(starts, strides, strict=True):
        at = at + a * s
    return at


def reshaped(shape: Sequence[Dim], strides: Strides, to: Sequence[Dim]) -> Strides | None:
    """The strides of another shape over the same elements; ``None`` where steps would differ."""
    if any(d == 0 for d in (*shape, *to)):
        return None
    old = [(d, s) for d, s in zip(shape, strides, strict=True) if d != 1]
    new = [d for d in to if d != 1]
    found: list[Dim] = []
    while old or new:
        sizes = _group([d for d, _ in old], new)
        if sizes is None:
            return None
        group, old = old[: sizes[0]], old[sizes[0] :]
        for (_, outer), (d, inner) in pairwise(group):
            if outer != d * inner:
                return None
        step = group[-1][1]
        found += [s * step for s in row_major(tuple(new[: sizes[1]]))]
        new = new[sizes[1] :]
    return _with_ones(to, found)


def _group(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[int, int] | None:
    """The fewest first dimensions of each that have as many elements."""
    pairs = [(i, j) for i in range(1, len(old) + 1) for j in range(1, len(new) + 1)]
    for i, j in sorted(pairs, key=sum):
        if product(tuple(old[:i])) == product(tuple(new[:j])):
            return i, j
    return None


def _with_ones(shape: Sequence[Dim], found: list[Dim]) -> Strides:
    """Strides of all axes from those of more than one element: what a dense array has."""
    result: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        if d != 1:
            step = found.pop()
        result.append(step)
        step = step * d
    return tuple(reversed(result))

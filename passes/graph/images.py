"""The layout of images: channels last or first, chosen for all operators that hang together.

A kernel over an image has its lanes along the last axis: along channels (NHWC), of which there must
be enough, or along a row of places (NCHW), which must be long enough. What hangs together, through
operators that transposes pass, gets one layout, that of which the estimated work is less: vectors
that are computed, and elements that are transposed at the edges.

before: ``%y = conv(%x, %w)``   after: ``%y = T(conv_nhwc(T'(%x), %w as HWIO))``
Postcondition: operators of one image have one layout.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.opdef import OpCall, call_of
from aisc.ir.graph.ops.convolution import conv_window
from aisc.ir.graph.ops.window import pool_window
from aisc.ir.graph.shapes.spatial import Window, window_of
from aisc.ir.rewrite.rules import Match, RewriteGraph, replace_nodes, rule
from aisc.passes.base import map_regions
from aisc.passes.graph.layout import REDUCTIONS, to_first, to_last

WINDOWED = ("conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool")
# Operators that are composed of others when their layout is known.
COMPOSED = ("conv_transpose",)
PASSED = frozenset({
    "concat", "gather", "log_softmax", "lrn", "pad", "sample", "slice", "softmax", *REDUCTIONS,
})  # fmt: skip
# A size that only the run knows, and a batch.
USUAL_SIZE = 64
# Vectors that are computed while one element goes through a transpose, or through another copy.
TRANSPOSED = 0.8
COPIED = 0.05
# What it costs more to read a vector for a multiply-add; what a vector costs that is computed one
# element at a time, one of several whole groups, and a multiply-add of groups that no vector holds.
READ = 0.5
GATHERED = 8.0
NARROW = 1.5
NARROW_GROUPS = 12.0
# What the sides of a row of an image cost a pool whose windows leave it there, in vectors: lanes
# outside of it are not loaded where they count as 0, and replaced where they do not.
SIDES = {"avg_pool": 1.0, "max_pool": 2.0, "lp_pool": 1.0}
# What Winograd's convolution leaves of the multiply-adds of kernels of 3 x 3.
WINOGRAD = 0.55
# What a copy costs per element that puts those together that lie a stride apart.
STRIDED = 0.3
# Places in a row that are worth a vector at all.
FEWEST = 4
# Channels last needs no reason: only what is much better without is left as it is.
WORTH_LEAVING = 0.9


@dataclass(frozen=True, slots=True)
class ImageLayouts:
    """The pass; `lanes`: elements of a vector, 0 where all images are moved to channels last."""

    name: str = "image_layouts"
    lanes: int = 0

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        chosen = [n for part in _parts(graph) for n in self._moved(graph, part)]
        if not chosen:
            return graph
        moved = {n.output for n in chosen}
        return replace_nodes(
            graph, lambda out, n: None if moved.isdisjoint(n.outputs) else (channels_last(out, n),)
        )

    def _moved(self, graph: Graph, part: _Part) -> Sequence[GraphNode]:
        """The operators of a part, if they shall have channels last."""
        if not self.lanes:
            return part.images
        costs = [_cost(n, self.lanes) for n in part.images]
        last = sum(c for c, _ in costs) + TRANSPOSED * part.edge(graph)
        first = sum(c for _, c in costs)
        return () if first < WORTH_LEAVING * last else part.images


# --- what hangs together ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Part:
    """Operators over one image, of which `images` have windows, and the values between them."""

    nodes: tuple[GraphNode, ...]
    images: tuple[GraphNode, ...]

    def edge(self, graph: Graph) -> float:
        """Elements of what comes from elsewhere or goes there; a convolution may read an image
        in either layout, which is not for nothing."""
        inside, users, total = set(self.nodes), graph.users(), 0.0
        made, blobs = {v for n in self.nodes for v in n.outputs}, graph.constants()
        for v in made:
            if v in graph.outputs or any(u not in inside for u in users.get(v, ())):
                total += _elements(v)
        for v in {v for n in self.nodes for v in _image_inputs(n) if v not in blobs} - made:
            single = all(u.op == "conv" for u in users[v])
            total += _elements(v) * (0.5 if single else 1.0)
        return total


def _parts(graph: Graph) -> Iterator[_Part]:
    """The parts of a graph that have windows, in the order of their first nodes."""
    blobs, root = graph.constants(), dict[Value, Value]()

    def find(v: Value) -> Value:
        while root.setdefault(v, v) is not v:
            root[v] = v = root[root[v]]
        return v

    nodes = [n for n in graph.nodes if _is_image(n) or _passes(n)]
    for node in nodes:
        for v in _image_inputs(node):
            if v not in blobs:
                root[find(v)] = find(node.output)
    parts: dict[Value, list[GraphNode]] = {}
    for node in nodes:
        parts.setdefault(find(node.output), []).append(node)
    for found in parts.values():
        images = tuple(n for n in found if _is_image(n))
        if images:
            yield _Part(tuple(found), images)


def _is_image(node: GraphNode) -> bool:
    return (
        node.op in WINDOWED
        and node.attr_map.get("data_layout") == "NCHW"
        and len(node.outputs) == 1
    )


def _passes(node: GraphNode) -> bool:
    """Whether a transpose passes an operator: one of every element, or of axes that it names."""
    known = node.op in PASSED or opdef.get(node.op).kind == "map"
    return known and len(node.outputs) == 1 and node.output.type.rank >= 3


def _image_inputs(node: GraphNode) -> Iterator[Value]:
    """The operands of a node that may be images: no weights, nothing that is broadcast whole."""
    first = node.op in WINDOWED or node.op in PASSED - {"concat"}
    for v in node.inputs[:1] if first else node.inputs:
        if v is not None and v.type.rank == node.output.type.rank and v.type.size != 1:
            yield v


# --- what it costs ----------------------------------------------------------------------------
def _cost(node: GraphNode, lanes: int) -> tuple[float, float]:
    """Vectors that are computed with channels last, and with channels first."""
    call = call_of(node)
    if node.op == "conv":
        window, group = conv_window(call), call.attrs["group"]
        batch, c, sizes = _shape(window, node.output)
        work = _Work(window, batch, c // group, sizes, _known(call.type(1).shape[1]), group)
    elif node.op == "conv_transpose":
        work = _phases(call, node.output)
    else:
        window = pool_window(call)
        batch, c, sizes = _shape(window, node.output)
        work = _Work(window, batch, 1, sizes, 1, c, SIDES[node.op])
    return work.last(lanes), work.first(lanes, _elements(node.input_values[0]))


def _shape(window: Window, value: Value) -> tuple[int, int, tuple[int, ...]]:
    """Batch, channels and sizes, usual ones where only the run knows."""
    batch, channels, sizes = window.split(value.type.shape)
    return _known(batch, 1), _known(channels), tuple(_known(d) for d in sizes)


def _phases(call: OpCall, result: Value) -> _Work:
    """The convolution that a transposed one is made of."""
    _, outputs, *kernel = call.type(1).static_shape
    window, group = window_of(call, tuple(kernel)), call.attrs["group"]
    batch, _, sizes = _shape(window, result)
    taps = tuple(-(-k // s) for k, s in zip(kernel, window.strides, strict=True))
    places = tuple(-(-d // s) for d, s in zip(sizes, window.strides, strict=True))
    none = (0,) * window.spatial
    unit = Window(taps, (1,) * window.spatial, window.dilations, none, none, False)
    phases = prod(min(k, s) for k, s in zip(kernel, window.strides, strict=True))
    inputs = _known(call.type(0).shape[1]) // group
    return _Work(unit, batch, outputs * phases, places, inputs, group)


@dataclass(frozen=True, slots=True)
class _Work:
    """A window over an image: what there is for each group of channels."""

    window: Window
    batch: int
    outputs: int
    sizes: tuple[int, ...]
    inputs: int
    group: int
    sides: float = 0.0

    @property
    def places(self) -> int:
        """Windows."""
        return self.batch * prod(self.sizes)

    @property
    def is_depthwise(self) -> bool:
        """Whether channels are on their own."""
        return self.inputs == self.outputs == 1 and self.group > 1

    def last(self, lanes: int) -> float:
        """Vectors with channels last."""
        inputs, outputs, group = self.inputs, self.outputs, self.group
        if self.is_depthwise:
            each = _row(group, lanes)
        elif group > 1 and outputs < 4 and not all(_divides(k, lanes) for k in (inputs, outputs)):
            each = group * outputs * inputs * NARROW_GROUPS  # no vector holds whole groups
        elif group > 1 and max(inputs, outputs) < lanes:
            each = _vectors(outputs * group, lanes) * inputs * (NARROW if inputs == 1 else GATHERED)
        else:
            each = group * _vectors(outputs, lanes) * inputs
            if self._is_square and min(inputs, outputs) >= 2 * lanes:
                each *= WINOGRAD
        return self.places * each * prod(self.window.kernel)

    @property
    def _is_square(self) -> bool:
        steps = (*self.window.strides, *self.window.dilations)
        return self.window.kernel == (3, 3) and max(steps) == 1 and self.group == 1

    def first(self, lanes: int, elements: float) -> float:
        """Vectors with channels first, and what copies of the image's elements cost."""
        length = _length(self.window, self.sizes)
        rows = self.places // max(length, 1) * self.group * self.outputs * _row(length, lanes)
        work = rows * self.inputs * prod(self.window.kernel) * (1 + READ / min(self.outputs, 6))
        if self.window.begins[-1] or self.window.ends[-1]:
            work *= 1 + self.sides / max(_row(length, lanes), 1)
        copied = COPIED if self.window.is_padded else 0.0
        return work + elements * (STRIDED if self.window.strides[-1] > 1 else copied)


def _length(window: Window, sizes: Sequence[int]) -> int:
    """Places in a row, of which :func:`join_places` makes longer ones."""
    length, axis = sizes[-1], window.spatial - 1
    while axis > 0 and _is_narrow(window, axis) and window.strides[axis - 1] == 1:
        axis -= 1
        length *= sizes[axis]
    return length


def _row(length: int, lanes: int) -> float:
    """What a row of places costs: vectors, or elements one by one."""
    return _vectors(length, lanes) if length >= FEWEST else length * GATHERED


def _divides(size: int, lanes: int) -> bool:
    return 0 < size < lanes and lanes % size == 0


def _vectors(size: int, lanes: int) -> int:
    return -(-size // lanes)


def _known(d: Dim, usual: int = USUAL_SIZE) -> int:
    return d if isinstance(d, int) else usual


def _elements(v: Value) -> float:
    batch, *rest = v.type.shape
    return float(_known(batch, 1) * prod(_known(d) for d in rest))


# --- the rewriting ----------------------------------------------------------------------------
def channels_last(out: RewriteGraph, node: GraphNode) -> Value:
    """``conv(x, w) -> T(conv_nhwc(T'(x), w as HWIO))``; pools likewise."""

    def add(op: str, inputs: Sequence[Value | None], attrs: dict[str, AttrValue]) -> Value:
        return out.add(op, inputs, attrs, (node.output.name,), node.loc)

    x = node.input_values[0]
    rank = x.type.rank
    inputs: list[Value | None] = [add("transpose", (x,), {"perm": to_last(rank)})]
    if node.op == "conv":
        oihw_to_hwio = (*range(2, rank), 1, 0)
        inputs.append(add("transpose", (node.inputs[1],), {"perm": oihw_to_hwio}))
    inputs.extend(node.inputs[len(inputs) :])
    moved = add(node.op, inputs, {**node.attr_map, "data_layout": "NHWC"})
    return add("transpose", (moved,), {"perm": to_first(rank)})


# --- joined axes ------------------------------------------------------------------------------
@rule("conv")
def thin_places(m: Match) -> Sequence[Value] | None:
    """``conv(x[h, w], k[1, b], strides=[s, t]) -> conv(x[::s, w], k[1, b], strides=[1, t])`` with
    channels first: along an axis where windows are one place wide no other places are copied, be
    it with a border or so that those a stride apart lie together."""
    x, node = m.node.input_values[0], m.node
    window = conv_window(call_of(node))
    thin = [a for a in range(window.spatial) if _is_narrow(window, a) and window.strides[a] > 1]
    copied = window.is_padded or window.strides[-1] > 1
    if window.channels_last or not thin or not copied:
        return None
    steps = [s if a in thin else 1 for a, s in enumerate(window.strides)]
    attrs: dict[str, AttrValue] = {
        "starts": (0,) * x.type.rank, "ends": x.type.shape, "steps": (1, 1, *steps)
    }  # fmt: skip
    x = m.add("slice", (x,), attrs)
    strides = tuple(1 if a in thin else s for a, s in enumerate(window.strides))
    return (m.add("conv", (x, *node.inputs[1:]), {**node.attr_map, "strides": strides}),)


@rule("conv")
def join_places(m: Match) -> Sequence[Value] | None:
    """``conv(x[h, w], k[a, 1]) -> conv(x[h * w], k[a])``: windows one place wide, a row of the
    image apart, move along one long row."""
    x, w = m.node.input_values[:2]
    window = conv_window(call_of(m.node))
    if window.channels_last or window.spatial < 2 or not _is_narrow(window, -1):
        return None
    length, shape = x.type.shape[-1], m.node.output.type.shape
    if max(window.strides[-2:]) > 1 or not isinstance(length, int) or length < 1:
        return None
    attrs = {
        **m.node.attr_map,
        "strides": window.strides[:-1],
        "dilations": _stretched(window.dilations, length),
        "pads": (*_stretched(window.begins, length), *_stretched(window.ends, length)),
    }

    def joined(v: Value, sizes: Sequence[Dim]) -> Value:
        return m.add("reshape", (v,), {"shape": (*sizes[:-2], product(tuple(sizes[-2:])))})

    y = m.add("conv", (joined(x, x.type.shape), joined(w, w.type.shape), *m.node.inputs[2:]), attrs)
    return (m.add("reshape", (y,), {"shape": shape}),)


@rule("conv")
def join_pixels(m: Match) -> Sequence[Value] | None:
    """``conv(x[n, h, w, c], k[1, 1, c, o]) -> reshape(matmul(reshape(x, [n*h*w, c]), k))`` with
    channels last: where windows are one place, all places are rows of one matrix, which whole tiles
    divide better than the rows of an image."""
    x, w = m.node.input_values[:2]
    window = conv_window(call_of(m.node))
    single = all(_is_narrow(window, a) for a in range(window.spatial))
    if not window.channels_last or not single or max(window.strides) > 1:
        return None
    if m.node.attr("group") != 1 or not x.type.dtype.is_float or x.type.dtype.bits < 32:
        return None
    if not all(isinstance(d, int) for d in x.type.shape[1:]):
        return None
    rows, matrix = product(x.type.shape[:-1]), w.type.shape[-2:]
    flat = m.add("reshape", (x,), {"shape": (rows, x.type.shape[-1])})
    y = m.add("matmul", (flat, m.add("reshape", (w,), {"shape": matrix})))
    bias = m.input(2)
    y = y if bias is None else m.add("add", (y, bias))
    return (m.add("reshape", (y,), {"shape": m.node.output.type.shape}),)


def _is_narrow(window: Window, axis: int) -> bool:
    """Whether a window is one place wide along an axis, and stays inside."""
    return (window.kernel[axis], window.begins[axis], window.ends[axis]) == (1, 0, 0)


def _stretched(steps: Sequence[int], length: int) -> tuple[int, ...]:
    """Steps along all axes but the last, those along the one before it in places of rows."""
    return (*steps[:-2], steps[-2] * length)


RULES = (thin_places, join_places, join_pixels)

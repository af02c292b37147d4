"""Lanes whose places in memory are no run of neighbours, but known while code is made.

What lane k reads may lie at ``base + k // 7``, ``base + 2*k`` or ``base + 15 - k``: then one or two
vectors around all of them are loaded, and a shuffle with constant places gives each lane its own,
instead of a load for each lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from aisc.codegen.llvm.index import NotLinearInLane
from aisc.codegen.llvm.masks import MaskEmitter
from aisc.codegen.llvm.types import Val, memory_type, vector_type
from aisc.codegen.llvm.writer import Writer
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import Const, Expr, of_dim, variables
from aisc.ir.tensor.func import Buffer, row_major
from aisc.ir.tensor.linear import Linear, mentions
from aisc.ir.tensor.visitor import substitute

Term = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class LaneWindow:
    """Elements of the lanes that are executed: lane k has the one at ``const + places[k] + terms``;
    the least of `places` is 0, lanes that are not executed have it, too."""

    places: tuple[int, ...]
    const: int
    terms: tuple[Term, ...]

    @property
    def width(self) -> int:
        """Elements from the first to the last."""
        return max(self.places) + 1

    def block(self, most: int) -> tuple[int, int] | None:
        """The block of 2^k elements, starting at a multiple of it, that holds all elements: its
        start, without the terms, and its size, if that is at most `most`."""
        low, high, size = self.const, self.const + self.width - 1, 2
        while low // size != high // size and size < most:
            size *= 2
        whole = low // size == high // size and not any(c % size for _, _, c in self.terms)
        return (low // size * size, size) if whole else None


class WindowEmitter(MaskEmitter):
    """Loads such places; subclasses say where buffers live."""

    SHUFFLES = (
        True  # whether vectors of the machine are long: elsewhere lanes are loaded one by one
    )

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer)
        # Of the statement at hand: its own mask and guard.
        self.outer: tuple[Val | None, str | None] = (None, None)

    def base(self, buffer: Buffer) -> str:
        """Name of the pointer to the first element."""
        raise NotImplementedError

    def pointer_type(self, buffer: Buffer) -> str:
        """``ptr``, with the address space of the buffer's memory."""
        return "ptr"

    def guarded(self, pointer: str, buffer: Buffer) -> str:
        """The pointer, or one that may be read, where loads are not executed."""
        raise NotImplementedError

    # -- loads -------------------------------------------------------------------------------

    def lane_window(self, expr: Expr, live: tuple[bool, ...]) -> LaneWindow | None:
        """Places that an index has over the lanes that are live, where they are known but for an
        offset that all of them share."""
        form, lane = self.linear(expr), self.lane_var
        own = [t for t in form.terms if lane and any(mentions(a, lane) for a in t[0])]
        if lane is None or not any(live):
            return None
        if any(variables(a) != {lane} for mono, _ in own for a in mono):
            return None
        offset = self.index.build(Linear(tuple(own), form.const))
        places = [
            self.index.linear(substitute(offset, {lane: Const(k)})) for k in range(self.lanes)
        ]
        if any(p.terms for p, x in zip(places, live, strict=True) if x):
            return None
        low = min(p.const for p, x in zip(places, live, strict=True) if x)
        at = tuple(p.const - low if x else 0 for p, x in zip(places, live, strict=True))
        terms = []
        for mono, c in form.terms:
            if (mono, c) not in own:
                ref, level = self._monomial(mono)
                terms.append((level, ref, c))
        return LaneWindow(at, low, tuple(terms))

    def shuffled(self, buffer: Buffer, indices: tuple[Expr, ...]) -> str | None:
        """Elements in memory of the lanes that are executed, by a few vectors; ``None`` where that
        is not known."""
        live = self.constant_lanes(self.mask)
        if live is None:  # there may be something to read where conditions do not hold, too
            live = self.constant_lanes(self.outer[0])
            if live is not None and not self._are_inside(buffer, indices, live):
                return None
        if live is None or buffer.space == "register":
            return None
        flat: Expr = Const(0)
        for i, stride in zip(indices, buffer.strides, strict=True):
            flat = flat + i * of_dim(stride)
        try:
            window = self.lane_window(flat, live)
        except NotLinearInLane:  # data of several lanes say where
            return None
        if window is None:
            return None
        mem, n = memory_type(buffer.dtype), self.lanes
        whole = prod(d for d in buffer.shape if isinstance(d, int))
        block = window.block(2 * n)
        if block and whole % block[1] == 0 and buffer.strides == row_major(buffer.shape):
            start, size = block
            places = [window.const - start + p for p in window.places]
            first = self._part(buffer, window, start - window.const, size)
            return self._chosen(mem, first, "poison", size, places)
        if not self.SHUFFLES:
            return None
        if n < window.width <= 2 * n:
            skipped = window.width - n  # two vectors that may overlap
            first = self._part(buffer, window, 0, n)
            second = self._part(buffer, window, skipped, n)
            places = [p if p < n else p - skipped + n for p in window.places]
            return self._chosen(mem, first, second, n, places)
        parts = _apart(window.places, live, n)
        spans = [[window.places[k] for k in lanes] for lanes in parts]
        loaded = sum(max(x) - min(x) + 1 for x in spans)
        if len(parts) > max(3, n // 2) or loaded > 4 * n:
            return None
        return self._merged(buffer, window, parts)

    def _merged(self, buffer: Buffer, window: LaneWindow, parts: Sequence[Sequence[int]]) -> str:
        """Lanes of windows that lie anywhere: one load for each, and a shuffle to join them."""
        mem, n, result = memory_type(buffer.dtype), self.lanes, ""
        size = len(parts[0])
        if size > 1 and size & (size - 1) == 0 and _in_order(parts, window.places, n):
            runs = [self._part(buffer, window, window.places[p[0]], size) for p in parts]
            while len(runs) > 1:
                pairs = zip(runs[::2], runs[1::2], strict=True)
                runs = [self._chosen(mem, a, b, size, range(2 * size)) for a, b in pairs]
                size *= 2
            return runs[0]
        for lanes in parts:
            low = min(window.places[k] for k in lanes)
            own = {k: window.places[k] - low for k in lanes}
            part = LaneWindow(
                tuple(own.get(k, 0) for k in range(n)), window.const + low, window.terms
            )
            loaded = self._few(buffer, part)
            if not result:
                places = part.places
            else:
                places = tuple(n + own[k] if k in own else k for k in range(n))
            result = self._chosen(mem, result or loaded, loaded if result else "poison", n, places)
        return result

    def _are_inside(self, b: Buffer, indices: tuple[Expr, ...], live: tuple[bool, ...]) -> bool:
        """Whether indices are those of an element in every live lane, whatever conditions say."""
        for i, size in zip(indices, b.shape, strict=True):
            for lane in (k for k, x in enumerate(live) if x):
                at = i if self.lane_var is None else substitute(i, {self.lane_var: Const(lane)})
                low, high = self.index.bounds(substitute(at, self.fixed))
                if not isinstance(size, int) or low < 0 or high >= size:
                    return False
        return True

    def _pointer(self, buffer: Buffer, window: LaneWindow, skipped: int) -> str:
        offset, _ = self.sum(window.terms, window.const + skipped)
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        text = f"getelementptr {mem}, {space} {self.base(buffer)}, {self.number} {offset}"
        at = self.w.let(text, "p")
        return self.guarded(at, buffer)

    def _part(self, buffer: Buffer, window: LaneWindow, skipped: int, count: int) -> str:
        """`count` elements of a window from one on."""
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        pointer = self._pointer(buffer, window, skipped)
        kind = vector_type(mem, count)
        return self.w.let(f"load {kind}, {space} {pointer}, align {buffer.dtype.bytes}")

    def _few(self, buffer: Buffer, window: LaneWindow) -> str:
        """A window of at most as many elements as there are lanes, as the first of a vector."""
        n, width = self.lanes, window.width
        if width == n:
            return self._part(buffer, window, 0, n)
        mem = memory_type(buffer.dtype)
        if width == 1:
            one = self._part(buffer, window, 0, 1)
            kind = vector_type(mem, n)
            return self.w.let(f"insertelement {kind} poison, {mem} {one}, i64 0")
        return self.masked_load(self._pointer(buffer, window, 0), buffer, width, n)

    def masked_load(self, pointer: str, buffer: Buffer, count: int, lanes: int) -> str:
        """The first `count` elements of a vector of `lanes`; zeros after them."""
        mem = memory_type(buffer.dtype)
        kind, mask = vector_type(mem, lanes), f"<{lanes} x i1>"
        bits = ", ".join(f"i1 {int(k < count)}" for k in range(lanes))
        suffix = mem if mem.startswith("i") else buffer.dtype.name
        name = f"llvm.masked.load.v{lanes}{suffix}.p0"
        self.w.declare(f"declare {kind} @{name}(ptr, {mask}, {kind})")
        return self.w.let(
            f"call {kind} @{name}(ptr align {buffer.dtype.bytes} {pointer}, {mask} <{bits}>, "
            f"{kind} zeroinitializer)"
        )

    def _chosen(self, mem: str, a: str, b: str, count: int, places: Sequence[int]) -> str:
        """Elements of two vectors of `count`, numbered through."""
        kind = vector_type(mem, count)
        items = ", ".join(f"i32 {k}" for k in places)
        return self.w.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(places)} x i32> <{items}>")


def _apart(places: Sequence[int], live: Sequence[bool], lanes: int) -> list[list[int]]:
    """Lanes whose places one vector holds, as few of such groups as there are."""
    groups: list[list[int]] = []
    low = 0
    for place, lane in sorted(
        (p, k) for k, (p, x) in enumerate(zip(places, live, strict=True)) if x
    ):
        if not groups or place - low >= lanes:
            groups.append([])
            low = place
        groups[-1].append(lane)
    return groups


def _in_order(parts: Sequence[Sequence[int]], places: Sequence[int], lanes: int) -> bool:
    """Whether groups of equally many lanes, one after the other, each read neighbours."""
    size = len(parts[0])
    wanted = [list(range(k, k + size)) for k in range(0, lanes, size)]
    return list(parts) == wanted and all(
        places[k] == places[p[0]] + k - p[0] for p in parts for k in p
    )

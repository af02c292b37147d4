"""Tiles that are transposed in registers: loads and stores whose lanes lie apart in memory.

A nest ``unroll r in 0..R { vectorize l in 0..L { y[…] = f(x[…], …) } }`` computes an R × L tile. A
load whose element (r, l) lies at ``base + r + c*l`` would be a gather in each turn. Instead

- L vectors of R contiguous elements are loaded before the first turn and transposed by log2(L)
  stages of interleaving, L shuffles each; at the ends of axes R may be smaller than L, and
  conditions may hold in the first lanes alone;
- with c = R (few channels, one element after the other), the tile is contiguous: R vectors are
  loaded and the lanes of each turn picked out of them.

A store at ``base + r + R*l`` is the latter in reverse: the values of all turns are woven together.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen.llvm.certain import certain_loads
from aisc.codegen.llvm.index import flat_index
from aisc.codegen.llvm.strided import StridedEmitter
from aisc.codegen.llvm.types import Val, memory_type, vector_type
from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Const, Expr, Load, has_loads
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import For, If, Store

MAX_WOVEN = 8  # turns of a contiguous tile: each lane of the result comes out of so many vectors


@dataclass(frozen=True, slots=True)
class Tile:
    """A nest that is emitted as a whole; `woven` if its store is one of contiguous elements, `live`
    the first lanes, which are those that are executed."""

    rows: For
    lanes: For
    store: Store
    loads: tuple[Load, ...]
    woven: bool
    live: int

    @property
    def count(self) -> int:
        """Turns: R."""
        return _extent(self.rows)

    @property
    def width(self) -> int:
        """Lanes: L."""
        return _extent(self.lanes)


class TransposeEmitter(StridedEmitter):
    """Emits such tiles; what a turn needs of them is in `columns`."""

    def tile_of(self, s: For) -> Tile | None:
        """The tile that an unrolled loop is, if transposing it saves gathers or scatters."""
        inner = s.body
        if not (isinstance(inner, For) and inner.kind == "vectorize"):
            return None
        store, live = inner.body, _extent(inner)
        if isinstance(inner.body, If) and inner.body.other is None:
            store, live = inner.body.then, self._first(inner.body.cond, inner)
        if not isinstance(store, Store) or self.mask is not None or self.guard is not None:
            return None
        if _extent(s) < 2 or _extent(inner) & (_extent(inner) - 1) or not live:
            return None
        whole = live == _extent(inner)
        loads = tuple(n for n in certain_loads(store.value) if self._apart(n, s, inner))
        woven = self._steps(store.buffer, store.indices, s, inner) == (1, _extent(s))
        woven = woven and whole and _extent(s) <= MAX_WOVEN and self._in_memory(store.buffer)
        early: Sequence[Load] = loads
        if woven:
            early = [n for n in walk(store.value) if isinstance(n, Load)]
        if not (loads or woven) or not self._ordered(store, early):
            return None
        return Tile(s, inner, store, loads, woven, live)

    def _first(self, cond: Expr, inner: For) -> int:
        """In how many first lanes a condition holds, and in no others; 0 where that is open."""
        if not isinstance(cond, Binary) or cond.a.dtype is not dtypes.i64:
            return 0
        form = self.linear(cond.a - cond.b)
        if cond.op != "lt" or form.terms != (((inner.var,), 1),):
            return 0
        return max(0, min(-form.const, _extent(inner)))

    def _ordered(self, store: Store, early: Sequence[Load]) -> bool:
        """Whether loads of a tile may stand before all of its stores."""
        others = {n.buffer for n in early}
        own = store.buffer.alias_set
        return bool(own) and all(b.alias_set and b.alias_set != own for b in others)

    def _in_memory(self, b: Buffer) -> bool:
        return b.space in ("global", "stack") and self.pointer_type(b) == "ptr"

    def _apart(self, n: Load, rows: For, lanes: For) -> bool:
        """Whether a load is one that a tile transposes."""
        row, lane = self._steps(n.buffer, n.indices, rows, lanes)
        if row != 1 or lane in (0, 1) or not self._in_memory(n.buffer):
            return False
        return _extent(rows) <= _extent(lanes)

    def _steps(
        self, b: Buffer, indices: tuple[Expr, ...], rows: For, lanes: For
    ) -> tuple[int | None, int | None]:
        """Elements from one turn and one lane to the next, where they are constant."""
        if any(has_loads(i) for i in indices):
            return None, None
        form = self.index.linear(flat_index(b, indices))
        return form.coeff(rows.var), form.coeff(lanes.var)

    # -- emission ----------------------------------------------------------------------------

    def _place(self, t: Tile, row: int, lane: int, n: Load | Store) -> str:
        """Pointer to an element of the tile."""
        for loop, k in ((t.rows, row), (t.lanes, lane)):
            self.bind(loop.var, k, 0, _extent(loop) - 1)
        pointer, _ = self.address(n.buffer, n.indices)
        self.unbind(t.rows.var)
        self.unbind(t.lanes.var)
        return pointer

    def columns_of(self, t: Tile, n: Load) -> list[Val]:
        """The values of a load in each turn."""
        mem, span = memory_type(n.dtype), range(t.width)
        lane = self._steps(n.buffer, n.indices, t.rows, t.lanes)[1]
        if lane == t.count and t.count <= MAX_WOVEN and t.live == t.width > t.count:
            at = [(k * t.width % t.count, k * t.width // t.count) for k in range(t.count)]
            parts = [self._load(self._place(t, *x, n), n.buffer, t.width, t.width) for x in at]
            parts = [
                self._picked(parts, mem, [r + t.count * i for i in span]) for r in range(t.count)
            ]
        else:
            places = [self._place(t, 0, k, n) for k in range(t.live)]
            parts = [self._load(p, n.buffer, t.count, t.width) for p in places]
            parts = self._transposed([*parts, *["poison"] * (t.width - t.live)], mem)[: t.count]
        return [self._from_memory(p, n.dtype, t.width) for p in parts]

    def _load(self, pointer: str, b: Buffer, count: int, width: int) -> str:
        """The first `count` elements of a vector of `width`."""
        if count < width:
            return self.masked_load(pointer, b, count, width)
        kind = vector_type(memory_type(b.dtype), width)
        return self.w.let(f"load {kind}, ptr {pointer}, align {b.dtype.bytes}")

    def weave(self, t: Tile, values: Sequence[str]) -> None:
        """Store the values of all turns as contiguous vectors."""
        mem, size = memory_type(t.store.buffer.dtype), t.store.buffer.dtype.bytes
        kind, count, width = vector_type(mem, t.width), t.count, t.width
        span, power = range(width), count & (count - 1) == 0
        if power:
            vectors = self._riffled(list(values), mem, width, count.bit_length() - 1)
        else:
            flat = [[divmod(k * width + i, count) for i in span] for k in range(count)]
            vectors = [self._picked(values, mem, [c * width + i for i, c in x]) for x in flat]
        for k, vector in enumerate(vectors):
            at = self._place(t, k * width % count, k * width // count, t.store)
            self.w.line(f"store {kind} {vector}, ptr {at}, align {size}")

    def _transposed(self, rows: list[str], mem: str) -> list[str]:
        """The transpose of n vectors of n elements."""
        return self._riffled(rows, mem, len(rows), len(rows).bit_length() - 1)

    def _riffled(self, rows: list[str], mem: str, width: int, stages: int) -> list[str]:
        """Vectors of `width` elements after some stages, each of which interleaves the first half
        of the vectors with the second."""
        low = [x for k in range(width // 2) for x in (k, width + k)]
        high = [x + width // 2 for x in low]
        for _ in range(stages):
            half = len(rows) // 2
            pairs = zip(rows[:half], rows[half:], strict=True)
            rows = [self._shuffle(a, b, mem, mask) for a, b in pairs for mask in (low, high)]
        return rows

    def _picked(self, parts: Sequence[str], mem: str, wanted: Sequence[int]) -> str:
        """A vector of chosen elements of several vectors, numbered through: those of the first
        two, then of one more after the other."""
        n = len(wanted)
        first, *others = sorted({w // n for w in wanted})
        result, lanes = parts[first], [w % n for w in wanted]
        if not others:
            return self._shuffle(result, "poison", mem, lanes)
        for k in others:
            own = [w // n == k for w in wanted]
            mask = [n + w % n if o else i for w, o, i in zip(wanted, own, lanes, strict=True)]
            result, lanes = self._shuffle(result, parts[k], mem, mask), list(range(n))
        return result

    def _shuffle(self, a: str, b: str, mem: str, mask: Sequence[int]) -> str:
        if a == b == "poison":
            return a
        kind = vector_type(mem, len(mask))
        items = ", ".join(f"i32 {k}" for k in mask)
        return self.w.let(f"shufflevector {kind} {a}, {kind} {b}, <{len(mask)} x i32> <{items}>")


def _extent(loop: For) -> int:
    """Iterations of a loop from 0 on of constant extent; 0 for others."""
    constant = isinstance(loop.extent, Const) and loop.low == Const(0)
    return int(loop.extent.value) if constant and isinstance(loop.extent, Const) else 0

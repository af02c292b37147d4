"""Reductions and maps over the same rows in one pass: a row lies in the registers of some warps.

``for rows: { fetch the row;  for blocks: { map: each thread its elements;  reduce: each thread
what it has, then lanes of a warp with each other, then warps } }``. What is read at its own place
is read once. Lanes exchange what they have by reading each other's registers, in the memory *warp*:
``q'[l] = q[l] + q[l xor m]`` for m = 16, 8, 4, 2, 1, after which all lanes have the same bits, so
that nothing is written down between the blocks of a row unless it has several warps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.node import Node, walk
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Load,
    Var,
    binary,
    const,
    logical_and,
    minimum,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    Place,
    find_place,
    guarded,
    places,
    replace_stmt,
    with_regions,
    without_alloc,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names

WARP = "warp"


@dataclass(frozen=True, slots=True)
class RowTile:
    """Loops that choose a row; rows of a block, warps of a row, lanes of a warp; elements that a
    thread fetches at a time."""

    count: int
    rows: int
    warps: int
    lanes: int
    wide: int

    @property
    def threads(self) -> int:
        """Threads of a row."""
        return self.warps * self.lanes


def row_registers(
    func: Func, name: str, blocks: int, count: int, rows: int, warps: int, lanes: int, wide: int
) -> Func:
    """`func` with so many nests from the block `name` on as one (:class:`RowTile`)."""
    names = [p.block.name for p in places(func.body)]
    at = names.index(name)
    group = [find_place(func, n) for n in names[at : at + blocks]]
    tile = RowTile(count, rows, warps, lanes, wide)
    builder = RowBuilder(func, group, tile)
    new = builder.build()
    for p in group[:-1]:
        func = replace_stmt(func, p.loops[0], None)
    for b in builder.inside:
        func = without_alloc(func, b)
    return replace_stmt(func, group[-1].loops[0], new)


def _refused(what: str) -> CompileError:
    return error("E302", "no row for registers", what)


Point = Sequence[Expr]


class RowBuilder:
    """Builds the nests."""

    def __init__(self, func: Func, group: Sequence[Place], tile: RowTile) -> None:
        self.group, self.t, self.names = group, tile, Names(func)
        self.stem = group[0].block.name
        self.index = Indexer({d.name: (0, float("inf")) for d in func.dims})
        self.sizes = [f.extent for f in group[0].loops[: tile.count]]
        self.length = self._length()
        if self.length % tile.wide:
            raise _refused(f"{self.length} elements are no multiple of {tile.wide}")
        self.pieces = -(-self.length // (tile.threads * tile.wide))
        own = [p.block for p in group]
        outside = {b for p in places(func.body) if p.block not in own for b in _touched(p.block)}
        written = [w.buffer for b in own for w in b.writes]
        self.inside = [b for b in written if b.role == "scratch" and b not in outside]
        self.held: dict[Buffer, Buffer] = {}  # rows in registers, by what they are rows of
        self.single: dict[Buffer, Buffer] = {}  # one value for a row
        self.allocs: list[Buffer] = []

    def _length(self) -> int:
        """Elements of a row: all loops but those over rows."""
        found = set()
        for p in self.group:
            sizes = [f.extent for f in p.loops[self.t.count :]]
            if [f.extent for f in p.loops[: self.t.count]] != self.sizes:
                raise _refused("not all blocks have the same rows")
            if any(not isinstance(e, Const) for e in sizes):
                raise _refused("its length is not known")
            if len(sizes) > 1:
                raise _refused("a row has several axes")
            found |= {int(e.value) for e in sizes if isinstance(e, Const)}
        found -= {1}
        if len(found) != 1:
            raise _refused("rows are of different lengths")
        return found.pop()

    # -- the whole ---------------------------------------------------------------------------

    def build(self) -> Stmt:
        """All loops."""
        last = self.sizes[-1]
        blocks = self.index.simplify(
            binary("floordiv", last + (self.t.rows - 1), const(self.t.rows))
        )
        self.around = [
            (Var(self._fresh(f"g{k}")), e) for k, e in enumerate([*self.sizes[:-1], blocks])
        ]
        body: list[Stmt] = []
        for p in self.group:
            body += self._fetched(p) + (self._reduced(p) if p.block.combiner else [self._mapped(p)])
        made = seq(*map(Alloc, self.allocs), *body)
        for var, extent in reversed(self.around):
            made = For(var, ZERO, extent, "serial", made)
        return made

    def _fresh(self, stem: str) -> str:
        return self.names.fresh(f"{self.stem}_{stem}")

    def _new(self, stem: str, b: Buffer, space: str, each: tuple[int, ...] = ()) -> Buffer:
        t = self.t
        made = buffer(self._fresh(stem), b.dtype, (t.rows, t.warps, t.lanes, *each), space=space)
        self.allocs.append(made)
        return made

    def _row(self, at: Sequence[Expr], ty: Expr) -> list[Expr]:
        """The place of a row; the last one in place of those behind it."""
        row = at[-1] * self.t.rows + ty
        last = self.sizes[-1]
        known = isinstance(last, Const) and int(last.value) % self.t.rows == 0
        return [*at[:-1], row if known else minimum(row, last - 1)]

    def _element(self, v: Point) -> Expr:
        """Which element of its row a thread has."""
        _, w, lane, o, k = v
        return ((o * self.t.warps + w) * self.t.lanes + lane) * self.t.wide + k

    def _whole(self) -> bool:
        return self.pieces * self.t.threads * self.t.wide == self.length

    # -- nests -------------------------------------------------------------------------------

    def _nest(
        self, stem: str, over: Sequence[tuple[str, int]], kind: str,
        make: Callable[[list[Expr], Point], Store], when: Callable[[list[Expr], Point], Expr],
        combiner: str = "", init: Expr | None = None,
    ) -> Stmt:  # fmt: skip
        """A block over threads and, inside, `over`."""
        t, name = self.t, self._fresh(stem)
        threads = (("ty", t.rows), ("w", t.warps), ("l", t.lanes))
        outer = [
            (Iter(Var(self.names.fresh(f"{name}_b")), e, "spatial"), v) for v, e in self.around
        ]
        axes = [*threads, *over]
        kinds = ["spatial"] * len(threads) + [kind] * len(over)
        inner = [
            Iter(Var(self.names.fresh(f"{name}_v{s}")), const(n), k)  # type: ignore[arg-type]
            for (s, n), k in zip(axes, kinds, strict=True)
        ]
        loops = [Var(self.names.fresh(f"{name}_{s}")) for s, _ in axes]
        store = make([it.var for it, _ in outer], [it.var for it in inner])
        start = None if init is None else Store(store.buffer, store.indices, init)
        pairs = [*outer, *zip(inner, loops, strict=True)]
        block = with_regions(Block(
            name, tuple(it for it, _ in pairs), tuple(v for _, v in pairs), (), (), start, store,
            combiner,
        ))  # fmt: skip
        body = guarded(block, when([v for v, _ in self.around], list(loops)))
        for var, it in zip(reversed(loops), reversed(inner), strict=True):
            body = For(var, ZERO, it.extent, "serial", body)
        return body

    def _over(self) -> list[tuple[str, int]]:
        return [("o", self.pieces), ("k", self.t.wide)]

    def _inside(self, v: Point) -> Expr:
        """Whether there is such an element."""
        if self._whole():
            return TRUE
        w, lane, o = v[1:4]
        piece = (o * self.t.warps + w) * self.t.lanes + lane
        return binary("lt", piece, const(self.length // self.t.wide))

    def _is_there(self, at: Sequence[Expr], v: Point) -> Expr:
        return self._inside(v)

    def _exists(self, at: Sequence[Expr], ty: Expr) -> Expr:
        """Whether there is such a row."""
        last = self.sizes[-1]
        if isinstance(last, Const) and int(last.value) % self.t.rows == 0:
            return TRUE
        return binary("lt", at[-1] * self.t.rows + ty, last)

    def _fetched(self, p: Place) -> list[Stmt]:
        """Rows that a block reads at its own place, into registers."""
        found = []
        wanted = self._own_place(p)
        loads = [n for n in walk(p.block.body) if isinstance(n, Load)]
        for b in dict.fromkeys(n.buffer for n in loads if n.indices == wanted):
            if b in self.held or b in self.inside or b in {w.buffer for w in p.block.writes}:
                continue
            held = self._new(f"{b.name}_row", b, "register", (self.pieces, self.t.wide))
            self.held[b] = held

            def make(at: list[Expr], v: Point, b: Buffer = b, held: Buffer = held) -> Store:
                return Store(held, tuple(v), Load(b, (*self._row(at, v[0]), self._element(v))))

            found.append(
                self._nest("fetch", self._over(), "spatial", make, lambda at, v: self._inside(v))
            )
        return found

    def _own_place(self, p: Place) -> tuple[Expr, ...]:
        """The index that says row and element, in a block's iterators."""
        of = {v: it.var for it, v in zip(p.block.iters, p.block.bindings, strict=True)}
        if any(f.var not in of for f in p.loops):
            raise _refused(f"{p.block.name} is not over its loops")
        return tuple(of[f.var] for f in p.loops)

    def _value(self, e: Expr, p: Place, at: list[Expr], v: Point) -> Expr:
        """What a block computes, of registers."""
        own = self._own_place(p)
        rows, element = own[: self.t.count], own[self.t.count :]
        thread = tuple(v[:3])

        def swap(n: Node) -> Node:
            if not isinstance(n, Load):
                return n
            if n.buffer in self.held and n.indices == own and len(element) == 1:
                return Load(self.held[n.buffer], tuple(v))
            if n.buffer in self.single and n.indices[: self.t.count] == rows:
                return Load(self.single[n.buffer], thread)
            if n.buffer in self.inside:
                raise _refused(f"{n.buffer.name} is read elsewhere")
            return n

        values: dict[Var, Expr] = dict(zip(rows, self._row(at, v[0]), strict=True))  # type: ignore[arg-type]
        if element:
            values[element[0]] = self._element(v) if len(v) > 3 else ZERO  # type: ignore[index]
        return substitute(transform(e, swap), values)

    def _mapped(self, p: Place) -> Stmt:
        store = p.block.body
        if not isinstance(store, Store):
            raise _refused(f"{p.block.name} stores no value")
        b, own = store.buffer, self._own_place(p)
        long = len(p.loops) > self.t.count and p.loops[-1].extent != const(1)
        if b in self.inside:
            same = (
                store.indices[: len(own)] == own
                if long
                else store.indices[: self.t.count] == own[: self.t.count]
            )
            if not same:
                raise _refused(f"{b.name} is written in another order")
            each = (self.pieces, self.t.wide) if long else ()
            (self.held if long else self.single)[b] = held = self._new("kept", b, "register", each)
            return self._nest(
                p.block.name, self._over() if long else [], "spatial",
                lambda at, v: Store(held, tuple(v), self._value(store.value, p, at, v)),
                lambda at, v: self._inside(v) if long else TRUE,
            )  # fmt: skip

        def make(at: list[Expr], v: Point) -> Store:
            places_ = tuple(self._value(i, p, at, v) for i in store.indices)
            return Store(b, places_, self._value(store.value, p, at, v))

        def when(at: list[Expr], v: Point) -> Expr:
            alone = TRUE if long else logical_and(
                binary("lt", v[1], const(1)), binary("lt", v[2], const(1))
            )  # fmt: skip
            return logical_and(self._exists(at, v[0]), self._inside(v) if long else alone)

        return self._nest(p.block.name, self._over() if long else [], "spatial", make, when)

    # -- reductions --------------------------------------------------------------------------

    def _reduced(self, p: Place) -> list[Stmt]:
        """What threads have, what warps have, what a row has."""
        store, t = p.block.body, self.t
        combiner = COMBINERS.get(p.block.combiner)
        if not isinstance(store, Store) or combiner is None or combiner.results != 1:
            raise _refused(f"{p.block.name} has several results")
        value, b = store.value, store.buffer
        own = Load(b, store.indices)
        if b.dtype.bytes != 4 or not isinstance(value, Binary) or own not in (value.a, value.b):
            raise _refused(f"{p.block.name} is combined in another way")
        new = value.b if value.a == own else value.a
        if own in set(walk(new)) or (b not in self.inside and b.role != "output"):
            raise _refused(f"{p.block.name} goes by its own results")
        (start,) = combiner.identity([b.dtype])

        def both(x: Expr, y: Expr) -> Expr:
            return combiner.combine([x], [y])[0]

        part = self._new("part", b, WARP)

        def make(at: list[Expr], v: Point) -> Store:
            mine = select(self._inside(v), self._value(new, p, at, v), start)
            return Store(part, tuple(v[:3]), both(Load(part, tuple(v[:3])), mine))

        nests = [self._nest(
            p.block.name, self._over(), "reduce", make, lambda at, v: TRUE, p.block.combiner, start
        )]  # fmt: skip
        step = t.lanes // 2
        while step:
            part = self._exchanged(nests, b, part, step, both)
            step //= 2
        if t.warps > 1:
            part = self._across(nests, b, part, p.block.combiner, both, start)
        self.single[b] = part
        if b not in self.inside:
            nests.append(self._told(p, store, part))
        return nests

    def _exchanged(
        self, nests: list[Stmt], b: Buffer, part: Buffer, step: int,
        both: Callable[[Expr, Expr], Expr],
    ) -> Buffer:  # fmt: skip
        """What two lanes have, in both of them."""
        new = self._new("pair", b, WARP)

        def make(at: list[Expr], v: Point) -> Store:
            ty, w, lane = v
            odd = binary("mod", binary("floordiv", lane, const(step)), const(2))
            other = lane + step - odd * (2 * step)
            mine, theirs = Load(part, (ty, w, lane)), Load(part, (ty, w, other))
            # The lower lane's first: both have the same bits, whatever is combined.
            return Store(new, tuple(v), both(mine, theirs))

        nests.append(self._nest("exchange", [], "spatial", make, lambda at, v: TRUE))
        return new

    def _across(
        self, nests: list[Stmt], b: Buffer, part: Buffer, combiner: str,
        both: Callable[[Expr, Expr], Expr], start: Expr,
    ) -> Buffer:  # fmt: skip
        """What all warps of a row have, in all threads."""
        t = self.t
        shared = buffer(self._fresh("warps"), b.dtype, (t.rows, t.warps), space="shared")
        self.allocs.append(shared)
        nests.append(self._nest(
            "tell", [], "spatial",
            lambda at, v: Store(shared, tuple(v[:2]), Load(part, tuple(v))),
            lambda at, v: binary("lt", v[2], const(1)),
        ))  # fmt: skip
        total = self._new("total", b, "register")

        def make(at: list[Expr], v: Point) -> Store:
            thread = tuple(v[:3])
            return Store(total, thread, both(Load(total, thread), Load(shared, (v[0], v[3]))))

        nests.append(
            self._nest(
                "gather", [("o", t.warps)], "reduce", make, lambda at, v: TRUE, combiner, start
            )
        )
        return total

    def _told(self, p: Place, store: Store, part: Buffer) -> Stmt:
        """A result that others see, by the first thread of its row."""

        def make(at: list[Expr], v: Point) -> Store:
            places_ = tuple(self._value(i, p, at, v) for i in store.indices)
            return Store(store.buffer, places_, Load(part, tuple(v)))

        def when(at: list[Expr], v: Point) -> Expr:
            first = (binary("lt", v[k], const(1)) for k in (1, 2))
            return logical_and(self._exists(at, v[0]), *first)

        return self._nest("told", [], "spatial", make, when)


def _touched(b: Block) -> set[Buffer]:
    return {r.buffer for r in (*b.reads, *b.writes)}

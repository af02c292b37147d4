"""A contraction by tiles in the memories of a systolic array.

``for rows: {load data; for columns: {clear sums; for depth: {load weights; for tiles: {preload;
compute}}; store}}``: every nest is what one instruction does, in memory spaces that a description
names, and the instructions are found by that (:mod:`aisc.passes.tensor.select_instructions`). Tiles
at the ends are smaller. Sums stay where they are while the depth is walked over; of data, weights
and cells there may be two, so that one is filled while the other is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.ir.accelerator import ACCUMULATOR, CELLS, SCRATCHPAD
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    ZERO,
    Binary,
    Cast,
    Const,
    Expr,
    Load,
    Var,
    binary,
    const,
    logical_or,
    variables,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Iter, Stmt, Store, seq
from aisc.ir.tensor.tree import find_place, replace_stmt, with_regions, without_alloc
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.variants.systolic_form import Form, form_of, size_of
from aisc.passes.schedule.variants.systolic_rows import Rows, part_of


@dataclass(frozen=True, slots=True)
class Tiles:
    """Sizes: depth and width of the array; rows of a block along both sides; tiles of columns that
    have sums at a time; tiles of the depth whose data lies there at a time, and of which weights
    are loaded together; how many tiles there are of data, weights, cells and sums. Without cells
    the array reads weights from the scratchpad. `packed`: the window along the last rows belongs to
    the depth."""

    depth: int
    width: int
    p: int
    q: int
    columns: int
    deep: int
    group: int
    data: int = 2
    weights: int = 2
    cells: int = 1
    sums: int = 1
    packed: int = 0


def systolic(
    func: Func,
    name: str,
    depth: int,
    width: int,
    p: int,
    q: int,
    columns: int,
    deep: int,
    group: int,
    data: int,
    weights: int,
    cells: int,
    sums: int,
    packed: int = 0,
) -> Func:
    """`func` with the product `name` and the map behind it by tiles (:class:`Tiles`)."""
    form = form_of(func, name, bool(packed))
    tiles = Tiles(depth, width, p, q, columns, deep, group, data, weights, cells, sums, packed)
    new = _Builder(func, form, tiles).build()
    top = find_place(func, name).loops[0]
    if form.consumer is not None:
        func = replace_stmt(func, find_place(func, form.consumer.name).loops[0], None)
        func = without_alloc(func, form.out) if form.out.role == "scratch" else func
    return replace_stmt(func, top, new)


# A loop of a nest: what it stands for, its first value, its extent, what that is at most.
Axis = tuple[str, Expr, Expr, int]


@dataclass(frozen=True, slots=True)
class _Open:
    """A loop around nests: its variable, its extent at most, whether its turns are summed up."""

    var: Var
    most: int
    reduces: bool


class _Builder:
    """Builds the nests."""

    def __init__(self, func: Func, form: Form, tiles: Tiles) -> None:
        self.form, self.t, self.names = form, tiles, Names(func)
        self.open: list[_Open] = []
        self.values: dict[Var, Expr] = {it.var: ZERO for it in form.block.iters if size_of(it) == 1}
        self.rows = [Rows(form.p, tiles.p), Rows(form.q, tiles.q)]
        self.tiles_n = -(-size_of(form.n) // tiles.width)
        self.tiles_k = -(-form.depth // tiles.depth)
        self.chunked = tiles.deep < self.tiles_k or any(size_of(it) > 1 for it in form.sums)
        t, data, acc = tiles, form.data.buffer.dtype, form.accumulator
        deep, row = (1, t.deep * t.depth) if t.packed else (t.deep, t.depth)
        shape = (deep, *(r.tile for r in self.rows), row)
        self.data = self._tile("data", data, SCRATCHPAD, t.data, shape)
        weights = form.weights.buffer.dtype
        self.weights = self._tile(
            "weights", weights, SCRATCHPAD, t.weights, (t.group * t.depth, t.width)
        )
        self.cells = self._tile("cells", weights, CELLS, t.cells, (t.depth, t.width))
        self.sums = self._tile("sums", acc, ACCUMULATOR, t.sums, (t.columns, t.p, t.q, t.width))

    def build(self) -> Stmt:
        """All loops, and the tiles before them."""
        cells = (self.cells,) if self.t.cells else ()
        tiles = (self.data, self.weights, *cells, self.sums)
        return seq(*map(Alloc, tiles), self._outer(list(self.form.outer)))

    # -- loops -------------------------------------------------------------------------------

    def _outer(self, left: list[Iter]) -> Stmt:
        if left:
            return self._over(left[0], lambda: self._outer(left[1:]))
        p, q = self.rows
        return self._loop(
            "pb", p.blocks, lambda i: self._loop("qb", q.blocks, lambda j: self._block(i, j))
        )

    def _over(self, it: Iter, body: Callable[[], Stmt], reduces: bool = False) -> Stmt:
        def inside(value: Expr) -> Stmt:
            self.values[it.var] = value
            return body()

        return self._loop(it.var.name, size_of(it), inside, reduces)

    def _block(self, *blocks: Expr) -> Stmt:
        """A block of rows."""
        for rows, number in zip(self.rows, blocks, strict=True):
            rows.at = number
        columns = -(-self.tiles_n // self.t.columns)
        if self.chunked:
            return self._loop("nb", columns, self._columns)
        return seq(self._load_data(ZERO), self._loop("nb", columns, self._columns))

    def _columns(self, nb: Expr) -> Stmt:
        """Sums of some tiles of columns."""
        t, slot = self.t, self._slot(self.t.sums)
        here = part_of(self.tiles_n, t.columns, nb)

        def each(body: Callable[[Expr, Expr], Stmt]) -> Stmt:
            return self._loop("j", t.columns, lambda j: body(nb * t.columns + j, j), extent=here)

        def start(number: Expr, j: Expr) -> Stmt:
            return self._start(number, slot, j)

        def add(kc: Expr) -> Stmt:
            load = self._load_data(kc) if self.chunked else None
            return seq(load, each(lambda number, j: self._window(kc, number, slot, j)))

        chunks = -(-self.tiles_k // t.deep)

        def sums(left: list[Iter]) -> Stmt:
            if left:
                return self._over(left[0], lambda: sums(left[1:]), True)
            return self._loop("kc", chunks, add, True)

        finish = each(lambda number, j: self._finish(number, slot, j))
        return seq(each(start), sums(list(self.form.sums)), finish)

    def _window(self, kc: Expr, number: Expr, slot: Expr, j: Expr) -> Stmt:
        """A tile of columns, for each place of the window."""

        def inside(left: list[Iter]) -> Stmt:
            if left:
                return self._over(left[0], lambda: inside(left[1:]), True)
            return self._depth(kc, number, slot, j)

        return inside(list(self.form.window))

    def _depth(self, kc: Expr, number: Expr, slot: Expr, j: Expr) -> Stmt:
        """The depth that the data is there for: weights come some tiles at a time."""
        t = self.t
        groups, most = -(-self.tiles_k // t.group), -(-t.deep // t.group)

        def group(kg: Expr) -> Stmt:
            place, first = self._slot(t.weights), kc * most + kg

            def tile(ki: Expr) -> Stmt:
                return self._compute((kc, kg, ki), number, (slot, j), place)

            here = part_of(self.tiles_k, t.group, first)
            walk = self._loop("ki", t.group, tile, True, here)
            return seq(self._load_weights(first, number, place), walk)

        return self._loop("kg", most, group, True, part_of(groups, most, kc))

    # -- nests -------------------------------------------------------------------------------

    def _load_data(self, kc: Expr) -> Stmt:
        """The data of a block of rows, tile by tile of the depth."""
        t, self.data_slot = self.t, self._slot(self.t.data)

        def borders(ki: Expr) -> Stmt | None:
            return self._borders(ki, part_of(self.form.depth, t.depth, kc * t.deep + ki))

        def tile(ki: Expr) -> Stmt:
            return seq(borders(ki), self._inside(ki, kc * t.deep + ki))

        count, tap = part_of(self.tiles_k, t.deep, kc), self.form.packed
        if tap is None:
            return self._loop("ld", t.deep, tile, extent=count)
        around = self._loop("ld", t.deep, lambda ki: seq(borders(ki)), extent=count)
        return seq(around, self._over(tap, lambda: self._inside(ZERO, ZERO)))

    def _at(self, ki: Expr, p: Expr, q: Expr, k: Expr) -> tuple[Expr, ...]:
        """The place of an element in the tile of data."""
        if self.t.packed:
            return self.data_slot, ZERO, p, q, ki * self.t.depth + k
        return self.data_slot, ki, p, q, k

    def _borders(self, ki: Expr, extent: Expr) -> Stmt | None:
        """What lies around the image."""
        fill, tap = self.form.fill, self.form.packed
        ends = [{}] if tap is None else [{tap.var: ZERO}, {tap.var: const(size_of(tap) - 1)}]
        places = [{**self.values, **end} for end in ends]
        tests = [test for r in self.rows for at in places for test in r.beyond(at)]
        if fill is None or not tests:
            return None
        value = Cast(const(int(fill.value)), self.data.dtype)
        axes = [*self._tile_axes(clip=False), ("k", ZERO, extent, self.t.depth)]

        def store(v: Sequence[Var]) -> Store:
            return Store(self.data, self._at(ki, v[0], v[1], v[2]), value)

        return If(logical_or(*dict.fromkeys(tests)), self._nest("fill", axes, store))

    def _inside(self, ki: Expr, number: Expr) -> Stmt:
        """The part of a tile that is there; of a packed one, for one place of its window."""
        form, size = self.form, size_of(self.form.k)
        most = size if form.packed else self.t.depth
        extent = const(size) if form.packed else part_of(size, most, number)
        first = self.values[form.packed.var] * size if form.packed else ZERO
        axes = [*self._tile_axes(clip=True), ("k", ZERO, extent, most)]

        def store(v: Sequence[Var]) -> Store:
            at = {**self.values, form.k.var: number * self.t.depth + v[2]}
            indices = [substitute(e, at) for e in form.data.indices]
            for rows, var in zip(self.rows, v, strict=False):
                if rows.side is not None:
                    indices[rows.side.dim] = rows.first(self.values) + var * rows.step
            value = replace(form.data, indices=tuple(indices))
            return Store(self.data, self._at(ki, v[0], v[1], first + v[2]), value)

        return self._nest("load", axes, store)

    def _tile_axes(self, clip: bool) -> list[Axis]:
        found = []
        for hint, rows in zip("pq", self.rows, strict=True):
            low, extent = rows.clipped(self.values) if clip else (ZERO, rows.needed)
            found.append((hint, low, extent, rows.tile))
        return found

    def _load_weights(self, first: Expr, number: Expr, slot: Expr) -> Stmt:
        form, t = self.form, self.t
        size, most = size_of(form.k), t.group * t.depth
        if form.packed is not None:
            return self._over(form.packed, lambda: self._weights(ZERO, size, number, slot))
        return self._weights(first, most, number, slot)

    def _weights(self, first: Expr, most: int, number: Expr, slot: Expr) -> Stmt:
        """Weights of up to `most` steps of the depth; of packed ones, for a place of the window."""
        form, t, size = self.form, self.t, size_of(self.form.k)
        start = self.values[form.packed.var] * size if form.packed else ZERO
        axes = [("k", ZERO, part_of(size, most, first), most), self._column_axis(number)]

        def store(v: Sequence[Var]) -> Store:
            at = {form.k.var: first * most + v[0], form.n.var: number * t.width + v[1]}
            value = substitute(form.weights, {**self.values, **at})
            return Store(self.weights, (slot, start + v[0], v[1]), value)

        return self._nest("weights", axes, store)

    def _compute(
        self, tile: tuple[Expr, Expr, Expr], column: Expr, sums: tuple[Expr, Expr], slot: Expr
    ) -> Stmt:
        """One tile of weights, given by its chunk, group and number there, for all rows."""
        form, t, own = self.form, self.t, self._slot(self.t.cells)
        (kc, kg, ki), acc = tile, form.accumulator
        here = kg * t.group + ki
        deep = ("k", ZERO, part_of(form.depth, t.depth, kc * t.deep + here), t.depth)
        column_axis = self._column_axis(column)

        def weight(k: Expr, n: Expr) -> Load:
            return Load(self.weights, (slot, ki * t.depth + k, n))

        def add(v: Sequence[Var]) -> Store:
            place = (*sums, *v[:3])
            rows = [r.coordinate(x, self.values) for r, x in zip(self.rows, v, strict=False)]
            p, q = rows
            a = Load(self.data, self._at(here, p, q, v[3]))
            b = Load(self.cells, (own, v[3], v[2])) if t.cells else weight(v[3], v[2])
            product = binary("mul", _as(a, acc), _as(b, acc))
            return Store(self.sums, place, Load(self.sums, place) + product)

        axes = [*self._row_axes(), column_axis, deep]
        compute = self._nest("compute", axes, add, combiner="sum")
        if not t.cells:
            return compute
        preload = self._nest(
            "preload", [deep, column_axis], lambda v: Store(self.cells, (own, *v), weight(*v))
        )
        return seq(preload, compute)

    def _start(self, number: Expr, slot: Expr, j: Expr) -> Stmt:
        """Sums start with a bias of their column, or 0."""
        form, bias = self.form, self._bias()
        zero = const(0, form.accumulator)

        def store(v: Sequence[Var]) -> Store:
            value: Expr = zero
            if bias is not None:
                value = substitute(bias, self._results(v, number))
            return Store(self.sums, (slot, j, *v), value)

        return self._nest("start", [*self._row_axes(), self._column_axis(number)], store)

    def _finish(self, number: Expr, slot: Expr, j: Expr) -> Stmt:
        """What the map behind the product does, on the way out."""
        form, bias = self.form, self._bias()

        def store(v: Sequence[Var]) -> Store:
            at, sums = self._results(v, number), Load(self.sums, (slot, j, *v))
            if form.consumer is None:
                spatial = (it.var for it in form.block.iters if it.kind == "spatial")
                return Store(form.out, tuple(at[x] for x in spatial), sums)
            body = form.consumer.body
            assert isinstance(body, Store)

            def own(n: object) -> object:
                if bias is not None and isinstance(n, Binary) and bias in (n.a, n.b):
                    other = n.a if n.b == bias else n.b
                    return other if n.op == "add" and _is_sum(other, form) else n
                return n

            value = transform(body.value, own)  # type: ignore[arg-type]
            value = transform(value, lambda n: sums if _is_sum(n, form) else n)
            indices = tuple(substitute(e, at) for e in body.indices)
            return replace(body, indices=indices, value=substitute(value, at))

        return self._nest("store", [*self._row_axes(), self._column_axis(number)], store)

    def _bias(self) -> Load | None:
        """What the map adds to the sums first, if that depends on the column alone."""
        form = self.form
        if form.consumer is None:
            return None
        rows = {it.var for it, own in self._pairs() if own in [s.axis for s in form.sides]}
        found: list[Load] = []

        def look(n: object) -> object:
            if isinstance(n, Binary) and n.op == "add":
                for a, b in ((n.a, n.b), (n.b, n.a)):
                    if _is_sum(a, form) and isinstance(b, Load) and not rows & variables(b):
                        found.append(b)
            return n

        assert isinstance(form.consumer.body, Store)
        transform(form.consumer.body.value, look)  # type: ignore[arg-type]
        return found[0] if found and _mentions_column(found[0], self._pairs(), form) else None

    # -- places ------------------------------------------------------------------------------

    def _pairs(self) -> list[tuple[Iter, Iter]]:
        """Iterators of the map with those of the product."""
        form = self.form
        spatial = [it for it in form.block.iters if it.kind == "spatial"]
        theirs = spatial if form.consumer is None else list(form.consumer.iters)
        return list(zip(theirs, spatial, strict=True))

    def _results(self, v: Sequence[Expr], number: Expr) -> dict[Var, Expr]:
        """The iterators of the map for a place in a tile of sums."""
        form = self.form
        at: dict[Var, Expr] = dict(self.values)
        for rows, var in zip(self.rows, v, strict=False):
            if rows.side is not None:
                at[rows.side.axis.var] = rows.at * rows.size + var
        at[form.n.var] = number * self.t.width + v[2]
        return {theirs.var: at[own.var] for theirs, own in self._pairs()}

    def _row_axes(self) -> list[Axis]:
        return [
            (hint, ZERO, rows.extent, rows.size) for hint, rows in zip("pq", self.rows, strict=True)
        ]

    def _column_axis(self, number: Expr) -> Axis:
        return "n", ZERO, part_of(size_of(self.form.n), self.t.width, number), self.t.width

    def _tile(
        self, stem: str, dtype: DType, space: str, slots: int, shape: tuple[int, ...]
    ) -> Buffer:
        name = self.names.fresh(f"{self.form.block.name}_{stem}")
        return buffer(name, dtype, (slots, *shape), space=space)

    def _slot(self, slots: int) -> Expr:
        """Which of several tiles is in turn."""
        if slots == 1:
            return ZERO
        number: Expr = ZERO
        for f in self.open:
            number = number * f.most + f.var
        return number % slots

    def _loop(
        self,
        hint: str,
        most: int,
        body: Callable[[Expr], Stmt],
        reduces: bool = False,
        extent: Expr | None = None,
    ) -> Stmt:
        """A loop of up to `most` turns."""
        if most == 1 and (extent is None or isinstance(extent, Const)):
            return body(ZERO)
        var = Var(self.names.fresh(f"{self.form.block.name}_{hint}"))
        self.open.append(_Open(var, most, reduces))
        inside = body(var)
        self.open.pop()
        return For(var, ZERO, const(most) if extent is None else extent, "serial", inside)

    def _nest(
        self,
        stem: str,
        axes: Sequence[Axis],
        make: Callable[[Sequence[Var]], Store],
        combiner: str = "",
    ) -> Stmt:
        """The loops `axes` around a block that stores what `make` says; the last one of a nest with
        a combiner is summed up."""
        name = self.names.fresh(f"{self.form.block.name}_{stem}")
        loops = [Var(self.names.fresh(f"{name}_{hint}")) for hint, *_ in axes]
        store = make(loops)
        used = set().union(*(variables(e) for e in (*store.indices, store.value)))
        pairs = [(f.var, f.most, combiner and f.reduces) for f in self.open if f.var in used]
        summed = [bool(combiner) and k == len(axes) - 1 for k in range(len(axes))]
        pairs += [(v, a[3], s) for v, a, s in zip(loops, axes, summed, strict=True)]
        iters = tuple(
            Iter(Var(self.names.fresh(f"{name}_v{k}")), const(most), "reduce" if s else "spatial")
            for k, (_, most, s) in enumerate(pairs)
        )
        own = {v: it.var for (v, *_), it in zip(pairs, iters, strict=True)}
        bindings = tuple(v for v, *_ in pairs)
        block = Block(
            name, iters, bindings, (), (), None, substitute(store, own), combiner,
            self.form.block.loc,
        )  # fmt: skip
        body: Stmt = with_regions(block)
        for var, (_, low, extent, _most) in zip(reversed(loops), reversed(axes), strict=True):
            body = For(var, low, extent, "serial", body)
        return body


def _as(e: Expr, dtype: DType) -> Expr:
    return e if e.dtype is dtype else Cast(e, dtype)


def _is_sum(n: object, form: Form) -> bool:
    return isinstance(n, Load) and n.buffer == form.out


def _mentions_column(e: Load, pairs: Sequence[tuple[Iter, Iter]], form: Form) -> bool:
    return any(theirs.var in variables(e) for theirs, own in pairs if own is form.n)

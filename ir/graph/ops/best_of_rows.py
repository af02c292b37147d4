"""What is done with a row whose best elements are wanted: entries of it in order.

An element stands for an integer in the order of the elements, its *rank*, so that NaN and -0 need
no care of their own. Rank and place together are an *entry*: one integer where both fit into 64
bits, else two. All entries of a row are different, and their order is that of the results. Values
are read again in the end.
"""

from __future__ import annotations

from collections.abc import Callable

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, product
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder, row_numbers
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import For, If, Let, Stmt, Store, seq

Values = tuple[Expr, ...]
# Results from which on an element is compared with the last of them before it is inserted.
FEW = 4


# --- entries ----------------------------------------------------------------------------------
def rank_type(t: DType) -> DType:
    """The integers that ranks of elements of type `t` are."""
    if t.bits < 32:
        return dtypes.i32
    return {32: dtypes.i32, 64: dtypes.i64}[t.bits] if t.is_float else t


def rank_of(value: Expr, largest: bool) -> Expr:
    """An integer that is the greater, the earlier an element comes."""
    if value.dtype.bits < 32:
        value = e.cast(value, dtypes.f32 if value.dtype.is_float else dtypes.i32)
    rank = e.math("ordinal", value) if value.dtype.is_float else value
    return rank if largest else e.Unary("not", rank)


def _high(rank: Expr) -> Expr:
    """A rank of 32 bits as the least entry that has it."""
    wide = e.cast(rank, dtypes.i64)
    if rank.dtype is dtypes.u32:
        wide = wide + dtypes.i32.min_value
    return e.Binary("shl", wide, e.Const(32))


_LOW = e.Const(dtypes.u32.max_value)


@dataclass(frozen=True, slots=True)
class Kept:
    """Entries of all rows, in order, indexed by what is before the axis, by what is behind it and
    by place in the order; and of each row one on its way."""

    entries: tuple[Buffer, ...]
    moved: tuple[Buffer, ...]

    @staticmethod
    def of(cb: ComputeBuilder, x: Buffer, axis: int, count: Dim, moves: bool) -> Kept:
        """Scratch for `count` entries of each row, and for the one on its way if it `moves`."""
        rank, rows = rank_type(x.dtype), (product(x.shape[:axis]), product(x.shape[axis + 1 :]))
        short = rank.bits == 32 and bounds(x.shape[axis])[1] <= dtypes.u32.max_value
        parts = {"entry": dtypes.i64} if short else {"rank": rank, "number": dtypes.i64}
        return Kept(
            tuple(cb.alloc(f"kept_{name}", t, (*rows, count)) for name, t in parts.items()),
            tuple(cb.alloc(name, t, rows) for name, t in parts.items() if moves),
        )

    def entry(self, rank: Expr, place: Expr) -> Values:
        """The entry of an element."""
        if len(self.entries) == 1:
            return (e.Binary("or", _high(rank), _LOW - place),)
        return rank, place

    def place(self, entry: Values) -> Expr:
        """Where an entry's element is."""
        if len(self.entries) == 1:
            return _LOW - e.Binary("and", entry[0], _LOW)
        return entry[1]

    def before(self, a: Values, b: Values) -> Expr:
        """Whether entry `a` comes before `b`."""
        if len(self.entries) == 1:
            return e.Binary("gt", a[0], b[0])
        equal = e.logical_and(e.equal(a[0], b[0]), e.Binary("lt", a[1], b[1]))
        return e.Binary("or", e.Binary("gt", a[0], b[0]), equal)

    def ordered(self, a: Values, b: Values) -> tuple[Values, Values]:
        """Two entries in order."""
        if len(self.entries) == 1:
            return (e.maximum(a[0], b[0]),), (e.minimum(a[0], b[0]),)
        first = self.before(a, b)
        return (
            tuple(e.select(first, x, y) for x, y in zip(a, b, strict=True)),
            tuple(e.select(first, y, x) for x, y in zip(a, b, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Peaks:
    """The best ranks of chunks, of `each` elements."""

    ranks: Buffer
    each: int


def lowest_of(t: DType) -> Expr:
    """The part of an entry that comes last."""
    return e.const(t.min_value, t)


# --- rows -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Row:
    """Statements for one row of `x`, the one at `at`."""

    cb: ComputeBuilder
    x: Buffer
    axis: int
    kept: Kept
    at: tuple[Var, ...]
    largest: bool

    def fill(self, k: Dim) -> Stmt:
        """The first `k` elements in order: each among those before it."""
        turn = self._var("turn")
        end = [Store(b, self._kept_at(turn), self._moved(m)) for b, m in self._pairs()]
        body = self._new(turn, lambda new: seq(self._insert(new, turn), *end))
        return For(turn, e.ZERO, e.of_dim(k), "serial", body)

    def push_all(self, first: Expr, count: Expr, k: Dim) -> Stmt:
        """`count` elements from `first` on, each among the best `k` before it."""
        turn = self._var("turn")
        last = tuple(Load(b, self._kept_at(e.of_dim(k) - 1)) for b in self.kept.entries)

        def push(new: tuple[Var, ...]) -> Stmt:
            body = self._insert(new, e.of_dim(k))
            if isinstance(k, int) and k < FEW:
                return body
            return If(e.Binary("gt", new[0], last[0]), body)

        body = self._new(first + turn, push)
        return For(turn, e.ZERO, count, "serial", body)

    def push_some(self, peaks: Peaks, k: Dim, size: Dim) -> Stmt:
        """The elements behind the first `k`, those of a chunk if the best of them is better than
        the last one so far."""
        chunk, each, chunks = self._var("chunk"), peaks.each, peaks.ranks.shape[-1]
        peak = Load(peaks.ranks, (*self.at, chunk))
        packed = len(self.kept.entries) == 1
        last = Load(self.kept.entries[0], self._kept_at(e.of_dim(k) - 1))
        better = e.Binary("gt", _high(peak) if packed else peak, last)
        first, rest = e.of_dim(k) + chunk * each, size - k - chunks * each
        inside = If(better, self.push_all(first, e.Const(each), k))
        whole = For(chunk, e.ZERO, e.of_dim(chunks), "serial", inside)
        return seq(whole, self.push_all(e.of_dim(size - rest), e.of_dim(rest), k))

    def _insert(self, new: tuple[Var, ...], count: Expr) -> Stmt:
        """An entry among the first `count`: it, and then each that it or another has displaced,
        takes the place of the next one that comes after it. What is displaced last is left."""
        j = self._var("j")
        start = [Store(m, self._row(), v) for m, v in zip(self.kept.moved, new, strict=True)]
        here = tuple(Load(b, self._kept_at(j)) for b in self.kept.entries)
        way = tuple(self._moved(m) for m in self.kept.moved)
        places = [(b, self._kept_at(j)) for b in self.kept.entries]
        places += [(m, self._row()) for m in self.kept.moved]
        return seq(*start, For(j, e.ZERO, count, "serial", self._exchange(here, way, places)))

    def sort(self, size: Dim) -> Stmt:
        """All elements in order, by merge exchange (Knuth, The Art of Computer Programming,
        5.2.2, algorithm M): in each turn elements that are `apart` are put in order, in runs of
        `p`, of which every other one begins `skip` behind a multiple of ``2 * p``."""
        count, place = e.of_dim(size), self._var("place")
        places = self._kept_at(place)
        load = self._new(place, lambda new: seq(*(
            Store(b, places, v) for b, v in zip(self.kept.entries, new, strict=True)
        )))  # fmt: skip
        turns, s, u = self._var("turns"), self._var("s"), self._var("u")
        p, apart, skip = self._var("p"), self._var("apart"), self._var("skip")
        one, first = e.ONE, e.equal(u, 0)
        body: Stmt = Let(
            apart,
            e.select(first, p, e.Binary("shl", one, turns - u) - p),
            Let(skip, e.select(first, e.ZERO, p), self._turn(count, p, apart, skip)),
        )
        body = For(u, e.ZERO, s + 1, "serial", body)
        body = Let(p, e.Binary("shl", one, turns - 1 - s), body)
        return seq(
            For(place, e.ZERO, count, "serial", load),
            Let(turns, _bit_length(size), For(s, e.ZERO, turns, "serial", body)),
        )

    def _turn(self, count: Expr, p: Var, apart: Var, skip: Var) -> Stmt:
        """Put in order all pairs of one turn."""
        run, step = self._var("run"), self._var("step")
        low, high = self._var("low"), self._var("high")
        both = [self._kept_at(low), self._kept_at(high)]
        a, b = (tuple(Load(x, at) for x in self.kept.entries) for at in both)
        places = [(x, at) for at in both for x in self.kept.entries]
        start = run * 2 * p + skip
        left = count - apart - start
        pair: Stmt = Let(high, clamped(low + apart, count), self._exchange(a, b, places))
        pair = Let(low, clamped(start + step, count), pair)
        runs = e.binary("floordiv", count - apart - skip + (p * 2 - 1), p * 2)
        inner = For(step, e.ZERO, e.minimum(p, left), "serial", pair)
        return For(run, e.ZERO, runs, "serial", inner)

    def _exchange(
        self, a: Values, b: Values, places: list[tuple[Buffer, tuple[Expr, ...]]]
    ) -> Stmt:
        """Store the entries that `a` and `b` load in order: the parts of the first, then those of
        the second, at `places`."""
        names = [tuple(self._var("e", x.dtype) for x in entry) for entry in (a, b)]
        ordered = [x for entry in self.kept.ordered(*names) for x in entry]
        stmt: Stmt = seq(*(Store(t, at, v) for (t, at), v in zip(places, ordered, strict=True)))
        for name, value in zip((*names[0], *names[1]), (*a, *b), strict=True):
            stmt = Let(name, value, stmt)
        return stmt

    def results(self, values: Buffer, places: Buffer, k: Dim) -> Stmt:
        """Store the best elements, as they are in `x`, and their places."""
        j, place = self._var("j"), self._var("place")
        found = self.kept.place(tuple(Load(b, self._kept_at(j)) for b in self.kept.entries))
        at = self._along(j)
        stores = seq(Store(values, at, Load(self.x, self._along(place))), Store(places, at, place))
        inside = clamped(found, e.of_dim(self.x.shape[self.axis]))
        return For(j, e.ZERO, e.of_dim(k), "serial", Let(place, inside, stores))

    # -- parts -------------------------------------------------------------------------------

    def _var(self, name: str, dtype: DType = dtypes.i64) -> Var:
        return Var(self.cb.fresh(name), dtype)

    def _new(self, place: Expr, use: Callable[[tuple[Var, ...]], Stmt]) -> Stmt:
        """What is done with the entry of the element at `place`."""
        rank = rank_of(Load(self.x, self._along(place)), self.largest)
        entry = self.kept.entry(rank, place)
        names = tuple(self._var("new", v.dtype) for v in entry)
        stmt = use(names)
        for name, value in zip(names, entry, strict=True):
            stmt = Let(name, value, stmt)
        return stmt

    def _pairs(self) -> list[tuple[Buffer, Buffer]]:
        return list(zip(self.kept.entries, self.kept.moved, strict=True))

    def _row(self) -> tuple[Expr, Expr]:
        """How many rows are before this one along the axes before the axis, and behind it."""
        return row_numbers(self.x.shape, self.axis, self.at)

    def _along(self, where: Expr) -> tuple[Expr, ...]:
        return (*self.at[: self.axis], where, *self.at[self.axis :])

    def _kept_at(self, j: Expr) -> tuple[Expr, ...]:
        return (*self._row(), j)

    def _moved(self, m: Buffer) -> Load:
        return Load(m, self._row())


def clamped(place: Expr, count: Expr) -> Expr:
    """A place that is inside, as what is known of the sizes says."""
    return e.minimum(e.maximum(place, e.ZERO), count - 1)


def _bit_length(size: Dim) -> Expr:
    """The least number of bits that ``size - 1`` fits into."""
    if isinstance(size, int):
        return e.Const(max(size - 1, 0).bit_length())
    last = e.of_dim(size) - 1
    total: Expr = e.ZERO
    for bit in range(40):
        total = total + e.cast(e.Binary("ge", last, e.Const(1 << bit)), dtypes.i64)
    return total

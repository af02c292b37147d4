"""What a systolic array makes of a contraction: which of its iterators are rows, columns, depth.

``out[g, p, q, n] += data[g, p*sp + r*dp, q*sq + s*dq, k] * weights[g, r, s, k, n]``: `n` occurs in
the weights alone, `p` and `q` in the data alone, `k` is summed up along an axis of the data, `r`
and `s` form a *window* with p and q. Any of the rows may be missing. Elements beyond the borders of
an image are a constant. What reads the sums is one map, which is computed on the way out of the
array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import Binary, Cast, Const, Expr, Load, Select
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import conjuncts, find_place, places


@dataclass(frozen=True, slots=True)
class Side:
    """Where rows of one axis lie in the data: dimension and index, the stride of a row, iterators
    of the window with what each moves by, and the least and first too large index inside the
    image."""

    axis: Iter
    dim: int
    index: Expr
    stride: int
    window: Mapping[Iter, int]
    inside: tuple[int, int] | None
    apart: bool = False

    @property
    def is_window(self) -> bool:
        """Whether neighbouring rows may share what they read."""
        return not self.apart and (bool(self.window) or self.inside is not None)


@dataclass(frozen=True, slots=True)
class Form:
    """A contraction and the map that reads it, if any. `outer` are further spatial iterators,
    `window` and `sums` further reduce ones: those along the rows, and others."""

    block: Block
    consumer: Block | None
    out: Buffer
    data: Load
    weights: Load
    fill: Const | None
    outer: tuple[Iter, ...]
    p: Side | None
    q: Side | None
    n: Iter
    k: Iter
    window: tuple[Iter, ...]
    sums: tuple[Iter, ...]
    packed: Iter | None = None

    @property
    def depth(self) -> int:
        """How much is summed up at a place of the window."""
        return size_of(self.k) * (1 if self.packed is None else size_of(self.packed))

    @property
    def accumulator(self) -> DType:
        """The type of sums."""
        return self.out.dtype

    @property
    def sides(self) -> tuple[Side, ...]:
        """Those of the rows."""
        return tuple(s for s in (self.p, self.q) if s is not None)


def size_of(it: Iter) -> int:
    """The extent of an iterator; E302 where only the run knows it."""
    if not isinstance(it.extent, Const):
        raise error("E302", f"the extent of {it.var.name} is not constant")
    return int(it.extent.value)


def form_of(func: Func, name: str, packed: bool = False) -> Form:
    """The form of the contraction `name`; E302 says what it has otherwise. `packed`: the window
    along the last rows belongs to the depth, for few channels: rows share nothing then."""
    reader = _Reader(func, find_place(func, name).block)
    form = reader.form()
    if not packed:
        return form
    if form.q is None or len(form.q.window) != 1:
        raise reader.fault("its last rows have no window to be packed")
    (tap,) = form.q.window
    q = replace(form.q, window={}, apart=True)
    return replace(form, q=q, packed=tap, window=tuple(r for r in form.window if r is not tap))


class _Reader:
    """Reads the form off the accesses."""

    def __init__(self, func: Func, block: Block) -> None:
        self.func, self.block = func, block
        self.index = Indexer({it.var.name: (0, size_of(it) - 1) for it in block.iters})
        self.spatial = [it for it in block.iters if it.kind == "spatial"]
        self.reduced = [it for it in block.iters if it.kind == "reduce"]

    def fault(self, what: str) -> CompileError:
        """A refusal."""
        return error("E302", f"{self.block.name} is no product for a systolic array", what)

    def form(self) -> Form:
        """All of it."""
        store = self.block.body
        if not isinstance(store, Store) or self.block.combiner != "sum":
            raise self.fault("it is no sum")
        if store.indices != tuple(it.var for it in self.spatial):
            raise self.fault("its results are not in the order of its iterators")
        data, weights, fill, cond = self.factors(store)
        rows = [it for it in self.spatial if _in(data, it) and not _in(weights, it)]
        columns = [it for it in self.spatial if _in(weights, it) and not _in(data, it)]
        if not columns or columns[-1] is not self.spatial[-1]:
            raise self.fault("the last axis of its results is none of the weights alone")
        n, k = columns[-1], self.depth(data, weights)
        p, q, window = self.rows(data, weights, rows, k, cond)
        taken = [n, *(s.axis for s in (p, q) if s is not None)]
        return Form(
            self.block, self.consumer(store.buffer), store.buffer, data, weights, fill,
            tuple(it for it in self.spatial if it not in taken), p, q, n, k, window,
            tuple(it for it in self.reduced if it is not k and it not in window),
        )  # fmt: skip

    def factors(self, store: Store) -> tuple[Load, Load, Const | None, Expr | None]:
        """Data, weights, what stands for data outside of an image, and the condition of inside."""
        value = store.value
        if not isinstance(value, Binary) or value.op != "add":
            raise self.fault("it adds up no products")
        product = value.b if isinstance(value.a, Load) else value.a
        if not isinstance(product, Binary) or product.op != "mul":
            raise self.fault("it adds up no products")
        found = [_uncast(e, store.buffer.dtype) for e in (product.a, product.b)]
        lane = self.spatial[-1] if self.spatial else None
        found.sort(key=lambda e: lane is not None and e is not None and _in(e, lane))
        first, weights = found
        data, fill, cond = first, None, None
        if isinstance(first, Select) and isinstance(first.other, Const):
            data, fill, cond = first.then, first.other, first.cond
        if not isinstance(data, Load) or not isinstance(weights, Load):
            raise self.fault("a factor is no element of a tensor")
        return data, weights, fill, cond

    def depth(self, data: Load, weights: Load) -> Iter:
        """The iterator along the last axis of the data that has one alone, and the weights have."""
        alone = []
        for it in self.reduced:
            dims = [d for d, e in enumerate(data.indices) if mentions(e, it.var)]
            form = self.index.linear(data.indices[dims[0]]) if len(dims) == 1 else None
            if form is not None and form.terms == (((it.var,), 1),) and _in(weights, it):
                alone.append((size_of(it) > 1, dims[0], it.var.name, it))
        if not alone:
            raise self.fault("no axis of its data is summed up alone")
        return max(alone)[-1]

    def rows(
        self, data: Load, weights: Load, rows: list[Iter], k: Iter, cond: Expr | None
    ) -> tuple[Side | None, Side | None, tuple[Iter, ...]]:
        """The last two rows, in the order of the data's axes, and their window."""
        bounds = {} if cond is None else self.bounds(data, cond)
        sides: list[Side] = []
        for it in reversed(rows):
            dims = [d for d, e in enumerate(data.indices) if mentions(e, it.var)]
            if len(dims) != 1 or dims[0] in [s.dim for s in sides] or len(sides) == 2:
                continue
            form = self.index.linear(data.indices[dims[0]])
            stride = form.coeff(it.var) or 0
            window = {
                r: form.coeff(r.var) or 0
                for r in self.reduced
                if r is not k and size_of(r) > 1 and mentions(data.indices[dims[0]], r.var)
            }
            if stride > 0 and all(c > 0 for c in window.values()):
                (d,) = dims
                inside = bounds.pop(d, None)
                sides.append(Side(it, d, data.indices[d], stride, window, inside))
        if bounds:
            raise self.fault("its data has borders along an axis that is no row")
        sides.sort(key=lambda s: s.dim)
        p, q = (None, *sides) if len(sides) == 1 else sides or (None, None)
        taps = [r for s in sides for r in s.window]
        return p, q, tuple(r for r in self.reduced if r in taps)

    def bounds(self, data: Load, cond: Expr) -> dict[int, tuple[int, int]]:
        """For each dimension with borders: the least index inside, and the first beyond."""
        low: dict[int, int] = {}
        high: dict[int, int] = {}
        for test in conjuncts(cond):
            if not isinstance(test, Binary) or test.op not in ("ge", "lt"):
                raise self.fault("a border is no comparison")
            for d, e in enumerate(data.indices):
                apart = self.index.linear(test.a - test.b - e)
                if apart.is_const:
                    side = low if test.op == "ge" else high
                    side[d] = -apart.const
                    break
            else:
                raise self.fault("a border is none of the data's axes")
        return {d: (low.get(d, 0), high.get(d, _static(data.buffer, d))) for d in {*low, *high}}

    def consumer(self, sums: Buffer) -> Block | None:
        """The one map that reads the sums."""
        readers = [p.block for p in places(self.func.body) if p.block is not self.block]
        if not readers and sums.role != "scratch":
            return None
        if len(readers) != 1:
            raise self.fault(f"beside it stand {', '.join(b.name for b in readers) or 'no maps'}")
        (found,) = readers
        sizes = [size_of(it) for it in found.iters]
        same = sizes == [size_of(it) for it in self.spatial]
        plain = isinstance(found.body, Store) and not found.combiner
        if not plain or not same or any(it.kind != "spatial" for it in found.iters):
            raise self.fault(f"{found.name} is no map of its results")
        return found


def _in(e: Expr, it: Iter) -> bool:
    return mentions(e, it.var)


def _uncast(e: Expr, dtype: DType) -> Expr:
    """A factor without the cast to the type of sums."""
    return e.a if isinstance(e, Cast) and e.dtype is dtype else e


def _static(b: Buffer, d: int) -> int:
    size = b.shape[d]
    if not isinstance(size, int):
        raise error("E302", f"a size of {b.name} is not constant")
    return size

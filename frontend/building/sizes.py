"""Sizes that only run time gives: shapes, slices and ranges computed by the graph itself."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter, Hole
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Monomial, Poly, product
from aisc.ir.graph.core import Value
from aisc.ir.types import MAX_SIZE


def exact_quotient(total: Dim, part: Dim) -> Dim | None:
    """``total / part`` when it is exact for every value of the symbols (zero sizes aside)."""
    if isinstance(total, int) and isinstance(part, int):
        return total // part if part and total % part == 0 else None
    if part == 1:
        return total
    if total == part:
        return 1
    quotient = _divide_terms(total, part)
    return quotient if quotient is not None and quotient * part == total else None


def what_is_left(shape: Sequence[Dim], known: Sequence[Dim]) -> Dim | None:
    """The size that makes a shape with the sizes `known` as large as `shape`, where it is whole for
    every value of the symbols; sizes that stand in both cancel."""
    rest, more = list(shape), []
    for d in known:
        if d in rest:
            rest.remove(d)
        else:
            more.append(d)
    return exact_quotient(product(tuple(rest)), product(tuple(more)))


_MAX_TERMS = 64  # of a quotient


def _divide_terms(total: Dim, part: Dim) -> Dim | None:
    """Long division of polynomials; ``None`` where a leading term does not divide."""
    divisor = _terms(part)
    result: Dim = 0
    for _ in range(_MAX_TERMS):
        if total == 0:
            return result
        term = _quotient(_terms(total)[0], divisor[0])
        if term is None:
            return None
        result, total = result + term, total - part * term
    return None


def _terms(d: Dim) -> Sequence[tuple[Monomial, int]]:
    return d.terms if isinstance(d, Poly) else (((), d),)


def _quotient(a: tuple[Monomial, int], b: tuple[Monomial, int]) -> Dim | None:
    """The quotient of two terms, if it is a term."""
    powers = dict(a[0])
    for atom, p in b[0]:
        powers[atom] = powers.get(atom, 0) - p
    if b[1] == 0 or a[1] % b[1] or any(p < 0 for p in powers.values()):
        return None
    left = tuple((x, powers[x]) for x, _ in a[0] if powers[x])
    return a[1] // b[1] if not left else Poly(((left, a[1] // b[1]),))


def _vector(em: Emitter, dims: Sequence[Dim]) -> Value:
    return em.dims_value(list(dims))


def reshape_at_run_time(
    em: Emitter, x: Value, target: Value, wanted: list[Dim | Hole], allow_zero: bool
) -> Value:
    """`x` under a shape with elements that are computed.

    One such element alone, beside known ones, can only be what is left. Otherwise 0 (copy the
    size) and -1 (what is left) are resolved by the graph, and the result is tested.
    """
    known = [_copied(x, axis, d, allow_zero) for axis, d in enumerate(wanted)]
    holes = [axis for axis, d in enumerate(known) if isinstance(d, Hole)]
    sizes = [d for d in known if not isinstance(d, Hole)]
    if len(holes) == 1 and -1 not in sizes:
        rest = what_is_left(x.type.shape, sizes)
        if rest is not None:
            return em.reshape(x, [rest if isinstance(d, Hole) else d for d in known])
    found = _resolved(em, x, target, allow_zero)
    open_axes = [axis for axis, d in enumerate(known) if isinstance(d, Hole) or d == -1]
    dims = [em.names.fresh("d") for _ in open_axes]
    em.bind_values([em.element(found, axis) for axis in open_axes], dims)
    table: dict[int, Dim] = dict(zip(open_axes, dims, strict=True))
    table.update({axis: d for axis, d in enumerate(known) if not isinstance(d, Hole) and d != -1})
    return em.reshape(x, [table[axis] for axis in range(len(known))])


def _copied(x: Value, axis: int, d: Dim | Hole, allow_zero: bool) -> Dim | Hole:
    if isinstance(d, Hole) or d != 0 or allow_zero or axis >= x.type.rank:
        return d
    return x.type.shape[axis]


def _resolved(em: Emitter, x: Value, target: Value, allow_zero: bool) -> Value:
    """The target shape with 0 and -1 replaced, as a vector."""
    count = target.type.size
    shape = em.reshape(em.cast(target, dtypes.i64), (count,))
    assert isinstance(count, int), "a vector of a few sizes"
    zero, one = em.like(0, shape), em.like(1, shape)
    if not allow_zero:
        own = [*x.type.shape, *(0,) * count][:count]
        shape = em.op("where", em.op("equal", shape, zero), _vector(em, own), shape)
    is_open = em.op("equal", shape, em.like(-1, shape))
    others = em.op("where", is_open, one, shape)
    rest = em.op("reduce_prod", others, axes=(0,), keepdims=True)
    left = em.op("div", _vector(em, [x.type.size]), em.op("max", rest, one))
    return em.op("where", is_open, left, shape)


def slice_at_run_time(
    em: Emitter, x: Value, cuts: Sequence[tuple[int, int]], starts: Value, ends: Value
) -> Value:
    """`x` cut along axes, (axis, step) each, between bounds that are computed."""
    pieces: list[Value] = []
    begins, sizes = [em.names.fresh("d", 0) for _ in cuts], [em.names.fresh("d") for _ in cuts]
    for k, (axis, step) in enumerate(cuts):
        size = _vector(em, [x.type.shape[axis]])
        start = _position(em, em.element(starts, k), size, step)
        end = _position(em, em.element(ends, k), size, step, is_end=True)
        pieces += [em.op("max", start, em.like(0, start)), _count(em, start, end, step)]
    em.bind_values(pieces, [d for pair in zip(begins, sizes, strict=True) for d in pair])
    rank = x.type.rank
    first: list[Dim] = [0] * rank
    last, by = list(x.type.shape), [1] * rank
    for (axis, step), begin, size_ in zip(cuts, begins, sizes, strict=True):
        first[axis], last[axis], by[axis] = begin, begin + size_ * step, step
    return em.op("slice", x, starts=tuple(first), ends=tuple(last), steps=tuple(by))


def stepped_slice(em: Emitter, x: Value, axis: int, start: Value, end: Value, step: Value) -> Value:
    """`x` cut along an axis by bounds and a step, of either sign, that are computed."""
    size = _vector(em, [x.type.shape[axis]])
    step = em.op("within", em.op("add", step, em.like(MAX_SIZE, step)), size=(2 * MAX_SIZE,))
    step = em.op("sub", step, em.like(MAX_SIZE, step))
    forward = em.op("less", em.like(0, step), step)
    bounds_ = [
        em.op("where", forward, _position(em, v, size, 1), _position(em, v, size, -1, is_end))
        for v, is_end in ((start, False), (end, True))
    ]
    begin = em.op("max", bounds_[0], em.like(0, size))
    last = em.op("where", forward, em.op("sub", bounds_[1], begin), em.op("sub", begin, bounds_[1]))
    span, by = em.op("max", last, em.like(0, last)), em.op("abs", step)
    one = em.like(1, by)
    count = em.op("div", em.op("add", span, em.op("sub", by, one)), by)  # by zero: an error
    places = em.op("iota", shape=(em.bound(count),))
    return em.op("gather", x, em.op("add", em.op("mul", places, step), begin), axis=axis)


def _position(em: Emitter, at: Value, size: Value, step: int, is_end: bool = False) -> Value:
    """A bound counted from the front and clamped, as a vector of one element."""
    zero = em.like(0, at)
    at = em.op("where", em.op("less", at, zero), em.op("add", at, size), at)
    if step > 0:
        return em.op("min", em.op("max", at, zero), size)
    lowest = em.like(-1, at)
    top = em.op("sub", size, em.like(1, at))
    return em.op("min", em.op("max", at, lowest if is_end else zero), top)


def _count(em: Emitter, start: Value, end: Value, step: int) -> Value:
    """How many elements lie between clamped bounds."""
    low, high = (start, end) if step > 0 else (end, start)
    span = em.op("max", em.op("sub", high, low), em.like(0, low))
    if abs(step) == 1:
        return span
    return em.op("div", em.op("add", span, em.like(abs(step) - 1, span)), em.like(abs(step), span))


def range_at_run_time(em: Emitter, start: Value, limit: Value, delta: Value) -> Value:
    """``start, start + delta, …`` before `limit`, for bounds that are computed."""
    t = start.type.dtype
    start, limit, delta = (em.reshape(v, (1,)) for v in (start, limit, delta))
    wide = [em.cast(v, dtypes.f64) for v in (start, limit, delta)]
    steps = em.op("ceil", em.op("div", em.op("sub", wide[1], wide[0]), wide[2]))
    count = em.op("max", em.cast(steps, dtypes.i64), em.constant([0], dtypes.i64))
    size = em.names.fresh("d")
    em.bind_values([count], [size])
    places = em.cast(em.op("iota", shape=(size,)), t)
    return em.op("add", em.op("mul", places, delta), start)

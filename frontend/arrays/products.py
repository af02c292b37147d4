"""Sums of products: matrix products, ``einsum``, outer products, traces."""

from __future__ import annotations

from typing import Any

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.reductions import axis_of, total
from aisc.frontend.arrays.registry import array_method, numpy_function
from aisc.frontend.arrays.values import Tensor, misfit
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, minimum, product
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide


@numpy_function("matmul")
def matmul(c: Context, a: Any, b: Any) -> Tensor:
    """``a @ b``."""
    x, y = c.tensor(a), c.tensor(b)
    if 0 in (x.value.type.rank, y.value.type.rank):
        raise misfit("a matrix product takes no numbers", "multiply by one: a * b", loc=c.loc)
    v, w = c.alike([x, y])
    if decide("==", v.type.shape[-1], w.type.shape[-2 if w.type.rank > 1 else 0]) is False:
        raise misfit(f"{v.type} @ {w.type}: the inner sizes differ", loc=c.loc)
    return c.new(_product(c, v, w))


def _product(c: Context, v: Value, w: Value) -> Value:
    """numpy's matmul of values of one type; of bools it is a disjunction."""
    if v.type.dtype is dtypes.boolean:
        counts = [c.em.cast(x, dtypes.i32) for x in (v, w)]
        return c.em.cast(_product(c, *counts), dtypes.boolean)
    row, column = v.type.rank == 1, w.type.rank == 1
    if row:
        v = c.em.reshape(v, (1, *v.type.shape))
    if column:
        w = c.em.reshape(w, (*w.type.shape, 1))
    made = c.em.op("matmul", v, w)
    shape = list(made.type.shape)
    if column:
        shape.pop()
    if row:
        shape.pop(-1 if column else -2)
    return c.em.reshape(made, shape)


@numpy_function("dot")
@array_method("dot")
def dot(c: Context, a: Any, b: Any) -> Tensor:
    """``np.dot``: the last axis with the last but one."""
    x, y = c.tensor(a), c.tensor(b)
    if 0 in (x.value.type.rank, y.value.type.rank):
        return elementwise(c, "multiply", x, y)
    if y.value.type.rank <= 2:
        return matmul(c, x, y)
    n, m = x.value.type.rank, y.value.type.rank
    return tensordot(c, x, y, ([n - 1], [m - 2]))


@numpy_function("inner")
def inner(c: Context, a: Any, b: Any) -> Tensor:
    """``np.inner``: over both last axes."""
    x, y = c.tensor(a), c.tensor(b)
    if 0 in (x.value.type.rank, y.value.type.rank):
        return elementwise(c, "multiply", x, y)
    return tensordot(c, x, y, ([-1], [-1]))


@numpy_function("vdot")
def vdot(c: Context, a: Any, b: Any) -> Tensor:
    """``np.vdot`` of real arrays."""
    v, w = (c.em.reshape(x, (x.type.size,)) for x in (c.value(a), c.value(b)))
    return matmul(c, c.new(v), c.new(w))


@numpy_function("outer")
def outer(c: Context, a: Any, b: Any) -> Tensor:
    """``np.outer``."""
    v, w = c.value(a), c.value(b)
    column = c.new(c.em.reshape(v, (v.type.size, 1)))
    return elementwise(c, "multiply", column, c.new(c.em.reshape(w, (1, w.type.size))))


@numpy_function("tensordot")
def tensordot(c: Context, a: Any, b: Any, axes: Any = 2) -> Tensor:
    """``np.tensordot``."""
    x, y = c.tensor(a), c.tensor(b)
    n, m = x.value.type.rank, y.value.type.rank
    if isinstance(axes, int):
        pairs = [list(range(n - axes, n)), list(range(axes))]
    else:
        pairs = [list(k) if isinstance(k, tuple | list) else [k] for k in axes]
    left = [axis_of(c, k, n) for k in pairs[0]]
    right = [axis_of(c, k, m) for k in pairs[1]]
    if len(left) != len(right):
        raise misfit("as many axes of a as of b are summed over", loc=c.loc)
    letters = [chr(ord("a") + k) for k in range(n)]
    others = [chr(ord("A") + k) for k in range(m)]
    for i, j in zip(left, right, strict=True):
        others[j] = letters[i]
    kept = [x for k, x in enumerate(letters) if k not in left]
    kept += [x for k, x in enumerate(others) if k not in right]
    return einsum(c, f"{''.join(letters)},{''.join(others)}->{''.join(kept)}", x, y)


@numpy_function("trace", method=True)
def trace(c: Context, a: Any, offset: int = 0) -> Tensor:
    """``np.trace`` of a matrix."""
    return total(c, diagonal(c, a, offset))


@numpy_function("diagonal", method=True)
def diagonal(c: Context, a: Any, offset: int = 0) -> Tensor:
    """``np.diagonal`` of a matrix."""
    v = c.value(a)
    if v.type.rank != 2:
        raise misfit("the diagonal is of a matrix", f"got {v.type}", loc=c.loc)
    k = c.int_of(offset, "offset")
    rows, columns = v.type.shape
    down, right = max(0, -k), max(0, k)
    count = minimum(rows - down, columns - right)
    places = c.em.op("iota", shape=(count,))
    steps = c.em.op(
        "mul", places, c.em.cast(c.em.reshape(c.em.dims_value([columns + 1]), ()), dtypes.i64)
    )
    start = c.em.reshape(c.em.dims_value([columns * down + right]), ())
    return c.new(
        c.em.op("gather", c.em.reshape(v, (rows * columns,)), c.em.op("add", steps, start), axis=0)
    )


@numpy_function("diag")
def diag(c: Context, v: Any, k: int = 0) -> Tensor:
    """``np.diag``: of a matrix its diagonal, of a vector the matrix."""
    x = c.value(v)
    if x.type.rank == 2:
        return diagonal(c, v, k)
    shift, size = c.int_of(k, "k"), x.type.shape[0]
    side = size + abs(shift)
    down = c.em.reshape(c.em.op("iota", shape=(side,)), (side, 1))
    across = c.em.op("iota", shape=(side,))
    on = c.em.op("equal", c.em.op("sub", across, c.em.like(shift, across)), down)
    wide = c.em.op("pad", x, pads=(max(0, shift), max(0, -shift)))
    zero = c.em.like(0, x)
    return c.new(c.em.op("where", on, c.em.reshape(wide, (1, side)), zero))


@numpy_function("cross")
def cross(c: Context, a: Any, b: Any) -> Tensor:
    """``np.cross`` of vectors of three."""
    v, w = c.value(a), c.value(b)
    if v.type.shape[-1] != 3 or w.type.shape[-1] != 3:
        raise misfit("np.cross takes vectors of three", f"got {v.type} and {w.type}", loc=c.loc)

    def turned(x: Value, by: int) -> Tensor:
        order = c.em.constant([by % 3, (by + 1) % 3, (by + 2) % 3])
        return c.new(c.em.op("gather", x, order, axis=x.type.rank - 1))

    one = elementwise(c, "multiply", turned(v, 1), turned(w, 2))
    return elementwise(c, "subtract", one, elementwise(c, "multiply", turned(v, 2), turned(w, 1)))


@numpy_function("kron")
def kron(c: Context, a: Any, b: Any) -> Tensor:
    """``np.kron`` of matrices or vectors."""
    v, w = c.value(a), c.value(b)
    rank = max(v.type.rank, w.type.rank)
    v, w = (c.em.reshape(x, (*(1,) * (rank - x.type.rank), *x.type.shape)) for x in (v, w))
    left = c.em.reshape(v, [d for s in v.type.shape for d in (s, 1)])
    right = c.em.reshape(w, [d for s in w.type.shape for d in (1, s)])
    made = c.read(elementwise(c, "multiply", c.new(left), c.new(right)))
    shape = [x * y for x, y in zip(v.type.shape, w.type.shape, strict=True)]
    return c.new(c.em.reshape(made, shape))


@numpy_function("einsum")
def einsum(c: Context, subscripts: Any, *operands: Any) -> Tensor:
    """``np.einsum`` of named axes, two operands at a time from the left."""
    if not isinstance(subscripts, str):
        raise misfit("np.einsum takes its axes as a text", loc=c.loc)
    text = subscripts.replace(" ", "")
    given, arrow, result = text.partition("->")
    names = given.split(",")
    parts = c.alike([c.tensor(x) for x in operands])
    if len(names) != len(parts):
        raise misfit(f"np.einsum: {len(names)} lists of axes for {len(parts)} arrays", loc=c.loc)
    names, result = _spelled(c, names, parts, result if arrow else None)
    once = [_once(c, n, v) for n, v in zip(names, parts, strict=True)]
    axes, value = once[0]
    for k, (more, other) in enumerate(once[1:], 2):
        later = set(result).union(*(n for n, _ in once[k:]))
        axes, value = _pair(c, axes, value, more, other, later)
    value = _summed(c, axes, value, set(result))
    left = [x for x in axes if x in result]
    if set(result) - set(left):
        raise misfit("np.einsum: the result has an axis that no array has", loc=c.loc)
    return c.new(c.em.transpose(value, [left.index(x) for x in result]))


def _spelled(
    c: Context, names: list[str], parts: list[Value], result: str | None
) -> tuple[list[str], str]:
    """Axes by one letter each: those of an ellipsis get letters of their own."""
    spare = [chr(k) for k in range(0x391, 0x3C9)]
    most = max(
        (
            v.type.rank - len(n.replace("...", ""))
            for n, v in zip(names, parts, strict=True)
            if "..." in n
        ),
        default=0,
    )
    found = []
    for n, v in zip(names, parts, strict=True):
        count = v.type.rank - len(n.replace("...", ""))
        if count < 0 or ("..." not in n and count):
            raise misfit(f"np.einsum: '{n}' for an array of {v.type.rank} axes", loc=c.loc)
        found.append(n.replace("...", "".join(spare[most - count : most])))
    if result is None:
        letters = "".join(found)
        single = sorted(x for x in set(letters) if letters.count(x) == 1 and x not in spare[:most])
        return found, "".join((*spare[:most], *single))
    return found, result.replace("...", "".join(spare[:most]))


def _once(c: Context, names: str, v: Value) -> tuple[list[str], Value]:
    """An operand in which no axis occurs twice: those that do are its diagonal."""
    axes = list(names)
    while len(set(axes)) < len(axes):
        name = next(x for x in axes if axes.count(x) > 1)
        i = axes.index(name)
        j = axes.index(name, i + 1)
        rest = [k for k in range(len(axes)) if k not in (i, j)]
        moved = c.em.transpose(v, [*rest, i, j])
        size = moved.type.shape[-1]
        flat = c.em.reshape(moved, (*moved.type.shape[:-2], moved.type.shape[-2] * size))
        steps = c.em.op(
            "mul", c.em.op("iota", shape=(size,)), c.em.reshape(c.em.dims_value([size + 1]), ())
        )
        v = c.em.op("gather", flat, steps, axis=flat.type.rank - 1)
        axes = [*(axes[k] for k in rest), name]
    return axes, v


def _summed(c: Context, axes: list[str], v: Value, kept: set[str]) -> Value:
    gone = tuple(k for k, x in enumerate(axes) if x not in kept)
    return c.em.op("reduce_sum", v, axes=gone, keepdims=False) if gone else v


def _pair(
    c: Context, a: list[str], v: Value, b: list[str], w: Value, kept: set[str]
) -> tuple[list[str], Value]:
    """Two operands as one batched matrix product over the axes that both have and nobody needs."""
    v = _summed(c, a, v, kept | set(b))
    a = [x for x in a if x in kept or x in b]
    w = _summed(c, b, w, kept | set(a))
    b = [x for x in b if x in kept or x in a]
    both = [x for x in a if x in b]
    batch, inner_ = [x for x in both if x in kept], [x for x in both if x not in kept]
    rows, columns = [x for x in a if x not in both], [x for x in b if x not in both]
    sizes = {**dict(zip(a, v.type.shape, strict=True)), **dict(zip(b, w.type.shape, strict=True))}
    if not inner_:
        order = [*batch, *rows, *columns]
        lying = [
            c.em.reshape(
                c.em.transpose(x, [names.index(n) for n in order if n in names]),
                [dict(zip(names, x.type.shape, strict=True)).get(n, 1) for n in order],
            )
            for names, x in ((a, v), (b, w))
        ]
        return order, c.read(elementwise(c, "multiply", *(c.new(x) for x in lying)))
    shape = [sizes[x] for x in batch]
    deep = product(tuple(sizes[x] for x in inner_))
    high, wide = (product(tuple(sizes[x] for x in names)) for names in (rows, columns))
    left = c.em.transpose(v, [a.index(x) for x in (*batch, *rows, *inner_)])
    right = c.em.transpose(w, [b.index(x) for x in (*batch, *inner_, *columns)])
    dims: list[Dim] = [*shape, *(sizes[x] for x in (*rows, *columns))]
    made = _product(
        c, _plain(c, left, (*shape, high, deep)), _plain(c, right, (*shape, deep, wide))
    )
    return [*batch, *rows, *columns], c.em.reshape(made, dims)


def _plain(c: Context, v: Value, shape: tuple[Dim, ...]) -> Value:
    return c.em.reshape(v, shape)

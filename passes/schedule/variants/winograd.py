"""Winograd's minimal filtering F(4×4, 3×3) for convolutions of stride 1 over channels-last images.

Lavin and Gray, "Fast algorithms for convolutional neural networks" (CVPR 2016). Each 4×4 tile of
the output needs a 6×6 tile of the input, and 36 products per pair of channels instead of 144::

    before: conv[n, h, w, o] += x[n, h+kh, w+kw, c] * w[kh, kw, c, o]
    after:  v[p, t, c]   = (B^T d B)[p]   d: the 6×6 input tile t, p: one of its 36 points
            m[p, t, o]  += v[p, t, c] * u[p, c, o]
            conv[n, 4th+y, 4tw+x, o] = (A^T m A)[y, x]

with u = G w G^T computed when weights are packed. The interpolation points are 0, ±3/4, ±3/2 and
infinity (Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution for
deep neural networks", 2020): all coefficients of B and A are exact in binary, and the error stays
within about twice that of direct summation, where 0, ±1, ±2 gives seven times it.

The bound is for finite data: the transforms take differences, so an infinity or a NaN in the input
makes all results of the tiles that see it NaN or infinite, and not only those under its taps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, product
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    Const,
    Expr,
    Load,
    Var,
    binary,
    cast,
    const,
    logical_and,
    of_dim,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Iter, Let, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import Place, find_place, fresh, is_fresh, places, replace_stmt
from aisc.ir.tensor.visitor import replace_buffers
from aisc.passes.schedule.products import factors
from aisc.passes.schedule.region import dim_of

OUT, KERNEL = 4, 3  # results and taps per axis
IN = OUT + KERNEL - 1
A, B = Fraction(3, 4), Fraction(3, 2)
# Errors relative to the largest result are at most this many times those of direct summation.
ERROR_FACTOR = 4.0


def winograd(func: Func, block: str) -> tuple[Func, Func]:
    """`func` with the convolution of `block` as F(4×4, 3×3), and the packer of its weights. The
    sizes of the image must be known."""
    conv = _match(func, find_place(func, block))
    if not all(isinstance(d, int) for d in conv.sizes):
        raise _refuse(block, "the sizes of the image are not known: winograd_blocks")
    return _replaced(func, block, conv)


def winograd_blocks(func: Func, block: str, down: int, across: int) -> tuple[Func, Func]:
    """The same for images of any size: as many whole blocks of down × across tiles as cover one,
    so that all but the number of blocks is known."""
    if min(down, across) < 1:
        raise _refuse(block, f"no block has {down} x {across} tiles")
    conv = _match(func, find_place(func, block))
    return _replaced(func, block, replace(conv, block=(down, across)))


def _replaced(func: Func, block: str, conv: _Convolution) -> tuple[Func, Func]:
    place = find_place(func, block)
    shape = (IN * IN, conv.inputs, conv.outputs)
    name = fresh(func, f"{conv.weight.name}_winograd")
    u = Buffer(name, dtypes.f32, shape, row_major(shape), alias_set=name, role="weight")
    cb = ComputeBuilder()
    cb.loc = place.block.loc
    tiles = conv.tiles
    v = cb.alloc(fresh(func, f"{block}_tiles"), dtypes.f32, (IN * IN, *tiles, conv.inputs))
    m = cb.alloc(fresh(func, f"{block}_points"), dtypes.f32, (IN * IN, *tiles, conv.outputs))
    grown = _grown(conv)
    _transform_input(cb, conv, v, f"{block}_in")
    cb.reduce(
        m, (conv.inputs,), "sum",
        lambda i, r: Load(v, (*i[:-1], r[0])) * Load(u, (i[0], r[0], i[-1])), block,
    )  # fmt: skip
    _transform_output(cb, conv, m, grown, f"{block}_out")
    func = replace_stmt(func, place.loops[0], seq(*cb.stmts))
    params = tuple(u if p == conv.weight else p for p in func.params)
    body = replace_buffers(func.body, {conv.result: grown})
    return replace(func, params=params, body=body), _packer(func.name, conv.weight, u)


# -- matching --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Convolution:
    """What the block computes: ``result[n, h, w, o] = sum data[n, h+kh, w+kw, c] * weight``; by
    blocks of so many tiles, if any."""

    data: Buffer
    weight: Buffer
    result: Buffer
    batch: Dim
    sizes: tuple[Dim, Dim]
    block: tuple[int, int] = (0, 0)

    @property
    def inputs(self) -> int:
        """Input channels."""
        return _static(self.weight.shape[2])

    @property
    def outputs(self) -> int:
        """Output channels."""
        return _static(self.weight.shape[3])

    @property
    def tiles(self) -> tuple[Dim, ...]:
        """Tiles of all images in one axis; (image, tile) where only the run knows how many images
        there are; or (image, block down, block across, tile)."""
        down, across = self.block
        if not down:
            tiles = product(tuple(ceildiv(d, OUT) for d in self.sizes))
            known = isinstance(self.batch, int)
            return (product((self.batch, tiles)),) if known else (self.batch, tiles)
        blocks = (ceildiv(d, OUT * k) for d, k in zip(self.sizes, self.block, strict=True))
        return (self.batch, *blocks, down * across)

    @property
    def grown(self) -> tuple[Dim, ...]:
        """Height and width of whole tiles."""
        steps = [OUT * max(k, 1) for k in self.block]
        return tuple(ceildiv(d, k) * k for d, k in zip(self.sizes, steps, strict=True))

    def corner(self, at: Sequence[Expr]) -> tuple[Expr, Expr, Expr]:
        """Image, row and column of the first result of a tile."""
        down, across = self.block
        if down:
            image, below, beside, tile = at
            row, column = below * down + tile // across, beside * across + tile % across
            return image, row * OUT, column * OUT
        down, across = (_static(d) // OUT for d in self.grown)
        *images, tile = at
        image = images[0] if images else tile // (down * across)
        return image, tile // across % down * OUT, tile % across * OUT


def _static(d: object) -> int:
    assert isinstance(d, int), "the size has been checked to be known"
    return d


def _refuse(block: str, why: str) -> CompileError:
    return error(
        "E302",
        f"variant({block}, 'winograd'): {why}",
        "it applies to 3x3 convolutions of stride 1 with constant weights, before other steps",
    )


def _match(func: Func, place: Place) -> _Convolution:
    b, store = place.block, place.block.body
    spatial = [it for it in b.iters if it.kind == "spatial"]
    reduce_ = [it for it in b.iters if it.kind == "reduce"]
    if len(spatial) != 4 or len(reduce_) != 3 or len(b.iters) != 7 or b.combiner != "sum":
        raise _refuse(b.name, "the block is no sum over two axes and channels")
    if not isinstance(store, Store) or b.init is None or not is_fresh(place):
        raise _refuse(b.name, "the block has been scheduled already")
    loads = factors(store.value)
    n, h, w, o = (it.var for it in spatial)
    kh, kw, c = (it.var for it in reduce_)
    if loads is None or store.indices != (n, h, w, o):
        raise _refuse(b.name, "the block is no sum of products")
    x, weight = loads
    index = Indexer()
    expected = (n, h + kh, w + kw, c)
    moves = [index.linear(a) == index.linear(e) for a, e in zip(x.indices, expected, strict=False)]
    if len(x.indices) != 4 or not all(moves) or weight.indices != (kh, kw, c, o):
        raise _refuse(b.name, "its accesses are not those of a convolution of stride 1")
    known = [_extent(it) for it in (spatial[3], *reduce_)]
    if None in known or known[1:3] != [KERNEL, KERNEL]:
        raise _refuse(b.name, "it needs known channels and a kernel of 3x3")
    if {x.dtype, weight.dtype, store.buffer.dtype} != {dtypes.f32}:
        raise _refuse(b.name, "it is stated for f32 only")
    users = [p for p in places(func.body) if weight.buffer in {r.buffer for r in p.block.reads}]
    if weight.buffer.role != "weight" or len(users) != 1 or store.buffer.role != "scratch":
        raise _refuse(b.name, "the weights must be constant and the result private")
    batch, height, width = (dim_of(it.extent, func) for it in spatial[:3])
    return _Convolution(x.buffer, weight.buffer, store.buffer, batch, (height, width))


def _extent(it: Iter) -> int | None:
    return int(it.extent.value) if isinstance(it.extent, Const) else None


def _grown(conv: _Convolution) -> Buffer:
    """The result with whole tiles; what lies beyond its sizes is not read."""
    n, _, _, o = conv.result.shape
    shape = (n, *conv.grown, o)
    return replace(conv.result, shape=shape, strides=row_major(shape))


# -- transforms ------------------------------------------------------------------------------


class _Lets:
    """Names intermediate values, so that each is computed once."""

    def __init__(self, stem: str) -> None:
        self.stem = stem
        self.items: list[tuple[Var, Expr]] = []

    def __call__(self, value: Expr) -> Var:
        var = Var(f"{self.stem}_{len(self.items)}", value.dtype)
        self.items.append((var, value))
        return var

    def around(self, body: Stmt) -> Stmt:
        """`body` with all names in reach."""
        for var, value in reversed(self.items):
            body = Let(var, value, body)
        return body


def _f(x: Fraction) -> Const:
    return const(float(x), dtypes.f32)


def input_transform(d: Sequence[Expr], let: _Lets) -> list[Expr]:
    """``B^T d`` of six values. Rows of ±a are an even part plus or minus an odd one."""
    even, odd = [], []
    for p, q in ((A, B), (B, A)):
        even.append(let(d[4] + d[2] * _f(-q * q)))
        odd.append(let(d[3] * _f(p) + d[1] * _f(-p * q * q)))
    both, square = _f(A * A * B * B), _f(-(A * A + B * B))
    return [
        d[4] + d[2] * square + d[0] * both,
        even[0] + odd[0], even[0] - odd[0], even[1] + odd[1], even[1] - odd[1],
        d[5] + d[3] * square + d[1] * both,
    ]  # fmt: skip


def output_transform(m: Sequence[Expr], let: _Lets) -> list[Expr]:
    """``A^T m`` of six values."""
    s1, d1, s2, d2 = (let(e) for e in (m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]))
    return [
        m[0] + s1 + s2,
        d1 * _f(A) + d2 * _f(B),
        s1 * _f(A**2) + s2 * _f(B**2),
        m[5] + d1 * _f(A**3) + d2 * _f(B**3),
    ]


def weight_transform(g: Sequence[Expr], let: _Lets) -> list[Expr]:
    """``G g`` of three values, in f64: rounded once, when the weights are stored."""

    def at(point: Fraction) -> Expr:
        others = [p for p in (Fraction(0), A, -A, B, -B) if p != point]
        scale = Fraction(1)
        for p in others:
            scale /= point - p
        terms = [g[k] * const(float(scale * point**k), dtypes.f64) for k in range(KERNEL)]
        return terms[0] if point == 0 else terms[0] + terms[1] + terms[2]

    return [*(at(p) for p in (Fraction(0), A, -A, B, -B)), g[2]]


Rule = Callable[[Sequence[Expr], _Lets], list[Expr]]


def _both_axes(rule: Rule, rows: Sequence[Sequence[Expr]], let: _Lets) -> list[Expr]:
    """A transform along both axes, row by row: of each column, then of each row that gives."""
    read = ([let(e) for e in column] for column in zip(*rows, strict=True))
    columns = [[let(e) for e in rule(column, let)] for column in read]
    return [e for row in zip(*columns, strict=True) for e in rule(row, let)]


# -- loop nests ------------------------------------------------------------------------------


def _transform_input(cb: ComputeBuilder, conv: _Convolution, v: Buffer, name: str) -> None:
    """``v[:, t, c]`` from the 6×6 tile t of the data; zero beyond its sizes."""

    def points(i: Sequence[Var]) -> Stmt:
        n, h, w = conv.corner(i[:-1])
        let = _Lets(f"{name}_x")
        at = range(IN)
        rows = [[_read(conv.data, (n, h + y, w + x, i[-1])) for x in at] for y in at]
        values = _both_axes(input_transform, rows, let)
        stores = (Store(v, (const(p), *i), e) for p, e in enumerate(values))
        return let.around(Seq(tuple(stores)))

    cb.each((*conv.tiles, conv.inputs), points, name, "spatial")


def _read(data: Buffer, at: tuple[Expr, ...]) -> Expr:
    inside = [binary("lt", at[k], of_dim(data.shape[k])) for k in (1, 2)]
    return select(logical_and(*inside), Load(data, at), const(0, data.dtype))


def _transform_output(
    cb: ComputeBuilder, conv: _Convolution, m: Buffer, out: Buffer, name: str
) -> None:
    """The 4×4 results of each tile."""

    def results(i: Sequence[Var]) -> Stmt:
        n, h, w = conv.corner(i[:-1])
        let = _Lets(f"{name}_x")
        rows = [[Load(m, (const(y * IN + x), *i)) for x in range(IN)] for y in range(IN)]
        values = _both_axes(output_transform, rows, let)
        stores = (
            Store(out, (n, h + k // OUT, w + k % OUT, i[-1]), e) for k, e in enumerate(values)
        )
        return let.around(Seq(tuple(stores)))

    cb.each((*conv.tiles, conv.outputs), results, name, "spatial")


def _packer(name: str, weight: Buffer, u: Buffer) -> Func:
    """``u[:, c, o] = G w[:, :, c, o] G^T``."""
    cb = ComputeBuilder()
    out = replace(u, role="output")

    def points(i: Sequence[Var]) -> Stmt:
        let, at = _Lets("g"), range(KERNEL)
        rows = [[cast(Load(weight, (const(y), const(x), *i)), dtypes.f64) for x in at] for y in at]
        values = _both_axes(weight_transform, rows, let)
        stores = (Store(out, (const(p), *i), cast(e, dtypes.f32)) for p, e in enumerate(values))
        return let.around(Seq(tuple(stores)))

    cb.each(u.shape[1:], points, "transform", "spatial")
    return cb.func(f"{name}_{u.name}", (weight, out))

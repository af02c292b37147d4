"""What a tiled product makes of a contraction: which of its iterators are rows, columns, depth.

``out[g, m, n] += data[g, m, k] * weights[g, k, n]``, where m, n and k are groups of iterators that
are counted as one: those that occur in one factor only, in the other only, and those that are
summed up. What occurs in both factors, or in none, chooses products. A factor may be any
expression: a load, one with borders, a map that has been inlined. What reads the sums at their own
places is computed with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import (
    ONE,
    ZERO,
    Binary,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Var,
    binary,
    const,
    variables,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import find_place, linear_address, places

# Rows and columns from which on a product is worth tiles.
FEW = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """Iterators that are counted as one number, the last of them fastest. All but the first have
    constant extents."""

    iters: tuple[Iter, ...]

    @property
    def extent(self) -> Expr:
        """How many places there are."""
        total: Expr = ONE
        for it in self.iters:
            total = total * it.extent
        return total

    @property
    def size(self) -> int | None:
        """The extent, where it is constant."""
        sizes = [it.extent.value for it in self.iters if isinstance(it.extent, Const)]
        return prod(map(int, sizes)) if len(sizes) == len(self.iters) else None

    @property
    def step(self) -> int:
        """A number that divides the last iterator, if its extent is known, and so the extent."""
        last = self.iters[-1].extent if self.iters else ONE
        return int(last.value) if isinstance(last, Const) else 1

    def at(self, number: Expr, lane: Expr = ZERO, lanes: int = 1) -> dict[Var, Expr]:
        """The iterators at place ``number * lanes + lane``, where `lanes` divides the last one."""
        values: dict[Var, Expr] = {}
        rest = number
        for k, it in reversed(list(enumerate(self.iters))):
            size = it.extent
            if it is self.iters[-1] and lanes > 1:
                size = const(self.step // lanes) if isinstance(size, Const) else size
            here = rest if k == 0 else binary("mod", rest, size)
            rest = rest if k == 0 else binary("floordiv", rest, size)
            values[it.var] = here * lanes + lane if it is self.iters[-1] else here
        return values


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor of a product, in the type in which it lies in memory; `along` is the iterator whose
    next value is the next element in memory, if there is one that no border depends on."""

    value: Expr
    along: Iter | None


@dataclass(frozen=True, slots=True)
class PanelForm:
    """A contraction and the map that reads it, if any. `outer` choose products."""

    block: Block
    consumer: Block | None
    out: Buffer
    outer: tuple[Iter, ...]
    rows: Axis
    columns: Axis
    depth: Axis
    data: Factor
    weights: Factor

    def lanes(self, factor: Factor, most: int) -> int:
        """How many elements of a factor may be fetched together."""
        for axis in (self.rows, self.columns, self.depth):
            if axis.iters and factor.along is axis.iters[-1]:
                return gcd(axis.step, most)
        return 1


def panel_form(func: Func, name: str) -> PanelForm:
    """The form of the contraction `name`; E302 says what it has otherwise."""
    block = find_place(func, name).block
    first, second = _product(block)
    spatial = _in_order(block)
    if not spatial:
        raise _refused(block, "it gives one element")
    used = [{v.name for v in _all_variables(e)} for e in (first, second)]
    last = [it for it in spatial if it.extent != ONE][-1:] or spatial[-1:]
    if last[0].var.name not in used[1]:
        first, second, used = second, first, used[::-1]
    rows = [it for it in spatial if it.var.name in used[0] - used[1]]
    columns = [it for it in spatial if it.var.name in used[1] - used[0]]
    if not rows or not columns:
        raise _refused(block, "it has no rows and columns")
    m, n = (Axis(_counted(group)) for group in (rows, columns))
    reduced = tuple(it for it in block.iters if it.kind == "reduce")
    if len(_counted(reduced)) != len(reduced):
        raise _refused(block, "it sums up over several axes of unknown size")
    depth = Axis(tuple(it for it in reduced if it.extent != ONE) or reduced[-1:])
    outer = tuple(it for it in spatial if it not in (*m.iters, *n.iters))
    out = block.writes[0].buffer
    axes = (m, n, depth)
    return PanelForm(
        block, _consumer(func, block, out), out, outer, m, n, depth,
        _factor(first, axes), _factor(second, axes),
    )  # fmt: skip


def _refused(block: Block, what: str) -> CompileError:
    return error("E302", f"{block.name} is no product for panels", what)


def _product(block: Block) -> tuple[Expr, Expr]:
    """The two factors of a sum of products."""
    store = block.body
    if not isinstance(store, Store) or block.combiner != "sum" or block.init is None:
        raise _refused(block, "it is no sum")
    own = Load(store.buffer, store.indices)
    value = store.value
    spatial = {it.var for it in block.iters if it.kind == "spatial"}
    plain = len(store.indices) == len(spatial) and set(store.indices) == spatial
    if not plain or any(it.kind == "ordered" for it in block.iters):
        raise _refused(block, "its results are not at its iterators")
    if not isinstance(value, Binary) or value.op != "add" or own not in (value.a, value.b):
        raise _refused(block, "it adds up no products")
    product = value.b if value.a == own else value.a
    if not isinstance(product, Binary) or product.op != "mul":
        raise _refused(block, "it adds up no products")
    if own in (n for n in walk(product) if isinstance(n, Load)):
        raise _refused(block, "its factors depend on its sums")
    return product.a, product.b


def _in_order(block: Block) -> list[Iter]:
    """The iterators of the results, in the order of their axes."""
    assert isinstance(block.body, Store), "it has been checked"
    known = {it.var: it for it in block.iters}
    return [known[v] for v in block.body.indices if isinstance(v, Var)]


def _all_variables(e: Expr) -> set[Var]:
    return {n for n in walk(e) if isinstance(n, Var)}


def _counted(group: Sequence[Iter]) -> tuple[Iter, ...]:
    """The last iterators of a group that can be counted as one."""
    found: list[Iter] = []
    for it in reversed([it for it in group if it.extent != ONE] or list(group[-1:])):
        found.insert(0, it)
        if not isinstance(it.extent, Const):
            break
    return tuple(found)


def _factor(e: Expr, axes: tuple[Axis, ...]) -> Factor:
    value = e.a if isinstance(e, Cast) else e
    return Factor(value, next((a.iters[-1] for a in axes if _runs_along(value, a.iters[-1])), None))


def _runs_along(e: Expr, it: Iter) -> bool:
    """Whether the next value of an iterator is read from the next place, whatever the others are,
    and no condition depends on it."""
    if isinstance(e, Cast):
        return _runs_along(e.a, it)
    if isinstance(e, Select):
        free = it.var not in variables(e.cond)
        return free and isinstance(e.other, Const) and _runs_along(e.then, it)
    return isinstance(e, Load) and linear_address(e.buffer, e.indices).coeff(it.var) == 1


def _consumer(func: Func, block: Block, sums: Buffer) -> Block | None:
    """The one map that reads the sums, at the same places; none where others read them, too."""
    if sums.role != "scratch":
        return None
    readers = [
        p.block for p in places(func.body)
        if p.block is not block and sums in {r.buffer for r in p.block.reads}
    ]  # fmt: skip
    spatial = _in_order(block)
    if len(readers) != 1:
        return None
    (found,) = readers
    same = [it.extent for it in found.iters] == [it.extent for it in spatial]
    at = tuple(it.var for it in found.iters)
    loads = [n for n in walk(found.body) if isinstance(n, Load) and n.buffer == sums]
    plain = isinstance(found.body, Store) and not found.combiner
    if not plain or not same or any(it.kind != "spatial" for it in found.iters):
        return None
    return found if all(n.indices == at for n in loads) else None

"""Building naive loop nests: one block per ``map`` or ``reduce``, regions derived.

Compute definitions of operators use :class:`ComputeBuilder`; schedules come later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.ir.arith.poly import Dim
from aisc.ir.dtypes import DType
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import ONE, ZERO, Expr, Load, Var, of_dim, variables
from aisc.ir.tensor.func import Attribute, Buffer, Func, buffer
from aisc.ir.tensor.stmt import (
    Alloc,
    Block,
    For,
    Iter,
    IterKind,
    Let,
    Region,
    Seq,
    Stmt,
    Store,
    seq,
)
from aisc.ir.tensor.visitor import walk_accesses


def accesses(stmt: Stmt) -> tuple[tuple[Region, ...], tuple[Region, ...]]:
    """Regions that the loads and stores of `stmt` touch: (reads, writes), no repeats. Points, but
    whole axes where a loop or a name inside of `stmt` chooses the place."""
    nodes = list(walk_accesses(stmt))
    inner = frozenset(n.var for n in nodes if isinstance(n, For | Let))
    reads: dict[Region, None] = {}
    writes: dict[Region, None] = {}
    for node in nodes:
        if isinstance(node, Load):
            reads[_region(node, inner)] = None
        elif isinstance(node, Store):
            writes[_region(node, inner)] = None
    return tuple(reads), tuple(writes)


def _region(access: Load | Store, inner: frozenset[Var]) -> Region:
    """Where an access may be for any values of the variables `inner`."""
    low: list[Expr] = list(access.indices)
    extents: list[Expr] = [ONE] * len(low)
    for k, index in enumerate(access.indices):
        if not inner.isdisjoint(variables(index)):
            low[k], extents[k] = ZERO, of_dim(access.buffer.shape[k])
    return Region(access.buffer, tuple(low), tuple(extents))


def row_numbers(shape: Sequence[Dim], axis: int, at: Sequence[Expr]) -> tuple[Expr, Expr]:
    """Of the row along `axis` at `at`, which has an index for each other axis: how many are before
    it along the axes before the axis, and along those behind it."""
    before: Expr = ZERO
    behind: Expr = ZERO
    for d, i in zip(shape[:axis], at[:axis], strict=True):
        before = before * of_dim(d) + i
    for d, i in zip(shape[axis + 1 :], at[axis:], strict=True):
        behind = behind * of_dim(d) + i
    return before, behind


class ComputeBuilder:
    """Collects allocations and blocks; names are unique within the function being built."""

    def __init__(self) -> None:
        self.loc: Loc = UNKNOWN
        self.stmts: list[Stmt] = []
        self._names: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """`hint` if unused, else `hint` with the next free number."""
        count = self._names.get(hint, 0)
        self._names[hint] = count + 1
        if count == 0:
            return hint
        name = f"{hint}_{count}"
        return self.fresh(hint) if name in self._names else self._claim(name)

    def _claim(self, name: str) -> str:
        self._names[name] = 1
        return name

    def alloc(self, hint: str, dtype: DType, shape: Sequence[Dim]) -> Buffer:
        """A dense scratch buffer."""
        buf = buffer(self.fresh(hint), dtype, tuple(shape))
        self.stmts.append(Alloc(buf))
        return buf

    def map(self, out: Buffer, fn: Callable[..., Expr], name: str = "map") -> None:
        """``out[i...] = fn(i...)`` for every element; all iterators are spatial."""
        block = self.fresh(name)
        iters = self._iters(out.shape, "spatial", block)
        body = Store(out, tuple(it.var for it in iters), fn(*(it.var for it in iters)))
        self._emit(block, iters, None, body, "")

    def reduce(
        self,
        out: Buffer | Sequence[Buffer],
        extents: Sequence[Dim],
        combiner: str,
        fn: Callable[[Sequence[Var], Sequence[Var]], Expr | tuple[Expr, ...]],
        name: str = "reduce",
    ) -> None:
        """``out[i...] = combine over r... of fn(i, r)``; several outputs for combiners with
        several results. Reduce iterators follow the spatial ones, outermost first.

        An empty reduction (an extent of 0) is a map of the combiner's identity."""
        outs = (out,) if isinstance(out, Buffer) else tuple(out)
        rule = COMBINERS[combiner]
        assert rule.results == len(outs), f"{combiner} has {rule.results} results"
        identity = rule.identity([b.dtype for b in outs])
        if any(d == 0 for d in extents):  # no reduce point, so `init` would never run
            for b, v in zip(outs, identity, strict=True):
                self.map(b, lambda *_, v=v: v, name)
            return
        block = self.fresh(name)
        spatial = self._iters(outs[0].shape, "spatial", block)
        reduce_ = self._iters(tuple(extents), "reduce", f"{block}_r")
        at = tuple(it.var for it in spatial)
        new = fn(at, tuple(it.var for it in reduce_))
        values = (new,) if isinstance(new, Expr) else new
        state = tuple(Load(b, at) for b in outs)
        combined = rule.combine(state, values)
        init = seq(*(Store(b, at, v) for b, v in zip(outs, identity, strict=True)))
        body = self._stores(outs, at, combined)
        self._emit(block, spatial + reduce_, init, body, combiner)

    def each(
        self,
        extents: Sequence[Dim],
        fn: Callable[[Sequence[Var]], Stmt],
        name: str = "each",
        kind: IterKind | Sequence[IterKind] = "ordered",
    ) -> None:
        """``fn(i...)`` for every point: statements that may store anywhere. In order along
        *ordered* axes, in any order along *spatial* ones; `kind` is for all axes, or for each."""
        block, dims = self.fresh(name), tuple(extents)
        kinds = (kind,) * len(dims) if isinstance(kind, str) else kind
        iters = tuple(
            replace(it, kind=k)
            for it, k in zip(self._iters(dims, "spatial", block), kinds, strict=True)
        )
        self._emit(block, iters, None, fn(tuple(it.var for it in iters)), "")

    def _stores(
        self, outs: tuple[Buffer, ...], at: tuple[Var, ...], values: tuple[Expr, ...]
    ) -> Stmt:
        """Store all results from the old state: several results go through ``Let`` first."""
        if len(outs) == 1:
            return Store(outs[0], at, values[0])
        from aisc.ir.tensor.stmt import Let

        names = [Var(self.fresh(f"new_{b.name}"), b.dtype) for b in outs]
        stmt: Stmt = Seq(tuple(Store(b, at, v) for b, v in zip(outs, names, strict=True)))
        for var, value in zip(reversed(names), reversed(values), strict=True):
            stmt = Let(var, value, stmt)
        return stmt

    def _iters(self, shape: Sequence[Dim], kind: IterKind, stem: str) -> tuple[Iter, ...]:
        return tuple(Iter(Var(f"{stem}_v{n}"), of_dim(d), kind) for n, d in enumerate(shape))

    def _emit(
        self, name: str, iters: tuple[Iter, ...], init: Stmt | None, body: Stmt, combiner: str
    ) -> None:
        reads, writes = accesses(body)
        reads = tuple(r for r in reads if r not in writes)  # a reduction reads what it writes
        loops = tuple(Var(it.var.name.replace("_v", "_i")) for it in iters)
        stmt: Stmt = Block(name, iters, loops, reads, writes, init, body, combiner, self.loc)
        for var, it in zip(reversed(loops), reversed(iters), strict=True):
            stmt = For(var, ZERO, it.extent, "serial", stmt)
        self.stmts.append(stmt)

    def func(
        self,
        name: str,
        params: Sequence[Buffer],
        dims: Sequence[Var] = (),
        attrs: tuple[tuple[str, Attribute], ...] = (),
        target: str = "cpu",
    ) -> Func:
        """The function built so far."""
        return Func(name, tuple(params), tuple(dims), seq(*self.stmts), attrs, target, self.loc)

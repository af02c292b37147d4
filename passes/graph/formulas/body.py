"""The body of a formula, as recognition reads it: ranges, places of elements, guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value
from aisc.ir.graph.opdef import OpCall
from aisc.ir.graph.ops.index import block_of, extent_of, formula, sizes_of
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.tensor.expr import (
    Binary,
    Const,
    Expr,
    Load,
    Select,
    Var,
    of_dim,
    variables,
)
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import Indexer


@dataclass(frozen=True, slots=True)
class Place:
    """A place along an axis: ``const + sum(factor * index)``."""

    factors: Mapping[Var, int]
    const: int

    @property
    def index(self) -> Var | None:
        """The index that the place is, if it is one and nothing else."""
        plain = self.const == 0 and list(self.factors.values()) == [1]
        return next(iter(self.factors)) if plain else None


@dataclass(frozen=True, slots=True)
class Access:
    """An element of an operand; `outside`: what stands for it where its place is outside, if that
    is tested."""

    value: Value
    places: tuple[Place, ...]
    outside: Const | None = None

    def is_whole(self, extents: Mapping[Var, Dim]) -> bool:
        """Whether every axis is read along an index of its own, from end to end."""
        found = [p.index for p in self.places]
        if self.outside is not None or None in found or len(set(found)) < len(found):
            return False
        pairs = zip(found, self.value.type.shape, strict=True)
        return all(i is not None and decide("==", extents[i], d) is True for i, d in pairs)


@dataclass(frozen=True, slots=True)
class Body:
    """What each point of a formula gives or adds. `outer`: the indices of the result, `inner`:
    those that are reduced, `extents`: of both."""

    value: Expr
    combiner: str
    outer: tuple[Var, ...]
    inner: tuple[Var, ...]
    extents: Mapping[Var, Dim]
    operands: Mapping[Buffer, Value]

    def access(self, x: Expr) -> Access | None:
        """The element that an expression is, guarded or not; nothing for others."""
        outside, guards = None, list[Expr]()
        if isinstance(x, Select) and isinstance(x.then, Load) and isinstance(x.other, Const):
            outside, guards, x = x.other, _conjunction(x.cond), x.then
        if not isinstance(x, Load) or x.buffer not in self.operands:
            return None
        tested = {_comparison(g) for i, d in zip(x.indices, x.buffer.shape, strict=True)
                  for g in (i >= 0, i < of_dim(d))}  # fmt: skip
        if any(_comparison(g) not in tested for g in guards):
            return None
        places = [self._place(i) for i in x.indices]
        known = [p for p in places if p is not None]
        if len(known) < len(places):
            return None
        return Access(self.operands[x.buffer], tuple(known), outside)

    def _place(self, index: Expr) -> Place | None:
        form = Indexer().linear(index)
        factors: dict[Var, int] = {}
        for mono, factor in form.terms:
            if len(mono) != 1 or not isinstance(mono[0], Var) or mono[0] not in self.extents:
                return None
            factors[mono[0]] = factor
        return Place(factors, form.const)

    def indices_of(self, x: Expr) -> tuple[Var, ...]:
        """The indices that an expression depends on, in order."""
        found = variables(x)
        return tuple(v for v in (*self.outer, *self.inner) if v in found)


def _conjunction(x: Expr) -> list[Expr]:
    if isinstance(x, Binary) and x.op == "and":
        return [*_conjunction(x.a), *_conjunction(x.b)]
    return [x]


def _comparison(x: Expr) -> object:
    """A comparison of places, however it is written."""
    if not isinstance(x, Binary) or x.a.dtype is not dtypes.i64:
        return x
    return x.op, Indexer().linear(x.a - x.b)


def body_of(call: OpCall, inputs: Sequence[Value]) -> Body | None:
    """The body of a node of the operator ``index``; nothing where the run must test that operands
    fit each other."""
    func = formula(str(call.attrs["body"]))
    sizes, unsure = sizes_of(call, func)
    if unsure:
        return None
    block, value = block_of(func)
    extents = {it.var: extent_of(it, sizes) for it in block.iters}
    operands = (b for b in func.params if b.role == "input")
    return Body(
        value,
        block.combiner,
        tuple(it.var for it in block.iters if it.kind == "spatial"),
        tuple(it.var for it in block.iters if it.kind == "reduce"),
        extents,
        dict(zip(operands, inputs, strict=True)),
    )

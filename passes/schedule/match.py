"""Does a loop nest compute what an instruction means?

The nest and the instruction's semantics are compared as trees: iterators in order with kind and
extent, the same operations, and accesses that are equal up to the buffer, its strides and an
offset. The result is the instruction applied to the regions that stand for its operands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aisc.ir.diagnostics import CompileError, error
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import (
    ONE,
    TRUE,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Unary,
    Var,
    of_dim,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import For, Invoke, Region, Stmt, Store
from aisc.ir.tensor.tree import Place, indexer, places
from aisc.ir.tensor.visitor import substitute


def match(func: Func, loop: For, intrinsic: Intrinsic) -> Invoke:
    """The instruction that does what the nest at `loop` does; E302 with what differs."""
    place = _only_block(func, loop, intrinsic)
    (wanted,) = places(intrinsic.semantics.body)
    matcher = _Matcher(loop.var.name, intrinsic, _ranges(func, place, wanted))
    values = matcher.iterators(place, loop, wanted)
    a, b = place.block, wanted.block
    matcher.need(a.combiner == b.combiner, f"combiner '{a.combiner}'", f"'{b.combiner}'")
    parts: list[tuple[Stmt | None, Stmt | None]] = [(a.init, b.init), (a.body, b.body)]
    for ours, theirs in parts:
        if ours is None or theirs is None:
            has, expected = ours is not None, theirs is not None
            matcher.need(has == expected, f"initialisation: {has}", str(expected))
        else:
            matcher.node(substitute(ours, values), theirs)
    return matcher.result()


def _only_block(func: Func, loop: For, intrinsic: Intrinsic) -> Place:
    found = [p for p in places(func.body) if loop in p.loops]
    if len(found) != 1 or found[0].predicate != TRUE:
        raise error(
            "E302",
            f"tensorize({loop.var.name}, {intrinsic.name}): the loop must hold one block without "
            "a condition",
            f"it holds {', '.join(p.block.name for p in found) or 'none'}",
        )
    return found[0]


def _ranges(func: Func, place: Place, wanted: Place) -> Indexer:
    index = indexer(place.loops, func.dims)
    for it in wanted.block.iters:
        index = index.bind(it.var, 0, index.bounds(it.extent)[1] - 1)
    return index


@dataclass(slots=True)
class _Matcher:
    """Collects the regions that stand for the operands."""

    loop: str
    intrinsic: Intrinsic
    index: Indexer
    regions: dict[str, Region] = field(default_factory=dict)
    iters: tuple[Var, ...] = ()

    def fault(self, got: str, expected: str) -> CompileError:
        return error(
            "E302",
            f"tensorize({self.loop}, {self.intrinsic.name}): the nest computes something else",
            f"expected {expected}",
            f"got {got}",
        )

    def need(self, holds: bool, got: str, expected: str) -> None:
        if not holds:
            raise self.fault(got, expected)

    def iterators(self, place: Place, loop: For, wanted: Place) -> dict[Var, Expr]:
        """Values of the block's iterators in terms of the instruction's; each loop below drives
        one iterator, in the instruction's order."""
        inner = place.loops[[f is loop for f in place.loops].index(True) :]
        for f in inner:
            shared = f.kind == "parallel" or "." in f.kind
            self.need(not shared, f"loop {f.var.name} of kind {f.kind}", "loops of one thread")
        self.iters = tuple(it.var for it in wanted.block.iters)
        theirs = list(wanted.block.iters)
        values: dict[Var, Expr] = {}
        used: list[Var] = []
        for it, binding in zip(place.block.iters, place.block.bindings, strict=True):
            driving = [f for f in inner if mentions(binding, f.var)]
            if not driving:
                values[it.var] = binding
                continue
            at = f"iterator {it.var.name}"
            self.need(bool(theirs), f"one more, {at}", f"{len(self.iters)} iterators")
            other = theirs.pop(0)
            self.need(it.kind == other.kind, f"{at}: {it.kind}", other.kind)
            form = self.index.linear(binding)
            plain = len(driving) == 1 and form.coeff(driving[0].var) == 1
            self.need(plain, f"{at} bound to several loops or a multiple", "one loop plus a base")
            size = driving[0].extent
            self.need(size == other.extent, f"{at}: {_text(size)}", _text(other.extent))
            used.append(driving[0].var)
            values[it.var] = substitute(binding, {driving[0].var: driving[0].low + other.var})
        self.need(not theirs, f"{len(used)} iterators", f"{len(self.iters)}")
        once = sorted(v.name for v in used) == sorted(f.var.name for f in inner)
        self.need(once, "a loop that drives no iterator or two", "one iterator for each loop")
        return values

    def node(self, ours: Node, theirs: Node) -> None:
        """Compare two trees."""
        if isinstance(ours, Load | Store) and isinstance(theirs, Load | Store):
            self.need(type(ours) is type(theirs), type(ours).__name__, type(theirs).__name__)
            self.access(ours.buffer, ours.indices, theirs.buffer, theirs.indices)
            if isinstance(ours, Store) and isinstance(theirs, Store):
                self.node(ours.value, theirs.value)
            return
        self.need(_head(ours) == _head(theirs), _head(ours), _head(theirs))
        mine, other = tuple(children(ours)), tuple(children(theirs))
        self.need(len(mine) == len(other), f"{len(mine)} operands", str(len(other)))
        for a, b in zip(mine, other, strict=True):
            self.node(a, b)

    def access(
        self, buffer: Buffer, at: tuple[Expr, ...], param: Buffer, wanted: tuple[Expr, ...]
    ) -> None:
        """Compare an access; dimensions that do not move within the nest are fixed."""
        name = f"{buffer.name} for operand {param.name}"
        self.need(buffer.dtype is param.dtype, f"{name}: {buffer.dtype}", str(param.dtype))
        self.need(buffer.space == param.space, f"{name} in {buffer.space}", param.space)
        small = not param.most or 0 < buffer.most <= param.most
        self.need(small, f"{name} of any values", f"none beyond {param.most}")
        lows: list[Expr] = []
        extents: list[Expr] = []
        left = list(zip(wanted, param.shape, strict=True))
        for index in at:
            moving, fixed = self._split(self.index.linear(index))
            if not moving.terms:
                lows.append(self.index.build(fixed))
                extents.append(ONE)
                continue
            self.need(bool(left), f"{name}: more moving dimensions", f"{param.rank}")
            expected, size = left.pop(0)
            theirs, base = self._split(self.index.linear(expected))
            self.need(moving == theirs, f"{name}: {self._show(moving)}", self._show(theirs))
            lows.append(self.index.build(Linear(fixed.terms, fixed.const - base.const)))
            extents.append(of_dim(size))
        self.need(not left, f"{name}: {param.rank - len(left)} moving dimensions", str(param.rank))
        region = Region(buffer, tuple(lows), tuple(extents))
        known = self.regions.setdefault(param.name, region)
        self.need(known == region, f"{name}: two different regions", "one region")

    def _split(self, form: Linear) -> tuple[Linear, Linear]:
        moving = tuple(
            t for t in form.terms if any(mentions(a, v) for a in t[0] for v in self.iters)
        )
        fixed = tuple(t for t in form.terms if t not in moving)
        return Linear(moving, 0), Linear(fixed, form.const)

    def _show(self, form: Linear) -> str:
        return " + ".join(
            f"{c}*{'*'.join(_text(a) for a in mono)}" for mono, c in form.terms
        ) or "a constant"  # fmt: skip

    def result(self) -> Invoke:
        """The instruction, once every operand is known."""
        func = self.intrinsic.semantics
        missing = [p.name for p in func.params if p.name not in self.regions]
        self.need(not missing, f"no access for {', '.join(missing)}", "all operands")
        if func.dims:
            raise self.fault("loops of constant extents", "run-time sizes")
        return Invoke(self.intrinsic.name, tuple(self.regions[p.name] for p in func.params))


def _text(e: Expr) -> str:
    if isinstance(e, Const):
        return str(e.value)
    return e.name if isinstance(e, Var) else type(e).__name__.lower()


def _head(n: Node) -> str:
    """What a node is, without its operands."""
    if isinstance(n, Const):
        return f"{n.value}:{n.dtype}"
    if isinstance(n, Binary | Unary):
        return n.op
    if isinstance(n, Cast | Call):
        return f"{getattr(n, 'name', 'cast')}:{n.dtype}"
    return n.name if isinstance(n, Var) else type(n).__name__

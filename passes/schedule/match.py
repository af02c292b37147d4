"""Does a loop nest compute what an instruction means?

The nest and the instruction's semantics are compared as trees: iterators in order with kind and
extent, the same operations, and accesses that are equal up to the buffer, its strides and an
offset. The result is the instruction applied to the regions that stand for its operands.
"""

from __future__ import annotations

from dataclasses import field

from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
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
    const,
    of_dim,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import For, Invoke, Region, Stmt, Store, region
from aisc.ir.tensor.tree import Place, indexer, outer_loops, places
from aisc.ir.tensor.visitor import substitute


def match(func: Func, loop: For, intrinsic: Intrinsic) -> Invoke:
    """The instruction that does what the nest at `loop` does; E302 with what differs."""
    around = (*outer_loops(func, loop), loop)
    return match_nest(loop, intrinsic, indexer(around, func.dims))


def match_nest(loop: For, intrinsic: Intrinsic, index: Indexer) -> Invoke:
    """The same for a nest that stands where `index` knows the ranges of variables."""
    place = _only_block(loop, intrinsic)
    (wanted,) = places(intrinsic.semantics.body)
    matcher = _Matcher(loop.var.name, intrinsic, _ranges(index, place, wanted))
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


def _only_block(loop: For, intrinsic: Intrinsic) -> Place:
    found = places(loop)
    if len(found) != 1 or found[0].predicate != TRUE:
        raise error(
            "E302",
            f"tensorize({loop.var.name}, {intrinsic.name}): the loop must hold one block without "
            "a condition",
            f"it holds {', '.join(p.block.name for p in found) or 'none'}",
        )
    return found[0]


def _ranges(index: Indexer, place: Place, wanted: Place) -> Indexer:
    for f in place.loops:
        low, high = index.bounds(f.low), index.bounds(f.low + f.extent)
        index = index.bind(f.var, low[0], high[1] - 1)
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
    dims: dict[Var, Expr] = field(default_factory=dict)

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
        inner = place.loops
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
            if other.extent in self.intrinsic.semantics.dims:
                self.bind(other.extent, size)
            else:
                self.need(size == other.extent, f"{at}: {_text(size)}", _text(other.extent))
            used.append(driving[0].var)
            values[it.var] = substitute(binding, {driving[0].var: driving[0].low + other.var})
        self.need(not theirs, f"{len(used)} iterators", f"{len(self.iters)}")
        once = sorted(v.name for v in used) == sorted(f.var.name for f in inner)
        self.need(once, "a loop that drives no iterator or two", "one iterator for each loop")
        return values

    def bind(self, dim: Expr, value: Expr) -> None:
        """Let a dimension of the instruction be a value, which it may not exceed."""
        assert isinstance(dim, Var)
        most = self.intrinsic.most.get(dim.name)
        known = self.dims.setdefault(dim, value)
        self.need(known == value, f"two values of {dim.name}", "one value")
        if most is not None:
            high = self.index.bounds(value)[1]
            self.need(high <= most, f"{dim.name} of up to {high}", f"at most {most}")

    def _is_bound(self, ours: Node, theirs: Node) -> bool:
        """Whether a dimension of the instruction, as it is or as a float, stands for a value."""
        dims = self.intrinsic.semantics.dims
        if theirs in dims and isinstance(theirs, Var) and isinstance(ours, Expr):
            self.need(ours.dtype is theirs.dtype, f"{ours.dtype}", f"{theirs.dtype}")
            self.bind(theirs, ours)
            return True
        if isinstance(theirs, Cast) and theirs.a in dims and isinstance(ours, Const):
            whole = ours.dtype is theirs.dtype and float(ours.value).is_integer()
            if whole:
                self.bind(theirs.a, const(int(ours.value)))
            return whole
        return False

    def node(self, ours: Node, theirs: Node) -> None:
        """Compare two trees."""
        if self._is_bound(ours, theirs):
            return
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
        steps: list[int] = []
        left = self._moving(at, list(zip(wanted, param.shape, strict=True)))
        for index in at:
            moving, fixed = self._split(self.index.linear(index))
            if not moving.terms:
                lows.append(self.index.build(fixed))
                extents.append(ONE)
                steps.append(0)
                continue
            self.need(bool(left), f"{name}: more moving dimensions", f"{param.rank}")
            expected, size = left.pop(0)
            theirs, base = self._split(self.index.linear(expected))
            step = _step(moving, theirs)
            same = step == 1 or (step > 1 and param.name in self.intrinsic.strided)
            self.need(same, f"{name}: {self._show(moving)}", self._show(theirs))
            steps.append(step)
            lows.append(self.index.build(Linear(fixed.terms, fixed.const - base.const)))
            extents.append(of_dim(size))
        self.need(not left, f"{name}: {param.rank - len(left)} moving dimensions", str(param.rank))
        found = region(buffer, tuple(lows), tuple(extents), tuple(steps))
        known = self.regions.setdefault(param.name, found)
        self.need(known == found, f"{name}: two different regions", "one region")

    def _moving(
        self, at: tuple[Expr, ...], wanted: list[tuple[Expr, Dim]]
    ) -> list[tuple[Expr, Dim]]:
        """The dimensions of an operand that an access must have: it may lack outer ones of size
        1."""
        count = sum(bool(self._split(self.index.linear(e))[0].terms) for e in at)
        while len(wanted) > count and substitute(of_dim(wanted[0][1]), self.dims) == ONE:
            wanted = wanted[1:]
        return wanted

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
        unknown = [v.name for v in func.dims if v not in self.dims]
        self.need(not unknown, f"no value for {', '.join(unknown)}", "all dimensions")
        regions = (self.regions[p.name] for p in func.params)
        operands = tuple(
            region(r.buffer, r.low, tuple(substitute(e, self.dims) for e in r.extent), r.steps)
            for r in regions
        )
        return Invoke(self.intrinsic.name, operands, tuple(self.dims[v] for v in func.dims))


def _step(ours: Linear, theirs: Linear) -> int:
    """What an index moves by where the instruction's moves by 1; 0 where it is another index."""
    if ours == theirs:
        return 1
    if len(ours.terms) != 1 or len(theirs.terms) != 1:
        return 0
    (mono, c), (wanted, unit) = ours.terms[0], theirs.terms[0]
    return c if mono == wanted and unit == 1 and c > 0 else 0


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

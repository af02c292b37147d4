"""What a loop goes over, and how the ends of a block are told apart in it."""

import ast
from collections.abc import Callable, Sequence
from typing import Any

from aisc.frontend.arrays.state import BREAK, CONTINUE, ON, RAISE, RETURN
from aisc.frontend.arrays.subscripts import one_place
from aisc.frontend.arrays.values import (
    Partial,
    Tensor,
    Unset,
    is_size,
    misfit,
    refused,
    shown,
)
from aisc.frontend.pyast.statements import Executor
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, maximum
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value

NEXT = frozenset({ON, CONTINUE})


@dataclass(slots=True)
class Turns:
    """What a loop goes over. trip: how many turns, if it is a size; limit: if it is a number of the
    run; item: what the target is bound to in a turn; items: where they are known."""

    trip: Dim | None = None
    limit: Value | None = None
    item: Callable[[Executor, Dim], Any] | None = None
    items: Sequence[Any] | None = None
    whole: bool = False  # numbers of a range


class Turning(Executor):
    """Finds what loops go over."""

    def _after_break(self) -> None:
        """A loop that was left by ``break`` has ended well."""
        if BREAK not in self.state.may:
            return
        rest = self.state.may - {BREAK}
        if not rest:
            self.state.end(ON)
            return
        code = self.state.code
        is_break = self.em.op("equal", self.value(code), self.em.constant(BREAK))
        made = self.em.op("where", is_break, self.em.constant(ON), self.value(code))
        self.state.code, self.state.may = self.new(made, weak=True), rest | {ON}

    def _is_one_of(self, code: Tensor, codes: frozenset[int]) -> Value:
        found: Value | None = None
        for k in sorted(codes):
            one = self.em.op("equal", self.value(code), self.em.constant(k))
            found = one if found is None else self.em.op("or", found, one)
        return self.em.constant(False) if found is None else found

    def _settle(self, codes: frozenset[int]) -> None:
        """Variables where the block ended in one of some ways."""
        for name, item in self.state.names.items():
            if isinstance(item, Partial):
                whole = codes & self.state.may - {RETURN, RAISE} <= item.codes
                self.state.names[name] = item.item if whole else Unset(item.why)

    # --- what is looped over ------------------------------------------------------------------
    def _turns(self, node: ast.expr) -> Turns:
        """What an expression is looped over: ranges, and arrays under enumerate, zip and reversed,
        are not built."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            fn, args = self.expr(node.func), node.args
            if fn is range and 1 <= len(args) <= 3:
                return self._range([self.expr(a) for a in args])
            if fn is enumerate and len(args) == 1:
                return numbered(self._turns(args[0]))
            if fn is zip and args and not any(isinstance(a, ast.Starred) for a in args):
                return self._together([self._turns(a) for a in args])
            if fn is reversed and len(args) == 1:
                found = self._reversed(args[0])
                return found if isinstance(found, Turns) else self._over(found)
        return self._over(self.expr(node))

    def _reversed(self, node: ast.expr) -> Any:
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and self.expr(node.func) is range
        ):
            args = [self.expr(a) for a in node.args]
            if not all(isinstance(a, int) for a in args):
                low, high = (0, args[0]) if len(args) == 1 else (args[0], args[1])
                if len(args) == 3:
                    raise refused(
                        "reversed of a range with a step", "count downwards", loc=self.at(node)
                    )
                return self._range(
                    [self.combine(ast.Sub(), high, 1), self.combine(ast.Sub(), low, 1), -1]
                )
        found = self.expr(node)
        return found if isinstance(found, Tensor) else self.sequence(found, node)[::-1]

    def _over(self, x: Any) -> Turns:
        if isinstance(x, range):
            return Turns(items=x, whole=True)
        if not isinstance(x, Tensor):
            return Turns(items=self.sequence(x, None))
        v = self.read(x)
        if not v.type.rank:
            raise misfit(f"{shown(x)} has no items", loc=self.loc)
        frozen = Tensor(v, self.frame)

        def row(e: Executor, turn: Dim) -> Any:
            return e.new(one_place(e, e.read(frozen), 0, turn))

        size = v.type.shape[0]
        return Turns(size, None, row)

    def _together(self, parts: list[Turns]) -> Turns:
        """``zip``: the shortest decides."""
        known = [p for p in parts if p.items is not None]
        if len(known) == len(parts):
            return Turns(
                items=list(zip(*(p.items for p in parts if p.items is not None), strict=False))
            )
        open_ = [p for p in parts if p.items is None]
        if any(p.trip is None for p in open_):
            raise refused("zip of a number of turns that the run gives", loc=self.loc)
        sizes = [p.trip if p.items is None else len(p.items) for p in parts]
        first = sizes[0]
        if any(s != first for s in sizes) and not all(isinstance(s, int) for s in sizes):
            for s in sizes[1:]:
                self.test(
                    self.em.op("equal", self.value(first), self.value(s)),
                    "zip of different lengths",
                )
        trip = (
            min(s for s in sizes if isinstance(s, int))
            if all(isinstance(s, int) for s in sizes)
            else first
        )
        rows = [p if p.items is None else self._over(self.stacked(list(p.items))) for p in parts]

        def items(e: Executor, turn: Dim) -> Any:
            return tuple(p.item(e, turn) for p in rows if p.item is not None)

        return Turns(trip, None, items)

    def _range(self, args: list[Any]) -> Turns:
        low, high, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
        if all(isinstance(x, int) and not isinstance(x, bool) for x in (low, high, step)):
            return Turns(items=self.natively(range, low, high, step), whole=True)
        for x in (low, high, step):
            whole = is_size(x) or (
                isinstance(x, Tensor) and x.value.type.dtype.is_integer and not x.value.type.rank
            )
            if not whole:
                raise misfit(f"a range takes whole numbers, got {shown(x)}", loc=self.loc)
        if all(is_size(x) for x in (low, high)) and isinstance(step, int) and step:
            span = ceildiv(high - low, step) if step > 0 else ceildiv(low - high, -step)
            return Turns(maximum(span, 0), None, lambda e, turn: low + turn * step)
        return self._range_of_run(low, high, step)

    def _range_of_run(self, low: Any, high: Any, step: Any) -> Turns:
        """A range between numbers of the run."""
        a, b, by = (self.em.cast(self.value(x), dtypes.i64) for x in (low, high, step))
        em, one = self.em, self.em.constant(1)
        if step == 1:
            span = em.op("sub", b, a) if low != 0 else b
        elif isinstance(step, int) and step:
            size = em.constant(abs(step))
            gap = em.op("sub", b, a) if step > 0 else em.op("sub", a, b)
            span = em.op("div", em.op("add", gap, em.op("sub", size, one)), size)
        else:
            down = em.op("less", by, em.constant(0))
            gap = em.op("where", down, em.op("sub", a, b), em.op("sub", b, a))
            size = em.op("abs", by)
            span = em.op("div", em.op("add", gap, em.op("sub", size, one)), size)
        limit = em.op("max", span, em.constant(0))
        known = em.known(limit)
        starts, steps = Tensor(a, self.frame, weak=True), Tensor(by, self.frame, weak=True)

        def number(e: Executor, turn: Dim) -> Any:
            if is_size(low) and isinstance(step, int):
                return low + turn * step
            way = e.em.op("mul", e.value(turn), e.read(steps))
            return e.new(e.em.op("add", e.read(starts), way), weak=True)

        if known is not None:
            return Turns(known.reshape(-1)[0], None, number)
        return Turns(None, limit, number)


def over_range(over: Turns) -> Turns:
    """A range of known numbers as a loop of the run."""
    r = over.items
    assert isinstance(r, range), "whole numbers"
    return Turns(len(r), None, lambda e, turn: r.start + turn * r.step)


def numbered(over: Turns) -> Turns:
    """``enumerate``: each item behind its number."""
    if over.items is not None:
        return Turns(items=list(enumerate(over.items)))
    item = over.item
    assert item is not None, "a loop of the run has items"
    return Turns(over.trip, over.limit, lambda e, turn: (turn, item(e, turn)))


def may_leave(body: Sequence[ast.stmt]) -> bool:
    """Whether a body has a break or a return of its own."""
    todo: list[tuple[ast.AST, bool]] = [(s, True) for s in body]
    while todo:
        n, own = todo.pop()
        if isinstance(n, ast.Return) or (isinstance(n, ast.Break) and own):
            return True
        if isinstance(n, ast.FunctionDef | ast.Lambda):
            continue
        inner = own and not isinstance(n, ast.For | ast.While)
        todo += [(x, inner) for x in ast.iter_child_nodes(n)]
    return False


def is_endless(node: ast.While | ast.For) -> bool:
    """Whether a loop ends only where its body leaves it."""
    return (
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and bool(node.test.value)
    )

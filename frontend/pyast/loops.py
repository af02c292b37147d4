"""Loops: over what is known they are unrolled, what the run decides becomes ``loop``.

The variables that a body assigns, and the arrays that it writes, are carried from turn to turn.
Which these are, and of which types, is found by building the body: a first guess comes from the
syntax, and what a turn shows beyond it begins another try. A turn that may break or return carries
how it ended."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aisc.frontend.arrays.state import BREAK, CONTINUE, ON, RAISE, RETURN, State, mapped
from aisc.frontend.arrays.subscripts import one_place
from aisc.frontend.arrays.values import (
    Frame,
    Maybe,
    NumberNeeded,
    Partial,
    Record,
    Tensor,
    Unset,
    is_number,
    is_size,
    misfit,
    refused,
    shown,
)
from aisc.frontend.building.regions import Region, loop
from aisc.frontend.pyast.joining import Conflict, unified
from aisc.frontend.pyast.scope import assigned_by
from aisc.frontend.pyast.statements import Executor
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, bounds, ceildiv, maximum
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.types import TensorType

UNROLLED = 8  # turns over whole numbers that are unrolled where nothing ends the loop
MOST_UNROLLED = 1024
NESTED = 48  # turns of an unrolled loop that the run may leave
TRIES = 12

_NEXT = frozenset({ON, CONTINUE})
_OPEN = (Unset, Partial, Maybe)  # variables that may have no value


@dataclass(slots=True)
class Turns:
    """What a loop goes over. trip: how many turns, if it is a size; limit: if it is a number of the
    run; item: what the target is bound to in a turn; items: where they are known."""

    trip: Dim | None = None
    limit: Value | None = None
    item: Callable[[Executor, Dim], Any] | None = None
    items: Sequence[Any] | None = None
    whole: bool = False  # numbers of a range


class _Again(Exception):
    """The body has shown something that changes what is carried."""


@dataclass(slots=True, eq=False)
class _Carried:
    """A number or array that goes from turn to turn. start: what it is first (nothing: zeros of the
    type); path: the variable, or the array that is written, or what the loop itself carries."""

    start: Any
    dtype: DType
    weak: bool
    shape: tuple[Dim, ...] = ()


@dataclass(slots=True)
class _Plan:
    """What is known of a loop so far. names: variables that are carried, as templates whose leaves
    are places in `slots`; late: those of them that the body sets first, and after which ends of a
    turn they are set; arrays: those that are written; code, ran: places of how a turn ended, and of
    whether there was one; result: what is returned, as a template."""

    slots: list[_Carried] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    late: dict[str, frozenset[int]] = field(default_factory=dict)
    arrays: dict[Tensor, int] = field(default_factory=dict)
    code: int | None = None
    may: frozenset[int] = frozenset()
    result: Any = None
    has_result: bool = False
    ran: int | None = None


class Looper(Executor):
    """Runs loops."""

    def loop(self, node: ast.While | ast.For) -> None:
        """A ``while`` or ``for`` statement."""
        if isinstance(node, ast.While):
            self._while(node)
            return
        over = self._turns(node.iter)
        if over.items is not None and (not over.whole or self._is_short(node, over.items)):
            self._unrolled(node, over.items)
            return
        if over.items is not None and not over.items:
            self.block(node.orelse)
            return
        if over.items is not None:
            try:
                saved = self.state.copy()
                self._repeated(node, _over_range(over))
            except NumberNeeded:
                self.state = saved
                if len(over.items) > MOST_UNROLLED:
                    raise
                self._unrolled(node, over.items)
            return
        self._repeated(node, over)

    def _is_short(self, node: ast.For, items: Sequence[Any]) -> bool:
        return len(items) <= UNROLLED and not _may_leave(node.body)

    # --- unrolled -----------------------------------------------------------------------------
    def _unrolled(self, node: ast.For, items: Sequence[Any], depth: int = 0) -> None:
        for k, item in enumerate(items):
            self.assign(node.target, item)
            self.block(node.body)
            code = self.state.code
            if isinstance(code, Tensor):
                self._guarded(node, items[k + 1 :], depth + 1)
                return
            if code == CONTINUE:
                self.state.end(ON)
            elif code == BREAK:
                self.state.end(ON)
                return
            elif code != ON:
                return
        self.block(node.orelse)

    def _guarded(self, node: ast.For, rest: Sequence[Any], depth: int) -> None:
        """The turns that are left, where the run did not leave the loop."""
        if depth > NESTED:
            raise refused(
                f"a loop over more than {NESTED} items that the run may leave",
                "loop over an array or a range",
                loc=self.at(node),
            )
        code, ended = self.state.code, self.state.may - _NEXT
        going = self.state.may & _NEXT
        if not ended:  # all turns go on
            self.state.end(ON)
            self._unrolled(node, rest, depth)
            return
        assert isinstance(code, Tensor), "several ends"

        def go_on() -> None:
            self._settle(going)
            self.state.end(ON)
            self._unrolled(node, rest, depth)

        def leave() -> None:
            self._settle(ended)
            self.state.code = code if len(ended) > 1 else next(iter(ended))
            self.state.may = ended
            self._after_break()

        self.branch(self._is_one_of(code, going), go_on, leave)

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
                return _numbered(self._turns(args[0]))
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

    # --- loops of the run ---------------------------------------------------------------------
    def _while(self, node: ast.While) -> None:
        flag = self.condition(self.expr(node.test))
        if flag is False:
            self.block(node.orelse)
            return
        self._repeated(node, Turns(), None if flag is True else flag)

    def _repeated(self, node: ast.While | ast.For, over: Turns, first: Value | None = None) -> None:
        plan = self._first_plan(node)
        for _ in range(TRIES):
            try:
                results = self._built(node, over, first, plan)
            except _Again:
                continue
            self._after(node, over, plan, results)
            return
        raise refused("what this loop carries does not settle", loc=self.at(node))

    def _first_plan(self, node: ast.While | ast.For) -> _Plan:
        """Variables that the syntax says are assigned, and arrays that it says are written."""
        plan = _Plan()
        for name in sorted(
            assigned_by([*node.body, *((node.target,) if isinstance(node, ast.For) else ())])
        ):
            if name in self.state.names and not isinstance(self.state.names[name], _OPEN):
                self._carry_name(plan, name, self.state.names[name])
        for n in (x for s in node.body for x in ast.walk(s)):
            target = (
                n.value if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store) else None
            )
            if isinstance(target, ast.Name) and isinstance(self.state.names.get(target.id), Tensor):
                self._carry_array(plan, self.state.names[target.id])
        return plan

    def _carry_name(self, plan: _Plan, name: str, item: Any) -> None:
        plan.names[name] = mapped(item, lambda x: self._slot(plan, x))

    def _carry_array(self, plan: _Plan, t: Tensor) -> None:
        if t not in plan.arrays and not t.frozen:
            plan.slots.append(_Carried(t, t.value.type.dtype, False, self.state.held(t).type.shape))
            plan.arrays[t] = len(plan.slots) - 1

    def _slot(self, plan: _Plan, x: Any) -> Any:
        """A place for a number or array; what is neither stays as it is."""
        if not (isinstance(x, Tensor | Poly) or is_number(x)):
            return x
        dtype, weak, _ = unified(self, [x])
        shape = self.state.held(x).type.shape if isinstance(x, Tensor) else ()
        plan.slots.append(_Carried(x, dtype, weak, shape))
        return _Place(len(plan.slots) - 1)

    def _initial(self, slot: _Carried) -> Value:
        if slot.start is None:
            return self.zeros(slot.shape, slot.dtype)
        return self.em.cast(self.value(slot.start), slot.dtype)

    def _built(
        self, node: ast.While | ast.For, over: Turns, first: Value | None, plan: _Plan
    ) -> list[Value]:
        """The ``loop`` node of a plan; :class:`_Again` where a turn shows that it does not hold."""
        before, outer, loc = self.state, self.frame, self.at(node)
        self.loc = loc
        initial = [self._initial(s) for s in plan.slots]
        ends = over.trip is not None or over.limit is not None

        def step(
            region: Region, turn: Dim, carried: list[Value]
        ) -> tuple[Value | None, list[Value], list[Value]]:
            self.frame = Frame(region.em, region, outer)
            try:
                self.state = self._entered(before, plan, carried)
                return self._turn(node, over, turn, plan, before, ends, carried)
            finally:
                self.frame, self.state, self.loc = outer, before, loc

        return loop(self.em, step, initial, trip=over.trip, limit=over.limit, cond=first)

    def _entered(self, before: State, plan: _Plan, carried: Sequence[Value]) -> State:
        """The state where a turn begins."""
        state = before.copy()
        state.end(ON)

        def item(place: Any) -> Any:
            if not isinstance(place, _Place):
                return place
            return Tensor(carried[place.at], self.frame, plan.slots[place.at].weak)

        for name, template in plan.names.items():
            made = mapped(template, item)
            late = name in plan.late
            state.names[name] = (
                Partial(made, frozenset(), "this turn has not set it") if late else made
            )
        for t, at in plan.arrays.items():
            state.contents[t] = Tensor(carried[at], self.frame)
            state.writes[t] = state.writes.get(t, 0) + 1
        return state

    def _turn(
        self,
        node: ast.While | ast.For,
        over: Turns,
        turn: Dim,
        plan: _Plan,
        before: State,
        ends: bool,
        carried: Sequence[Value],
    ) -> tuple[Value | None, list[Value], list[Value]]:
        """One turn: whether another follows, and what it is given."""
        entered = self.state.copy().names
        if isinstance(node, ast.For):
            assert over.item is not None, "a loop of the run has items"
            self.assign(node.target, over.item(self, turn))
        self.block(node.body)
        self._note(node, plan, before, entered)
        state = self.state
        nexts: list[Value] = list(carried)
        for name, template in plan.names.items():
            self._collect(plan, template, self._at_end(plan, name), nexts, name)
        for t, at in plan.arrays.items():
            nexts[at] = self.value(t)
        if plan.has_result and RETURN in state.may:
            self._collect(plan, plan.result, state.result, nexts, "what is returned")
        if plan.ran is not None:
            nexts[plan.ran] = self.em.constant(True)
        goes = self._goes_on(node, plan, nexts, ends)
        return goes, self._tested(nexts), []

    def _at_end(self, plan: _Plan, name: str) -> Any:
        item = self.state.names.get(name, Unset("it is deleted in the loop"))
        live = self.state.may - {RETURN, RAISE}
        if name in plan.late:
            plan.late[name] = item.codes if isinstance(item, Partial) else live
            return item.item if isinstance(item, Partial) else item
        if isinstance(item, Partial):
            return item.item if live <= item.codes else Unset(item.why)
        return item

    def _goes_on(
        self, node: ast.While | ast.For, plan: _Plan, nexts: list[Value], ends: bool
    ) -> Value | None:
        state = self.state
        if plan.code is not None:
            nexts[plan.code] = self.value(state.code)
        leaves_ = state.may - _NEXT
        going: Value | None = None
        if leaves_ and not state.may & _NEXT:
            return self.em.constant(False)
        if leaves_:
            assert isinstance(state.code, Tensor), "several ends"
            going = self._is_one_of(state.code, _NEXT & state.may)
        if isinstance(node, ast.While):
            return self._asked_again(node, going)
        if going is None and not ends:
            raise refused("this loop has no end", loc=self.at(node))
        return going

    def _asked_again(self, node: ast.While, going: Value | None) -> Value | None:
        """The condition of a ``while`` at the end of a turn, where that did not leave the loop."""
        self._settle(_NEXT)
        if going is None:
            self.state.end(ON)
            flag = self.condition(self.expr(node.test))
            if flag is True and not _may_leave(node.body):
                raise refused(
                    "this loop has no end", "leave it by break or return", loc=self.at(node)
                )
            return self.em.constant(flag) if isinstance(flag, bool) else flag
        found = self.either(going, lambda: self._again_now(node), lambda: False)
        flag = self.condition(found)
        return self.em.constant(flag) if isinstance(flag, bool) else flag

    def _again_now(self, node: ast.While) -> Any:
        self.state.end(ON)
        found = self.condition(self.expr(node.test))
        return found if isinstance(found, bool) else self.new(found, weak=True)

    def _tested(self, nexts: list[Value]) -> list[Value]:
        """What the next turn gets, once the assertions of this one hold."""
        if not self.frame.tests:
            return nexts
        if not nexts:
            raise refused("a loop that changes nothing cannot assert", loc=self.loc)
        found = list(nexts)
        for flag, message, loc in self.frame.tests:
            found[0] = self.frame.em.builder.add(
                "expect", (found[0], flag), {"message": message}, loc=loc
            )
        self.frame.tests.clear()
        return found

    # --- what a turn shows --------------------------------------------------------------------
    def _note(
        self, node: ast.While | ast.For, plan: _Plan, before: State, entered: dict[str, Any]
    ) -> None:
        """Extend a plan by what a turn has shown, and begin again."""
        again = False
        state = self.state
        for t in state.contents:
            known = t in plan.arrays or state.contents[t] is before.contents.get(t)
            if not known and t.home is not self.frame and not _is_inside(t.home, self.frame):
                self._carry_array(plan, t)
                again = True
        for name, found in state.names.items():
            item = found.item if isinstance(found, Partial) else found
            if name in plan.names or isinstance(item, Unset) or name.startswith(" "):
                continue
            if name in before.names and not isinstance(before.names[name], _OPEN):
                if item is not entered.get(name) and _differs(item, entered.get(name)):
                    self._carry_name(plan, name, before.names[name])
                    again = True
            elif self._is_read_outside(node, name):
                again |= self._carry_late(plan, name, item)
        again |= self._note_ends(plan)
        if again:
            raise _Again

    def _carry_late(self, plan: _Plan, name: str, item: Any) -> bool:
        """A variable that the body sets first and others read after the loop."""
        numeric: list[bool] = []
        mapped(item, lambda x: numeric.append(isinstance(x, Tensor | Poly) or is_number(x)))
        if isinstance(item, Record) or not all(numeric):
            return False
        plan.names[name] = mapped(item, lambda x: self._empty_slot(plan, x))
        plan.late[name] = frozenset()
        if plan.ran is None:
            plan.slots.append(_Carried(False, dtypes.boolean, True))
            plan.ran = len(plan.slots) - 1
        return True

    def _empty_slot(self, plan: _Plan, x: Any) -> Any:
        place = self._slot(plan, x)
        if isinstance(place, _Place):
            plan.slots[place.at].start = None
        return place

    def _note_ends(self, plan: _Plan) -> bool:
        """Ways to leave the loop that were not known."""
        state, again = self.state, False
        if (
            state.may - _NEXT
            and plan.code is None
            and (len(state.may) > 1 or RETURN in state.may or BREAK in state.may)
        ):
            plan.slots.append(_Carried(ON, dtypes.i64, True))
            plan.code = len(plan.slots) - 1
            again = True
        if RETURN in state.may and not plan.has_result:
            plan.result = mapped(state.result, lambda x: self._empty_slot(plan, x))
            plan.has_result = again = True
        plan.may = plan.may | state.may
        return again

    def _is_read_outside(self, node: ast.While | ast.For, name: str) -> bool:
        inside = {id(x) for s in node.body for x in ast.walk(s)}
        return any(
            isinstance(n, ast.Name)
            and n.id == name
            and isinstance(n.ctx, ast.Load)
            and id(n) not in inside
            for n in ast.walk(self.definition)
        )

    definition: ast.AST = ast.Module([], [])

    def _collect(
        self, plan: _Plan, template: Any, item: Any, nexts: list[Value], name: str
    ) -> None:
        """Put the leaves of a value into the places that a template has for them."""
        if isinstance(template, _Place):
            nexts[template.at] = self._fitted(plan, plan.slots[template.at], item, name)
            return
        if isinstance(item, Unset):
            raise refused(f"'{name}' has no value at the end of a turn: {item.why}", loc=self.loc)
        if (
            isinstance(template, list | tuple)
            and isinstance(item, list | tuple)
            and len(template) == len(item)
        ):
            for a, b in zip(template, item, strict=True):
                self._collect(plan, a, b, nexts, name)
        elif isinstance(template, dict) and isinstance(item, dict) and list(template) == list(item):
            for key, a in template.items():
                self._collect(plan, a, item[key], nexts, name)
        elif isinstance(template, Record) and isinstance(item, Record) and template.cls is item.cls:
            for key, a in template.fields.items():
                self._collect(plan, a, item.fields[key], nexts, name)
        elif template is not item and template != item:
            if isinstance(item, list):
                raise refused(
                    f"the list '{name}' grows in a loop of the run",
                    "make the array before: out = np.zeros(n), then out[i] = …",
                    loc=self.loc,
                )
            both = f"{shown(template)} where a turn begins and {shown(item)} where it ends"
            raise refused(f"'{name}' is {both}", loc=self.loc)

    def _fitted(self, plan: _Plan, slot: _Carried, item: Any, name: str) -> Value:
        """The next value of what is carried, in its type; another type begins again."""
        if isinstance(item, Unset):
            raise refused(f"'{name}' has no value at the end of a turn: {item.why}", loc=self.loc)
        if not (isinstance(item, Tensor | Poly) or is_number(item)):
            raise refused(
                f"'{name}' is a number where a turn begins and {shown(item)} where it ends",
                loc=self.loc,
            )
        made = self.value(item)
        stand_in = Tensor(_typed(made, slot.dtype), self.frame, slot.weak)
        try:
            dtype, weak, _ = unified(self, [stand_in, item])
        except Conflict:
            axes = f"{slot.dtype} of {len(slot.shape)} axes"
            was = "a number of Python's" if slot.weak else axes
            start = made.type.dtype.numpy if isinstance(item, Tensor) else slot.dtype.numpy
            raise refused(
                f"'{name}' is {was} where a turn begins and {made.type} where it ends",
                f"begin with that type: np.{start}(…), or cast what is assigned",
                loc=self.loc,
            ) from None
        if made.type.rank != len(slot.shape):
            both = f"{len(slot.shape)} axes where a turn begins and {made.type.rank} where it ends"
            hint = "its number of axes must stay the same"
            raise refused(f"'{name}' has {both}", hint, loc=self.loc)
        if (dtype, weak) != (slot.dtype, slot.weak):
            slot.dtype, slot.weak = dtype, weak
            raise _Again
        return self.em.cast(made, slot.dtype)

    # --- after the loop -----------------------------------------------------------------------
    def _after(
        self, node: ast.While | ast.For, over: Turns, plan: _Plan, results: list[Value]
    ) -> None:
        state = self.state
        ran = None
        if plan.ran is not None and not (over.trip is not None and bounds(over.trip)[0] > 0):
            ran = self.new(results[plan.ran], weak=True)

        def item(place: Any) -> Any:
            if not isinstance(place, _Place):
                return place
            return self.new(results[place.at], plan.slots[place.at].weak)

        for name, template in plan.names.items():
            made = mapped(template, item)
            state.names[name] = (
                self._late(plan, name, made, node, ran) if name in plan.late else made
            )
        for name in assigned_by(node.body):
            if name not in plan.names and name not in state.names:
                state.names[name] = Unset("it is set in a loop, where it belongs to one turn")
        for t, at in plan.arrays.items():
            state.contents[t] = self.new(results[at])
            state.writes[t] = state.writes.get(t, 0) + 1
        if plan.code is None:
            self.block(node.orelse)
            return
        self._left(node, plan, self.new(results[plan.code], weak=True), item)

    def _late(
        self, plan: _Plan, name: str, item: Any, node: ast.While | ast.For, ran: Tensor | None
    ) -> Any:
        """A variable that the body sets first, after the loop: whether it is set may depend on how
        that was left."""
        codes = plan.late[name]
        ends = plan.may - {RETURN, RAISE}
        known = codes & {BREAK} | (frozenset({ON}) if ends & _NEXT <= codes else frozenset())
        wanted = ends & {BREAK} | (frozenset() if _is_endless(node) else frozenset({ON}))
        why = "the loop sets it on some ways only"
        if ran is not None and ON in known and not _is_endless(node):
            item = Maybe(item, ran, "the loop that sets it had no turn")
        if wanted <= known:
            return item
        return Partial(item, known, why) if node.orelse and known else Unset(why)

    def _left(
        self, node: ast.While | ast.For, plan: _Plan, code: Tensor, item: Callable[[Any], Any]
    ) -> None:
        """What follows a loop that may have been left."""
        state = self.state
        if RETURN in plan.may:
            state.result = mapped(plan.result, item)
        if node.orelse:
            state.code, state.may = code, plan.may - {RAISE} - {CONTINUE} | {ON}

            def otherwise() -> None:
                self._settle(frozenset({ON}))
                self.state.end(ON)
                self.block(node.orelse)

            def stay() -> None:
                ended = self.state.may - {ON}
                self._settle(ended)
                self.state.code = code if len(ended) > 1 else next(iter(ended))
                self.state.may = ended
                self._after_break()

            self.branch(self._is_one_of(code, _NEXT), otherwise, stay)
            return
        if RETURN not in plan.may:
            state.end(ON)
            return
        is_return = self.em.op("equal", self.read(code), self.em.constant(RETURN))
        made = self.em.op("where", is_return, self.em.constant(RETURN), self.em.constant(ON))
        if _is_endless(node) and BREAK not in plan.may:
            state.end(RETURN)
            return
        state.code, state.may = self.new(made, weak=True), frozenset({ON, RETURN})


@dataclass(frozen=True, slots=True)
class _Place:
    """A place among what a loop carries."""

    at: int


def _over_range(over: Turns) -> Turns:
    """A range of known numbers as a loop of the run."""
    r = over.items
    assert isinstance(r, range), "whole numbers"
    return Turns(len(r), None, lambda e, turn: r.start + turn * r.step)


def _numbered(over: Turns) -> Turns:
    if over.items is not None:
        return Turns(items=list(enumerate(over.items)))
    item = over.item
    assert item is not None, "a loop of the run has items"
    return Turns(over.trip, over.limit, lambda e, turn: (turn, item(e, turn)))


def _may_leave(body: Sequence[ast.stmt]) -> bool:
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


def _is_endless(node: ast.While | ast.For) -> bool:
    """Whether a loop ends only where its body leaves it."""
    return (
        isinstance(node, ast.While)
        and isinstance(node.test, ast.Constant)
        and bool(node.test.value)
    )


def _is_inside(frame: Frame | None, around: Frame) -> bool:
    while frame is not None:
        if frame is around:
            return True
        frame = frame.outer
    return False


def _differs(a: Any, b: Any) -> bool:
    """Whether a variable was assigned something else."""
    if isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
        return any(_differs(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
        return any(_differs(a[k], b[k]) for k in a)
    if isinstance(a, Record) and isinstance(b, Record):
        return any(_differs(v, b.fields.get(k)) for k, v in a.fields.items())
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return a is not b
    return a is not b and not (type(a) is type(b) and a == b)


def _typed(v: Value, dtype: DType) -> Value:
    """A value that is asked for its type alone."""
    return Value(v.name, TensorType(v.type.shape, dtype))

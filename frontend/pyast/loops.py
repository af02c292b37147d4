"""Loops: over what is known they are unrolled, what the run decides becomes ``loop``.

The variables that a body assigns, and the arrays that it writes, are carried from turn to turn
(:mod:`aisc.frontend.pyast.plans`). A turn that may break or return carries how it ended.
"""

import ast
from collections.abc import Callable, Sequence
from typing import Any

from aisc.frontend.arrays.state import BREAK, CONTINUE, ON, RAISE, RETURN, State, mapped
from aisc.frontend.arrays.values import (
    Frame,
    Maybe,
    NumberNeeded,
    Partial,
    Tensor,
    Unset,
    refused,
)
from aisc.frontend.building.regions import Region, loop
from aisc.frontend.pyast.plans import Again, Place, Plan, Planner
from aisc.frontend.pyast.scope import assigned_by
from aisc.frontend.pyast.turns import NEXT, Turns, is_endless, may_leave, over_range
from aisc.ir.arith.poly import Dim, bounds
from aisc.ir.graph.core import Value

UNROLLED = 8  # turns over whole numbers that are unrolled where nothing ends the loop
MOST_UNROLLED = 1024
NESTED = 48  # turns of an unrolled loop that the run may leave
TRIES = 12


class Looper(Planner):
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
                self._repeated(node, over_range(over))
            except NumberNeeded:
                self.state = saved
                if len(over.items) > MOST_UNROLLED:
                    raise
                self._unrolled(node, over.items)
            return
        self._repeated(node, over)

    def _is_short(self, node: ast.For, items: Sequence[Any]) -> bool:
        return len(items) <= UNROLLED and not may_leave(node.body)

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
        code, ended = self.state.code, self.state.may - NEXT
        going = self.state.may & NEXT
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
            except Again:
                continue
            self._after(node, over, plan, results)
            return
        raise refused("what this loop carries does not settle", loc=self.at(node))

    def _built(
        self, node: ast.While | ast.For, over: Turns, first: Value | None, plan: Plan
    ) -> list[Value]:
        """The ``loop`` node of a plan; :class:`Again` where a turn shows that it does not hold."""
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

    def _entered(self, before: State, plan: Plan, carried: Sequence[Value]) -> State:
        """The state where a turn begins."""
        state = before.copy()
        state.end(ON)

        def item(place: Any) -> Any:
            if not isinstance(place, Place):
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
        plan: Plan,
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

    def _at_end(self, plan: Plan, name: str) -> Any:
        item = self.state.names.get(name, Unset("it is deleted in the loop"))
        live = self.state.may - {RETURN, RAISE}
        if name in plan.late:
            plan.late[name] = item.codes if isinstance(item, Partial) else live
            return item.item if isinstance(item, Partial) else item
        if isinstance(item, Partial):
            return item.item if live <= item.codes else Unset(item.why)
        return item

    def _goes_on(
        self, node: ast.While | ast.For, plan: Plan, nexts: list[Value], ends: bool
    ) -> Value | None:
        state = self.state
        if plan.code is not None:
            nexts[plan.code] = self.value(state.code)
        leaves_ = state.may - NEXT
        going: Value | None = None
        if leaves_ and not state.may & NEXT:
            return self.em.constant(False)
        if leaves_:
            assert isinstance(state.code, Tensor), "several ends"
            going = self._is_one_of(state.code, NEXT & state.may)
        if isinstance(node, ast.While):
            return self._asked_again(node, going)
        if going is None and not ends:
            raise refused("this loop has no end", loc=self.at(node))
        return going

    def _asked_again(self, node: ast.While, going: Value | None) -> Value | None:
        """The condition of a ``while`` at the end of a turn, where that did not leave the loop."""
        self._settle(NEXT)
        if going is None:
            self.state.end(ON)
            flag = self.condition(self.expr(node.test))
            if flag is True and not may_leave(node.body):
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

    # --- after the loop -----------------------------------------------------------------------
    def _after(
        self, node: ast.While | ast.For, over: Turns, plan: Plan, results: list[Value]
    ) -> None:
        state = self.state
        ran = None
        if plan.ran is not None and not (over.trip is not None and bounds(over.trip)[0] > 0):
            ran = self.new(results[plan.ran], weak=True)

        def item(place: Any) -> Any:
            if not isinstance(place, Place):
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
        self, plan: Plan, name: str, item: Any, node: ast.While | ast.For, ran: Tensor | None
    ) -> Any:
        """A variable that the body sets first, after the loop: whether it is set may depend on how
        that was left."""
        codes = plan.late[name]
        ends = plan.may - {RETURN, RAISE}
        known = codes & {BREAK} | (frozenset({ON}) if ends & NEXT <= codes else frozenset())
        wanted = ends & {BREAK} | (frozenset() if is_endless(node) else frozenset({ON}))
        why = "the loop sets it on some ways only"
        if ran is not None and ON in known and not is_endless(node):
            item = Maybe(item, ran, "the loop that sets it had no turn")
        if wanted <= known:
            return item
        return Partial(item, known, why) if node.orelse and known else Unset(why)

    def _left(
        self, node: ast.While | ast.For, plan: Plan, code: Tensor, item: Callable[[Any], Any]
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

            self.branch(self._is_one_of(code, NEXT), otherwise, stay)
            return
        if RETURN not in plan.may:
            state.end(ON)
            return
        is_return = self.em.op("equal", self.read(code), self.em.constant(RETURN))
        made = self.em.op("where", is_return, self.em.constant(RETURN), self.em.constant(ON))
        if is_endless(node) and BREAK not in plan.may:
            state.end(RETURN)
            return
        state.code, state.may = self.new(made, weak=True), frozenset({ON, RETURN})

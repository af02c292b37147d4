"""What a loop of the run carries from turn to turn, found by building its body.

A first guess comes from the syntax; what a turn shows beyond it begins another try.
"""

import ast
from collections import Counter
from dataclasses import field
from functools import cached_property
from typing import Any

from aisc.frontend.arrays.state import BREAK, ON, RETURN, State, mapped
from aisc.frontend.arrays.values import (
    Frame,
    Maybe,
    Partial,
    Record,
    Tensor,
    Unset,
    is_number,
    refused,
    shown,
)
from aisc.frontend.pyast.joining import Conflict, unified
from aisc.frontend.pyast.scope import assigned_by, reads_of
from aisc.frontend.pyast.turns import NEXT, Turning
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.types import TensorType

OPEN = (Unset, Partial, Maybe)  # variables that may have no value


class Again(Exception):
    """The body has shown something that changes what is carried."""


@dataclass(slots=True, eq=False)
class Carried:
    """A number or array that goes from turn to turn. start: what it is first (nothing: zeros of the
    type); path: the variable, or the array that is written, or what the loop itself carries."""

    start: Any
    dtype: DType
    weak: bool
    shape: tuple[Dim, ...] = ()


@dataclass(slots=True)
class Plan:
    """What is known of a loop so far. names: variables that are carried, as templates whose leaves
    are places in `slots`; late: those of them that the body sets first, and after which ends of a
    turn they are set; arrays: those that are written; code, ran: places of how a turn ended, and of
    whether there was one; result: what is returned, as a template; outside: variables that are read
    beside its body."""

    slots: list[Carried] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)
    late: dict[str, frozenset[int]] = field(default_factory=dict)
    arrays: dict[Tensor, int] = field(default_factory=dict)
    code: int | None = None
    may: frozenset[int] = frozenset()
    result: Any = None
    has_result: bool = False
    ran: int | None = None
    outside: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place among what a loop carries."""

    at: int


class Planner(Turning):
    """Finds what is carried."""

    def _first_plan(self, node: ast.While | ast.For) -> Plan:
        """Variables that the syntax says are assigned, and arrays that it says are written."""
        plan = Plan()
        for name in sorted(
            assigned_by([*node.body, *((node.target,) if isinstance(node, ast.For) else ())])
        ):
            if name in self.state.names and not isinstance(self.state.names[name], OPEN):
                self._carry_name(plan, name, self.state.names[name])
        for n in (x for s in node.body for x in ast.walk(s)):
            target = (
                n.value if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store) else None
            )
            if isinstance(target, ast.Name) and isinstance(self.state.names.get(target.id), Tensor):
                self._carry_array(plan, self.state.names[target.id])
        return plan

    def _carry_name(self, plan: Plan, name: str, item: Any) -> None:
        plan.names[name] = mapped(item, lambda x: self._slot(plan, x))

    def _carry_array(self, plan: Plan, t: Tensor) -> None:
        if t not in plan.arrays and not t.frozen:
            plan.slots.append(Carried(t, t.value.type.dtype, False, self.state.held(t).type.shape))
            plan.arrays[t] = len(plan.slots) - 1

    def _slot(self, plan: Plan, x: Any) -> Any:
        """A place for a number or array; what is neither stays as it is."""
        if not (isinstance(x, Tensor | Poly) or is_number(x)):
            return x
        dtype, weak, _ = unified(self, [x])
        shape = self.state.held(x).type.shape if isinstance(x, Tensor) else ()
        plan.slots.append(Carried(x, dtype, weak, shape))
        return Place(len(plan.slots) - 1)

    def _initial(self, slot: Carried) -> Value:
        if slot.start is None:
            return self.zeros(slot.shape, slot.dtype)
        return self.em.cast(self.value(slot.start), slot.dtype)

    # --- what a turn shows --------------------------------------------------------------------
    def _note(
        self, node: ast.While | ast.For, plan: Plan, before: State, entered: dict[str, Any]
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
            if name in before.names and not isinstance(before.names[name], OPEN):
                if item is not entered.get(name) and _differs(item, entered.get(name)):
                    self._carry_name(plan, name, before.names[name])
                    again = True
            elif name in self._read_outside(plan, node):
                again |= self._carry_late(plan, name, item)
        again |= self._note_ends(plan)
        if again:
            raise Again

    def _carry_late(self, plan: Plan, name: str, item: Any) -> bool:
        """A variable that the body sets first and others read after the loop."""
        numeric: list[bool] = []
        mapped(item, lambda x: numeric.append(isinstance(x, Tensor | Poly) or is_number(x)))
        if isinstance(item, Record) or not all(numeric):
            return False
        plan.names[name] = mapped(item, lambda x: self._empty_slot(plan, x))
        plan.late[name] = frozenset()
        if plan.ran is None:
            plan.slots.append(Carried(False, dtypes.boolean, True))
            plan.ran = len(plan.slots) - 1
        return True

    def _empty_slot(self, plan: Plan, x: Any) -> Any:
        place = self._slot(plan, x)
        if isinstance(place, Place):
            plan.slots[place.at].start = None
        return place

    def _note_ends(self, plan: Plan) -> bool:
        """Ways to leave the loop that were not known."""
        state, again = self.state, False
        if (
            state.may - NEXT
            and plan.code is None
            and (len(state.may) > 1 or RETURN in state.may or BREAK in state.may)
        ):
            plan.slots.append(Carried(ON, dtypes.i64, True))
            plan.code = len(plan.slots) - 1
            again = True
        if RETURN in state.may and not plan.has_result:
            plan.result = mapped(state.result, lambda x: self._empty_slot(plan, x))
            plan.has_result = again = True
        plan.may = plan.may | state.may
        return again

    def _read_outside(self, plan: Plan, node: ast.While | ast.For) -> frozenset[str]:
        if plan.outside is None:
            plan.outside = frozenset(self._reads - reads_of(node.body))
        return plan.outside

    @cached_property
    def _reads(self) -> Counter[str]:
        return reads_of([self.definition])

    definition: ast.AST = ast.Module([], [])

    def _collect(self, plan: Plan, template: Any, item: Any, nexts: list[Value], name: str) -> None:
        """Put the leaves of a value into the places that a template has for them."""
        if isinstance(template, Place):
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

    def _fitted(self, plan: Plan, slot: Carried, item: Any, name: str) -> Value:
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
            raise Again
        return self.em.cast(made, slot.dtype)


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

"""Two ways come together: what variables and arrays are after a branch that the run decides.

Both ways were taken in regions of their own. What is equal in both stays what it is; numbers and
arrays that differ become results of the branch. A variable that only one way sets has a value after
those ends of the block that come from that way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from aisc.frontend.arrays.context import SAMPLES, Context, weak_dtype
from aisc.frontend.arrays.state import ON, RAISE, RETURN, State, leaves
from aisc.frontend.arrays.values import (
    Frame,
    Maybe,
    Partial,
    Record,
    Tensor,
    Unset,
    is_number,
    of_numpy,
    refused,
    shown,
)
from aisc.frontend.building.regions import branch
from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

Number = Any  # a Tensor, a number of Python's or a size
_GONE = frozenset({RETURN, RAISE})


@dataclass(slots=True, eq=False)
class Side:
    """One way: the region it was taken in, and the state at its end."""

    frame: Frame
    state: State

    @property
    def live(self) -> frozenset[int]:
        """Ends after which variables matter."""
        return self.state.may - _GONE

    def item(self, name: str) -> tuple[Any, frozenset[int]]:
        """What a name stands for, and after which ends."""
        found = self.state.names.get(name, Unset("it is not set on every way"))
        if isinstance(found, Unset):
            return found, frozenset()
        if isinstance(found, Partial):
            return found.item, found.codes & self.live
        return found, self.live


class Conflict(Exception):
    """Two values that cannot be one."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A result of the branch: what either side gives (nothing: zeros) and the tensor for both."""

    parts: tuple[Number | None, Number | None]
    dtype: DType
    tensor: Tensor


@dataclass(slots=True, eq=False)
class Joiner:
    """Brings two sides together in the context around them."""

    c: Context
    sides: tuple[Side, Side]
    loc: Loc
    slots: list[_Slot] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)
    counts: tuple[Counter[int], Counter[int]] = field(init=False)

    def __post_init__(self) -> None:
        one, other = (
            Counter(id(x) for x in leaves(list(s.state.names.values())) if isinstance(x, Tensor))
            for s in self.sides
        )
        self.counts = one, other

    def joined(self, cond: Value, before: State) -> State:
        """The state after the branch, whose node is emitted."""
        a, b = self.sides
        made = State()
        for name in dict.fromkeys((*a.state.names, *b.state.names)):
            made.names[name] = self._named(name)
        self._contents(made, before)
        made.may = a.state.may | b.state.may
        if made.may != {RAISE}:
            made.may -= {RAISE}
        made.code = self._code(made.may)
        if RETURN in made.may:
            made.result = self._result()
        self._emit(cond)
        return made

    # --- variables ----------------------------------------------------------------------------
    def _named(self, name: str) -> Any:
        (a, codes_a), (b, codes_b) = (s.item(name) for s in self.sides)
        one, other = self.sides
        live = one.live | other.live
        codes = frozenset(
            k
            for k in live
            if (k not in one.live or k in codes_a) and (k not in other.live or k in codes_b)
        )
        if isinstance(a, Unset) and isinstance(b, Unset):
            return a
        try:
            item = self.join(
                None if isinstance(a, Unset) else a, None if isinstance(b, Unset) else b
            )
        except Conflict:
            return Unset(f"it is {shown(a)} on one way and {shown(b)} on the other")
        return item if codes == live else Partial(item, codes, "it is set on some ways only")

    def join(self, a: Any, b: Any) -> Any:
        """One value for both, of which one may be missing (``None`` stands for that here)."""
        key = id(a), id(b)
        if key not in self.known:
            self.known[key] = self._join(a, b), a, b  # which keeps them, and so the key
        return self.known[key][0]

    def _join(self, a: Any, b: Any) -> Any:
        if a is b:
            return a
        if isinstance(a, Maybe) or isinstance(b, Maybe):
            flags = [x.flag if isinstance(x, Maybe) else True for x in (a, b)]
            items = [x.item if isinstance(x, Maybe) else x for x in (a, b)]
            why = next(x.why for x in (a, b) if isinstance(x, Maybe))
            return Maybe(self.join(*items), self._slot(*flags), why)
        if a is None or b is None:
            return self._alone(a, b)
        if isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
            items = [self.join(x, y) for x, y in zip(a, b, strict=True)]
            return (
                items
                if isinstance(a, list)
                else type(a)(*items)
                if hasattr(a, "_fields")
                else tuple(items)
            )
        if isinstance(a, dict) and isinstance(b, dict) and list(a) == list(b):
            return {k: self.join(a[k], b[k]) for k in a}
        if isinstance(a, Record) and isinstance(b, Record) and a.cls is b.cls:
            return Record(a.cls, {k: self.join(v, b.fields[k]) for k, v in a.fields.items()})
        if _is_numeric(a) and _is_numeric(b):
            return a if _is_same(a, b) else self._slot(a, b)
        other_kind = isinstance(a, Tensor | list | dict | Record | Unset)
        if type(a) is type(b) and not other_kind and _plainly_equal(a, b):
            return a
        raise Conflict

    def _alone(self, a: Any, b: Any) -> Any:
        """A value of one side; of the other nobody asks."""
        item = b if a is None else a
        if isinstance(item, Tensor):
            side = self.sides[0 if b is None else 1]
            if item.home is not side.frame:
                return item  # of outside
            return self._slot(a, b)
        if isinstance(item, list | tuple):
            items = [self.join(x, None) if b is None else self.join(None, x) for x in item]
            return (
                items
                if isinstance(item, list)
                else type(item)(*items)
                if hasattr(item, "_fields")
                else tuple(items)
            )
        if isinstance(item, dict):
            return {
                k: self.join(v, None) if b is None else self.join(None, v) for k, v in item.items()
            }
        if isinstance(item, Record):
            return Record(
                item.cls,
                {
                    k: self.join(v, None) if b is None else self.join(None, v)
                    for k, v in item.fields.items()
                },
            )
        return item

    def _slot(self, a: Number | None, b: Number | None) -> Tensor:
        dtype, weak, rank = unified(self.c, [x for x in (a, b) if x is not None])
        frozen = ""
        if rank and not weak:
            for x, counts, side in zip((a, b), self.counts, self.sides, strict=True):
                if isinstance(x, Tensor):
                    shared = counts[id(x)] > 1 or x.home is not side.frame
                    frozen = (
                        frozen or x.frozen or ("it is another array on some way" if shared else "")
                    )
        made = Tensor(None, self.c.frame, weak, frozen=frozen)  # type: ignore[arg-type]
        self.slots.append(_Slot((a, b), dtype, made))
        return made

    def _contents(self, made: State, before: State) -> None:
        """Arrays that were written on a way."""
        states = [s.state for s in self.sides]
        for t in dict.fromkeys((*states[0].contents, *states[1].contents)):
            found = [s.contents.get(t, t) for s in states]
            gone = [not side.live for side in self.sides]
            if any(t.home is s.frame for s in self.sides):
                continue  # made on one way: what is left of it has a slot
            writes = [s.writes.get(t, 0) for s in states]
            if found[0] is found[1]:
                made.contents[t], made.writes[t] = found[0], writes[0]
                continue
            whole = [None if g else t for g in gone]
            if whole == [None, None]:
                made.contents[t], made.writes[t] = before.contents.get(t, t), max(writes)
                continue
            slot = _Slot((whole[0], whole[1]), t.value.type.dtype, Tensor(None, self.c.frame))  # type: ignore[arg-type]
            self.slots.append(slot)
            made.contents[t] = slot.tensor
            made.writes[t] = max(writes) + 1

    def _code(self, may: frozenset[int]) -> int | Tensor:
        if len(may) == 1:
            return next(iter(may))
        codes = [ON if s.state.may == {RAISE} else s.state.code for s in self.sides]
        made = Tensor(None, self.c.frame, weak=True)  # type: ignore[arg-type]
        self.slots.append(_Slot((codes[0], codes[1]), dtypes.i64, made))
        return made

    def _result(self) -> Any:
        found = [s.state.result if RETURN in s.state.may else None for s in self.sides]
        has = [RETURN in s.state.may for s in self.sides]
        try:
            if not all(has):
                only = found[0] if has[0] else found[1]
                if only is None:
                    return None
                return self.join(only, None) if has[0] else self.join(None, only)
            if found[0] is None or found[1] is None:
                if found[0] is not found[1]:
                    raise Conflict
                return None
            return self.join(found[0], found[1])
        except Conflict:
            raise refused(
                "the ways of this function return different things",
                f"one returns {shown(found[0])}",
                f"another returns {shown(found[1])}",
                loc=self.loc,
            ) from None

    # --- emission -----------------------------------------------------------------------------
    def _emit(self, cond: Value) -> None:
        """The ``if``: what both sides give for each slot."""
        c = self.c
        tested = any(s.frame.tests for s in self.sides)
        columns = []
        for k in range(2):
            column = self._column(k)
            if tested:
                column.append(self._tested(k))
            columns.append(column)
        if not columns[0]:
            return
        arms = [
            s.frame.region.finish(column)  # type: ignore[union-attr]
            for s, column in zip(self.sides, columns, strict=True)
        ]
        results = branch(c.em, cond, arms)
        if tested:
            c.test(results.pop(), "an assertion does not hold")
        for slot, value in zip(self.slots, results, strict=True):
            slot.tensor.value = value

    def _column(self, k: int) -> list[Value]:
        """What a side gives for every slot."""
        side, c = self.sides[k], self.c
        outer, state = c.frame, c.state
        c.frame, c.state = side.frame, side.state
        try:
            found = []
            for slot in self.slots:
                part = slot.parts[k]
                if part is None:
                    found.append(self._filler(slot, 1 - k))
                else:
                    found.append(c.em.cast(c.value(part), slot.dtype))
            return found
        finally:
            c.frame, c.state = outer, state

    def _filler(self, slot: _Slot, k: int) -> Value:
        """Zeros where a side has no value, of the shape that the other has."""
        part = slot.parts[k]
        return self.c.zeros(
            self.sides[k].state.held(part).type.shape if isinstance(part, Tensor) else (),
            slot.dtype,
        )

    def _tested(self, k: int) -> Value:
        """True, once the tests of a side hold."""
        side = self.sides[k]
        em = side.frame.em
        found = em.constant(True)
        for flag, message, loc in side.frame.tests:
            em.loc = loc
            found = em.builder.add("expect", (found, flag), {"message": message}, loc=loc)
        return found


def unified(c: Context, items: Sequence[Number]) -> tuple[DType, bool, int]:
    """The element type of numbers that become one, whether it is one of Python's, and the rank."""
    ranks = {x.value.type.rank if isinstance(x, Tensor) else 0 for x in items}
    strong = {x.value.type.dtype for x in items if isinstance(x, Tensor) and not x.weak}
    weak = [x for x in items if not isinstance(x, Tensor) or x.weak]
    if len(strong) > 1 or len(ranks) > 1:
        raise Conflict
    kinds = [
        x.value.type.dtype if isinstance(x, Tensor) else weak_dtype(0 if isinstance(x, Poly) else x)
        for x in weak
    ]
    if not strong:
        rank = 2 if dtypes.f64 in kinds else 1 if dtypes.i64 in kinds else 0
        return (dtypes.boolean, dtypes.i64, dtypes.f64)[rank], True, 0
    (found,) = strong
    samples = [SAMPLES[k.kind](1) for k in kinds]
    if of_numpy(np.result_type(found.numpy, *samples), c.loc) is not found:
        raise Conflict
    return found, False, ranks.pop()


def _is_numeric(x: Any) -> bool:
    return isinstance(x, Tensor | Poly) or is_number(x)


def _is_same(a: Any, b: Any) -> bool:
    """Whether two numbers that are known are one: of one type and with the same bits."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    return type(a) is type(b) and (a == b if isinstance(a, Poly) else repr(a) == repr(b))


def _plainly_equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:
        return False

"""Where a function is captured to: the graph at hand, and its values as tensors of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.arrays.state import State
from aisc.frontend.arrays.values import (
    Frame,
    Known,
    NumberNeeded,
    Tensor,
    Unset,
    is_size,
    misfit,
    of_numpy,
    refused,
    shown,
)
from aisc.frontend.building.emitter import Emitter
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, bounds, symbols
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

# What stands for a number of Python's where numpy is asked for types.
SAMPLES: dict[str, type] = {"bool": bool, "int": int, "uint": int, "float": float}


class Context:
    """The frame and the state at a point of a function. `loc`: of the syntax that is read."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.state = State()
        self.loc = Loc()
        self.arrays: dict[int, tuple[object, Tensor]] = {}  # of the user, which are constants

    @property
    def em(self) -> Emitter:
        """What emits into the graph at hand."""
        self.frame.em.loc = self.loc
        return self.frame.em

    # --- tensors ------------------------------------------------------------------------------
    def new(self, value: Value, weak: bool = False) -> Tensor:
        """A tensor of a value that was emitted here."""
        return Tensor(value, self.frame, weak)

    def read(self, t: Tensor) -> Value:
        """What a tensor holds, as a value of the graph at hand."""
        if t.base is not None and self.state.writes.get(t.base, 0) != t.writes:
            raise refused(
                "this view is of an array that has been written since",
                "take a copy of the part before: part = a[1:].copy()",
                loc=self.loc,
            )
        held = self.state.contents.get(t, t)
        return self.frame.see(held.value, held.home)

    def value(self, x: Any) -> Value:
        """A tensor or number as a value; numbers of Python's have 64 bits."""
        return self.read(self.tensor(x))

    def tensor(self, x: Any) -> Tensor:
        """A tensor, number, size, or nested sequence of such, as a tensor; E112 for what is
        none."""
        if isinstance(x, Tensor):
            return x
        if isinstance(x, bool | int | float):
            return self.new(self.em.constant(self._fitting(x), weak_dtype(x)), weak=True)
        if isinstance(x, Poly):
            return self.new(self.em.reshape(self.em.dims_value([x]), ()), weak=True)
        if isinstance(x, np.ndarray | np.generic):
            return self.array(x)
        if isinstance(x, list | tuple):
            return self.stacked(x)
        if isinstance(x, Unset):
            raise refused(x.why, loc=self.loc)
        raise misfit(f"an array is expected, got {shown(x)}", loc=self.loc)

    def _fitting(self, x: bool | int | float) -> bool | int | float:
        if isinstance(x, int) and not -(1 << 63) <= x < 1 << 63:
            raise misfit(f"{x} does not fit 64 bits", loc=self.loc)
        return x

    def array(self, x: np.ndarray[Any, Any] | np.generic) -> Tensor:
        """A user's array, which is a constant of the model."""
        known = self.arrays.get(id(x))
        if known is not None:
            return known[1]
        root = self.frame
        while root.outer is not None:
            root = root.outer
        of_numpy(x.dtype, self.loc)
        made = Tensor(
            root.em.constant(np.ascontiguousarray(x).reshape(x.shape)),
            root,
            frozen="it is an array outside of the function",
        )
        self.arrays[id(x)] = x, made
        return made

    def stacked(self, items: Sequence[Any]) -> Tensor:
        """``np.array([a, b])`` of tensors or numbers."""
        if not items:
            return self.new(self.em.constant(np.zeros(0)))
        parts = [self.tensor(x) for x in items]
        values = self.alike(parts)
        if len({v.type.rank for v in values}) > 1:
            raise misfit("the parts of an array have different ranks", loc=self.loc)
        wide = [self.em.reshape(v, (1, *v.type.shape)) for v in values]
        return self.new(wide[0] if len(wide) == 1 else self.em.op("concat", *wide, axis=0))

    # --- types --------------------------------------------------------------------------------
    def numpy_type(self, t: Tensor) -> Any:
        """What numpy is asked about: a dtype, or a type of Python's for its numbers."""
        d = t.value.type.dtype
        return SAMPLES[d.kind] if t.weak and d is not dtypes.boolean else d.numpy

    def common_dtype(self, parts: Sequence[Tensor]) -> DType:
        """The type to which numpy brings tensors together."""
        strong = [t.value.type.dtype.numpy for t in parts if not t.weak]
        weak = [SAMPLES[t.value.type.dtype.kind](1) for t in parts if t.weak]
        try:
            return of_numpy(np.result_type(*strong, *weak), self.loc)
        except TypeError as fault:
            raise misfit(str(fault), loc=self.loc) from None

    def alike(self, parts: Sequence[Tensor]) -> list[Value]:
        """The values of tensors in their common type."""
        found = self.common_dtype(parts)
        return [self.em.cast(self.read(t), found) for t in parts]

    # --- what must be known -------------------------------------------------------------------
    def int_of(self, x: Any, what: str) -> int:
        """A whole number that is known now; a number of the caller's becomes known."""
        if isinstance(x, int) and not isinstance(x, bool):
            return x
        if isinstance(x, np.integer):
            return int(x)
        if isinstance(x, Tensor):
            found = self.em.known(self.read(x))
            if found is not None and found.size == 1 and isinstance(found.reshape(-1)[0], int):
                return int(found.reshape(-1)[0])
            if x.argument:
                raise Known(x.argument)
        fault = misfit(
            f"{what} must be a whole number known when the function is compiled",
            f"got {shown(x)}",
            loc=self.loc,
        )
        raise NumberNeeded(fault.diagnostics) if isinstance(x, Poly) else fault

    def dim_of(self, x: Any, what: str) -> Dim:
        """A whole number, size, or number of the run as a size."""
        if isinstance(x, np.integer):
            return int(x)
        if is_size(x):
            return x  # type: ignore[no-any-return]
        if isinstance(x, Tensor) and x.value.type.dtype.is_integer and x.value.type.rank == 0:
            v = self.read(x)
            known = self.em.known(v)
            if known is not None:
                return known.reshape(-1)[0]  # type: ignore[no-any-return]
            return self.em.dims(self.em.reshape(v, (1,)), what)[0]
        raise misfit(f"{what} must be a whole number, got {shown(x)}", loc=self.loc)

    def dims_of(self, x: Any, what: str) -> tuple[Dim, ...]:
        """A shape: a size, a sequence of sizes, or a vector of the run."""
        if isinstance(x, list | tuple):
            return tuple(self.dim_of(d, what) for d in x)
        if isinstance(x, Tensor) and x.value.type.rank == 1:
            return self.em.dims(self.read(x), what)
        return (self.dim_of(x, what),)

    def condition(self, x: Any) -> Value | bool:
        """Whether something is true, by Python's rules."""
        if isinstance(x, Poly):
            low, high = bounds(x)
            if low > 0 or high < 0:
                return True
            return self.em.op("not", self.em.op("equal", self.value(x), self.em.constant(0)))
        if not isinstance(x, Tensor):
            if isinstance(x, Unset):
                raise refused(x.why, loc=self.loc)
            return bool(x)
        v = self.read(x)
        if v.type.rank and v.type.size != 1:
            raise misfit(
                f"whether {shown(x)} is true is not one answer",
                "use np.any(…) or np.all(…)",
                loc=self.loc,
            )
        flag = self.em.reshape(self.truth(v), ())
        known = self.em.array(flag)
        return flag if known is None else bool(known)

    def truth(self, v: Value) -> Value:
        """Whether the elements of a value are other than zero."""
        return self.em.cast(v, dtypes.boolean)

    def test(self, flag: Value, message: str) -> None:
        """Let the runs that end well be those in which a condition holds."""
        self.frame.tests.append((flag, message, self.loc))

    def zeros(self, shape: Sequence[Dim], dtype: DType) -> Value:
        """Zeros where the sizes are known here; other sizes are 0."""
        known = self._visible()
        seen = tuple(d if isinstance(d, int) or known(d) else 0 for d in shape)
        return self.em.filled(seen, np.zeros((), dtype.numpy))

    def _visible(self) -> Any:
        """A test of whether a size is one of the inputs, which all frames know."""
        return lambda d: all(s.kind == "input" for s in symbols(d))


def weak_dtype(x: bool | int | float) -> DType:
    """The element type that a number of Python's has where it stands alone."""
    if isinstance(x, bool):
        return dtypes.boolean
    return dtypes.i64 if isinstance(x, int) else dtypes.f64

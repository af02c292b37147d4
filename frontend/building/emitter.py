"""What handlers emit with: core nodes, constants, and questions about what is known at import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np

from aisc.frontend.building.fold import fold_constant, fold_symbolic, object_array
from aisc.frontend.building.limits import MAX_BYTES, reach
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, bounds, symbol, symbols
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.shapes.infer import BoundNeeded, implied_bound
from aisc.ir.location import Loc
from aisc.ir.types import MAX_SIZE, TensorType

Array = np.ndarray[Any, Any]
MAX_VIEW_BYTES = 1 << 16  # larger broadcast constants stay an operation
MAX_PARTS = 64  # elements of a vector of sizes
_AT_RUN_TIME = "it is computed by the run: make it a constant of the model"
_REARRANGING = frozenset({"concat", "reshape", "gather", "slice", "cast"})


@dataclass(frozen=True, slots=True)
class Hole:
    """An element of a vector of sizes that only run time gives: element `index` of `value`."""

    value: Value
    index: int

    @property
    def at(self) -> tuple[Value, int]:
        """The vector and the place in it."""
        return self.value, self.index


@dataclass(slots=True)
class DimNames:
    """Names of a model's dimensions; those that importing adds are numbered."""

    taken: set[str] = field(default_factory=set)
    origins: dict[str, str] = field(default_factory=dict)  # the nodes that give those
    node: str = ""  # the one being translated

    def fresh(self, hint: str, lower: int = 0, upper: int | None = MAX_SIZE) -> Poly:
        """A dimension that run time gives, between bounds."""
        count = 0
        while f"{hint}{count}" in self.taken:
            count += 1
        self.taken.add(f"{hint}{count}")
        self.origins[f"{hint}{count}"] = self.node
        return symbol(f"{hint}{count}", lower, upper, "data")


def is_computed(size: Dim) -> bool:
    """Whether only the run gives a size: it depends on data."""
    return not isinstance(size, int) and any(s.kind == "data" for s in symbols(size))


class Emitter:
    """Appends core nodes to a graph, folding what is known; `loc` is the node being translated."""

    def __init__(self, builder: GraphBuilder, names: DimNames | None = None) -> None:
        self.builder = builder
        self.names = names or DimNames()
        self.loc = Loc()
        self._dims: dict[Value, Array] = {}  # sizes; elements may be holes
        self._bound: dict[Hole, Dim] = {}

    # --- emission -----------------------------------------------------------------------------
    def op(self, op: str, *inputs: Value | None, **attrs: AttrValue) -> Value:
        """Append a node with one result, or fold it. Operands of elementwise operators whose
        sizes may differ are taken to be of one size, which is tested at run time."""
        definition, given = opdef.get(op), inputs
        if definition.scalar is not None and len(inputs) > 1:
            inputs = self._aligned(inputs)
        elif op == "matmul":
            inputs = self._aligned(inputs, kept=2)
        full = opdef.complete_attrs(definition, attrs, self.loc)
        types = tuple(None if v is None else v.type for v in inputs)
        known = tuple(None if v is None else self.builder.constants.get(v) for v in inputs)
        call = opdef.OpCall(definition, types, full, known, self.loc)
        results = self._infer(call, given)
        self._check_size(results)
        folded = fold_constant(call, results)
        if folded is not None:
            return self.builder.constant(folded, op, self.loc)
        dims = self._fold_dims(call, inputs, results)
        if dims is not None:
            return self.dims_value(dims, results[0].dtype)
        value = self.builder.add(op, inputs, attrs, loc=self.loc)
        self._note_parts(call, inputs, value)
        return value

    @staticmethod
    def _infer(call: opdef.OpCall, given: Sequence[Value | None]) -> Sequence[TensorType]:
        """The types of the results; what does not fit is told with the types that were given."""
        try:
            return call.op.infer(call)
        except BoundNeeded:
            raise
        except CompileError as fault:
            types = [str(v.type) for v in given if v is not None]
            if not types or any(d.notes for d in fault.diagnostics):
                raise
            note = f"operands: {', '.join(types)}"
            raise CompileError([replace(d, notes=(note,)) for d in fault.diagnostics]) from None

    def multi(self, op: str, *inputs: Value | None, **attrs: AttrValue) -> tuple[Value, ...]:
        """Append a node with several results."""
        values = self.builder.add_multi(op, inputs, attrs, loc=self.loc)
        self._check_size([v.type for v in values])
        return values

    def _check_size(self, results: Sequence[TensorType]) -> None:
        for t in results:
            if reach(t.shape) * t.dtype.bytes > MAX_BYTES:
                raise error("E105", f"a result is too large: {t}", loc=self.loc)

    def _fold_dims(
        self, call: opdef.OpCall, inputs: Sequence[Value | None], results: Sequence[TensorType]
    ) -> Array | None:
        if not any(v in self._dims for v in inputs if v is not None):
            return None
        operands = [None if v is None else self.known(v) for v in inputs]
        present = [x for x in operands if x is not None]
        if len(present) != len(operands) or not all(t.is_static for t in results):
            return None
        return fold_symbolic(call, present)

    def _note_parts(self, call: opdef.OpCall, inputs: Sequence[Value | None], made: Value) -> None:
        """Track a rearranged vector of sizes of which some elements are known."""
        if call.op.name not in _REARRANGING or len(made.type.shape) > 1:
            return
        parts = [None if v is None else self.parts(v) for v in inputs]
        present = [p for p in parts if p is not None]
        if len(present) != len(parts) or all(isinstance(x, Hole) for p in present for x in p.flat):
            return
        found = fold_symbolic(call, present)
        if found is not None:
            self._dims[made] = found

    def _aligned(self, inputs: Sequence[Value | None], kept: int = 0) -> tuple[Value | None, ...]:
        """Operands under shapes that broadcast, but for their last axes, of which `kept` stay.

        Different sizes of which at least one is symbolic meet in the run: see :meth:`common`."""
        shapes = [v.type.shape for v in inputs if v is not None]
        rank = max(map(len, shapes), default=0)
        chosen: dict[int, Dim] = {}
        for axis in range(-rank, -kept):
            sizes = dict.fromkeys(s[axis] for s in shapes if -axis <= len(s) and s[axis] != 1)
            if len(sizes) > 1 and sum(isinstance(d, int) for d in sizes) < 2:
                self._require_bound(list(sizes))
                chosen[axis] = self.common(list(sizes))
        if not chosen:
            return tuple(inputs)
        return tuple(None if v is None else self._resized(v, chosen) for v in inputs)

    def common(self, sizes: Sequence[Dim]) -> Dim:
        """The size that different ones, of which at most one is a number, are broadcast to.

        Sizes of inputs are taken to be equal; for a call where one of them is 1 another version of
        the model is made. Those that only the run gives may be 1."""
        number = next((d for d in sizes if isinstance(d, int)), None)
        if number is not None or not any(map(is_computed, sizes)):
            return sizes[0] if number is None else number
        total = self.dims_value([sizes[0]])
        for d in sizes[1:]:
            other = self.dims_value([d])
            alone = self.op("equal", total, self.like(1, total))
            total = self.op("where", alone, other, total)
        return self.bound(total)

    def _require_bound(self, sizes: list[Dim]) -> None:
        """Sizes that a bound of an input's dimension makes equal need no test at run time."""
        implied = implied_bound(sizes)
        if implied is not None:
            message = f"whether sizes {' and '.join(map(str, sizes))} are equal is not known"
            raise BoundNeeded(error("E204", message, loc=self.loc), *implied)

    def _resized(self, value: Value, sizes: Mapping[int, Dim]) -> Value:
        """`value` with other sizes at axes (from the end), which are tested at run time."""
        shape = list(value.type.shape)
        stretched = False
        for axis, size in sizes.items():
            if -axis <= len(shape) and shape[axis] != 1:
                stretched |= shape[axis] != size and is_computed(shape[axis])
                shape[axis] = size
        if stretched:
            return self.stretch(value, shape)
        return self.assume(value, shape, spread=True)

    def stretch(self, value: Value, shape: Sequence[Dim]) -> Value:
        """`value` broadcast to a shape: each of its sizes is 1 or that of the shape."""
        if value.type.shape == tuple(shape):
            return value
        return self.op("expand", value, shape=tuple(shape))

    def assume(self, value: Value, shape: Sequence[Dim], spread: bool = False) -> Value:
        """`value` with sizes known under other names, which are tested at run time. `spread`: sizes
        of 1 are right as well, for a version of the model that fixes them."""
        if value.type.shape == tuple(shape):
            return value
        attrs: dict[str, AttrValue] = {"shape": tuple(shape), "spread": spread}
        return self.builder.add("assume", (value,), attrs, loc=self.loc)

    def not_empty(self, value: Value, axes: Sequence[int]) -> Value:
        """`value`, of which axes must have an element, as the run tests where only it can."""
        least = tuple(int(a in axes) for a in range(value.type.rank))
        if all(bounds(value.type.shape[a])[0] > 0 for a in axes):
            return value
        attrs: dict[str, AttrValue] = {"shape": value.type.shape, "least": least}
        return self.builder.add("assume", (value,), attrs, loc=self.loc)

    # --- constants ----------------------------------------------------------------------------
    def constant(self, array: object, dtype: DType | None = None) -> Value:
        """A constant of an array or number."""
        data = np.asarray(array) if dtype is None else np.asarray(array).astype(dtype.numpy)
        return self.builder.constant(data, loc=self.loc)

    def blob(self, blob: Blob, name: str = "c") -> Value:
        """A constant of a blob."""
        return self.builder.constant(blob, name, self.loc)

    def filled(self, shape: Sequence[Dim], fill: Array) -> Value:
        """A tensor of equal elements: a constant without memory behind it when that is possible."""
        static = tuple(d for d in shape if isinstance(d, int))
        scalar = np.asarray(fill).reshape(())
        size = int(np.prod(static, dtype=object)) * scalar.itemsize
        if len(static) == len(shape) and size <= MAX_VIEW_BYTES:
            return self.blob(Blob(np.broadcast_to(scalar, static)))
        return self.op("expand", self.blob(Blob(scalar)), shape=tuple(shape))

    def dims_value(self, dims: object, dtype: DType = dtypes.i64) -> Value:
        """Known sizes as a tensor: a constant when all are static, else the op ``sizes``."""
        array = object_array(dims)
        flat: list[Dim] = [int(d) if isinstance(d, (bool, np.integer)) else d for d in array.flat]
        if not any(isinstance(d, Poly) for d in flat):
            return self.constant(np.asarray(flat, np.int64).reshape(array.shape), dtype)
        builder, loc = self.builder, self.loc
        value = builder.add("sizes", (), {"values": tuple(flat)}, loc=loc)
        if array.ndim != 1:
            value = builder.add("reshape", (value,), {"shape": array.shape}, loc=loc)
        if dtype is not dtypes.i64:
            value = builder.add("cast", (value,), {"to": dtype}, loc=loc)
        self._dims[value] = array
        return value

    # --- what is known ------------------------------------------------------------------------
    def known(self, value: Value) -> Array | None:
        """An integer tensor's elements as dimensions, when they are known at import."""
        if value in self._dims:
            found = self._dims[value]
            return None if any(isinstance(x, Hole) for x in found.flat) else found
        blob = self.builder.constants.get(value)
        if blob is None or value.type.dtype.is_float or blob.array.size > 1 << 16:
            return None
        return object_array(blob.array.tolist()).reshape(blob.array.shape)

    def parts(self, value: Value) -> Array | None:
        """An integer tensor's elements as dimensions, with a :class:`Hole` for each that is not
        known; ``None`` when it is no vector of a few elements."""
        if value in self._dims:
            return self._dims[value]
        found = self.known(value)
        shape = value.type.shape
        if found is not None or not value.type.dtype.is_integer:
            return found
        if len(shape) > 1 or not value.type.is_static or value.type.size > MAX_PARTS:  # type: ignore[operator]
            return None
        holes = np.empty(value.type.static_shape, dtype=object)
        for k in range(holes.size):
            holes.reshape(-1)[k] = Hole(value, k)
        return holes

    def sizes_in(self, value: Value) -> list[Dim]:
        """The dimensions that are elements of a tensor, as far as they are known."""
        found = self._dims.get(value)
        return [] if found is None else [d for d in found.flat if isinstance(d, Poly)]

    def array(self, value: Value | None) -> Array | None:
        """The contents of a constant; ``None`` when it is absent or not constant."""
        blob = None if value is None else self.builder.constants.get(value)
        return None if blob is None else blob.array

    def dims(self, value: Value, what: str) -> tuple[Dim, ...]:
        """A vector (or scalar) of sizes; those computed at run time become new dimensions. E204
        when even their number is unknown."""
        found = self.parts(value)
        if found is None:
            message = f"{what}: how many sizes there are is not known"
            raise error("E204", message, _AT_RUN_TIME, loc=self.loc)
        holes = [x for x in found.flat if isinstance(x, Hole)]
        self.bind(holes)
        return tuple(self._bound[x] if isinstance(x, Hole) else x for x in found.flat)

    def bind(self, holes: Sequence[Hole]) -> None:
        """Give holes dimensions of their own: one node for all that is not bound yet."""
        new = [h for h in dict.fromkeys(holes) if h not in self._bound]
        if not new:
            return
        pieces = [self.element(h.value, h.index) for h in new]
        sizes = [self.names.fresh("d") for _ in new]
        self._bound.update(zip(new, sizes, strict=True))
        self.bind_values(pieces, sizes)

    def bound(self, value: Value) -> Poly:
        """A dimension that has the value of a vector of one element."""
        found = self.names.fresh("d")
        self.bind_values([value], [found])
        return found

    def bind_values(self, pieces: Sequence[Value], dims: Sequence[Dim]) -> None:
        """Give dimensions the values of vectors of one element each."""
        vector = pieces[0] if len(pieces) == 1 else self.op("concat", *pieces, axis=0)
        attrs: dict[str, AttrValue] = {"binds": tuple(dims)}
        self.builder.add_multi("bind_dims", (vector,), attrs, loc=self.loc)

    def element(self, value: Value, index: int) -> Value:
        """One element of a vector (or a scalar), as an i64 vector of length 1."""
        wide = self.reshape(self.cast(value, dtypes.i64), (value.type.size,))
        return wide if wide.type.size == 1 else self.slice_axis(wide, 0, index, index + 1)

    def ints(self, value: Value, what: str) -> tuple[int, ...]:
        """A vector of plain integers; E204 when one is symbolic or computed at run time."""
        found = self.known(value)
        if found is None:
            raise error("E204", f"{what} must be known at compile time", _AT_RUN_TIME, loc=self.loc)
        dims = tuple(found.ravel().tolist())
        numbers = tuple(int(d) for d in dims if isinstance(d, int))
        if len(numbers) != len(dims):
            raise error("E204", f"{what} must be known at compile time", _AT_RUN_TIME, loc=self.loc)
        return numbers

    def scalar(self, value: Value, what: str) -> Any:
        """The Python number in a constant of one element; E204 when it is not constant."""
        array = self.array(value)
        if array is None or array.size != 1:
            raise error("E204", f"{what} must be one known number", _AT_RUN_TIME, loc=self.loc)
        return array.reshape(()).item()

    # --- short forms --------------------------------------------------------------------------
    def cast(self, value: Value, dtype: DType) -> Value:
        """`value` as `dtype`."""
        return value if value.type.dtype is dtype else self.op("cast", value, to=dtype)

    def reshape(self, value: Value, shape: Sequence[Dim]) -> Value:
        """`value` under another shape; nothing when it has it already."""
        if value.type.shape == tuple(shape):
            return value
        return self.op("reshape", value, shape=tuple(shape))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """`value` with its axes permuted; nothing for the identity."""
        if tuple(perm) == tuple(range(len(perm))) and len(perm) == value.type.rank:
            return value
        return self.op("transpose", value, perm=tuple(perm))

    def like(self, number: float, value: Value) -> Value:
        """A scalar constant of `value`'s dtype."""
        return self.constant(number, value.type.dtype)

    def slice_axis(self, value: Value, axis: int, start: Dim, end: Dim) -> Value:
        """``value[..., start:end, ...]`` along one axis."""
        shape = value.type.shape
        starts = tuple(start if a == axis else 0 for a in range(len(shape)))
        ends = tuple(end if a == axis else d for a, d in enumerate(shape))
        return self.op("slice", value, starts=starts, ends=ends, steps=(1,) * len(shape))

"""What handlers emit with: core nodes, constants, and questions about what is known at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.onnx.fold import fold_constant, fold_symbolic, object_array
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.location import Loc
from aisc.ir.types import TensorType

Array = np.ndarray[Any, Any]
MAX_TENSOR_BYTES = 1 << 40
MAX_VIEW_BYTES = 1 << 29  # larger broadcast constants stay an operation


class Emitter:
    """Appends core nodes to a graph, folding what is known; `loc` is the node being translated."""

    def __init__(self, builder: GraphBuilder) -> None:
        self.builder = builder
        self.loc = Loc()
        self._dims: dict[Value, Array] = {}

    # --- emission -----------------------------------------------------------------------------
    def op(self, op: str, *inputs: Value | None, **attrs: AttrValue) -> Value:
        """Append a node with one result, or fold it."""
        definition = opdef.get(op)
        full = opdef.complete_attrs(definition, attrs, self.loc)
        types = tuple(None if v is None else v.type for v in inputs)
        known = tuple(None if v is None else self.builder.constants.get(v) for v in inputs)
        call = opdef.OpCall(definition, types, full, known, self.loc)
        results = definition.infer(call)
        self._check_size(results)
        folded = fold_constant(call, results)
        if folded is not None:
            return self.builder.constant(folded, op, self.loc)
        dims = self._fold_dims(call, inputs, results)
        if dims is not None:
            return self.dims_value(dims, results[0].dtype)
        return self.builder.add(op, inputs, attrs, loc=self.loc)

    def multi(self, op: str, *inputs: Value | None, **attrs: AttrValue) -> tuple[Value, ...]:
        """Append a node with several results."""
        values = self.builder.add_multi(op, inputs, attrs, loc=self.loc)
        self._check_size([v.type for v in values])
        return values

    def _check_size(self, results: Sequence[TensorType]) -> None:
        for t in results:
            size = t.size
            if isinstance(size, int) and size * t.dtype.bytes > MAX_TENSOR_BYTES:
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
            return self._dims[value]
        blob = self.builder.constants.get(value)
        if blob is None or value.type.dtype.is_float or blob.array.size > 1 << 16:
            return None
        return object_array(blob.array.tolist()).reshape(blob.array.shape)

    def array(self, value: Value | None) -> Array | None:
        """The contents of a constant; ``None`` when it is absent or not constant."""
        blob = None if value is None else self.builder.constants.get(value)
        return None if blob is None else blob.array

    def dims(self, value: Value, what: str) -> tuple[Dim, ...]:
        """A vector (or scalar) of dimensions; E204 when it is computed at run time."""
        found = self.known(value)
        if found is None:
            raise error("E204", f"{what} must be known at compile time", loc=self.loc)
        return tuple(found.ravel().tolist())

    def ints(self, value: Value, what: str) -> tuple[int, ...]:
        """A vector of plain integers; E204 when one is symbolic or computed at run time."""
        dims = self.dims(value, what)
        numbers = tuple(int(d) for d in dims if isinstance(d, int))
        if len(numbers) != len(dims):
            note = "give the dimensions fixed sizes, e.g. --shape name=1"
            raise error("E204", f"{what} must be known at compile time", note, loc=self.loc)
        return numbers

    def scalar(self, value: Value, what: str) -> Any:
        """The Python number in a constant of one element; E204 when it is not constant."""
        array = self.array(value)
        if array is None or array.size != 1:
            raise error("E204", f"{what} must be one known number", loc=self.loc)
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

"""Folding at import: constants that are views or small, and vectors of symbolic sizes.

Exporters compute shapes with tensors (Shape, Gather, Concat, Reshape...). Such tensors are tracked
as numpy object arrays of dimensions, on which the operators of :data:`SYMBOLIC` are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aisc.ir.arith.poly import Dim, bounds, floordiv, maximum, minimum, mod
from aisc.ir.blob import Blob
from aisc.ir.graph.core import attribute_symbols
from aisc.ir.graph.opdef import OpCall
from aisc.ir.types import TensorType

Array = np.ndarray[Any, Any]
SMALL = 1 << 12  # elements of a constant that is worth computing at import
_VIEWS = frozenset({"reshape", "transpose", "slice"})
_NEVER = frozenset({
    "constant", "sizes", "iota", "scatter_nd", "scatter_elements",
    "dequantize", "widen",  # what a model keeps in few bits is what it computes with
})  # fmt: skip


def fold_constant(call: OpCall, results: Sequence[TensorType]) -> Blob | None:
    """The value of a call whose operands are all known, when it is cheap; else ``None``."""
    blobs = [b for b in call.constants if b is not None]
    if call.op.name in _NEVER or len(results) != 1 or not results[0].is_static:
        return None
    if not _is_plain(call):
        return None
    if len(blobs) != len(call.constants) or not blobs:
        return None
    arrays = [b.array for b in blobs]
    cheap = _total(results[0]) <= SMALL and all(a.size <= SMALL for a in arrays)
    view = call.op.name in _VIEWS and (call.op.name != "reshape" or _is_dense(arrays[0]))
    if not (cheap or view) or not _is_defined(call, arrays):
        return None
    try:
        with np.errstate(all="ignore"):
            (value,) = call.op.reference(call, arrays)
    except (IndexError, ValueError, ZeroDivisionError):
        return None  # the fault is reported when the model runs
    return Blob(np.asarray(value).astype(results[0].dtype.numpy, copy=False))


def _is_plain(call: OpCall) -> bool:
    """Whether no attribute holds a size, or the number of a turn, that only run time gives."""
    return not any(True for x in call.attrs.values() for _ in attribute_symbols(x))


def _total(t: TensorType) -> int:
    size = t.size
    assert isinstance(size, int), "only static types are folded"
    return size


def _is_dense(x: Array) -> bool:
    return bool(x.flags.c_contiguous)


def _is_defined(call: OpCall, arrays: Sequence[Array]) -> bool:
    if call.op.name in ("div", "mod", "fmod") and arrays[1].dtype.kind in "iu":
        return bool(np.all(arrays[1]))
    return True


def object_array(values: object) -> Array:
    """A numpy array of dimensions."""
    return np.asarray(values, dtype=object)


def _each(fn: Callable[..., Dim | None]) -> Callable[[OpCall, Sequence[Array]], Array | None]:
    def apply(call: OpCall, xs: Sequence[Array]) -> Array | None:
        operands = np.broadcast_arrays(*xs)
        flat = [fn(*items) for items in zip(*(o.ravel() for o in operands), strict=True)]
        if any(v is None for v in flat):
            return None
        out = np.empty(len(flat), dtype=object)
        out[:] = flat
        return out.reshape(operands[0].shape)

    return apply


def _plain(call: OpCall, xs: Sequence[Array]) -> Array | None:
    (value,) = call.op.reference(call, xs)
    return np.asarray(value)


def _cast(call: OpCall, xs: Sequence[Array]) -> Array | None:
    return xs[0] if call.attrs["to"].is_integer else None


def _div(a: Dim, b: Dim) -> Dim | None:
    return floordiv(a, b) if bounds(a)[0] >= 0 and bounds(b)[0] > 0 else None


def _mod(a: Dim, b: Dim) -> Dim | None:
    return mod(a, b) if bounds(b)[0] > 0 else None


def _equal(a: Dim, b: Dim) -> bool | None:
    low, high = bounds(a - b)
    if low > 0 or high < 0:
        return False
    return True if a == b else None


def _less(a: Dim, b: Dim) -> bool | None:
    low, high = bounds(a - b)
    return True if high < 0 else False if low >= 0 else None


def _relu(a: Dim) -> Dim:
    return maximum(a, 0)


def _where(call: OpCall, xs: Sequence[Array]) -> Array | None:
    return np.where(xs[0].astype(bool), xs[1], xs[2])


def _prod(call: OpCall, xs: Sequence[Array]) -> Array | None:
    axes = tuple(call.attrs["axes"])
    return np.asarray(np.prod(xs[0], axis=axes, keepdims=call.attrs["keepdims"]), dtype=object)


def _gather(call: OpCall, xs: Sequence[Array]) -> Array | None:
    try:
        indices = xs[1].astype(np.int64)
        return np.asarray(np.take(xs[0], indices, axis=call.attrs["axis"]), dtype=object)
    except (TypeError, IndexError):
        return None  # an index is itself symbolic or out of range


SYMBOLIC: Mapping[str, Callable[[OpCall, Sequence[Array]], Array | None]] = {
    "gather": _gather,
    "concat": _plain,
    "slice": _plain,
    "reshape": _plain,
    "transpose": _plain,
    "expand": _plain,
    "tile": _plain,
    "cast": _cast,
    "add": _each(lambda a, b: a + b),
    "sub": _each(lambda a, b: a - b),
    "mul": _each(lambda a, b: a * b),
    "neg": _each(lambda a: -a),
    "div": _each(_div),
    "mod": _each(_mod),
    "min": _each(minimum),
    "max": _each(maximum),
    "relu": _each(_relu),
    "equal": _each(_equal),
    "less": _each(_less),
    "greater": _each(lambda a, b: _less(b, a)),
    "not": _each(lambda a: not a),
    "where": _where,
    "reduce_prod": _prod,
    "reduce_sum": lambda call, xs: np.asarray(
        np.sum(xs[0], axis=tuple(call.attrs["axes"]), keepdims=call.attrs["keepdims"]),
        dtype=object,
    ),
}


def fold_symbolic(call: OpCall, operands: Sequence[Array]) -> Array | None:
    """The dimensions that a call on vectors of dimensions gives; ``None`` when undecided."""
    rule = SYMBOLIC.get(call.op.name)
    if rule is None or not _is_plain(call) or any(x.size > SMALL for x in operands):
        return None
    result = rule(call, operands)
    return None if result is None else object_array(result)

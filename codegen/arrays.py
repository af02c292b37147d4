"""Arrays at the border of compiled code: what callers give becomes memory that code can read.

An input is taken as it is when it is a C-contiguous array of the right type whose address suits
its elements; otherwise it is copied, or refused with E501. Values are never converted from one
type to another, except Python's own numbers and lists of them, which have no type.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.signature import Port, shape_error, type_text
from aisc.ir.diagnostics import ExecutionError, execution_error

Array = NDArray[Any]
ALIGNMENT = 64
_PLAIN = (bool, int, float, list, tuple)


def as_input(value: Any, port: Port, dtype: np.dtype[Any]) -> Array:
    """`value` as a C-contiguous, aligned array of `dtype` and the port's rank; E501 otherwise."""
    array: Array = value if type(value) is np.ndarray else _foreign(value, port)
    if array.dtype != dtype or array.ndim != len(port.type.shape):
        raise shape_error("input", port, array)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = _copy(array)
    if port.dtype.kind == "bool" and array.size and array.view(np.uint8).max() > 1:
        # Bytes that numpy takes for true but compiled code does not.
        array = array.view(np.uint8) != 0
    return array


def _copy(array: Array) -> Array:
    try:
        return np.array(array, order="C", copy=True)
    except MemoryError:
        raise execution_error("E502", f"{array.nbytes} bytes cannot be allocated") from None


def _foreign(value: Any, port: Port) -> Array:
    """An array of something that is none: shared through a protocol, or made of numbers."""
    try:
        if isinstance(value, np.ndarray):
            if isinstance(value, np.ma.MaskedArray):
                raise TypeError("a masked array has no values at masked places; use filled()")
            return value.view(np.ndarray)
        if isinstance(value, _PLAIN) and not isinstance(value, np.generic):
            return _of_numbers(value, port)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except ExecutionError:
        raise
    except Exception as fault:  # whatever a foreign protocol raises
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise execution_error(
            "E501",
            f"input '{port.name}' cannot be read as an array",
            f"expected {port.type}",
            f"got {type(value).__name__}: {reason}",
        ) from None


def _of_numbers(value: Any, port: Port) -> Array:
    """Python's numbers in the port's type, if it can hold them."""
    natural = np.asarray(value)
    kind, wanted = natural.dtype.kind, port.dtype
    if natural.size == 0:
        return natural.astype(wanted.numpy)
    fits = kind == "b" if wanted.kind == "bool" else kind in ("iuf" if wanted.is_float else "iu")
    if fits and wanted.is_integer:
        fits = wanted.min_value <= int(natural.min()) <= int(natural.max()) <= wanted.max_value
    if not fits:
        raise shape_error("input", port, natural)
    with np.errstate(over="ignore"):
        array = natural.astype(wanted.numpy)
    if wanted.is_float and not np.array_equal(np.isfinite(array), np.isfinite(natural)):
        raise TypeError(f"a number is too large for {wanted}")
    return array


def as_outputs(
    out: Any, ports: Sequence[Port], shapes: Sequence[tuple[int, ...]], inputs: Sequence[Array]
) -> list[Array]:
    """The caller's arrays for the outputs; E501 unless each is what a call would have made and
    shares memory with no other and with no input."""
    given: list[Any] = list(out) if isinstance(out, list | tuple) else [out]
    if len(given) != len(ports):
        raise execution_error("E501", f"{len(ports)} outputs are needed, got {len(given)}")
    for k, (array, port, shape) in enumerate(zip(given, ports, shapes, strict=True)):
        _check_output(array, port, shape)
        if not array.size:
            continue
        if any(np.may_share_memory(array, i) for i in inputs):
            raise execution_error("E501", f"out= for '{port.name}' overlaps an input")
        if any(np.may_share_memory(array, other) for other in given[:k]):
            raise execution_error("E501", f"out= for '{port.name}' overlaps another output")
    return given


def _check_output(array: Any, port: Port, shape: tuple[int, ...]) -> None:
    expected = f"expected a writable, aligned, C-contiguous {port.dtype}[" + (
        ", ".join(map(str, shape)) + "]"
    )
    if not isinstance(array, np.ndarray):
        got = f"got {type(array).__name__}, which is no numpy array"
        raise execution_error("E501", f"out= for '{port.name}' does not fit", expected, got)
    flags = array.flags
    fits = flags.c_contiguous and flags.aligned and flags.writeable
    if not (fits and array.shape == shape and array.dtype == port.dtype.numpy):
        got = f"got {type_text(array)}, strides {array.strides}, writable: {flags.writeable}"
        raise execution_error("E501", f"out= for '{port.name}' does not fit", expected, got)


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array that starts on a 64-byte boundary."""
    count = math.prod(shape) * dtype.itemsize
    try:
        raw = np.empty(count + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError, OverflowError):
        raise execution_error("E502", f"{count} bytes cannot be allocated") from None
    return np.ndarray(shape, dtype, raw, -address(raw) % ALIGNMENT)


def _slow_address(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _fast_address(array: Array) -> int:
    return _word(id(array) + object.__basicsize__).value


_word = ctypes.c_size_t.from_address


def _has_fast_address() -> bool:
    """Whether the data pointer follows the head of the object, as numpy's C interface has it."""
    if sys.implementation.name != "cpython":
        return False
    samples = [np.zeros(n, np.uint8)[n // 2 :] for n in (1, 100, 10000)]
    return all(_fast_address(a) == _slow_address(a) for a in samples)


# Address of the first element of an array; the slow way takes a microsecond.
address = _fast_address if _has_fast_address() else _slow_address


def array_at(start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A view of the elements that lie from an address on."""
    count = math.prod(shape) * dtype.itemsize
    if count == 0:
        return np.empty(shape, dtype)
    raw = (ctypes.c_uint8 * count).from_address(start)
    flat: Array = np.frombuffer(memoryview(raw), np.uint8).view(dtype)
    return flat.reshape(shape)


def pointers(arrays: Sequence[Array]) -> Any:
    """A table of addresses; the arrays must be kept alive beside it."""
    return (ctypes.c_int64 * max(1, len(arrays)))(*map(address, arrays))

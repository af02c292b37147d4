"""Arguments of calls: everything that callers pass is taken, or refused with E501."""

from __future__ import annotations

import array
import decimal
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import aisc
from aisc.codegen import arrays
from aisc.codegen.run.repeated import UNALIGNED
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, symbol
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

A = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


@cache
def unary(dtype: str, shape: tuple[Dim, ...], op: str = "neg") -> aisc.Executable:
    b = GraphBuilder()
    x = b.input("x", TensorType(shape, dtypes.dtype(dtype)))
    return aisc.compile(b.finish([b.add(op, (x,))]), threads=1, cache=False)


def neg() -> aisc.Executable:
    return unary("f32", (2, 3))


def refusal(run: aisc.Executable, *values: Any, **options: Any) -> str:
    with pytest.raises(ExecutionError) as caught:
        run(*values, **options)
    assert caught.value.codes == ("E501",)
    return str(caught.value)


def shifted(values: np.ndarray, by: int) -> np.ndarray:
    """The same values at an address that is `by` beyond a multiple of 64."""
    raw = np.zeros(values.nbytes + 128, np.uint8)
    start = -raw.ctypes.data % 64 + by
    result = raw[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    result[...] = values
    return result


class Foreign:
    """An array only through one protocol."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.value = name, value

    def __getattr__(self, name: str) -> Any:
        if name == self.name:
            return self.value
        raise AttributeError(name)


class Dlpack:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def __dlpack__(self, **_: object) -> object:
        if self.fault is not None:
            raise self.fault
        return A.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0) if self.fault is None else (2, 0)


READ_ONLY = A.copy()
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "value",
    [
        A, READ_ONLY, np.asfortranarray(A), A[::-1, ::-1][::-1, ::-1], np.repeat(A, 2, 1)[:, ::2],
        shifted(A, 4), shifted(A, 1), memoryview(A), A.view(np.recarray), A.tolist(),
        tuple(map(tuple, A.astype(int).tolist())), Dlpack(),
        Foreign("__array_interface__", A.__array_interface__),
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_values_that_are_taken(value: Any) -> None:
    assert np.array_equal(neg()(value), -A)


@pytest.mark.parametrize(
    "value",
    [
        A.astype(">f4"), A.astype(np.float64), A.astype(object), A.astype(np.complex64),
        A[0], A[:, :2], A.T, np.zeros((2, 0, 3), np.float32), A.reshape(2, 3, 1),
        np.zeros((2, 3), [("a", "f4")]), np.ma.masked_array(A, A > 0),
        None, "abc", b"abc", {1: 2}, iter([1]), object(), 1 + 2j, 3.0, [[1, 2, 3], [4, 5]],
        [[1e300, 0, 0], [0, 0, 0]], [[True] * 3] * 2, [[decimal.Decimal(1)] * 3] * 2, [],
        array.array("f", [1, 2]), np.datetime64("2020"), Dlpack(BufferError("on another device")),
        Dlpack(ZeroDivisionError()), Foreign("__array_interface__", 7),
    ],
    ids=lambda v: f"{type(v).__name__}",
)  # fmt: skip
def test_values_that_are_refused(value: Any) -> None:
    assert "f32[2, 3]" in refusal(neg(), value)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("i8", [-127, 127, 0], [127, -127, 0]),
        ("i8", [-129, 0, 0], None),
        ("i8", [1.0, 2.0, 3.0], None),
        ("i8", [1 << 70, 0, 0], None),
        ("i8", bytearray(b"abc"), None),
        pytest.param("i8", memoryview(b"abc").cast("b"), [-97, -98, -99], id="i8-memoryview"),
        ("i64", [1 << 62, -(1 << 62), 0], [-(1 << 62), 1 << 62, 0]),
        ("bf16", [1, 0.5, -2.0], [-1, -0.5, 2]),
        ("bf16", np.array([1, 2, 3], ml_dtypes.bfloat16), [-1, -2, -3]),
        ("bf16", np.array([1, 2, 3], np.uint16), None),
        ("f16", [float("inf"), 65504, 0], [float("-inf"), -65504, 0]),
        ("f16", [65520, 0, 0], None),
    ],
    ids=str,
)
def test_python_numbers_take_the_type_that_is_needed(
    dtype: str, value: Any, expected: list[float] | None
) -> None:
    run = unary(dtype, (3,))
    if expected is None:
        refusal(run, value)
    else:
        got = run(value)
        assert got.dtype == dtypes.dtype(dtype).numpy
        assert got.tolist() == expected


def test_scalars() -> None:
    run = unary("f32", ())
    for value in (2, 2.0, np.float32(2), np.array(2, np.float32)):
        got = run(value)
        assert (got.shape, float(got)) == ((), -2.0)
    for wrong in (np.float64(2), [2.0], True, "2"):
        refusal(run, wrong)


def test_every_byte_but_zero_is_true() -> None:
    run = unary("bool", (4,), "not")
    odd = np.array([2, 1, 0, 255], np.uint8).view(np.bool_)
    assert run(odd).tolist() == [False, False, True, False]
    assert run(odd[::-1]).tolist() == [False, True, False, False]
    assert run([True, False, True, False]).tolist() == [False, True, False, True]
    refusal(run, [1, 0, 1, 0])


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (0, 0)])
def test_empty_arrays(shape: tuple[int, ...]) -> None:
    assert unary("f32", shape)(np.zeros(shape, np.float32)).shape == shape
    assert unary("f32", (symbol("n"), symbol("m")))(np.zeros(shape, np.float32)).shape == shape


def test_more_than_there_is_memory_for() -> None:
    run = unary("f32", (symbol("n"),))
    with pytest.raises(ExecutionError) as caught:
        run(np.broadcast_to(np.float32(0), (1 << 50,)))
    assert caught.value.codes == ("E502",)


def test_symbolic_sizes_must_agree() -> None:
    n = symbol("n", 2, 9)
    b = GraphBuilder()
    x = b.input("x", TensorType((n, 2), dtypes.f32))
    y = b.input("y", TensorType((ceildiv(n, 2), 2), dtypes.f32))
    run = aisc.compile(b.finish([b.add("neg", (x,)), b.add("neg", (y,))]), threads=1, cache=False)

    def zeros(rows: int) -> np.ndarray:
        return np.zeros((rows, 2), np.float32)

    assert [r.shape for r in run(zeros(5), zeros(3))] == [(5, 2), (3, 2)]
    for sizes in ((5, 2), (1, 1), (10, 5)):
        assert "f32[" in refusal(run, *map(zeros, sizes))


def test_a_size_that_no_input_tells() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((ceildiv(symbol("n"), 2),), dtypes.f32))
    with pytest.raises(ExecutionError) as caught:
        aisc.compile(b.finish([b.add("neg", (x,))]), threads=1, cache=False)
    assert caught.value.codes == ("E501",)


# -- out= ------------------------------------------------------------------------------------


def test_forms_of_out() -> None:
    out = np.empty((2, 3), np.float32)
    for given in (out, [out], (out,)):
        out[...] = 0
        assert neg()(A, out=given) is out
        assert np.array_equal(out, -A)


@pytest.mark.parametrize(
    "out",
    [
        5, "a", None, [None], [], {"a": 1}, [A.T.copy().T], [READ_ONLY], [A[0]], [A.astype(">f4")],
        [A.astype(np.float64)], [shifted(A, 1)], [np.broadcast_to(np.float32(0), (2, 3))],
        [A.copy(), A.copy()], [A.tolist()],
    ],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_out_that_does_not_fit(out: Any) -> None:
    if out is None:
        assert np.array_equal(neg()(A, out=None), -A)
        return
    before = A.copy()
    refusal(neg(), A, out=out)
    assert np.array_equal(A, before)


def test_outputs_must_not_overlap() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((2, 3), dtypes.f32))
    run = aisc.compile(b.finish([b.add("neg", (x,)), b.add("relu", (x,))]), threads=1, cache=False)
    both = np.empty((3, 3), np.float32)
    assert "overlaps another output" in refusal(run, A, out=[both[:2], both[1:]])
    assert "overlaps an input" in refusal(run, both[:2], out=[both[1:], np.empty_like(A)])
    four = np.empty((4, 3), np.float32)
    run(A, out=[four[:2], four[2:]])
    assert np.array_equal(four, [*-A, *np.maximum(A, 0)])


def test_results_are_aligned_and_not_shared() -> None:
    large = unary("f32", (2, UNALIGNED))
    results = [neg()(A) for _ in range(20)]
    results += [large(np.zeros((2, UNALIGNED), A.dtype)) for _ in range(3)]
    assert all(r.flags.writeable for r in results)
    assert all(r.ctypes.data % 64 == 0 for r in results if r.nbytes > UNALIGNED)
    assert not any(np.may_share_memory(a, b) for a in results for b in results if a is not b)


def test_addresses() -> None:
    """The quick way to an array's address agrees with numpy's own."""
    for a in (A, A[1:], A[:, 1:], A.T, np.zeros(0), np.zeros((2, 0)), np.array(1), READ_ONLY):
        assert arrays.address(a) == a.ctypes.data

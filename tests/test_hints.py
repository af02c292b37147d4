"""Hints of schedules: they change no result, ask for the right cache lines, print and parse."""

from __future__ import annotations

import numpy as np
import pytest

from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import For, Prefetch
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

ROWS, COLUMNS = 6, 40


def double() -> Func:
    x = buffer("x", dtypes.i32, (ROWS, COLUMNS), "input")
    y = buffer("y", dtypes.i32, (ROWS, COLUMNS), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i, j: Load(x, (i, j)) + Load(x, (i, j)), "double")
    return cb.func("f", (x, y))


def prefetched() -> Schedule:
    s = Schedule.of(double()).prefetch("double", "x", "double_i0", ahead=1)
    return s.prefetch("double", "y", "double_i0")


def test_a_prefetch_keeps_the_result_and_round_trips() -> None:
    s = prefetched()
    x = np.arange(ROWS * COLUMNS, dtype=np.int32).reshape(ROWS, COLUMNS)
    for func in (s.func, optimize(s.func)):
        y = np.zeros_like(x)
        run_func(func, [x, y])
        assert np.array_equal(y, 2 * x)
        assert print_ir(parse_func(print_ir(func))) == print_ir(func)
    again = Schedule.of(double()).replay(trace_from_json(trace_to_json(s.trace)))
    assert print_ir(again.func) == print_ir(s.func)


def test_a_prefetch_asks_once_for_each_cache_line() -> None:
    body = prefetched().func.body
    hints = [n for n in walk(body) if isinstance(n, Prefetch)]
    assert [(h.buffer.name, h.write) for h in hints] == [("y", True), ("x", False)]
    counts = [n.extent for n in walk(body) if isinstance(n, For) and isinstance(n.body, Prefetch)]
    assert [int(c.value) for c in counts] == [3, 3]  # 40 elements of 4 bytes


@pytest.mark.parametrize(
    ("block", "name", "loop"),
    [("double", "z", "double_i0"), ("double", "x", "other"), ("other", "x", "double_i0")],
)
def test_a_prefetch_of_what_is_not_there_is_refused(block: str, name: str, loop: str) -> None:
    with pytest.raises(CompileError) as refused:
        Schedule.of(double()).prefetch(block, name, loop)
    assert refused.value.codes == ("E302",)


def test_a_prefetch_of_too_much_is_refused() -> None:
    x = buffer("x", dtypes.f32, (2, 64, 64), "input")
    y = buffer("y", dtypes.f32, (2, 64, 64), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda *i: Load(x, i), "copy")
    with pytest.raises(CompileError, match="too large"):
        Schedule.of(cb.func("f", (x, y))).prefetch("copy", "x", "copy_i0")

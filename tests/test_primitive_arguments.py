"""Arguments of schedule primitives: what is refused, and in which words; what a trace keeps."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from schedule_texts import DOUBLE, GRID

from aisc.ir.annotations import fits
from aisc.ir.diagnostics import CompileError
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.arguments import signature
from aisc.passes.schedule.schedule import PRIMITIVES, Schedule, trace_from_json, trace_to_json


def schedule(text: str = DOUBLE) -> Any:
    return Schedule.of(parse_func(text))


NAMES = sorted(schedule().split("i", 2) and PRIMITIVES)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "why"),
    [
        ("split", ("i",), {}, "missing a required argument: 'factor'"),
        ("split", ("i", "4"), {}, "'factor' must be a whole number, got '4'"),
        ("split", ("i", 4.0), {}, "'factor' must be a whole number, got 4.0"),
        ("split", ("i", True), {}, "'factor' must be a whole number, got True"),
        ("split", ("i", None), {}, "'factor' must be a whole number, got None"),
        ("split", ("i", 4, ("a", "b"), 5), {}, "too many positional arguments"),
        ("split", ("i", 4), {"loop": "j"}, "multiple values for argument 'loop'"),
        ("split", ("i", 4), {"name": "j"}, "got an unexpected keyword argument 'name'"),
        ("split", ("i", 4), {"names": ("a",)}, "'names' must be a tuple (a name, a name)"),
        ("split", ("i", 4), {"names": "ab"}, "'names' must be a tuple (a name, a name)"),
        ("reorder", ("i", 1), {}, "'loops' must be a name, got 1"),
        ("tile", ("i", (2,)), {}, "'loops' must be a sequence of names, got 'i'"),
        ("tile", (("i", "j"), (2, "3")), {}, "'factors' must be a sequence of whole numbers"),
        ("tile", (("i",), (2,), (("a", 1),)), {}, "a sequence of tuples (a name, a name)"),
        ("bind", ("i", "warp.x"), {}, "'axis' must be one of 'serial', 'parallel'"),
        ("partition", ("i", 2.5), {}, "'at' must be a whole number or a name, got 2.5"),
        ("annotate", ("i", "key", object()), {}, "'value' must be a whole number or a number or"),
        ("clamp_tail", ("m", "i", 4, 1), {}, "'zero' must be True or False, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], why: str
) -> None:
    with pytest.raises(CompileError) as caught:
        getattr(schedule(), name)(*args, **kwargs)
    (found,) = caught.value.diagnostics
    assert found.code == "E302"
    assert found.message.startswith(f"{name}: ")
    assert why in found.message
    expected, got = found.notes
    assert expected.startswith(f"expected {name}(")
    assert got.startswith(f"got {name}(")


def test_an_unknown_primitive_names_those_that_are_near() -> None:
    with pytest.raises(CompileError) as caught:
        schedule().splt("i", 4)
    assert "split" in caught.value.diagnostics[0].notes[0]


def test_a_trace_keeps_plain_values() -> None:
    s = schedule(GRID).tile(["i", "j"], np.array([2, 4]).tolist(), names=[["a", "b"], ("c", "d")])
    s = s.split("b", np.int64(2))
    assert s.trace[0].args == (("i", "j"), (2, 4))
    assert s.trace[0].kwargs == (("names", (("a", "b"), ("c", "d"))),)
    assert type(s.trace[1].args[1]) is int
    assert trace_from_json(trace_to_json(s.trace)) == s.trace


@pytest.mark.parametrize("name", NAMES)
def test_every_annotation_is_understood(name: str) -> None:
    for p in signature(PRIMITIVES[name].rewrite).parameters.values():
        assert not fits(object(), p.annotation), f"{p.name} takes anything"
        assert p.default is p.empty or p.default == () or fits(p.default, p.annotation)


def test_primitives_are_seen_by_help_and_completion() -> None:
    s = schedule()
    assert set(NAMES) <= set(dir(s))
    assert inspect.getdoc(s.split).startswith("Split a loop")
    assert list(inspect.signature(s.split).parameters) == ["loop", "factor", "names"]

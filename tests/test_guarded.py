"""Runs under guard: nothing is read or written outside of a buffer, whatever the data say; what is
refused names its node, and is refused by the interpreter as well."""

from __future__ import annotations

from typing import Any

import hostile_models
import numpy as np
import pytest
from guarded import both_ends, equal, outcome, survives
from hostile_models import Hostile
from op_cases import Case
from test_ops_machine import COMPUTED, graph_of

from aisc.codegen.run.guard import guarded_array
from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret

QUICK, SLOW = 40, 2000
# Both are right about as much memory as there is.
LIMITS = ("memory", "allocate")


@pytest.mark.parametrize("at_end", [True, False])
def test_the_guard_ends_a_process(at_end: bool) -> None:
    """The mode would see an access just outside, on its side."""
    array = guarded_array((5,), np.dtype(np.float32), at_end)
    address = array.__array_interface__["data"][0]
    place = address + (20 if at_end else -4)

    def look(_: int) -> Any:
        import ctypes

        return ctypes.c_float.from_address(place).value

    _, ended = survives(look, 1)
    assert ended == "signal 11 at 0"


def test_operators() -> None:
    """Every case of every operator, at both ends, gives what it gives without guard."""
    models = [(c, graph_of(c, constants=False)) for c in COMPUTED]
    made = [(c, both_ends(graph), feeds) for c, (graph, feeds) in models]

    def run(k: int) -> str | None:
        case, exes, feeds = made[k]
        named = dict(zip(exes[0].input_names, feeds, strict=True))
        first, second = (outcome(exe, named) for exe in exes)
        same = first[0] == second[0] == "ok" and equal(first[1], second[1])
        return None if same else f"{case}: {first[0]} {second[0]}"

    wrong, ended = survives(run, len(made))
    assert not ended, str(made[int(ended.split()[-1])][0])
    assert wrong == []


def verdict(found: list[tuple[str, Any]], wanted: tuple[str, Any]) -> str:
    """What is wrong with two runs under guard, given what the interpreter says; or nothing."""
    texts = [str(text) for code, text in (*found, wanted) if code != "ok"]
    if any(limit in text for limit in LIMITS for text in texts):
        return ""
    if found[0][0] != found[1][0] or (found[0][0] == "ok") != (wanted[0] == "ok"):
        return f"the interpreter: {wanted}, compiled: {found}"
    if found[0][0] == "ok":
        pairs = zip(found[0][1], wanted[1], strict=True)
        close = all(
            a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)
            for a, b in pairs
        )
        return "" if close and equal(found[0][1], found[1][1]) else "the results differ"
    named = found[0][0] != "E502" or "the_" in found[0][1]
    return "" if named else f"no node is named: {found[0][1]}"


def interpreted(graph: Graph, feeds: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "ok", interpret(graph, feeds)
    except ExecutionError as fault:
        return fault.codes[0], str(fault)


def bombard(hostile: Hostile, count: int) -> list[str]:
    """What goes wrong with so many inputs of a model."""
    graph = import_model(hostile.model())
    exes = both_ends(hostile.model().SerializeToString())

    def run(k: int) -> str | None:
        feeds = hostile.draw(np.random.default_rng([k, 7]))
        wanted = interpreted(graph, feeds)
        fault = verdict([outcome(exe, feeds) for exe in exes], wanted)
        return f"input {k}: {fault}" if fault else None

    wrong, ended = survives(run, count)
    return [*wrong, *([ended] if ended else [])]


@pytest.mark.parametrize("hostile", hostile_models.all_models(), ids=lambda m: m.name)
def test_hostile_inputs(hostile: Hostile) -> None:
    assert bombard(hostile, QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize("hostile", hostile_models.all_models(), ids=lambda m: m.name)
def test_many_hostile_inputs(hostile: Hostile) -> None:
    assert bombard(hostile, SLOW) == []


def test_a_case_is_a_case() -> None:
    """The sweep above is not empty."""
    assert len(COMPUTED) > 300 and isinstance(COMPUTED[0], Case)

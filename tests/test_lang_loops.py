"""Loops of the run in the model language: ``scan``, ``while``, what they carry and collect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.model import graph_of
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret

rng = np.random.default_rng(0)
X = rng.standard_normal((5, 4)).astype(np.float32)
W = rng.standard_normal(5).astype(np.float32)
HEAD = "x: f32[n, 4], w: f32[m]"


def graph(body: str, head: str = HEAD, before: str = "") -> Graph:
    """The graph of a model with a body."""
    return graph_of(f"{before}\nmodel m({head}) {{\n{body}\n}}\n", "m.aim", Path(), {})


def results(body: str, *inputs: Any, head: str = HEAD, before: str = "") -> list[Any]:
    """What a model gives, by the interpreter and compiled, which must agree."""
    g = graph(body, head, before)
    want = interpret(g, list(inputs))
    got = aisc.compile(g, threads=1, cache=False)(*inputs)
    for one, other in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return want


def test_a_scan_has_a_turn_for_each_place_and_stacks_what_it_collects() -> None:
    body = """h = x[0] * 0
scan row in x, weight in w, t in 1..n+1 {
    h = h * weight + row
    collect hs = h
    collect ts = t * 2
}
return h, hs, ts"""
    h, hs, ts = results(body, X, W)
    want, rows = np.zeros(4, np.float32), []
    for row, weight in zip(X, W, strict=True):
        want = want * weight + row
        rows.append(want)
    np.testing.assert_allclose(h, want, rtol=1e-5)
    np.testing.assert_allclose(hs, rows, rtol=1e-5)
    np.testing.assert_array_equal(ts, [2, 4, 6, 8, 10])


@pytest.mark.parametrize("size", [0, 1])
def test_a_scan_may_have_no_turns(size: int) -> None:
    body = "total = 1.5\nscan weight in w { total = total + weight\ncollect ws = total }"
    total, ws = results(f"{body}\nreturn total, ws", W[:size], head="w: f32[n]")
    np.testing.assert_allclose(total, 1.5 + W[:size].sum(), rtol=1e-6)
    assert ws.shape == (size,)
    (ws,) = results("scan t in 3..1 { collect ws = t }\nreturn ws", W[:1], head="w: f32[n]")
    assert ws.shape == (0,)
    (ws,) = results("scan a in w { collect ws = a + 1 }\nreturn ws", W[:0], head="w: f32[0]")
    assert ws.shape == (0,)


def test_scans_in_scans_and_in_layers_capture_what_is_outside() -> None:
    layer = """layer sums(x: f32[n, k], shift: f32[], scale: int) {
    param w: f32[k] = full(0.5)
    scan row in x {
        y = row * w + shift
        if reduce_sum(row, axes=[0], keepdims=false) > 0 { y = y * scale }
        scan element in y {
            collect shifted = element + reduce_max(x, axes=[0, 1], keepdims=false)
        }
        collect rows = shifted
    }
    return rows
}"""
    (got,) = results("return sums(x, w[0], scale=3)", X, W, before=layer)
    rows = X * np.float32(0.5) + W[0]
    rows = np.where(X.sum(1, keepdims=True) > 0, rows * 3, rows)
    np.testing.assert_allclose(got, rows + X.max(), rtol=1e-5)


def test_lists_that_grow() -> None:
    """A carried value may change its size from turn to turn."""
    body = (
        "seen = w[0:0]\nscan weight in w { seen = concat(weight * 2, seen, axis=0) }\nreturn seen"
    )
    body = body.replace("weight * 2", "reshape(weight * 2, shape=[1])")
    (got,) = results(body, W, head="w: f32[m]")
    np.testing.assert_allclose(got, W[::-1] * 2)


def test_while_collects() -> None:
    body = """while total < limit {
    total = total * 2
    collect totals = total
}
return total, totals"""
    for start, limit in ((1.0, 9.0), (10.0, 9.0)):
        head = "total: f32[], limit: f32[]"
        total, totals = results(body, np.float32(start), np.float32(limit), head=head)
        np.testing.assert_array_equal(totals, [2, 4, 8, 16] if start < limit else [])
        assert total == (16 if start < limit else 10)


def test_turns_end_by_a_condition_or_a_computed_number() -> None:
    body = """a = 0
scan k in 2..count while a < 5 {
    a = a + k
    collect all_a = a
}
while true {
    b = a * 2
    a = a - 1
    again b > 6
}
scan row in x {
    collect rows = row[0]
    again rest > 0
}
return a, all_a, rows"""
    body = body.replace("again rest > 0", "again row[0] < 9")
    for count in (0, 4, 100):
        inputs = X[:2], np.array(count)
        a, steps, rows = results(body, *inputs, head="x: f32[n, 4], count: i64[]")
        np.testing.assert_array_equal(steps, np.cumsum([2, 3])[: max(0, count - 2)])
        assert a == {0: -1, 4: 2, 100: 2}[count]
        np.testing.assert_array_equal(rows, X[:2, 0])


def test_sizes_of_scanned_tensors_are_tested_in_the_run() -> None:
    g = graph("scan a in x, b in w { collect ys = a * b }\nreturn ys")
    with pytest.raises(aisc.ExecutionError):
        interpret(g, [X, W[:3]])


FAULTS = {
    "scan a in 3 { collect b = a }": ("E109", "numbers of turns are a range"),
    "scan a in w[0] { collect b = a }": ("E109", "a tensor with axes is expected, got f32[]"),
    "scan a in x, a in w { collect b = a }": ("E109", "two parts of a turn"),
    "scan a in x[:, 0:3], t in 0..n { collect b = c }": ("E108", "there is no name 'c'"),
    "scan a in x[0], t in 0..3 { collect b = a }": ("E109", "there are 4 turns, but 3"),
    "scan t in 0..w { collect b = t }": ("E109", "a number of turns must be i64[]"),
    "scan t in 0..cast(w[0], to=i64), a in x { collect b = a }": ("E109", "stands alone"),
    "scan t in 0..1.5 { collect b = t }": ("E109", "a range ends with a whole number"),
    "scan t in w[0]..3 { collect b = t }": ("E109", "a range begins with a whole number"),
    "scan a in x { return a }": ("E109", "cannot return"),
    "scan a in x { collect b = a\ncollect b = a }": ("E109", "collected twice"),
    "scan a in x { if a[0] > 0 { collect b = a } }": ("E109", "no branch of the run"),
    "scan a in x { again a }": ("E109", "a condition must be bool[]"),
    "scan a in x { again a[0] > 0\nagain a[0] > 1 }": ("E109", "twice"),
    "collect b = x": ("E109", "'collect' stands outside of a loop"),
    "again x[0, 0] > 0": ("E109", "'again' stands outside of a loop"),
    "while true { w = w + 1 }": ("E109", "this loop has no end"),
    "while x[0, 0] > 0 while { w = w }": ("E107", "unexpected"),
    "scan a, b in x { collect c = a }": ("E107", "unexpected"),
    "scan a in x { h = a }\nreturn h": ("E108", "there is no name 'h'"),
    "scan a in x { w = x }": ("E109", "f32[m] where a turn begins"),
}


@pytest.mark.parametrize("body", FAULTS)
def test_faults_of_loops_are_told_at_their_place(body: str) -> None:
    code, text = FAULTS[body]
    with pytest.raises(CompileError, match=re.escape(text)) as caught:
        graph(f"{body}\nreturn x")
    assert set(caught.value.codes) == {code}
    (d,) = caught.value.diagnostics
    assert (d.loc.file, d.loc.line > 0) == ("m.aim", True)


def test_the_form_of_loops() -> None:
    text = """model m(x: f32[n, 4]) {
    scan row in x, t in 1..n + 1 while x[0, 0] > 0 {
        collect ys = -row
        again t < 3
    }
    return ys
}
"""
    loose = re.sub(r" (?=[,={+<>])", "   ", text).replace("    ", "")
    assert formatted(loose) == formatted(text) == text


def test_parameters_in_bodies_that_are_built_again() -> None:
    """Sizes that change make another try necessary; parameters and their names stay."""
    before = "layer part(x: f32[k]) { param w: f32[1] = normal()\nreturn concat(x, w, axis=0) }"
    body = "seen = w[0:0]\nscan t in 0..3 { seen = part(seen) as p }\nreturn seen"
    (got,) = results(body, W, head="w: f32[m]", before=before)
    assert got[0] == got[1] == got[2]
    body = "seen = w[0:0]\nscan t in 0..3 { seen = part(seen) }\nreturn seen, part(w[0:0])"
    got, other = results(body, W, head="w: f32[m]", before=before)
    assert (got[0] == got[1] == got[2]) and got[0] != other[0]


def test_a_count_without_an_end() -> None:
    body = "a = 0\nscan t in 0.. while a < limit { a = a + cast(t, to=i64) + 1\ncollect ts = t }"
    a, ts = results(f"{body}\nreturn a, ts", np.array(7), head="limit: i64[]")
    assert (int(a), list(ts)) == (10, [0, 1, 2, 3])
    with pytest.raises(CompileError, match="no end"):
        graph("scan t in 0.. { w = w + 1 }\nreturn w")

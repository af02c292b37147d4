"""Random programs on all roads: machine code, every level under the interpreters, onnxruntime.

Kernels are made to run on several threads however small they are, so that what is tested includes
barriers and memory shared between threads. onnxruntime runs in a child: it may fail, or die, on
sizes of zero.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from cpu_machines import make_threads_free
from onnx_models import check_everywhere, const, graph, model, node, value
from program_maker import Maker
from stretches import Stretches, without_barrier

import aisc
from aisc.driver import api
from aisc.ir.arith.poly import maximum, minimum, symbol
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.interpret import run_program
from aisc.ir.text.parser import parse
from aisc.ir.text.printer import print_ir

Results = Sequence[np.ndarray]


@pytest.fixture(autouse=True)
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is enough for several threads."""
    make_threads_free(monkeypatch)


# --- onnxruntime ------------------------------------------------------------------------------
def _serve(pipe: Connection, blob: bytes, feeds: Sequence[Any]) -> None:
    import onnxruntime as ort

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(blob, options)
    except Exception:
        return
    for feed in feeds:
        try:
            pipe.send(session.run(None, feed))
        except Exception:
            pipe.send(None)


def reference(blob: bytes, feeds: Sequence[Any]) -> list[Results | None]:
    """onnxruntime's results for each feed, ``None`` where it gives none."""
    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe()
    child = context.Process(target=_serve, args=(other, blob, feeds))
    child.start()
    other.close()
    found: list[Results | None] = []
    try:
        while len(found) < len(feeds):
            found.append(mine.recv())
    except EOFError:
        found += [None] * (len(feeds) - len(found))
    child.join()
    return found


# --- comparison -------------------------------------------------------------------------------
def equal(got: Results, want: Results, where: str) -> None:
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{where}, output {k}"
        np.testing.assert_array_equal(a, b, err_msg=f"{where}, output {k}")


def blobs(g: Graph) -> dict[str, Any]:
    found = {b.digest: b for b in g.constants().values()}
    for n in g.nodes:
        for region in n.regions:
            found.update(blobs(region))
    return found


def parses_back(step: str, product: object) -> None:
    if isinstance(product, Graph):
        assert same(parse(print_ir(product), blobs(product)), product), step
    elif isinstance(product, Program):
        text = print_ir(product)
        weights = {b.digest: b for b in product.weights.values()}
        assert print_ir(parse(text, weights)) == text, step


def check(seed: int) -> None:
    """One program: every road gives what the graph interpreter gives for the imported model."""
    maker = Maker(seed, host=seed % 3 == 0)
    m, feeds = maker.program(), maker.feeds()
    wants = reference(m.SerializeToString(), feeds)
    compiled, products = api.products(m, use_cache=False, verify=True, threads=1)
    one, two = compiled.executable, aisc.compile(m, threads=2, cache=False)
    assert one is not None
    for step, product in products.items():
        parses_back(step, product)
    for k, (feed, given) in enumerate(zip(feeds, wants, strict=True)):
        want = [np.asarray(x) for x in interpret(products["import"], feed)]  # type: ignore[arg-type]
        # What stacks no turns has sizes that onnxruntime gives otherwise.
        pairs = [(a, b) for a, b in zip(want, given or want, strict=True) if a.size or b.size]
        equal([a for a, _ in pairs], [b for _, b in pairs], f"onnxruntime, feed {k}")
        for exe in (one, one, two, two):
            equal(exe.run(None, feed), want, f"{exe.threads} threads, feed {k}")
        if k in (0, 2):
            for step in ("canonicalize", "legalize", "fuse"):
                equal(interpret(products[step], feed), want, f"{step}, feed {k}")  # type: ignore[arg-type]
            for step in ("lower", "optimize", "plan"):
                arrays = [feed[n] for n in one.input_names]
                equal(run_program(products[step], arrays, nthreads=2), want, f"{step}, feed {k}")  # type: ignore[arg-type]


# The last two: a tail clamped over an extent that is a minimum, an arm without a barrier.
@pytest.mark.parametrize("seed", [*range(10), 1391, 197])
def test_programs(seed: int) -> None:
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 1100, 20))
def test_many_programs(start: int) -> None:
    for seed in range(start, start + 20):
        check(seed)


# --- barriers ---------------------------------------------------------------------------------
def planned(seed: int) -> Program:
    program = api.lower(Maker(seed, host=seed % 3 == 0).program(), to="program")
    assert isinstance(program, Program)
    return program


def test_barriers_suffice_and_most_are_needed() -> None:
    """No two threads disturb each other; without one of its barriers hardly a program is safe."""
    barriers = unneeded = 0
    for seed in range(20):
        program = planned(seed)
        assert not Stretches(program).faults, seed
        body = program.entry.body
        for place in range(without_barrier(body, -1)[1]):
            less = replace(program.entry, body=without_barrier(body, place)[0])
            barriers += 1
            unneeded += not Stretches(replace(program, entry=less)).faults
    assert barriers > 100
    assert unneeded < barriers / 3  # those beside a reservation, where threads meet anyway


@pytest.mark.slow
@pytest.mark.parametrize("start", range(2000, 2400, 40))
def test_barriers_of_many_programs(start: int) -> None:
    for seed in range(start, start + 40):
        assert not Stretches(planned(seed)).faults, seed


# --- what was found ---------------------------------------------------------------------------
X = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
IN = value("x", 1, ["n", 3])
LIMIT = value("m", 7, [])


def loop_model(nodes: Sequence[Any], result: str, *weights: Any) -> Any:
    """A loop of `m` turns over one value ``h`` that starts as x."""
    inputs = [value("i", 7, []), value("go", 9, []), value("h")]
    more = [*nodes, node("Identity", "go", "flag")]
    body = graph(more, inputs, [value("flag", 9, []), value(result)])
    return model([node("Loop", "m _ x", "y", body=body)], [IN, LIMIT], [value("y")], *weights)


def turns(*counts: int) -> list[dict[str, Any]]:
    return [{"x": X, "m": np.array(n, np.int64)} for n in counts]


def test_a_branch_returns_one_value_twice() -> None:
    def arm(op: str) -> Any:
        nodes = [node(op, "x", f"{op}0"), node("Identity", f"{op}0", f"{op}1")]
        return graph(nodes, [], [value(f"{op}0"), value(f"{op}1")])

    nodes = [node("If", "c", "y z", then_branch=arm("Neg"), else_branch=arm("Exp"))]
    m = model(nodes, [IN, value("c", 9, [])], [value("y"), value("z")])
    check_everywhere(m, [{"x": X, "c": np.array(c)} for c in (True, False)])


def test_storage_of_a_carried_value_becomes_smaller() -> None:
    nodes = [node("Slice", "h one far zero", "h2")]
    weights = [const(n, np.array([k], np.int64)) for n, k in (("zero", 0), ("one", 1), ("far", 99))]
    check_everywhere(loop_model(nodes, "h2", *weights), turns(0, 1, 3, 6))


def test_a_scan_over_a_constant() -> None:
    """Its element in a turn is no constant."""
    inner = graph([node("Add", "h r", "h2")], [value("h"), value("r")], [value("h2")])
    scan = node("Scan", "x w", "y", body=inner, num_scan_inputs=1)
    m = model([scan], [IN], [value("y")], const("w", X))
    check_everywhere(m, [{"x": X}])


def test_a_scan_over_an_axis_of_size_zero() -> None:
    inner = graph([node("Add", "h r", "h2")], [value("h"), value("r")], [value("h2")])
    scan = node("Scan", "x w", "y", body=inner, num_scan_inputs=1)
    m = model([scan], [IN], [value("y")], const("w", X[:0]))
    y = aisc.compile(m, cache=False)(X)
    np.testing.assert_array_equal(y, X)


def test_a_scan_over_sizes_of_two_names() -> None:
    inner = graph([node("Add", "h r", "a"), node("Mul", "a s", "h2")],
                  [value("h"), value("r"), value("s")], [value("h2")])  # fmt: skip
    scan = node("Scan", "u x z", "y", body=inner, num_scan_inputs=2)
    m = model([scan], [value("u", 1, [3]), IN, value("z", 1, ["m", 3])], [value("y")])
    check_everywhere(m, [{"u": X[0], "x": X, "z": X}])
    with pytest.raises(ExecutionError):
        aisc.compile(m, cache=False)(X[0], X, X[:2])


def test_a_size_that_is_never_negative_needs_no_maximum() -> None:
    n = symbol("n")
    assert maximum(0, n) == n
    assert maximum(0, minimum(9, n)) == minimum(9, n)
    assert maximum(n, symbol("one", 0, 0)) == n


def test_a_carried_constant_that_nobody_needs() -> None:
    """A view of a weight is not declared when the weight itself is not used."""
    inputs = [value("i", 7, []), value("go", 9, []), value("h"), value("k")]
    nodes = [node("Neg", "h", "h2"), node("Identity", "k", "k2"), node("Identity", "go", "flag")]
    body = graph(nodes, inputs, [value("flag", 9, []), value("h2"), value("k2")])
    loop = node("Loop", "m _ x w", "y z", body=body)
    m = model([loop], [IN, LIMIT], [value("y")], const("w", X))
    check_everywhere(m, turns(0, 3))


def test_sizes_from_the_host_parse_back() -> None:
    m = model([node("Unique", "x", "u"), node("Neg", "u", "y")], [IN], [value("y")])
    _, products = api.products(m, use_cache=False)
    for step, product in products.items():
        parses_back(step, product)

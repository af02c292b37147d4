"""The digits net: right answers, agreement with onnxruntime, and every level of its compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aisc import api
from aisc.codegen.executable import Executable
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.verify import verify_program
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL = FOLDER / "digits.onnx"
GRAPH_STEPS = ("import", "specialize", "canonicalize", "legalize", "fuse")
PROGRAM_STEPS = ("lower", "optimize", "plan")

Products = Mapping[str, "Graph | Program | str"]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "images.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="module")
def compiled() -> tuple[Executable, Products]:
    done, products = api.products(MODEL, threads=2)
    assert done.executable is not None
    return done.executable, products


def test_accuracy(compiled, data) -> None:  # type: ignore[no-untyped-def]
    images, labels = data
    assert images.shape == (360, 1, 8, 8)
    assert np.mean(compiled[0](images).argmax(1) == labels) >= 0.97


def cast_blob(value: AttrValue) -> AttrValue:
    if isinstance(value, Blob) and value.array.dtype == np.float32:
        return Blob(value.array.astype(np.float64))
    return value


def wide(graph: Graph) -> Graph:
    """The same graph over f64: inputs and constants are cast, types follow."""
    table: dict[Value, Value] = {}

    def cast(v: Value) -> Value:
        narrow = v.type.dtype == dtypes.f32
        table[v] = Value(v.name, TensorType(v.type.shape, dtypes.f64) if narrow else v.type)
        return table[v]

    def node(n: GraphNode) -> GraphNode:
        assert not n.regions, "the imported graph has no regions"
        attrs = tuple((k, cast_blob(a)) for k, a in n.attrs)
        inputs = tuple(None if v is None else table[v] for v in n.inputs)
        return replace(n, attrs=attrs, inputs=inputs, outputs=tuple(map(cast, n.outputs)))

    inputs = tuple(map(cast, graph.inputs))
    nodes = tuple(map(node, graph.nodes))
    return replace(
        graph, inputs=inputs, nodes=nodes, outputs=tuple(table[v] for v in graph.outputs)
    )


@pytest.fixture(scope="module")
def bound(data) -> tuple[np.ndarray, float]:  # type: ignore[no-untyped-def]
    """The float64 result, and the error that agreement allows against it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    graph = wide(import_model(MODEL))
    verify(graph)
    (exact,) = interpret(graph, [data[0].astype(np.float64)])
    assert exact.dtype == np.float64
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"image": data[0]})
    terms = 16 * 9  # the longest sum of products of the net
    floor = terms * float(np.finfo(np.float32).eps) * float(np.abs(exact).max())
    return exact, max(4 * float(np.abs(theirs - exact).max()), floor)


def test_agreement_with_onnxruntime(bound, data) -> None:  # type: ignore[no-untyped-def]
    exact, allowed = bound
    one, two = (api.compile(MODEL, threads=n) for n in (1, 2))
    for size in (1, 2, 3, 17, 360):
        image = data[0][:size]
        got = one(image)
        assert np.abs(got - exact[:size]).max() <= allowed
        assert got.tobytes() == two(image).tobytes(), f"threads change the bits of batch {size}"
        assert got.tobytes() == one(image).tobytes(), "a second call differs"


@pytest.mark.parametrize("step", GRAPH_STEPS)
def test_graphs(compiled, data, step: str) -> None:  # type: ignore[no-untyped-def]
    exe, products = compiled
    graph = products[step]
    assert isinstance(graph, Graph)
    verify(graph)
    back = parse(print_ir(graph), blobs_of(graph))
    assert isinstance(back, Graph) and same(back, graph)
    (expected,) = interpret(graph, [data[0][:20]])
    np.testing.assert_allclose(exe(data[0][:20]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", PROGRAM_STEPS)
def test_programs(compiled, data, step: str) -> None:  # type: ignore[no-untyped-def]
    exe, products = compiled
    program = products[step]
    assert isinstance(program, Program)
    verify_program(program)
    assert parse(print_ir(program), blobs_of(program)) == program
    (got,) = run_program(program, [data[0][:1]], nthreads=2)
    np.testing.assert_allclose(exe(data[0][:1]), got, rtol=1e-4, atol=1e-4)


def test_texts(compiled) -> None:  # type: ignore[no-untyped-def]
    _, products = compiled
    assert "define" in str(products["emit"])
    assert "aisc_entry" in str(products["assemble"])


def test_demo() -> None:
    """It runs from anywhere, tells the accuracy, and writes no colours when asked not to."""
    result = subprocess.run(
        [sys.executable, str(FOLDER / "demo.py")],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, cwd=FOLDER.parent,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "of 360 held-out digits (97.5%)" in result.stdout
    assert "compiled digits.onnx" in result.stdout
    assert "\x1b" not in result.stdout

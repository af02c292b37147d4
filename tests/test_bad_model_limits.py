"""Bad model files through the command line: one clear message, exit code 1 or 3, bounded time and
memory, never a traceback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

SECONDS, BYTES = 10.0, 2 << 30
FLOAT = TensorProto.FLOAT


def save(path: Path, nodes: list[onnx.NodeProto], inits: list[TensorProto] | None = None) -> None:
    x = helper.make_tensor_value_info("x", FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], inits or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())


def absurd_constant(path: Path) -> None:
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [1 << 20, 1 << 20, 1 << 20])
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    save(path, nodes, [shape])


def absurd_initializer(path: Path) -> None:
    w = TensorProto(name="w", data_type=FLOAT, dims=[1 << 31, 1 << 31], raw_data=b"1234")
    save(path, [helper.make_node("Add", ["x", "w"], ["y"])], [w])


def escaping(path: Path) -> None:
    w = TensorProto(name="w", data_type=FLOAT, dims=[3])
    w.data_location = TensorProto.EXTERNAL
    w.external_data.add(key="location", value="../../../../../../etc/passwd")
    save(path, [helper.make_node("Add", ["x", "w"], ["y"])], [w])


def cyclic(path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["y"]), helper.make_node("Neg", ["y"], ["b"])]
    save(path, nodes)


def wrongly_typed(path: Path) -> None:
    i = helper.make_tensor("i", TensorProto.INT32, [3], [1, 2, 3])
    save(path, [helper.make_node("Add", ["x", "i"], ["y"])], [i])


def unsupported(path: Path) -> None:
    nodes = [helper.make_node("NoSuchOp", ["x"], ["a"]), helper.make_node("NorThis", ["a"], ["y"])]
    save(path, nodes)


def truncated(path: Path) -> None:
    wrongly_typed(path)
    path.write_bytes(path.read_bytes()[:-9])


def many_doublings(path: Path) -> None:
    """A chain of concatenations that doubles the size sixty times."""
    nodes, last = [], "x"
    for k in range(60):
        name = f"d{k}" if k < 59 else "y"
        nodes.append(helper.make_node("Concat", [last, last], [name], axis=0))
        last = name
    save(path, nodes)


CASES: dict[str, tuple[Callable[[Path], None], int]] = {
    "absurd constant": (absurd_constant, 1),
    "absurd initializer": (absurd_initializer, 1),
    "escaping": (escaping, 1),
    "cyclic": (cyclic, 1),
    "wrongly typed": (wrongly_typed, 1),
    "unsupported": (unsupported, 3),
    "truncated": (truncated, 1),
    "garbage": (lambda p: p.write_bytes(os.urandom(5000)) and None, 1),
    "empty": (lambda p: p.write_bytes(b"") and None, 1),
    "many doublings": (many_doublings, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_models_are_refused_within_bounds(name: str, tmp_path: Path) -> None:
    make, code = CASES[name]
    path = tmp_path / "model.onnx"
    make(path)
    start = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", "aisc", "run", str(path)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "AISC_DEBUG": ""},
    )  # fmt: skip
    assert time.monotonic() - start < SECONDS
    assert child.returncode == code, child.stderr
    assert "Traceback" not in child.stderr
    assert "error[E" in child.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < BYTES

"""What executables cost besides their kernels: opening a bundle, calling a small model.

    python benchmarks/executables.py [--folder DIR] [--repeats N]

The bundle is a transformer of BERT-base's size (12 layers of 768, 434 MB of weights), made on first
use. Opening is measured in fresh processes: from before ``import aisc`` to the first result.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import timeit
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

import aisc
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

HIDDEN, INNER, LAYERS, VOCABULARY, TOKENS, HEADS = 768, 3072, 12, 30522, 128, 12
OPEN = """
import time
start = time.perf_counter()
import aisc
imported = time.perf_counter()
run = aisc.load({path!r}, threads={threads}, verify={verify})
opened = time.perf_counter()
import numpy
run(numpy.zeros((1, 128), numpy.int64))
done = time.perf_counter()
run(numpy.zeros((1, 128), numpy.int64))
print(imported - start, opened - imported, done - opened, time.perf_counter() - done)
"""


class Transformer:
    """Builds the model node by node."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) * 0.02).astype(np.float32))

    def linear(self, x: str, inner: int, outer: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(inner, outer)), self.weight(outer))

    def norm(self, x: str) -> str:
        return self.op("LayerNormalization", x, self.weight(HIDDEN), self.weight(HIDDEN), axis=-1)

    def attention(self, x: str) -> str:
        heads = self.constant(np.array([1, TOKENS, HEADS, HIDDEN // HEADS]))
        q, k, v = (
            self.op("Transpose", self.op("Reshape", self.linear(x, HIDDEN, HIDDEN), heads), perm=p)
            for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = self.op("Mul", self.op("MatMul", q, k), self.constant(np.float32(0.125)))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        flat = self.constant(np.array([1, TOKENS, HIDDEN]))
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
        return self.linear(joined, HIDDEN, HIDDEN)

    def model(self) -> onnx.ModelProto:
        x = self.op("Gather", self.weight(VOCABULARY, HIDDEN), "ids", axis=0)
        x = self.norm(x)
        for _ in range(LAYERS):
            x = self.norm(self.op("Add", x, self.attention(x)))
            inner = self.op("Gelu", self.linear(x, HIDDEN, INNER))
            x = self.norm(self.op("Add", x, self.linear(inner, INNER, HIDDEN)))
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, TOKENS])
        out = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, TOKENS, HIDDEN])
        graph = helper.make_graph(self.nodes, "transformer", [ids], [out], self.weights)
        opset = [helper.make_opsetid("", 20)]
        return helper.make_model(graph, opset_imports=opset, ir_version=9)


def opening(path: Path, threads: int, verify: bool, repeats: int) -> list[float]:
    """Medians in ms: import, load, first call, sum of the three, second call."""
    code = OPEN.format(path=str(path), threads=threads, verify=verify)
    rows = []
    for _ in range(repeats):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        *parts, second = map(float, result.stdout.split())
        rows.append([*parts, sum(parts), second])
    return [statistics.median(column) * 1e3 for column in zip(*rows, strict=True)]


def call_microseconds(rows: Dim, repeats: int) -> float:
    """The least time of a call of ``relu`` on 4 x 8 numbers."""
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, 8), dtypes.f32))
    run = aisc.compile(b.finish([b.add("relu", (x,))]), threads=1)
    array = np.ones((4, 8), np.float32)
    return min(timeit.repeat(lambda: run(array), number=5000, repeat=repeats)) / 5000 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    path = arguments.folder / "aisc-transformer.aisc"
    if not path.exists():
        aisc.save(aisc.compile(Transformer().model()), path)
    table = Table(
        "opened", "import ms", "load ms", "first call ms", "sum ms", "second call ms",
        title=f"{path.stat().st_size / 1e6:.0f} MB in a fresh process, medians",
    )  # fmt: skip
    for threads in (1, 2):
        for verify in (True, False):
            row = opening(path, threads, verify, arguments.repeats)
            how = f"{threads} threads, weights {'verified' if verify else 'not verified'}"
            table.add_row(how, *(f"{ms:.0f}" for ms in row))
    console = Console()
    console.print(table)
    for title, rows in (("static", 4), ("symbolic", symbol("n"))):
        console.print(f"call, {title} shape: {call_microseconds(rows, arguments.repeats):.1f} us")


if __name__ == "__main__":
    main()

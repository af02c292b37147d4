"""The distinct convolutions of ResNet-50 and a matrix product, as shares of the FMA peak.

Each layer is compiled as a model of its own through the ordinary pipeline, one thread, batch 1, and
measured in turn with the peak, so that both see the same state of the machine::

    python benchmarks/contractions.py [--json FILE] [--repeats 15]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import aisc
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.types import TensorType
from aisc.roofline import fma_gflops

# kernel, stride, input size, input channels, output channels
RESNET50: tuple[tuple[int, int, int, int, int], ...] = (
    (7, 2, 224, 3, 64),
    (1, 1, 56, 64, 64), (3, 1, 56, 64, 64), (1, 1, 56, 64, 256), (1, 1, 56, 256, 64),
    (1, 1, 56, 256, 128), (3, 2, 56, 128, 128), (1, 1, 28, 128, 512), (1, 2, 56, 256, 512),
    (1, 1, 28, 512, 128), (3, 1, 28, 128, 128), (1, 1, 28, 512, 256), (3, 2, 28, 256, 256),
    (1, 1, 14, 256, 1024), (1, 2, 28, 512, 1024), (1, 1, 14, 1024, 256), (3, 1, 14, 256, 256),
    (1, 1, 14, 1024, 512), (3, 2, 14, 512, 512), (1, 1, 7, 512, 2048), (1, 2, 14, 1024, 2048),
    (1, 1, 7, 2048, 512), (3, 1, 7, 512, 512),
)  # fmt: skip
MATMULS: tuple[tuple[int, bool], ...] = ((512, True), (512, False), (1024, True))
rng = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def convolution(k: int, stride: int, size: int, c: int, o: int) -> tuple[Graph, float, str]:
    """A channels-last convolution with bias and relu; its multiply-adds times two; its name."""
    b = GraphBuilder()
    x = b.input("x", TensorType((1, size, size, c), dtypes.f32))
    pad = k // 2
    attrs = {
        "strides": (stride, stride),
        "pads": (pad, pad, pad, pad),
        "dilations": (1, 1),
        "data_layout": "NHWC",
        "group": 1,
    }
    w, bias = b.constant(random(k, k, c, o)), b.constant(random(o))
    y = b.add("relu", (b.add("conv", (x, w, bias), attrs),))
    out = y.type.static_shape[1]
    flops = 2.0 * out * out * o * c * k * k
    return b.finish([y]), flops, f"conv {k}x{k}/{stride} {size}x{size}x{c} -> {o}"


def product(n: int, constant: bool) -> tuple[Graph, float, str]:
    """A square matrix product; B constant or an input."""
    b = GraphBuilder()
    x = b.input("x", TensorType((n, n), dtypes.f32))
    w = b.constant(random(n, n)) if constant else b.input("w", TensorType((n, n), dtypes.f32))
    name = f"matmul {n}^3, B {'constant' if constant else 'an input'}"
    return b.finish([b.add("matmul", (x, w))]), 2.0 * n**3, name


def measure(graph: Graph, flops: float, repeats: int) -> tuple[float, float]:
    """(GFLOP/s, share of peak), medians of paired samples."""
    exe = aisc.compile(graph, threads=1)
    arrays = [random(*b.type.static_shape) for b in exe.inputs]
    exe(*arrays)
    rates, shares = [], []
    for _ in range(repeats):
        peak = fma_gflops(300_000)
        start = time.perf_counter()
        exe(*arrays)
        rate = flops / (time.perf_counter() - start) / 1e9
        rates.append(rate)
        shares.append(rate / peak)
    return statistics.median(rates), statistics.median(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    cases: list[tuple[Callable[..., tuple[Graph, float, str]], tuple[int, ...]]] = [
        *((convolution, c) for c in RESNET50),
        *((product, m) for m in MATMULS),
    ]
    table = Table("layer", "GFLOP/s", "share of peak", title="one thread, fp32")
    rows = []
    for make, parameters in cases:
        graph, flops, name = make(*parameters)
        rate, share = measure(graph, flops, arguments.repeats)
        rows.append({"layer": name, "flops": flops, "gflops": rate, "share": share})
        table.add_row(name, f"{rate:.1f}", f"{share:.0%}")
    total = sum(r["flops"] for r in rows[: len(RESNET50)])
    weighted = total / sum(r["flops"] / r["share"] for r in rows[: len(RESNET50)])
    table.add_row("ResNet-50 layers, weighted by work", "", f"{weighted:.0%}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

"""Kernels by family, as shares of what the machine can do::

    python benchmarks/kernels.py [gemm] [conv] [rows] [--threads 1] [--runs 15] [--json FILE]

``gemm``: matrix products, square and with few rows. ``conv``: the distinct convolutions of
ResNet-50 inside the model. ``rows``: softmax, layer normalisation and maps on data that a core's
second-level cache holds, and on data that no cache holds. All times are those of the kernels in a
profile (:mod:`aisc.measure.profile`): without the call from Python, medians over the runs. Limits
are measured beside them: multiply-adds in registers, copies of as many bytes.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zoo
from rich import box
from rich.console import Console
from rich.table import Table

from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import TensorType
from aisc.measure.machine_limits import copy_gbytes
from aisc.measure.profile import Profile, Row, layer_name, profile_runs

Entry = dict[str, Any]
GOOD = 0.88  # of the multiply-add peak: what a convolution should reach
# rows, depth, columns; whether B is a constant, and so packed when the model is compiled
GEMMS: tuple[tuple[int, int, int, bool], ...] = (
    (256, 256, 256, True), (512, 512, 512, True), (1024, 1024, 1024, True),
    (512, 512, 512, False), (1024, 1024, 1024, False),
    *((m, k, n, True) for k, n in ((768, 768), (768, 3072), (4096, 4096)) for m in (1, 4, 8)),
)  # fmt: skip
ROWS, COLUMNS = {"in L2": 64, "in memory": 8192}, 1024
rng = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def profile(model: Any, feeds: dict[str, Any] | None, options: argparse.Namespace) -> Profile:
    """The profile of a model or graph; inputs are random unless given."""
    compiled = build(model, "cpu", from_environment(threads=options.threads, profile=True))
    exe = compiled.executable
    assert exe is not None, "nothing stopped the pipeline"
    if feeds is None:
        feeds = {p.name: random(*p.type.static_shape) for p in exe.inputs}
    return profile_runs(compiled, feeds, 3, options.runs)


def entry(name: str, p: Profile, rows: Sequence[Row]) -> Entry:
    """Figures of the kernels of one case, together."""
    seconds, flops, executed, moved = (
        sum(getattr(r, key) for r in rows) for key in ("seconds", "flops", "executed", "bytes")
    )
    return {
        "name": name, "threads": p.threads, "runs": p.runs, "us": seconds * 1e6,
        "flops": flops, "executed": executed, "bytes": moved,
        "gflops": flops / seconds / 1e9, "gbytes": moved / seconds / 1e9,
        "peak_share": executed / seconds / 1e9 / p.fma,
        "copy_share": moved / seconds / 1e9 / p.copy,
        "roofline": sum(map(p.least, rows)) / seconds,
        "peak_gflops": p.fma, "copy_gbytes": p.copy,
    }  # fmt: skip


def kernels(p: Profile) -> list[Row]:
    return [r for r in p.rows if r.kind == "kernel"]


# -- families ------------------------------------------------------------------------------------


def gemm(options: argparse.Namespace) -> Iterator[Entry]:
    """Matrix products."""
    for m, k, n, constant in GEMMS:
        b = GraphBuilder()
        x = b.input("x", TensorType((m, k), dtypes.f32))
        w = b.constant(random(k, n)) if constant else b.input("w", TensorType((k, n), dtypes.f32))
        p = profile(b.finish([b.add("matmul", (x, w))]), None, options)
        yield entry(f"{m} x {k} x {n}" + ("" if constant else ", B an input"), p, kernels(p))


def conv(options: argparse.Namespace) -> Iterator[Entry]:
    """The distinct convolutions of ResNet-50, batch 1: layers with the same kernel are one, with
    the median of their times. The last entry is all of them, weighted by work."""
    entry_of = zoo.ZOO["resnet50"]
    model = entry_of.build()
    p = profile(model, zoo.feeds(model, entry_of.usual()), options)
    layers: dict[str, list[Row]] = {}
    # Those whose windows are one place are products of matrices: layers tell what they were.
    for r in kernels(p):
        if any(n.startswith("conv") for n in r.nodes):
            layers.setdefault(r.kernel, []).append(r)
    for name, rows in layers.items():
        middle = replace(rows[0], seconds=statistics.median(r.seconds for r in rows))
        yield entry(f"{name}: {layer_name(rows[0])}, {len(rows)} x", p, [middle])
    yield entry("all convolutions", p, [r for rows in layers.values() for r in rows])


def _softmax(b: GraphBuilder, x: Value, _: Value) -> Value:
    return b.add("softmax", (x,), {"axis": 1})


def _layer_norm(b: GraphBuilder, x: Value, _: Value) -> Value:
    scale, shift = b.constant(random(COLUMNS)), b.constant(random(COLUMNS))
    return b.add("layer_norm", (x, scale, shift), {"axis": 1, "epsilon": 1e-5})


ROW_CASES: dict[str, Callable[[GraphBuilder, Value, Value], Value]] = {
    "relu": lambda b, x, y: b.add("relu", (x,)),
    "add": lambda b, x, y: b.add("add", (x, y)),
    "exp": lambda b, x, y: b.add("exp", (x,)),
    "tanh": lambda b, x, y: b.add("tanh", (x,)),
    "softmax": _softmax,
    "layer_norm": _layer_norm,
}


def rows(options: argparse.Namespace) -> Iterator[Entry]:
    """Maps and kernels over rows, against copies of as many bytes."""
    for place, count in ROWS.items():
        for name, make in ROW_CASES.items():
            p = profile(_row_graph(make, count), None, options)
            # A copy moves twice the bytes of its source, and each thread copies its part.
            size = sum(r.bytes for r in kernels(p)) // 2 // p.threads
            copy = statistics.median(copy_gbytes(p.threads, size) for _ in range(5))
            yield entry(f"{name}, {place}", replace(p, copy=copy), kernels(p))


def _row_graph(make: Callable[[GraphBuilder, Value, Value], Value], count: int) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType((count, COLUMNS), dtypes.f32))
    y = b.input("y", TensorType((count, COLUMNS), dtypes.f32))
    return b.finish([make(b, x, y)])


FAMILIES = {"gemm": gemm, "conv": conv, "rows": rows}


# -- report --------------------------------------------------------------------------------------


def table(family: str, entries: Sequence[Entry]) -> Table:
    """Figures of a family; the share that is its measure comes last."""
    first = entries[0]
    threads = f"{first['threads']} thread" + "s" * (first["threads"] > 1)
    share = "of copy" if family == "rows" else "of peak"
    title = f"{family}: {threads}, fp32, peak {first['peak_gflops']:.0f} GFLOP/s"
    result = Table(box=box.SIMPLE, padding=0, title=title)
    result.add_column("kernel", no_wrap=True)
    for name in ("us", "GFLOP/s", "GB/s", "of roofline", share):
        result.add_column(name, justify="right", no_wrap=True)
    for e in entries:
        measure = e["copy_share" if family == "rows" else "peak_share"]
        figures = f"{e['us']:.1f}", f"{e['gflops']:.1f}", f"{e['gbytes']:.1f}"
        result.add_row(e["name"], *figures, f"{e['roofline']:.0%}", f"{measure:.0%}")
    if family == "conv":
        layers = entries[:-1]
        good = sum(e["peak_share"] >= GOOD for e in layers)
        result.caption = (
            f"{good} of {len(layers)} distinct layers at {GOOD:.0%} of the peak or more"
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure kernels by family.")
    parser.add_argument("families", nargs="*", help=f"of {', '.join(FAMILIES)}; by default all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = [f for f in options.families if f not in FAMILIES]
    if unknown:
        parser.error(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    found = {}
    for family in options.families or FAMILIES:
        found[family] = list(FAMILIES[family](options))
        Console().print(table(family, found[family]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

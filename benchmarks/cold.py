"""From nothing to the first result: import, compilation and one run in a fresh process.

    python benchmarks/cold.py [MODEL …] [--threads 2] [--rounds 3] [--levels 2,1] [--against DIR]
        [--json FILE]

The cache is empty. Models are those of ``benchmarks/zoo``, ONNX files, ``deep:6400``, a graph of so
many nodes that needs two kernels, and ``wide:800``, one of so many nodes of which every two need a
kernel of their own. ``--against`` is a folder where another version of aisc is installed (``pip
install --no-deps --target DIR``), ``--levels`` are optimisation levels: all take turns. Shown is
the fastest round of each, with the fastest of all calls, and ratios to the first side. Measure an
installed copy: an editable one is found, and may be translated, at each import.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from versus import subjects

CHILD = """
import time; start = time.perf_counter()
import json, os, sys
import numpy as np
import aisc
imported = time.perf_counter()
exe = aisc.compile(sys.argv[1], threads=int(sys.argv[2]), level=int(sys.argv[4]))
compiled = time.perf_counter()
with np.load(sys.argv[3]) as file:
    feeds = dict(file)
exe.run(None, feeds)
end = time.perf_counter()
cpu = sum(os.times()[:4])
calls = []
while len(calls) < 3 or sum(calls) < 0.5:
    before = time.perf_counter()
    exe.run(None, feeds)
    calls.append(time.perf_counter() - before)
print(json.dumps({"import": imported - start, "compile": compiled - imported,
                  "run": end - compiled, "all": end - start, "cpu": cpu, "call": min(calls)}))
"""
PARTS = ("import", "compile", "run", "all", "cpu")
DEFAULT = ("resnet50", "mobilenet_v2", "bert", "unet", "mlp", "deep:6400", "wide:800")
WIDTH = 32


def deep(nodes: int) -> onnx.ModelProto:
    """Equal layers one after the other: a product, a bias, an activation, a softmax."""
    rng = np.random.default_rng(0)
    weights = [_weight(f"w{k}", rng.standard_normal((WIDTH, WIDTH)) * 0.2) for k in range(8)]
    made, last = [], "x"
    for k in range(nodes // 4):
        made += [
            helper.make_node("MatMul", [last, f"w{k % 8}"], [f"a{k}"]),
            helper.make_node("Add", [f"a{k}", "b"], [f"b{k}"]),
            helper.make_node("Relu", [f"b{k}"], [f"c{k}"]),
            helper.make_node("Softmax", [f"c{k}"], [f"d{k}"], axis=1),
        ]
        last = f"d{k}"
    return _model(made, [*weights, _weight("b", np.ones(WIDTH))], WIDTH, last, WIDTH)


def wide(nodes: int) -> onnx.ModelProto:
    """Products of different sizes, each with an activation."""
    rng = np.random.default_rng(0)
    made, weights, last, size = [], [], "x", 16
    for k in range(nodes // 2):
        columns = 16 + k * 7 % 401
        weights.append(_weight(f"w{k}", rng.standard_normal((size, columns)) * 0.1))
        made += [
            helper.make_node("MatMul", [last, f"w{k}"], [f"a{k}"]),
            helper.make_node("Tanh", [f"a{k}"], [f"b{k}"]),
        ]
        last, size = f"b{k}", columns
    return _model(made, weights, 16, last, size)


def _weight(name: str, values: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, np.float32), name)


def _model(
    nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], columns: int, last: str, out: int
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, columns])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, [8, out])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


GRAPHS = {"deep": deep, "wide": wide}


def prepared(name: str, folder: Path) -> tuple[Path, Path]:
    """The files of a model and of its inputs."""
    kind, _, size = name.partition(":")
    feeds = folder / f"{kind}{size}.npz"
    if kind in GRAPHS:
        path = folder / f"{kind}{size}.onnx"
        onnx.save(GRAPHS[kind](int(size or 800)), str(path))
        np.savez(feeds, x=np.ones((8, WIDTH if kind == "deep" else 16), np.float32))
        return path, feeds
    subject = subjects.prepare(name, folder)
    np.savez(feeds, allow_pickle=False, **subject.feeds)
    return subject.model, feeds


def measured(model: Path, feeds: Path, threads: int, package: str, level: int) -> dict[str, float]:
    """Seconds of one fresh process with an empty cache; `package`: where its aisc is installed."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "XDG_CACHE_HOME": cache}
        if package:
            env["PYTHONPATH"] = package
        given = [str(model.resolve()), str(threads), str(feeds), str(level)]
        command = [sys.executable, "-c", CHILD, *given]
        done = subprocess.run(
            command, env=env, cwd=cache, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{model.name}: {done.stderr.strip() or done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table_of(rows: list[dict[str, Any]]) -> Table:
    """The rounds that took least; how many times as long as the first side others take."""
    heads = ("model", "version", *PARTS, "call ms", "× all", "× call")
    table = Table(*heads, caption="seconds, but for calls")
    for row in rows:
        numbers = [f"{row[p]:.2f}" for p in PARTS]
        call = f"{row['call'] * 1e3:.2f}"
        table.add_row(row["model"], row["version"], *numbers, call, *row["ratios"])
    return table


def rows_of(model: str, times: Mapping[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """The fastest round of each side, and its fastest call of all rounds."""
    best = {side: min(found, key=lambda t: t["all"]) for side, found in times.items()}
    for side, found in times.items():
        best[side] = {**best[side], "call": min(t["call"] for t in found)}
    first = next(iter(best.values()))
    rows = []
    for side, found in best.items():
        ratios = [f"{found[p] / first[p]:.2f}" for p in ("all", "call")]
        shown = ["", ""] if found is first else ratios
        rows.append({"model": model, "version": side, "ratios": shown, **found})
    return rows


def main() -> None:
    """The command."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("models", nargs="*", default=DEFAULT)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levels", default="2", help="optimisation levels, e.g. 2,1")
    parser.add_argument("--against", default="", help="a folder with another version of aisc")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    packages = {"here": "", **({"there": options.against} if options.against else {})}
    levels = [int(x) for x in options.levels.split(",")]
    sides = {f"{name} -O{x}": (package, x) for name, package in packages.items() for x in levels}
    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        for name in bar.track(options.models):
            model, feeds = prepared(name, Path(folder))
            times: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side, (package, level) in sides.items():
                    found = measured(model, feeds, options.threads, package, level)
                    times[side].append(found)
            rows += rows_of(name, times)
    Console().print(table_of(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()

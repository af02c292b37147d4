"""The tuner, measured::

    python benchmarks/tuning.py default [--count 120] [--trials 24]  # defaults and models
    python benchmarks/tuning.py pays [--budget 60]                   # sizes no rule was written for
    python benchmarks/tuning.py fresh MODEL.onnx --database FILE     # tuned kernels once more

``default``: kernels of many kinds and sizes; of each, the default's time over the best found, and
how well both models order what was tried (Spearman's rank correlation). ``pays``: whole models
with odd sizes, tuned for so many seconds each; default and tuned executables run in turn.
``fresh``: every kernel of a model for which the database has a choice runs beside its default in a
new process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from aisc.driver.api import build, resolve_target
from aisc.driver.options import Options, from_environment
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import TensorType
from aisc.records.database import Database, Past, workload_key
from aisc.tuning.bench import KernelBench
from aisc.tuning.learned import Learned
from aisc.tuning.pairs import Ratio
from aisc.tuning.session import Budget, workshop
from aisc.tuning.tune import described, tune_kernels, workloads_of
from aisc.tuning.whole import compare

_out = Console()
Make = Callable[[GraphBuilder], Value]


def _input(b: GraphBuilder, *shape: int) -> Value:
    return b.input(f"x{len(b.inputs)}", TensorType(shape, dtypes.f32))


def _weight(b: GraphBuilder, *shape: int) -> Value:
    rng = np.random.default_rng(len(shape))
    return b.constant(rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-2])))


def product(m: int, k: int, n: int) -> Make:
    return lambda b: b.add("relu", (b.add("matmul", (_input(b, m, k), _weight(b, k, n))),))


def conv(size: int, c: int, o: int, kernel: int, stride: int = 1, group: int = 1) -> Make:
    attrs = {"data_layout": "NHWC", "pads": (kernel // 2,) * 4, "strides": (stride,) * 2,
             "group": group}  # fmt: skip
    return lambda b: b.add(
        "relu",
        (
            b.add(
                "conv",
                (_input(b, 1, size, size, c), _weight(b, kernel, kernel, c // group, o)),
                attrs,
            ),
        ),
    )


def row(op: str, rows: int, columns: int) -> Make:
    return lambda b: b.add(op, (_input(b, rows, columns),), {"axis": 1})


def reduction(op: str, *shape: int) -> Make:
    return lambda b: b.add(op, (_input(b, *shape),), {"axes": (len(shape) - 1,)})


def transposed(*shape: int) -> Make:
    perm = tuple(reversed(range(len(shape))))
    return lambda b: b.add("transpose", (_input(b, *shape),), {"perm": perm})


def workloads(count: int, seed: int = 0) -> Iterator[tuple[str, Make]]:
    """Layers of the models that people measure, then odd, skinny and large ones by chance."""
    known: list[tuple[str, Make]] = []
    for m, k, n in (
        (128, 768, 768), (128, 768, 3072), (128, 3072, 768), (64, 768, 2304), (1, 768, 3072),
        (1, 4096, 1000), (32, 784, 512), (77, 1000, 333), (16, 1000, 1000), (512, 512, 512),
        (1024, 256, 1024), (3, 300, 300), (197, 768, 768), (49, 2048, 512),
    ):  # fmt: skip
        known.append((f"product {m}x{k}x{n}", product(m, k, n)))
    for size, c, o, kernel, stride in (
        (56, 64, 64, 3, 1), (56, 64, 256, 1, 1), (28, 128, 128, 3, 1), (28, 512, 128, 1, 1),
        (14, 256, 256, 3, 1), (14, 1024, 256, 1, 1), (7, 512, 512, 3, 1), (7, 2048, 512, 1, 1),
        (56, 128, 128, 3, 2), (224, 3, 32, 3, 2), (112, 16, 96, 1, 1), (40, 37, 37, 3, 1),
        (33, 24, 40, 5, 1), (20, 100, 37, 1, 1), (30, 37, 100, 7, 2),
    ):  # fmt: skip
        known.append(
            (f"conv {size}² {c}-{o} {kernel}² / {stride}", conv(size, c, o, kernel, stride))
        )
    for size, c, kernel in ((112, 32, 3), (28, 192, 3), (14, 384, 5), (19, 100, 3), (7, 960, 3)):
        known.append((f"depthwise {size}² {c} {kernel}²", conv(size, c, c, kernel, 1, c)))
    for rows, columns in ((128, 1024), (1536, 128), (1, 32000), (77, 77), (300, 1000)):
        known.append((f"softmax {rows}x{columns}", row("softmax", rows, columns)))
        known.append((f"maximum {rows}x{columns}", reduction("reduce_max", rows, columns)))
    for shape in ((300, 200), (1024, 1024), (31, 17, 40)):
        known.append((f"transpose {'x'.join(map(str, shape))}", transposed(*shape)))
    rng = np.random.default_rng(seed)
    yield from known[:count]
    for _ in range(count - len(known)):
        if rng.random() < 0.5:
            m, k, n = (int(exp(rng.uniform(0, log(1500)))) for _ in range(3))
            yield f"product {m}x{k}x{n}", product(m, max(8, k), max(4, n))
        else:
            size, c, o = (
                int(rng.integers(5, 60)),
                int(rng.integers(3, 200)),
                int(rng.integers(4, 200)),
            )
            kernel, stride = int(rng.choice([1, 3, 5])), int(rng.choice([1, 2]))
            yield f"conv {size}² {c}-{o} {kernel}² / {stride}", conv(size, c, o, kernel, stride)


def graph_of(make: Make) -> Graph:
    b = GraphBuilder()
    return b.finish([make(b)])


def spearman(a: list[float], b: list[float]) -> float:
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1]) if len(a) > 2 else float("nan")


def default(args: argparse.Namespace) -> dict[str, Any]:
    """Defaults beside the best found, kernel by kernel."""
    options, rows = from_environment(threads=args.threads), []
    target = resolve_target(args.target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuning.sqlite"
        for number, (name, make) in enumerate(workloads(args.count, args.seed), 1):
            graph = graph_of(make)
            budget = Budget(args.budget, args.trials)
            results = tune_kernels(graph, args.target, options, budget, path, True)
            r = max(results.kernels, key=lambda r: r.seconds)
            rows.append({"name": name, "ratio": r.ratio, "us": r.seconds * 1e6, "label": r.label})
            text = f"default {r.seconds * 1e6:9.1f} us, best {r.ratio:.3f} of it"
            print(f"{number:4d} {name:32s} {text}", flush=True)
        with Database(path) as database:
            past = [p for p in database.trials(target) if p.ratio is not None and p.base]
    ratios = [float(r["ratio"]) for r in rows]
    near = sum(r >= 1 / 1.1 for r in ratios) / len(ratios)
    mean = exp(statistics.fmean(map(log, ratios)))
    print(
        f"defaults within 10 % of the best: {near:.1%}; geometric mean of best/default {mean:.3f}"
    )
    return {"workloads": rows, "within": near, "mean": mean, **_correlations(past)}


def _correlations(past: list[Past]) -> dict[str, float]:
    """How the models order the trials of each kernel, on average; the learned one by what it
    learnt of other kernels alone."""
    groups: dict[tuple[float, ...], list[Past]] = {}
    for p in past:
        groups.setdefault(p.base, []).append(p)
    plain, learnt = [], []
    for base, group in groups.items():
        if len(group) < 6:
            continue
        wanted = [p.ratio or 1.0 for p in group]
        plain.append(spearman([p.features[0] for p in group], wanted))
        learned = Learned()
        for p in past:
            if p.base != base and p.ratio is not None:
                learned.add(p.features, p.base, p.ratio)
        expected = learned.predict([p.features for p in group], base)
        if expected is not None:
            learnt.append(spearman(expected, wanted))
    found = {"analytical": _mean(plain), "learned": _mean(learnt)}
    print(f"rank correlation, mean over {len(plain)} kernels: analytical {found['analytical']:.2f},"
          f" learned (of other kernels) {found['learned']:.2f}")  # fmt: skip
    return found


def _mean(values: list[float]) -> float:
    kept = [v for v in values if np.isfinite(v)]
    return statistics.fmean(kept) if kept else float("nan")


def odd_models() -> Iterator[tuple[str, Graph]]:
    """Models whose sizes no rule was written for."""

    def chain(*layers: Callable[[GraphBuilder, Value], Value], shape: tuple[int, ...]) -> Graph:
        b = GraphBuilder()
        x = _input(b, *shape)
        for layer in layers:
            x = layer(b, x)
        return b.finish([x])

    def c(o: int, *kernel: int, stride: int = 1) -> Callable[[GraphBuilder, Value], Value]:
        def add(b: GraphBuilder, x: Value) -> Value:
            rank = len(kernel)
            attrs = {"pads": tuple(k // 2 for k in kernel) * 2, "strides": (stride,) * rank}
            w = _weight(b, o, int(x.type.shape[1]), *kernel)
            return b.add("relu", (b.add("conv", (x, w), attrs),))

        return add

    def m(n: int) -> Callable[[GraphBuilder, Value], Value]:
        return lambda b, x: b.add(
            "relu", (b.add("matmul", (x, _weight(b, int(x.type.shape[-1]), n))),)
        )

    yield "channels 37", chain(c(37, 3, 3), c(37, 3, 3), c(100, 1, 1), shape=(1, 37, 40, 40))
    yield (
        "channels 100",
        chain(c(100, 3, 3), c(100, 1, 1), c(100, 3, 3, stride=2), shape=(1, 100, 28, 28)),
    )
    yield "batch 3, 5x7", chain(c(40, 5, 7), c(56, 5, 7, stride=2), shape=(3, 24, 32, 32))
    yield "sequence 77", chain(m(300), m(1200), m(300), shape=(77, 300))
    yield "three dimensions", chain(c(24, 3, 3, 3), c(24, 3, 3, 3), shape=(1, 16, 12, 20, 20))
    yield "hidden 1000", chain(m(1000), m(1000), m(333), shape=(16, 1000))


def pays(args: argparse.Namespace) -> dict[str, Any]:
    """Odd models before and after, run in turn."""
    options, rows = from_environment(threads=args.threads), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tuning.sqlite"
        for name, graph in odd_models():
            tune_kernels(graph, "cpu", options, Budget(args.budget, args.trials), path, True)
            ratio = _whole(graph, options, path)
            rows.append({"name": name, "speedup": 1 / ratio.median, "low": 1 / ratio.high})
            print(
                f"{name:20s} {1 / ratio.median:.3f} x ({1 / ratio.high:.3f} at least)", flush=True
            )
    mean = exp(statistics.fmean(log(r["speedup"]) for r in rows))
    print(f"geometric mean {mean:.3f} x after {args.budget:g} s each")
    return {"models": rows, "mean": mean}


def _whole(graph: Graph, options: Options, path: Path) -> Ratio:
    """A whole model by default and tuned, in turn; their results are equal to the bit."""
    made = [
        build(graph, "cpu", replace(options, tuned=tuned, use_cache=False)).executable
        for tuned in ("none", str(path))
    ]
    results = []
    for exe in made:
        assert exe is not None
        rng = np.random.default_rng(0)
        feeds = [rng.standard_normal(p.type.static_shape, np.float32) for p in exe.inputs]
        results.append(exe(*feeds))
    assert np.array_equal(*results, equal_nan=True), "other bits"
    found = compare(graph, "cpu", options, path, {})
    assert found is not None
    return found


def fresh(args: argparse.Namespace) -> dict[str, Any]:
    """Tuned kernels beside their defaults, in a new process."""
    shapes = {n: int(v) for n, _, v in (s.partition("=") for s in args.shape)}
    options = from_environment(threads=args.threads, shapes=shapes)
    target = resolve_target("cpu")
    shop, rows = workshop(described(target), options.threads), []
    with Database(Path(args.database), read_only=True) as database:
        for w in workloads_of(args.models[0], "cpu", options, {}):
            record = database.best(workload_key(w.func), target, options.threads)
            if record is None or not record.choices:
                continue
            bench = KernelBench(shop, w.func, w.sizes, w.moved)
            (sketch,) = bench.sketches([record.choices])
            assert not isinstance(sketch, str), sketch
            (trial,) = bench.trials([sketch], 51)
            assert trial.ratio is not None, trial
            rows.append({"kernel": w.func.name, "ratio": trial.ratio.median, "low": trial.ratio.low,
                         "high": trial.ratio.high, "recorded": record.ratio})  # fmt: skip
    shop.close()
    table = Table("kernel", "recorded", "again", "bounds")
    for r in rows:
        table.add_row(r["kernel"], f"{r['recorded']:.3f}", f"{r['ratio']:.3f}",
                      f"{r['low']:.3f}-{r['high']:.3f}")  # fmt: skip
    _out.print(table)
    return {"kernels": rows, "worst": max((r["ratio"] for r in rows), default=1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=("default", "pays", "fresh"))
    parser.add_argument("models", nargs="*")
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--budget", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--shape", action="append", default=[])
    parser.add_argument("--database", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    result = {"default": default, "pays": pays, "fresh": fresh}[args.what](args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

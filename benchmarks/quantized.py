"""Quantized models beside the same in fp32 and other runtimes, interleaved in one process::

    python benchmarks/quantized.py [resnet50] [mobilenet_v2] [bert] [bert:dynamic]
        [gpt2_decode:i4] [gpt2_prefill:i4] [--threads 1,2] [--against onnxruntime,openvino]
        [--rounds 15] [--bits 7] [--tiny] [--json FILE]

The models are those of the zoo, quantized by ``aisc.quantize``: ranges from the least and greatest
values of random data, weights in signed bytes for each output channel; those of texts have their
products of activations quantized, too. *Dynamic* ones, which onnxruntime's tool makes, have
quantized weights alone and ranges that each run finds; those named *i4* have weights of 4 bits
alone, a scale for each 32, which onnxruntime multiplies by its MatMulNBits. `--bits 7` gives
weights of 7 bits, with which the instructions that onnxruntime uses where a machine has no VNNI
cannot saturate. Times are the least of all rounds; a ratio is the median over rounds of a side's
time over that of aisc, so above 1 aisc is faster. Results of the others are told from those of aisc
by the greatest difference, as a part of their range: the last layer's are floats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import zoo
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.console import Console
from rich.table import Table

import aisc
from aisc.ir.diagnostics import CompileError
from aisc.measure.peers import PEERS, peer
from aisc.quantization.settings import Settings

MODELS = (
    "resnet50", "mobilenet_v2", "bert", "bert:dynamic", "gpt2_decode:i4", "gpt2_prefill:i4",
)  # fmt: skip
Runner = Callable[[], Sequence[Any]]
Feeds = dict[str, Any]
REST = 0.02


def fixed(model: ModelProto, dims: dict[str, int]) -> ModelProto:
    """A model with its symbolic sizes bound."""
    for value in [*model.graph.input, *model.graph.output]:
        for d in value.type.tensor_type.shape.dim:
            if d.dim_param in dims:
                d.dim_value = dims[d.dim_param]
    return model


def sizes_of(entry: zoo.ZooModel, tiny: bool) -> dict[str, int]:
    """Sizes that are measured, or small ones."""
    return {n: r.usual for n, r in {**entry.dims, **(entry.tiny_dims if tiny else {})}.items()}


def make(name: str, folder: Path, tiny: bool, bits: int) -> tuple[Path, Path, Feeds]:
    """The files of a model in fp32 and quantized, and its inputs."""
    entry = zoo.ZOO[name.partition(":")[0]]
    dims = sizes_of(entry, tiny)
    model = fixed(entry.build(**entry.tiny) if tiny else entry.build(), dims)
    plain, prepared, quantized = (folder / f"{k}.onnx" for k in ("plain", "prepared", "quantized"))
    onnx.save(model, plain)
    if name.endswith(":dynamic"):
        quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(
            prepared, quantized, per_channel=True, weight_type=QuantType.QInt8,
            reduce_range=bits == 7, op_types_to_quantize=["MatMul", "Gemm"],
        )  # fmt: skip
    else:
        runs = [zoo.feeds(model, dims, seed) for seed in (1, 2)]
        data = {n: np.stack([feeds[n] for feeds in runs]) for n in runs[0]}
        few = name.endswith(":i4")
        settings = Settings(
            method="minmax",
            weights="i4" if few else "i7" if bits == 7 else "i8",
            rounding="nearest",
            products=entry.name.startswith(("bert", "gpt")) and not few,
        )
        aisc.quantize(plain, data, quantized, settings=settings)
    return plain, quantized, zoo.feeds(model, dims)


def open_all(
    files: tuple[Path, Path], feeds: Feeds, peers: Sequence[str], threads: int
) -> tuple[dict[str, Runner], dict[str, float], list[str]]:
    """Runners by name, aisc's first, seconds of compiling, and what could not be opened."""
    runners, seconds, failed = dict[str, Runner](), dict[str, float](), list[str]()
    for name, path in zip(("aisc fp32", "aisc"), files, strict=True):
        start = time.process_time()
        exe = aisc.compile(str(path), threads=threads, cache=False)
        seconds[name] = time.process_time() - start
        runners[name] = lambda exe=exe: exe.run(None, feeds)  # type: ignore[misc]
    for name in peers:
        try:
            runners[name] = peer(name).open(str(files[1]), feeds, threads)
        except CompileError as fault:
            failed.append(f"{name}: {fault}")
    return runners, seconds, failed


def timed(runners: dict[str, Runner], rounds: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds of each side, in turn."""
    found: dict[str, list[float]] = {name: [] for name in runners}
    for k in range(rounds + 1):
        for name, run in runners.items():
            if threads > 1:  # others' threads stop spinning
                time.sleep(REST)
            run()
            start = time.perf_counter()
            run()
            if k:
                found[name].append((time.perf_counter() - start) * 1e3)
    return found


def apart(mine: Any, other: Any) -> str:
    """How far two results lie from each other."""
    a, b = np.asarray(mine, np.float64), np.asarray(other, np.float64)
    return f"{np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 1e-30):.2%} of the range"


def measure(
    name: str, options: argparse.Namespace, folder: Path, out: Console
) -> list[dict[str, Any]]:
    """The rows of a model."""
    plain, quantized, feeds = make(name, folder, options.tiny, options.bits)
    rows = list[dict[str, Any]]()
    for threads in options.counts:
        sides = open_all((plain, quantized), feeds, options.peers, threads)
        runners, seconds, failed = sides
        mine = runners["aisc"]()[0].copy()
        times = timed(runners, options.rounds, threads)
        for side, some in times.items():
            pairs = zip(some, times["aisc"], strict=True)
            row = {"model": name, "threads": threads, "side": side, "ms": min(some)}
            row["median"] = statistics.median(some)
            row["ratio"] = statistics.median(x / y for x, y in pairs)
            row["apart"] = "" if side == "aisc" else apart(mine, runners[side]()[0])
            row["compiled"] = seconds.get(side)
            rows.append(row)
        for text in failed:
            out.print(text, style="yellow", highlight=False, markup=False)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title="quantized models; ratio: time of the side over that of aisc")
    for head in ("model", "threads", "side", "least ms", "median", "ratio", "results", "compile s"):
        shown.add_column(head, justify="left" if head in ("model", "side", "results") else "right")
    for r in rows:
        compiled = "" if r["compiled"] is None else f"{r['compiled']:.1f}"
        numbers = f"{r['ms']:.2f}", f"{r['median']:.2f}", f"{r['ratio']:.2f}"
        shown.add_row(r["model"], str(r["threads"]), r["side"], *numbers, r["apart"], compiled)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Make, measure, show; the exit code."""
    parser = argparse.ArgumentParser(description="Measure quantized models.")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; by default all")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--against", default="onnxruntime,openvino", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--bits", type=int, choices=(7, 8), default=8)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try the command")
    parser.add_argument("--json", type=Path)
    options, out = parser.parse_args(argv), Console()
    unknown = [m for m in options.models if m not in MODELS]
    if unknown:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(MODELS)}")
    counts = options.threads.split(",")
    if options.rounds < 1 or not all(c.isdigit() and int(c) > 0 for c in counts):
        parser.error("--threads and --rounds are positive numbers")
    options.counts = list(map(int, counts))
    options.peers = [p for p in options.against.split(",") if p]
    rows = []
    for name in options.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, options, Path(folder), out)
    out.print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

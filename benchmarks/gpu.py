"""Kernels and models on a GPU, in one run of at most eight minutes::

    python benchmarks/gpu.py [--target nvidia_sm90] [--seconds 480] [--sections gemm,models]
        [--json FILE] [--markdown FILE] [--tiny]

Needs a driver and nothing else; where torch is installed with a GPU it is measured beside. Times
are those of the device, by events around one recorded run; bytes and operations are counted from
the shapes. A case that cannot be measured says why, and has no figures. Without a GPU results are
checked at small sizes (``--tiny``), and nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the definition of agreement

import agreement
import numpy as np
import zoo
from onnx import ModelProto
from rich.console import Console
from zoo.net import Net

import aisc
from aisc.frontend.onnx.importer import import_model

REPEATS, TINY_REPEATS = 20, 2
Feeds = dict[str, np.ndarray]
Torch = Callable[[Any, Sequence[Any]], Callable[[], Any]]


@dataclass
class Row:
    """One case. ms: median time on the device; torch_ms: the same of torch, torch_compiled_ms: of
    what it compiles; error: largest difference to float64, over the largest value; rate: in `unit`;
    note: why something is missing."""

    section: str
    case: str
    agrees: bool | None = None
    error: float | None = None
    ms: float | None = None
    torch_ms: float | None = None
    torch_compiled_ms: float | None = None
    rate: float | None = None
    unit: str = ""
    note: str = ""


@dataclass
class Case:
    """What is measured: a model, its inputs, what it does at least (operations, or bytes), and what
    torch does instead. `checked`: whether results are compared with float64."""

    section: str
    name: str
    model: Callable[[], ModelProto]
    dims: dict[str, int] = field(default_factory=dict)
    work: float = 0.0
    unit: str = ""
    torch: Torch | None = None
    checked: bool = True


# -- cases -----------------------------------------------------------------------------------------


def gemm(m: int, k: int, n: int, checked: bool) -> Case:
    """A product of matrices that are both inputs."""

    def build() -> ModelProto:
        net = Net("gemm", 0)
        a, b = net.input("a", (m, k)), net.input("b", (k, n))
        net.output(net.op("MatMul", a, b), "c", (m, n))
        return net.model()

    name = f"{m} x {k} x {n} f32"
    return Case("gemm", name, build, {}, 2.0 * m * k * n / 1e12, "TFLOP/s",
                lambda torch, x: lambda: torch.matmul(x[0], x[1]), checked)  # fmt: skip


def attention(heads: int, tokens: int, width: int, causal: bool, checked: bool) -> Case:
    """Heads of one sequence; a causal one reads half of the products."""

    def build() -> ModelProto:
        net, shape = Net("attention", 0), (heads, tokens, width)
        q, k, v = (net.input(name, shape) for name in "qkv")
        scale = net.constant(np.float32(width**-0.5))
        scores = net.op("MatMul", net.op("Mul", q, scale), net.op("Transpose", k, perm=[0, 2, 1]))
        if causal:
            at = net.constant(np.arange(tokens, dtype=np.int64)[None, :])
            late = net.op("Greater", at, net.constant(np.arange(tokens, dtype=np.int64)[:, None]))
            scores = net.op("Where", late, net.constant(np.float32(-np.inf)), scores)
        net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), v), "y", shape)
        return net.model()

    def peer(torch: Any, x: Sequence[Any]) -> Callable[[], Any]:
        q, k, v = (t[None] for t in x)
        fused = torch.nn.functional.scaled_dot_product_attention
        return lambda: fused(q, k, v, is_causal=causal)[0]

    work = 4.0 * heads * tokens * tokens * width * (0.5 if causal else 1.0) / 1e12
    name = f"{heads} x {tokens} x {width} {'causal ' if causal else ''}f32"
    return Case("attention", name, build, {}, work, "TFLOP/s", peer, checked)


def rows(kind: str, count: int, width: int) -> Case:
    """What reads and writes each element once."""

    def build() -> ModelProto:
        net = Net(kind, 0)
        x = net.input("x", (count, width))
        if kind == "softmax":
            y = net.op("Softmax", x, axis=-1)
        elif kind == "layer norm":
            scale, shift = net.uniform((width,), 0.5, 1.5, "s"), net.uniform((width,), -1, 1, "b")
            y = net.op("LayerNormalization", x, scale, shift, axis=-1)
        else:
            y = net.op("Relu", net.op("Mul", x, net.constant(np.float32(1.5))))
        net.output(y, "y", (count, width))
        return net.model()

    def peer(torch: Any, x: Sequence[Any]) -> Callable[[], Any]:
        f = torch.nn.functional
        return {
            "softmax": lambda: torch.softmax(x[0], -1),
            "layer norm": lambda: f.layer_norm(x[0], (width,)),
            "map": lambda: torch.relu(x[0] * 1.5),
        }[kind]

    return Case("rows", f"{kind} {count} x {width} f32", build, {}, 8.0 * count * width / 1e12,
                "TB/s", peer)  # fmt: skip


def whole(name: str, tiny: bool, section: str) -> Case:
    """A model of the zoo."""
    entry = zoo.ZOO[name]
    ranges = {**entry.dims, **entry.tiny_dims} if tiny else entry.dims
    dims = {d: (r.low if tiny else r.usual) for d, r in ranges.items()}
    arguments = entry.tiny if tiny else {}

    def peer(torch: Any, x: Sequence[Any]) -> Callable[[], Any]:
        import onnx2torch

        module = onnx2torch.convert(entry.build(**arguments)).eval().cuda()
        return lambda: module(*x)

    def build() -> ModelProto:
        return entry.build(**arguments)

    return Case(section, name, build, dims, torch=None if tiny else peer, checked=tiny)


def cases(tiny: bool) -> Iterator[Case]:
    """All of them: what is checked first, then what is measured."""
    for name in zoo.ZOO:
        yield whole(name, True, "correct")
    if tiny:
        yield from (gemm(65, 33, 70, True), gemm(1, 64, 96, True))
        yield from (attention(2, 33, 16, causal, True) for causal in (False, True))
        yield from (rows(kind, 33, 65) for kind in ("softmax", "layer norm", "map"))
        return
    for m, k, n in ((8192, 8192, 8192), (4096, 4096, 4096), (16, 4096, 4096), (1, 4096, 4096)):
        yield gemm(m, k, n, m <= 16)
    yield from (attention(128, 4096, 128, causal, False) for causal in (False, True))
    yield from (rows(kind, 16384, 4096) for kind in ("map", "softmax", "layer norm"))
    for name in ("resnet50", "bert", "gpt2_decode"):
        yield whole(name, False, "models")


# -- measuring -------------------------------------------------------------------------------------


def session_of(exe: aisc.Executable) -> Any:
    """The session of an executable's only workspace on a device, if its device is one."""
    host = exe.idle[0].host if exe.idle else None
    return next(iter(host.sessions.values()), None) if host is not None else None


def check(case: Case, graph: Any, feeds: Feeds, got: Sequence[np.ndarray], row: Row) -> None:
    """Compare with float64."""
    exact = agreement.reference(graph, [feeds[v.name] for v in graph.inputs])
    worst = 0.0
    for mine, true in zip(got, exact, strict=True):
        scale = float(np.abs(true[np.isfinite(true)]).max(initial=0.0)) or 1.0
        worst = max(worst, agreement.error(np.asarray(mine), true) / scale)
    row.error, row.agrees = worst, worst <= 1e-4


def measure(case: Case, target: str, repeats: int) -> Row:
    """One case, checked where that is asked for, and timed where there is a device."""
    row = Row(case.section, case.name, unit=case.unit)
    model = case.model()
    feeds = zoo.feeds(model, case.dims)
    exe = aisc.compile(model, target=target, shapes=case.dims, cache=False)
    got = exe.run(None, feeds)
    if case.checked:
        check(case, import_model(model, case.dims), feeds, got, row)
    session = session_of(exe)
    if session is None:
        row.note = "no device: checked on the model of one"
    elif not exe.image.straight:
        row.note = "parts of it run on the host"
    else:
        row.ms = statistics.median(session.measure(repeats))
        row.rate = case.work / (row.ms * 1e-3) if case.work and row.ms else None
    if row.ms is not None and case.torch is not None:
        torch_time(case, [feeds[n] for n in exe.input_names], row, repeats)
    return row


def torch_time(case: Case, arrays: Sequence[np.ndarray], row: Row, repeats: int) -> None:
    """The same by torch, where it is installed and has a GPU."""
    try:
        import torch
    except ImportError:
        row.note = "torch is not installed"
        return
    if not torch.cuda.is_available() or case.torch is None:
        row.note = "torch has no GPU"
        return
    try:
        call = case.torch(torch, [torch.from_numpy(a).cuda() for a in arrays])
        row.torch_ms = torch_median(torch, call, repeats)
        row.torch_compiled_ms = torch_median(torch, torch.compile(call), repeats)
    except Exception as fault:  # torch's fault is no fault of ours
        row.note = f"torch: {type(fault).__name__}: {str(fault).splitlines()[:1]}"[:200]


def torch_median(torch: Any, call: Callable[[], Any], repeats: int) -> float:
    """The median time of a call on torch's device, in milliseconds."""
    times = []
    with torch.inference_mode():
        call()
        for _ in range(repeats):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
    return statistics.median(times)


def copy_row(target: str, size: int, repeats: int) -> Row:
    """What copying memory of the device takes: the bandwidth that others are compared with."""
    from aisc.codegen.simt.choice import driver_here

    row, driver = Row("rows", f"copy of {size} bytes", unit="TB/s"), driver_here()
    if driver is None:
        row.note = "no device"
        return row
    driver.enter()
    a, b, stream, times = driver.allocate(size), driver.allocate(size), driver.stream(), []
    for _ in range(repeats):
        first, last = driver.event(), driver.event()
        driver.record(first, stream)
        driver.copy(b, a, size, stream)
        driver.record(last, stream)
        times.append(driver.milliseconds(first, last))
        driver.destroy_event(first)
        driver.destroy_event(last)
    driver.destroy_stream(stream)
    for block in (a, b):
        driver.free(block)
    row.ms = statistics.median(times)
    row.rate = 2 * size / 1e12 / (row.ms * 1e-3) if row.ms else None
    return row


def run(options: argparse.Namespace) -> list[Row]:
    """All cases that there is time for; what fails is a row that says how."""
    from aisc.codegen.simt.choice import driver_here

    err, found, start = Console(stderr=True), list[Row](), time.monotonic()
    if driver_here() is None and not options.tiny:
        err.print("there is no device: results are checked at small sizes")
        options.tiny = True
    repeats = TINY_REPEATS if options.tiny else REPEATS
    wanted = options.sections.split(",") if options.sections else []
    if not wanted or "rows" in wanted:
        found.append(copy_row(options.target, 1 << 12 if options.tiny else 1 << 28, repeats))
    for case in cases(options.tiny):
        if wanted and case.section not in wanted:
            continue
        if time.monotonic() - start > options.seconds:
            found.append(Row(case.section, case.name, note="no time was left"))
            continue
        err.print(f"{case.section}: {case.name}")
        try:
            found.append(measure(case, options.target, repeats))
        except Exception as fault:  # one case must not cost the others
            lines = str(fault).splitlines() or [type(fault).__name__]
            found.append(Row(case.section, case.name, agrees=False, note=" ".join(lines)[:200]))
    return found


# -- reports ---------------------------------------------------------------------------------------


def machine(target: str) -> dict[str, Any]:
    """What it was measured on."""
    from aisc.codegen.simt.choice import driver_here

    driver = driver_here()
    name = driver.device_name(0) if driver is not None else ""
    return {"target": target, "device": name, "aisc": aisc.__version__, "python": sys.version}


def markdown(rows: Sequence[Row], about: dict[str, Any]) -> str:
    """A table, with empty cells for what was not measured."""
    device = about["device"] or "no device: nothing is measured"
    lines = [f"{about['target']} on {device}", ""]
    titles = ("section", "case", "agrees", "error", "ms", "rate", "torch ms", "compiled ms",
              "of torch", "note")  # fmt: skip
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for r in rows:
        best = min((t for t in (r.torch_ms, r.torch_compiled_ms) if t), default=None)
        share = f"{best / r.ms:.0%}" if r.ms and best else ""
        cells = [
            r.section, r.case, {None: "", True: "yes", False: "no"}[r.agrees],
            "" if r.error is None else f"{r.error:.1e}", "" if r.ms is None else f"{r.ms:.4g}",
            "" if r.rate is None else f"{r.rate:.3g} {r.unit}",
            "" if r.torch_ms is None else f"{r.torch_ms:.4g}",
            "" if r.torch_compiled_ms is None else f"{r.torch_compiled_ms:.4g}",
            share, r.note.replace("|", "/"),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure kernels and models on a GPU.")
    parser.add_argument("--target", default="nvidia_sm90")
    parser.add_argument("--seconds", type=float, default=480.0, help="begin nothing after these")
    parser.add_argument("--sections", default="", help="of correct, rows, gemm, attention, models")
    parser.add_argument("--tiny", action="store_true", help="small sizes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """0 where all that was checked agrees."""
    options = arguments(given)
    about, rows = machine(options.target), run(options)
    text = markdown(rows, about)
    print(text)
    if options.json:
        data = {"machine": about, "rows": [asdict(r) for r in rows]}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    return int(any(r.agrees is False for r in rows))


if __name__ == "__main__":
    sys.exit(main())

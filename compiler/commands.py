"""What the commands of the command line do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from aisc.api import build, resolve_target
from aisc.bench import measure_latency
from aisc.cache import Cache, default_folder
from aisc.codegen.executable import Executable
from aisc.dimensions import dimension_table
from aisc.files import write_whole
from aisc.instruments import Collector, Timer
from aisc.instruments import Progress as StepProgress
from aisc.ir import target as targets
from aisc.ir.diagnostics import error, execution_error
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Func, Program
from aisc.ir.text.printer import print_ir
from aisc.kernels import Lookup, untuned
from aisc.options import from_environment
from aisc.pipeline import Compiled

_EMIT_STEP = {
    "graph": "fuse", "tensor": "optimize", "program": "plan", "llvm": "emit", "asm": "assemble",
}  # fmt: skip
_err = Console(stderr=True)
_out = Console()


@contextmanager
def progress(title: str) -> Iterator[StepProgress]:
    """An instrument that shows the running step on a terminal's standard error."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=_err,
        transient=True,
        disable=not _err.is_terminal,
    ) as bar:
        task = bar.add_task(title)
        yield StepProgress(lambda step: bar.update(task, description=f"{title}: {step}"))


def _lookup(tuned: Path | None, target: targets.Target) -> Lookup:
    if tuned is None:
        return untuned
    if not tuned.is_file():
        raise error("E503", f"there is no tuning database {tuned}", "make it with aisc tune")
    from aisc.tuning.database import Database

    database = Database(tuned)

    def lookup(func: Func) -> Any:
        record = database.best(func, target)
        return None if record is None else record.trace

    return lookup


def _build(
    model: str, target: str, choices: Mapping[str, Any], tuned: Path | None, *more: Any
) -> Compiled:
    machine = resolve_target(target)
    options = from_environment(**choices)
    with progress(Path(model).name) as steps:
        return build(model, machine, options, *more, steps, lookup=_lookup(tuned, machine))


def _executable(
    model: str, target: str, choices: Mapping[str, Any], tuned: Path | None
) -> Executable:
    executable = _build(model, target, choices, tuned).executable
    assert executable is not None, "nothing stopped the pipeline"
    return executable


def compile_model(
    model: str,
    target: str,
    output: Path | None,
    emit: str,
    stop_after: str,
    choices: dict[str, Any],
    time_steps: bool,
    tuned: Path | None,
) -> None:
    """``aisc compile``."""
    if emit not in (*_EMIT_STEP, "obj"):
        raise error("E401", f"cannot emit '{emit}'", f"expected {', '.join(_EMIT_STEP)} or obj")
    timer = Timer()
    if emit == "obj" and not stop_after:
        _emit_object(model, target, output, choices, tuned)
        return
    choices["stop_after"] = stop_after or _EMIT_STEP[emit]
    compiled = _build(model, target, choices, tuned, timer)
    product = compiled.product
    assert product is not None, "every step up to assemble has a product"
    text = product if isinstance(product, str) else print_ir(product)
    if output is None:
        print(text)
    else:
        write_whole(output, text.encode())
    if time_steps:
        _print_times(timer)


def _emit_object(
    model: str, target: str, output: Path | None, choices: dict[str, Any], tuned: Path | None
) -> None:
    from aisc.codegen.cpu.backend import CpuBackend

    if output is None:
        raise error("E401", "an object needs a file", "give -o FILE.o")
    choices["stop_after"] = "plan"
    product = _build(model, target, choices, tuned).product
    assert isinstance(product, Program), "the product of plan is a Program"
    backend = CpuBackend(resolve_target(target))
    write_whole(output, backend.assemble(backend.emit_all(product)).object)


def _print_times(timer: Timer) -> None:
    table = Table("step", "seconds", title="time per step")
    for step, seconds in timer.seconds.items():
        table.add_row(step, f"{seconds:.3f}")
    _err.print(table)


def run_model(
    model: str,
    target: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    choices: dict[str, Any],
    tuned: Path | None,
) -> None:
    """``aisc run``."""
    exe = _executable(model, target, choices, tuned)
    feeds = _feeds(exe, inputs)
    results = exe.run(None, feeds)
    named = dict(zip(exe.output_names, results, strict=True))
    for item in outputs:
        name, _, place = item.partition("=")
        if name not in named or not place.startswith("@"):
            raise execution_error("E501", f"--output {item}: expected NAME=@FILE.npy")
        with open(place[1:], "wb") as f:
            np.save(f, named[name], allow_pickle=False)
    for name, array in named.items():
        head = np.array2string(array.reshape(-1)[:8], precision=6, separator=", ")
        print(f"{name}: {array.dtype}{list(array.shape)} {head}")


def _feeds(exe: Executable, inputs: Sequence[str]) -> dict[str, Any]:
    """Inputs by name: from files, or random for those that are not given."""
    given: dict[str, str] = {}
    for item in inputs:
        name, _, place = item.partition("=")
        if name not in exe.input_names:
            raise execution_error(
                "E501", f"the model has no input '{name}'", f"it has {', '.join(exe.input_names)}"
            )
        given[name] = place
    feeds = random_feeds(exe)
    for name, place in given.items():
        if place.startswith("@"):
            try:
                feeds[name] = np.load(place[1:], allow_pickle=False)
            except (OSError, ValueError) as fault:
                raise execution_error("E501", f"cannot read {place[1:]}", str(fault)) from None
        elif place != "random":
            raise execution_error("E501", f"--input {name}={place}: expected @FILE.npy or random")
    return feeds


def random_feeds(exe: Executable, seed: int = 0) -> dict[str, Any]:
    """Seeded random inputs; symbolic dimensions are taken as 1."""
    from aisc.ir.arith.poly import evaluate, symbols

    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for name, b in zip(exe.input_names, exe.inputs, strict=True):
        ones = {s.name: max(1, s.lower) for d in b.shape for s in symbols(d)}
        shape = tuple(evaluate(d, ones) for d in b.shape)
        if b.dtype.is_float:
            feeds[name] = rng.standard_normal(shape).astype(b.dtype.numpy)
        else:
            feeds[name] = rng.integers(0, 2, shape).astype(b.dtype.numpy)
    return feeds


def bench_model(
    model: str,
    target: str,
    peers: Sequence[str],
    threads: Sequence[int],
    runs: tuple[int, int],
    json_output: Path | None,
    choices: dict[str, Any],
    tuned: Path | None,
) -> None:
    """``aisc bench``."""
    rows: list[dict[str, Any]] = []
    for count in threads:
        exe = _executable(model, target, {**choices, "threads": count}, tuned)
        rows += measure_latency(model, exe, random_feeds(exe), peers, count, *runs)
    table = Table("runtime", "threads", "median ms", "p90 ms", "min ms", "aisc is faster by")
    for row in rows:
        ratio = f"{row['ratio']:.2f} x" if row["runtime"] != "aisc" else ""
        numbers = [f"{row[k]:.3f}" for k in ("median_ms", "p90_ms", "min_ms")]
        table.add_row(row["runtime"], str(row["threads"]), *numbers, ratio)
    _out.print(table)
    if json_output is not None:
        write_whole(json_output, json.dumps(rows, indent=2).encode())


def check_model(model: str, target: str, choices: dict[str, Any]) -> None:
    """``aisc check``: raises the importer's full report, or prints a summary."""
    collector = Collector()
    compiled = _build(model, target, {**choices, "stop_after": "lower"}, None, collector)
    imported, program = collector.products["import"], compiled.product
    assert isinstance(imported, Graph), "the product of import is a graph"
    assert isinstance(program, Program), "the product of lower is a Program"
    counts: dict[str, int] = {}
    for node in imported.nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    print(f"{Path(model).name}: can be compiled")
    for v in imported.inputs:
        print(f"  input  {v.name}: {v.type}")
    for name, v in zip(imported.result_names, imported.outputs, strict=True):
        print(f"  output {name}: {v.type}")
    if not any(v.type.symbols for v in imported.inputs):
        print("  symbolic dimensions: none")
    weights = sum(b.array.nbytes for b in program.weights.values())
    print(f"  {len(program.kernels)} kernels, {weights / 1e6:.1f} MB of weights")
    table = Table("operator", "count")
    for op, count in sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])):
        table.add_row(op, str(count))
    if any(v.type.symbols for v in imported.inputs):
        _out.print(dimension_table(imported))
    _out.print(table)


def tune_model(model: str, target: str, budget: float, path: Path, choices: dict[str, Any]) -> None:
    """``aisc tune``: every kernel with a contraction gets its share of the budget."""
    from aisc.passes.schedule.rules.default import tiles
    from aisc.tuning.database import Database
    from aisc.tuning.measure import Worker
    from aisc.tuning.search import grid_search
    from aisc.tuning.space import candidates

    machine = resolve_target(target)
    program = _build(model, target, {**choices, "stop_after": "lower"}, None).product
    assert isinstance(program, Program), "the product of lower is a Program"
    kernels = [k for k in program.kernels if not k.dims and tiles(k, machine)]
    database = Database(path)
    table = Table("kernel", "candidates", "chosen", "faster by")
    deadline = time.monotonic() + budget
    with Worker(target) as worker, progress(Path(model).name) as steps:
        for k, kernel in enumerate(kernels):
            left = (deadline - time.monotonic()) / (len(kernels) - k)
            if left <= 0:
                break
            steps.report(f"kernel {k + 1} of {len(kernels)}")
            space = candidates(kernel, machine)
            outcome = grid_search(kernel, space, worker, left)
            database.add(kernel, machine, outcome.record)
            tried = str(len(outcome.trials))
            table.add_row(kernel.name, tried, outcome.record.label, f"{outcome.speedup:.2f} x")
    _out.print(table)
    print(f"{database.count()} records in {path}; use them with --tuned {path}")


def show_targets(name: str) -> None:
    """``aisc targets``."""
    names = [name] if name else list(targets.builtin_names())
    table = Table("target", "kind", "arch", "vector bits", "cores", "memories")
    for n in names:
        t = resolve_target(n)
        memories = ", ".join(f"{m.name} {m.bytes // 1024} KiB" for m in t.memories)
        table.add_row(n, t.kind, t.arch, str(t.vector_bits), str(t.cores), memories)
    _out.print(table)
    if name:
        print(f"features: {','.join(resolve_target(name).features)}")


def handle_cache(action: str) -> None:
    """``aisc cache``."""
    store = Cache(default_folder())
    if action == "clear":
        print(f"removed {store.clear()} records")
        return
    print(f"{store.folder}: {len(store.files())} records, {store.size() / 1e6:.1f} MB")

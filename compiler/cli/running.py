"""What the command line does with an executable: feeding it, printing its results, timing it.

Imports nothing of the compiler, so that bundles run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.files import write_whole
from aisc.codegen.run.executable import Executable
from aisc.codegen.signature import Port
from aisc.ir.arith.poly import evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error, execution_error


def run_once(
    exe: Executable, inputs: Sequence[str], outputs: Sequence[str], as_json: bool = False
) -> None:
    """Run on the inputs that ``--input`` names, save what ``--output`` names, print all: the first
    elements, or, as JSON, all of them."""
    results = exe.run(None, _feeds(exe, inputs))
    named = dict(zip(exe.output_names, results, strict=True))
    for item in outputs:
        name, _, place = item.partition("=")
        if name not in named or not place.startswith("@"):
            raise execution_error("E501", f"--output {item}: expected NAME=@FILE.npy")
        with open(place[1:], "wb") as f:
            np.save(f, named[name], allow_pickle=False)
    if as_json:
        told = {
            name: {"dtype": str(a.dtype), "shape": list(a.shape), "data": _plain(a)}
            for name, a in named.items()
        }
        print(json.dumps(told))
        return
    for name, array in named.items():
        head = np.array2string(array.reshape(-1)[:8], precision=6, separator=", ")
        print(f"{name}: {array.dtype}{list(array.shape)} {head}")


def _plain(array: NDArray[Any]) -> Any:
    """Elements as JSON has them: short floats as longer ones, which are exact."""
    short = array.dtype.kind not in "biuf"
    return (array.astype(np.float32) if short else array).tolist()


def _feeds(exe: Executable, inputs: Sequence[str]) -> dict[str, Any]:
    """Inputs by name: from files, or random for those that are not given."""
    given: dict[str, str] = {}
    for item in inputs:
        name, _, place = item.partition("=")
        names = [*exe.input_names, *(p.name for p in exe.optional_inputs)]
        if name not in names:
            raise execution_error(
                "E501", f"the model has no input '{name}'", f"it has {', '.join(names)}"
            )
        given[name] = place
    feeds = random_feeds(exe)
    for name, place in given.items():
        if place.startswith("@"):
            try:
                feeds[name] = np.load(place[1:], allow_pickle=False)
            except (OSError, ValueError) as fault:
                raise execution_error("E501", f"cannot read {place[1:]}", str(fault)) from None
        elif place != "random" or name not in feeds:
            feeds[name] = _number(exe, name, place)
    return feeds


def _number(exe: Executable, name: str, text: str) -> Any:
    """An input that is a number, as it is written; E501 for other inputs and texts."""
    port = next((p for p in (*exe.inputs, *exe.optional_inputs) if p.name == name), None)
    try:
        if port is None or port.type.rank:
            raise ValueError
        number = {"true": 1.0, "false": 0.0}.get(text.lower())
        whole = port.type.dtype.is_integer
        value = (int(text, 0) if whole else float(text)) if number is None else number
        return np.asarray(value).astype(port.type.dtype.numpy)
    except ValueError:
        wanted = "@FILE.npy or random" + ("" if port is None or port.type.rank else ", or a number")
        raise execution_error("E501", f"--input {name}={text}: expected {wanted}") from None


def random_feeds(
    exe: Executable, dims: Mapping[str, int] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Seeded random inputs; symbolic dimensions that `dims` does not give are taken as 1. E106 for
    names that are none."""
    rng = np.random.default_rng(seed)
    sizes = {s.name: max(1, s.lower) for s in exe.image.signature.symbols}
    unknown = [n for n in dims or () if n not in sizes]
    if unknown:
        known = f"it has {', '.join(sizes) or 'none'}"
        raise error("E106", f"the model has no symbolic dimension {', '.join(unknown)}", known)
    sizes.update(dims or {})
    try:
        return {p.name: _random(p, sizes, rng) for p in exe.inputs}
    except (MemoryError, ValueError):  # numpy's words for more than there is, and more than it can
        text = ", ".join(f"{n}={v}" for n, v in sizes.items())
        raise execution_error("E501", "inputs of these sizes are too large", text) from None


def _random(port: Port, sizes: Mapping[str, int], rng: np.random.Generator) -> NDArray[Any]:
    shape = tuple(evaluate(d, sizes) for d in port.shape)
    if port.dtype.is_float:
        return rng.standard_normal(shape, np.float32).astype(port.dtype.numpy, copy=False)
    return rng.integers(0, 2, shape).astype(port.dtype.numpy)


@dataclass(frozen=True, slots=True)
class Measuring:
    """What ``aisc bench`` is asked for.

    peers: against whom. threads: numbers of threads, of a call or of each stream.
    runs: calls that are not counted, and that are.
    streams: requests in flight, for `seconds`; 0 for one call after the other.
    dims: sizes of symbolic dimensions. json_output: where to write the numbers.
    """

    peers: Sequence[str]
    threads: Sequence[int]
    runs: tuple[int, int]
    streams: int
    seconds: float
    dims: Mapping[str, int]
    json_output: Path | None


# Keys of the numbers, their titles and how they are written.
_CALLS = (
    ("median_ms", "median ms", ".3f"),
    ("p90_ms", "p90 ms", ".3f"),
    ("min_ms", "min ms", ".3f"),
)
_STREAMS = (
    ("requests_per_second", "req/s", ".1f"),
    ("p50_ms", "p50 ms", ".2f"), ("p95_ms", "p95 ms", ".2f"), ("p99_ms", "p99 ms", ".2f"),
)  # fmt: skip


def bench(model: str, make: Callable[[int], Executable], what: Measuring) -> None:
    """Measure the executable that `make` gives for each number of threads, print a table."""
    from rich.console import Console
    from rich.table import Table

    rows: list[Mapping[str, Any]] = []
    for count in what.threads:
        rows += _measured(model, make(count), count, what)
    columns = _STREAMS if what.streams else _CALLS
    better = "ahead by" if what.streams else "aisc is faster by"
    counts = "streams" if what.streams else "threads"
    table = Table("runtime", counts, *(title for _, title, _ in columns), better)
    for row in rows:
        ratio = f"{row['ratio']:.2f} x" if row["runtime"] != "aisc" else ""
        numbers = [format(row[key], form) for key, _, form in columns]
        at_once = f"{row['streams']} x " if what.streams else ""
        table.add_row(row["runtime"], f"{at_once}{row['threads']}", *numbers, ratio)
    Console().print(table)
    if what.json_output is not None:
        write_whole(what.json_output, json.dumps(rows, indent=2).encode())


def _measured(model: str, exe: Executable, threads: int, what: Measuring) -> list[dict[str, Any]]:
    from aisc.cli.spinner import spinner
    from aisc.measure.bench import measure_latency
    from aisc.measure.throughput import Load, measure_throughput

    feeds = random_feeds(exe, what.dims)
    if not what.streams:
        return measure_latency(model, exe, feeds, what.peers, threads, *what.runs)
    load = Load(what.streams, threads, what.seconds)
    with spinner(Path(model).name) as show:
        return measure_throughput(model, exe, feeds, what.peers, load, show)

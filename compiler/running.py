"""What the command line does with an executable: feeding it, printing its results, timing it.

Imports nothing of the compiler, so that bundles run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aisc.codegen.executable import Executable
from aisc.files import write_whole
from aisc.ir.arith.poly import evaluate
from aisc.ir.diagnostics import execution_error


def run_once(exe: Executable, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Run on the inputs that ``--input`` names, save what ``--output`` names, print the rest."""
    results = exe.run(None, _feeds(exe, inputs))
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
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for port in exe.inputs:
        ones = {s.name: max(1, s.lower) for s in port.type.symbols}
        shape = tuple(evaluate(d, ones) for d in port.shape)
        if port.dtype.is_float:
            feeds[port.name] = rng.standard_normal(shape).astype(port.dtype.numpy)
        else:
            feeds[port.name] = rng.integers(0, 2, shape).astype(port.dtype.numpy)
    return feeds


def bench(
    model: str,
    make: Callable[[int], Executable],
    peers: Sequence[str],
    threads: Sequence[int],
    runs: tuple[int, int],
    json_output: Path | None,
) -> None:
    """Measure the executable that `make` gives for each number of threads, print a table."""
    from rich.console import Console
    from rich.table import Table

    from aisc.bench import measure_latency

    rows: list[Mapping[str, Any]] = []
    for count in threads:
        exe = make(count)
        rows += measure_latency(model, exe, random_feeds(exe), peers, count, *runs)
    table = Table("runtime", "threads", "median ms", "p90 ms", "min ms", "aisc is faster by")
    for row in rows:
        ratio = f"{row['ratio']:.2f} x" if row["runtime"] != "aisc" else ""
        numbers = [f"{row[k]:.3f}" for k in ("median_ms", "p90_ms", "min_ms")]
        table.add_row(row["runtime"], str(row["threads"]), *numbers, ratio)
    Console().print(table)
    if json_output is not None:
        write_whole(json_output, json.dumps(rows, indent=2).encode())

"""Models of gigabytes: memory and time to compile, to open again, and to run, beside onnxruntime.

    python benchmarks/large_models.py [chain1 chain4 chain8 decoder2b] [--threads 1] [--folder DIR]

``chainN`` are products with square matrices of 4096, N GiB of them; ``decoder2b`` is a decoder of
two billion parameters that reads a prompt and then single tokens. Weights are random and stream to
external data. Every side is a process of its own; memory is resident memory, pages of mapped files
included: the peak until the model is open, and what is resident after calls. A model takes twice
its size on the disk, and is removed after its measurement unless ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from large.models import MODELS
from rich.console import Console
from rich.table import Table

PROMPT = 64
# What is measured: title, side of the worker. The first two share a cache of models.
SIDES = (
    ("aisc, compiled", "aisc"),
    ("aisc, opened again", "aisc"),
    ("aisc, not kept", "aisc-alone"),
    ("onnxruntime", "onnxruntime"),
)


def measure(side: str, path: Path, threads: int, cache: Path) -> dict[str, Any] | str:
    """What a worker says, or why it says nothing."""
    tokens = [str(PROMPT)] if path.stem == "decoder" else []
    argv = [sys.executable, "-m", "large.worker", side, str(path), str(threads), *tokens]
    environment = {**os.environ, "AISC_CACHE_DIR": str(cache)}
    done = subprocess.run(
        argv, capture_output=True, text=True, cwd=Path(__file__).parent, env=environment
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def row_of(told: dict[str, Any], weights: int) -> list[str]:
    """Cells of the table."""
    peak, after = told["peak"], told["after"]
    cells = [f"{told['open']:.2f}", f"{peak / 1e9:.2f}", f"{peak / weights:.2f}"]
    cells += [f"{after / 1e9:.2f}", f"{after / weights:.2f}"]
    cells += [f"{told[k]:.3f}" if k in told else "" for k in ("first", "call", "decode")]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["chain1", "chain4", "chain8", "decoder2b"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="leave the models in the folder")
    parser.add_argument("--json", type=Path, help="write all numbers")
    arguments = parser.parse_args()
    table = Table(
        "model", "side", "open s", "peak GB", "x weights", "after GB", "x weights", "first call s",
        "call s", "token s", title=f"{arguments.threads} threads",
    )  # fmt: skip
    numbers: dict[str, Any] = {}
    console = Console(width=140)
    for name in arguments.models:
        folder = arguments.folder / f"aisc-{name}"
        folder.mkdir(exist_ok=True)
        found = list(folder.glob("*.onnx"))
        path = found[0] if found else MODELS[name](folder)
        weights = path.with_suffix(".data").stat().st_size
        cache = folder / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        for title, side in SIDES:
            told = measure(side, path, arguments.threads, cache)
            numbers.setdefault(name, {})[title] = told
            console.print(f"{name}, {title}: {told}", style="dim")
            cells = [told] if isinstance(told, str) else row_of(told, weights)
            table.add_row(f"{name} ({weights / 1e9:.2f} GB)", title, *cells)
            if title == SIDES[1][0]:
                shutil.rmtree(cache, ignore_errors=True)
        if not arguments.keep:
            shutil.rmtree(folder)
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

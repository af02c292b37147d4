"""Compile the digits net, classify the held-out images, and show the result.

Run by ``make demo``. Every number is measured while it runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.columns import Columns
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import aisc

HERE = Path(__file__).resolve().parent
MODEL = HERE / "digits.onnx"
SHADES = " .:-=+*#@"
SHOWN = 6

Array = NDArray[Any]
Runner = Callable[[Array], Array]


def load_images() -> tuple[Array, Array]:
    """The held-out images ``f32[n, 1, 8, 8]`` and their labels ``u8[n]``."""
    with np.load(HERE / "images.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


def onnxruntime_runner(threads: int) -> Runner | None:
    """The same model in onnxruntime, if that is installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0]  # type: ignore[no-any-return]


def medians(runners: dict[str, Runner], x: Array, rounds: int = 200) -> dict[str, float]:
    """Median milliseconds of a call, the runners taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    for k in range(rounds + 10):
        for name, run in runners.items():
            start = time.perf_counter()
            run(x)
            if k >= 10:
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def drawing(image: Array) -> str:
    """An image as text, two characters a pixel."""
    levels = np.minimum((image[0] * len(SHADES)).astype(int), len(SHADES) - 1)
    return "\n".join("".join(SHADES[v] * 2 for v in row) for row in levels)


def gallery(images: Array, labels: Array, guesses: Array) -> Columns:
    """A few digits: the mistakes first, then the first ones of the slice."""
    wrong = [int(k) for k in np.flatnonzero(guesses != labels)][:2]
    right = [int(k) for k in np.flatnonzero(guesses == labels)][: SHOWN - len(wrong)]
    panels = []
    for k in [*right, *wrong]:
        good = guesses[k] == labels[k]
        title = f"is {labels[k]}, read as {guesses[k]}"
        style = "green" if good else "red"
        panels.append(Panel(Text(drawing(images[k])), title=title, border_style=style, width=22))
    return Columns(panels)


def latency_table(images: Array) -> Table:
    """Median latencies for one image and for all of them, by number of threads."""
    table = Table(
        "runtime", "threads", "1 image, ms", f"{len(images)} images, ms", title="median latency"
    )
    cores = aisc.compile(MODEL).threads
    for threads in sorted({1, min(2, cores)}):
        runners: dict[str, Runner] = {"aisc": aisc.compile(MODEL, threads=threads)}
        peer = onnxruntime_runner(threads)
        if peer is not None:
            runners["onnxruntime"] = peer
        one, whole = medians(runners, images[:1]), medians(runners, images)
        for name in runners:
            table.add_row(name, str(threads), f"{one[name]:.3f}", f"{whole[name]:.3f}")
    return table


def main() -> None:
    """Compile, classify, compare, measure."""
    console = Console()
    images, labels = load_images()
    start = time.perf_counter()
    exe = aisc.compile(MODEL)
    elapsed = time.perf_counter() - start
    console.print(f"compiled {MODEL.name} for {exe.machine.arch} in {elapsed:.2f} s")
    probabilities = exe(images)
    guesses = probabilities.argmax(axis=1)
    correct = int((guesses == labels).sum())
    console.print(gallery(images, labels, guesses))
    console.print(
        f"accuracy: {correct} of {len(labels)} held-out digits "
        f"({correct / len(labels):.1%}), in one call"
    )
    peer = onnxruntime_runner(1)
    if peer is not None:
        difference = float(np.abs(probabilities - peer(images)).max())
        console.print(f"largest difference from onnxruntime: {difference:.1e}")
    console.print(latency_table(images))


if __name__ == "__main__":
    main()

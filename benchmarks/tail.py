"""How long the slowest calls take: percentiles of a model's calls, alone and beside busy processes.

    python benchmarks/tail.py [MODEL …] [--calls 20000] [--threads 2] [--busy 0,2]
        [--against onnxruntime]

Sides take turns of a hundred calls in one process: active waiting, passive waiting and each other
runtime. ``--busy`` is how many processes that only compute run beside them. Between turns all rest,
so that threads of the side before do not spin any more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from versus import subjects

import aisc
from aisc.measure.peers import PEERS, Runner

TURN = 100  # calls of one side before it is the next one's turn
REST = 0.05
PERCENTILES = (50, 90, 99, 99.9)


def _compute() -> None:
    while True:
        sum(range(100_000))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute."""
    context = multiprocessing.get_context("spawn")
    made = [context.Process(target=_compute, daemon=True) for _ in range(count)]
    for p in made:
        p.start()
    try:
        yield
    finally:
        for p in made:
            p.terminate()
            p.join()


def sides_of(subject: subjects.Subject, threads: int, peers: Sequence[str]) -> dict[str, Runner]:
    """What is measured, by name."""
    path, feeds = str(subject.model), subject.feeds
    active = aisc.compile(path, threads=threads, wait="active")
    passive = aisc.compile(path, threads=threads, wait="passive")
    found: dict[str, Runner] = {
        "aisc": lambda: active.run(None, feeds),
        "aisc, passive": lambda: passive.run(None, feeds),
    }
    return found | {name: PEERS[name].open(path, feeds, threads) for name in peers}


def measure(sides: dict[str, Runner], calls: int, title: str) -> dict[str, list[float]]:
    """Milliseconds of the calls of each side, in ascending order."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        for _ in bar.track(range(-(-calls // TURN)), description=title):
            for name, run in sides.items():
                time.sleep(REST)
                run()
                for _ in range(TURN):
                    start = time.perf_counter()
                    run()
                    times[name].append((time.perf_counter() - start) * 1e3)
    return {name: sorted(t) for name, t in times.items()}


def percentile(ordered: Sequence[float], p: float) -> float:
    """The least time that a share of `p` % of the calls does not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def table_of(title: str, times: dict[str, list[float]]) -> Table:
    """Percentiles of each side; how far the 99th is from the median."""
    columns = [f"p{p:g} ms" for p in PERCENTILES]
    table = Table("runtime", *columns, "p99 / p50", title=title, title_justify="left")
    for name, ordered in times.items():
        values = [percentile(ordered, p) for p in PERCENTILES]
        spread = percentile(ordered, 99) / percentile(ordered, 50)
        table.add_row(name, *(f"{v:.3f}" for v in values), f"{spread:.2f}")
    return table


def main() -> None:
    """The command."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("models", nargs="*", default=["mlp", "bert", "resnet50"])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", default="0,2", help="numbers of busy processes beside, e.g. 0,2")
    parser.add_argument("--against", default="onnxruntime", help=", ".join(PEERS))
    options = parser.parse_args()
    peers = [p for p in options.against.split(",") if p]
    if unknown := [p for p in peers if p not in PEERS]:
        parser.error(f"--against: no runtime {', '.join(unknown)}; there are {', '.join(PEERS)}")
    with tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            subject = subjects.prepare(model, Path(folder))
            sides = sides_of(subject, options.threads, peers)
            for count in map(int, options.busy.split(",")):
                title = f"{model}, {options.threads} threads, {count} busy processes beside"
                with busy(count):
                    Console().print(table_of(title, measure(sides, options.calls, title)))


if __name__ == "__main__":
    main()

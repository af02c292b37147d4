"""aisc against other runtimes on the same inputs, interleaved, each in a process of its own::

    python benchmarks/peers.py [MODEL …] [--threads 1,2] [--against onnxruntime,openvino]
        [--rounds 15] [--json FILE] [--markdown FILE] [--plot FILE.png]

MODEL is a model of the zoo, one with control flow, or an ONNX file, each with sizes if wanted:
``resnet50``, ``mlp:batch=1``, ``net.onnx:n=8``. Peers are those of ``aisc.measure.peers``; one that
is not installed, or cannot run a model, says so in the table. What is measured and how is told in
``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from versus import report, subjects
from versus.rounds import Measurement, measure
from versus.side import SideFailed

from aisc.measure.peers import PEERS


def arguments() -> argparse.Namespace:
    """The command line; bad values end the program with a message."""
    parser = argparse.ArgumentParser(description="Measure aisc against other runtimes.")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(subjects.names())}, or files")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--against", default="onnxruntime,openvino", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    counts = options.threads.split(",")
    if not all(c.isdigit() and int(c) > 0 for c in counts):
        parser.error("--threads: expected numbers such as 1,2")
    options.counts = list(map(int, counts))
    options.peers = [p for p in options.against.split(",") if p]
    unknown = [p for p in options.peers if p not in PEERS]
    if unknown:
        parser.error(f"--against: no runtime {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if options.rounds < 1:
        parser.error("--rounds: expected a positive number")
    return options


def run(options: argparse.Namespace, folder: Path) -> list[Measurement]:
    """All measurements; what cannot be measured at all is told and left out."""
    err, found = Console(stderr=True), list[Measurement]()
    with err.status("…") as status:
        for text in options.models or subjects.DEFAULT:
            try:
                subject = subjects.prepare(text, folder)
                for threads in options.counts:
                    found.append(
                        measure(
                            subject, threads, options.peers, options.rounds, folder, status.update
                        )
                    )
            except (subjects.BadSubject, SideFailed) as fault:
                err.print(f"{text}: {fault}", style="red", highlight=False)
    return found


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options, Path(folder))
    if not found:
        raise SystemExit(1)
    about = report.machine()
    rows = [row for m in found for row in report.rows_of(m)]
    means = report.summary(found)
    for table in report.tables(rows, means, about):
        Console().print(table)
    for text in (*report.failures(rows), *report.disturbed(rows)):
        Console().print(text, style="yellow", highlight=False, markup=False)
    if options.json:
        numbers: dict[str, Any] = {"machine": about, "rows": rows, "means": means}
        numbers["seconds"] = [
            {"model": m.subject.name, "threads": m.threads, "side": name, "seconds": s.seconds}
            for m in found for name, s in m.sides.items()
        ]  # fmt: skip
        options.json.write_text(json.dumps(numbers, indent=1) + "\n")
    if options.markdown:
        command = shlex.join(["python", "benchmarks/peers.py", *sys.argv[1:]])
        options.markdown.write_text(report.markdown(rows, means, about, command))
    if options.plot:
        report.plot(rows, about, options.plot)


if __name__ == "__main__":
    main()

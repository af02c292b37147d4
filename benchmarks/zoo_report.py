"""What the zoo's models cost besides their latency: compile time, memory, symbolic shapes::

    python benchmarks/zoo_report.py [MODEL …] [--repeats 9] [--specialized 20]
        [--random-shapes 50 [--full-size]] [--skip compile,memory] [--json FILE] [--markdown FILE]

Latency against other runtimes is measured by ``benchmarks/peers.py``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the definition of agreement

import onnx
import zoo
from rich.console import Console
from rich.table import Table
from zoo import measure
from zoo.measure import Row

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("cold_s", "cold s", "{:.2f}"), ("warm_s", "warm s", "{:.2f}"),
    ("symbolic_ratio", "sym/spec", "{:.2f}"),
    ("random", "random", "{}"), ("recompilations", "recompiled", "{}"),
    ("memory_mb", "MB", "{:.1f}"), ("memory_ratio", "/ ort MB", "{:.2f}"),
)  # fmt: skip


def report(name: str, options: argparse.Namespace) -> Row:
    """All measurements of one model."""
    entry, skip = zoo.ZOO[name], options.skip.split(",")
    model = entry.build()
    row: Row = {"model": name, "dims": entry.usual()}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / f"{name}.onnx")
        onnx.save(model, path)
        steps: dict[str, Callable[[], Row]] = {
            "compile": lambda: measure.compile_times(path),
            "memory": lambda: measure.memory(path, entry.usual()),
        }
        if options.specialized:
            steps["symbolic"] = lambda: measure.symbolic(
                entry, model, options.specialized, options.repeats
            )
        if options.random_shapes:
            steps["random"] = lambda: measure.random_shapes(
                entry, options.random_shapes, options.full_size
            )
        for step, action in steps.items():
            if step not in skip:
                row.update(action())
    if "random_agree" in row:
        row["random"] = f"{row['random_agree']}/{row['random_shapes']}"
    return row


def table(rows: list[Row]) -> Table:
    shown = [c for c in COLUMNS if any(c[0] in r for r in rows)]
    result = Table("model", *(title for _, title, _ in shown))
    for row in rows:
        cells = [form.format(row[key]) if key in row else "" for key, _, form in shown]
        result.add_row(row["model"], *cells)
    return result


def markdown(rows: list[Row]) -> str:
    shown = [c for c in COLUMNS if any(c[0] in r for r in rows)]
    lines = ["| model | " + " | ".join(title for _, title, _ in shown) + " |"]
    lines.append("|" + "---|" * (len(shown) + 1))
    for row in rows:
        cells = [form.format(row[key]) if key in row else "" for key, _, form in shown]
        lines.append(f"| {row['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the zoo's models.")
    parser.add_argument("models", nargs="*", help=f"of {', '.join(zoo.ZOO)}; by default all")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--specialized", type=int, default=0, metavar="K",
                        help="compare with builds for K random shapes")  # fmt: skip
    parser.add_argument("--full-size", action="store_true", help="random shapes of the full model")
    parser.add_argument("--random-shapes", type=int, default=0, metavar="N")
    parser.add_argument("--skip", default="", help="of compile, memory")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    unknown = [m for m in options.models if m not in zoo.ZOO]
    if unknown:
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(zoo.ZOO)}")
    err, rows = Console(stderr=True), list[Row]()
    for name in options.models or zoo.ZOO:
        if err.is_terminal:
            err.print(f"measuring {name} …")
        rows.append(report(name, options))
    Console().print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown(rows))


if __name__ == "__main__":
    main()

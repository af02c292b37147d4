"""Random single layers against the best of other runtimes: finds what no rule was written for::

    python benchmarks/layer_fuzz.py [--seed 1] [--count 200] [--family conv,rows] [--only K]
        [--threads 1] [--against onnxruntime,openvino] [--json FILE] [--save]

The layers of a seed are the same everywhere, and each can be measured alone by its number. Families
are drawn as often as models use them. Exit code 1 when results differ or aisc fails. What is
measured and how is told in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from fuzzing import command, report, results
from fuzzing.families import FAMILIES, draw, numbers
from rich.console import Console


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = command.parser("Measure random layers.", rounds=5, turn=0.02, limit=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200, help="layers")
    parser.add_argument("--only", type=int, metavar="K", help="nothing but layer number K")
    parser.add_argument("--family", default="", help=f"of {', '.join(FAMILIES)}; by default all")
    return parser


def chosen(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[int]:
    """The numbers of the layers."""
    families = [f for f in options.family.split(",") if f]
    unknown = [f for f in families if f not in FAMILIES]
    if unknown:
        parser.error(f"--family: no {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    if options.only is not None:
        return [options.only]
    return numbers(options.seed, options.count, families)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write; the exit code."""
    parser = arguments()
    options, out, err = parser.parse_args(argv), Console(), Console(stderr=True)
    plan = command.plan_of(options, parser, err)
    before = results.ceilings(plan.threads) if options.save else {}
    makers = [({"number": k}, partial(draw, options.seed, k)) for k in chosen(options, parser)]
    rows = command.measure(makers, plan, options.limit, err)
    found = report.summary(rows)
    out.print(report.family_table(found, f"best of {', '.join(plan.peers)} / aisc"))
    for key, title in (("worst", "the worst layers"), ("worst_calls", "the worst calls")):
        if found[key]:
            out.print(report.row_table(found[key], title))
    command.told(report.notes(found), out)
    entry = {"kind": "layers", "seed": options.seed, "count": len(rows), **found}
    if options.json:
        results.write_json(options.json, {**entry, "rows": rows})
    if options.save:
        command.save(entry, plan, before, err)
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Recurrent nets, chains of products and calls against the best of other runtimes::

    python benchmarks/small_nets.py [recurrent] [chains] [calls] [--threads 1]
        [--against onnxruntime,openvino] [--json FILE] [--save]

*recurrent*: LSTM, GRU and RNN of usual sizes. *chains*: 12 pairs of products whose weights, 226 MB,
come from memory, with 1 to 512 rows; their share of the multiply-add peak, and the one that the
rate of memory allows. *calls*: the smallest model, called 10,000 times. Exit code 1 when results
differ or aisc fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fuzzing import command, nets, report, results
from fuzzing.measuring import Plan, Row
from rich.console import Console

KINDS = ("recurrent", "chains", "calls")


def measure(kind: str, plan: Plan, limit: float, small: bool, err: Console) -> list[Row]:
    """The nets of a kind."""
    if kind == "calls":
        return [nets.calls(plan, 100 if small else nets.CALLS)]
    makers = [(Row(), make) for make in nets.makers(kind, small)]
    return command.measure(makers, replace(plan, roofline=kind == "chains"), limit, err)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, show, write; the exit code."""
    parser = command.parser("Measure small nets.", rounds=9, turn=0.05, limit=300)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; by default all")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the command")
    options, out, err = parser.parse_args(argv), Console(), Console(stderr=True)
    kinds = options.kinds or list(KINDS)
    if unknown := [k for k in kinds if k not in KINDS]:
        parser.error(f"no {', '.join(unknown)}; there are {', '.join(KINDS)}")
    plan = command.plan_of(options, parser, err)
    before = results.ceilings(plan.threads) if options.save else {}
    found: dict[str, list[Row]] = {}
    for kind in kinds:
        found[kind] = measure(kind, plan, options.limit, options.small, err)
        out.print(report.row_table([r for r in found[kind] if "ratio" in r], kind))
    faults = report.summary([row for some in found.values() for row in some])
    command.told(report.notes(faults), out)
    if options.json:
        results.write_json(options.json, found)
    if options.save:
        for kind, some in found.items():
            entry = {"kind": kind, "nets": list(map(report.brief, some))}
            command.save(entry, plan, before, err)
    return 1 if faults["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

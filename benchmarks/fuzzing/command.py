"""What the commands share: options, peers that are there, measuring with a bar, writing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from aisc.measure.peers import PEERS
from fuzzing import report, results
from fuzzing.measuring import Plan, Row
from fuzzing.worker import Maker, Worker


def parser(description: str, rounds: int, turn: float, limit: float) -> argparse.ArgumentParser:
    """The options of both commands, with their usual values."""
    p = argparse.ArgumentParser(description=description)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--against", default="onnxruntime,openvino", help=", ".join(PEERS))
    p.add_argument("--rounds", type=int, default=rounds)
    p.add_argument("--turn", type=float, default=turn, help="seconds of a side in a round")
    p.add_argument("--limit", type=float, default=limit, help="seconds of a layer in all")
    p.add_argument("--json", type=Path, help="write every number to a file")
    p.add_argument("--save", action="store_true",
                   help="put the summary into benchmarks/results/, by kind of core")  # fmt: skip
    return p


def plan_of(options: argparse.Namespace, p: argparse.ArgumentParser, err: Console) -> Plan:
    """How to measure. Peers that are not installed are named and left out."""
    names = [n for n in options.against.split(",") if n]
    unknown = [n for n in names if n not in PEERS]
    if unknown:
        p.error(f"--against: no runtime {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if min(options.threads, options.rounds) < 1:
        p.error("--threads, --rounds: expected positive numbers")
    there = [n for n in names if find_spec(PEERS[n].package)]
    for name in names:
        if name not in there:
            err.print(f"{name} is not installed: left out", style="yellow", highlight=False)
    if not there:
        p.error("--against: none of the runtimes is installed")
    return Plan(tuple(there), options.threads, options.rounds, options.turn)


def measure(
    makers: Sequence[tuple[Row, Maker]], plan: Plan, limit: float, err: Console
) -> list[Row]:
    """All layers in a process of its own, in order; each with what the caller says about it."""
    rows: list[Row] = []
    with report.progress(err) as bar, Worker(plan, limit) as worker:
        task = bar.add_task("measuring", total=len(makers))
        for about, make in makers:
            rows.append({**about, **worker.measure(make)})
            faults = sum("fault" in r for r in rows)
            bar.update(task, advance=1, description=f"measuring: {faults} faults")
    return rows


def told(texts: Sequence[str], out: Console) -> None:
    """Lines below the tables."""
    for text in texts:
        out.print(text, style="yellow", highlight=False, markup=False)


def save(entry: Row, plan: Plan, before: Row, err: Console) -> None:
    """Put an entry with its conditions into the file of this kind of core."""
    conditions = results.conditions(plan.threads, plan.peers, before)
    path = results.save({**entry, "conditions": conditions}, results.processor(), results.FOLDER)
    err.print(f"saved in {path}; python docs/generate.py renews docs/benchmarks.md")

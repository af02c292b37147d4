"""``aisc fuzz``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from aisc.driver.api import resolve_target
from aisc.fuzz.driver import Plan, Work, report, run
from aisc.fuzz.oracles import ORACLES
from aisc.fuzz.worker import Limits
from aisc.ir.diagnostics import error

WORKS: Mapping[str, tuple[Work, ...]] = {
    "graphs": ("graph",), "schedules": ("schedule",), "all": ("graph", "schedule"),
}  # fmt: skip


def fuzz_command(
    count: int | None,
    seed: int,
    seconds: float | None,
    out: Path | None,
    kind: str,
    jobs: int,
    reduce_seconds: float,
    limits: Mapping[str, Any],
) -> int:
    """Run, report, and give the exit code."""
    known = [o.name for o in ORACLES]
    for name in limits["oracles"]:
        if name not in known:
            raise error("E401", f"there is no oracle '{name}'", f"oracles: {', '.join(known)}")
    resolve_target(limits["target"])  # a wrong one is refused here, not in each process
    plan = Plan(count, seed, seconds, jobs, out, reduce_seconds, WORKS[kind], Limits(**limits))
    summary = run(plan)
    report(summary, plan, Console())
    return summary.exit_code

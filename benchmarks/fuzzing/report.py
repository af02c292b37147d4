"""What was measured as numbers and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Row = dict[str, Any]
CALL_US = 15.0  # what the nearest peer does in less is a call more than a layer
LIMITS = (0.9, 0.6)
WORST = 25
# Shares of the multiply-add peak: what is told of a row, and the head of its column.
SHARES = {"peak": "of peak", "allowed": "allowed"}
ALL = "all"


def progress(console: Console) -> Progress:
    """A bar for a terminal, which is gone when all is done; nothing elsewhere."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, TimeElapsedColumn(), console=console, transient=True,
                    disable=not console.is_terminal)  # fmt: skip


# -- numbers ---------------------------------------------------------------------------------------
def summary(rows: Sequence[Row], worst: int = WORST) -> Row:
    """Layers by family and in all, calls apart from them, the worst layers, and the faults."""
    timed = [r for r in rows if "ratio" in r]
    layers = [r for r in timed if not is_call(r)]
    calls = [r for r in timed if is_call(r)]
    families = dict.fromkeys(r["family"] for r in layers)
    groups = {f: [r["ratio"] for r in layers if r["family"] == f] for f in sorted(families)}
    groups |= {ALL: [r["ratio"] for r in layers]} if layers else {}
    return {
        "families": [{"family": name, **numbers(ratios)} for name, ratios in groups.items()],
        "calls": numbers([r["ratio"] for r in calls]) if calls else None,
        "worst": _worst(layers, worst),
        "worst_calls": _worst(calls, worst // 5),
        "faults": [brief(r) for r in rows if "fault" in r],
        "skipped": sum("skipped" in r for r in rows),
        "left_out": _left_out(timed),
    }


def _worst(rows: Sequence[Row], count: int) -> list[Row]:
    return [brief(r) for r in sorted(rows, key=lambda r: r["ratio"])[: max(1, count)]]


def is_call(row: Row) -> bool:
    """Whether a layer takes so little that calling it is most of its time."""
    return bool(row["us"][row["best"]] < CALL_US)


def numbers(ratios: Sequence[float]) -> Row:
    """The geometric mean of some ratios, how many are below the limits, and the least."""
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    below = {f"below_{limit}": sum(r < limit for r in ratios) for limit in LIMITS}
    return {"layers": len(ratios), "mean": round(mean, 3), **below, "worst": round(min(ratios), 3)}


def brief(row: Row) -> Row:
    """A row without what only its measurement needed."""
    kept: Row = {k: row[k] for k in ("number", "family", "what", "fault", "best") if k in row}
    if "ratio" in row:
        kept["ratio"] = round(row["ratio"], 3)
        kept["us"] = {name: round(us, 2) for name, us in row["us"].items()}
    kept |= {k: round(row[k], 3) for k in SHARES if k in row}
    return kept


def _left_out(rows: Sequence[Row]) -> dict[str, int]:
    """How many of the layers that were timed a peer took no part in."""
    found: dict[str, int] = {}
    for row in rows:
        for name in row["left_out"]:
            found[name] = found.get(name, 0) + 1
    return found


# -- tables ----------------------------------------------------------------------------------------
def family_table(found: Row, title: str) -> Table:
    """The geometric means by family."""
    heads = ("layers", "mean", *(f"below {limit}" for limit in LIMITS), "worst")
    table = Table(box=box.SIMPLE, title=title)
    table.add_column("family", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for group in found["families"]:
        if group["family"] == ALL:
            table.add_section()
        table.add_row(*group_cells(group))
    if found["calls"]:
        table.add_row(*group_cells({"family": f"under {CALL_US:g} µs", **found["calls"]}))
    return table


def group_cells(group: Row) -> list[str]:
    """The texts of a family: name, layers, mean, shares below the limits, worst."""
    shares = (f"{group[f'below_{limit}'] / group['layers']:.1%}" for limit in LIMITS)
    mean, worst = f"{group['mean']:.2f}", f"{group['worst']:.2f}"
    return [group["family"], str(group["layers"]), mean, *shares, worst]


def row_table(rows: Sequence[Row], title: str) -> Table:
    """Layers or nets, a row each."""
    table = Table(box=box.SIMPLE, padding=(0, 1), pad_edge=False, title=title)
    numbered = any("number" in r for r in rows)
    told = [k for k in SHARES if any(k in r for r in rows)]
    for head in ("ratio", "aisc µs", "peer µs", *(SHARES[k] for k in told)):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("peer", no_wrap=True)
    table.add_column("what" if not numbered else "layer", overflow="fold")
    for row in rows:
        mine, theirs = (micros(row["us"][name]) for name in ("aisc", row["best"]))
        number = f"#{row['number']} " if "number" in row else ""
        what = number + row["what"]
        limits = share_cells(row, told)
        table.add_row(f"{row['ratio']:.2f}", mine, theirs, *limits, row["best"], what)
    return table


def share_cells(row: Row, told: Sequence[str]) -> list[str]:
    """The texts of shares of the peak."""
    return [f"{row[k]:.0%}" if k in row else "" for k in told]


def micros(us: float) -> str:
    """Microseconds with three digits or so."""
    return f"{us:.2f}" if us < 10 else f"{us:.1f}" if us < 100 else f"{us:,.0f}"


def notes(found: Row) -> list[str]:
    """What does not stand in the tables, a line each."""
    told = [
        f"#{r['number']} {r['fault']}: {r['what']}"
        if "number" in r
        else f"{r['what']}: {r['fault']}"
        for r in found["faults"]
    ]
    if found["skipped"]:
        told.append(f"{found['skipped']} layers were skipped: no peer runs them")
    return told + [f"{name} took no part in {n} layers" for name, n in found["left_out"].items()]

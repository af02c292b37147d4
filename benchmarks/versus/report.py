"""The results as numbers, for a terminal, as Markdown, and as a plot."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from versus.neighbours import LIMIT
from versus.rounds import Measurement
from versus.statistics import Estimate, best_peer, geometric_mean, ratio, spread

Row = dict[str, Any]
HEAD = ("model", "side", "ms", "p10-p90", "peak", "peer/aisc", "95 %", "results")
MEANS = ("threads", "peer", "models", "peer/aisc", "95 %")


def machine() -> Row:
    """What the measurements ran on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def rows_of(m: Measurement) -> list[Row]:
    """A measurement as plain numbers, a row per side."""
    mine = m.sides["aisc"].seconds
    head = {"model": m.subject.name, "dims": dict(m.subject.dims), "threads": m.threads}
    head |= {"flops": m.flops, "peak_gflops": statistics.median(m.peaks)}
    head["others"] = m.others
    rows: list[Row] = []
    for name, side in m.sides.items():
        row: Row = {**head, "side": name, "version": side.version}
        rows.append(row)
        if not side.seconds:
            row["reason"] = side.reason
            continue
        low, middle, high = spread(side.seconds)
        pairs = zip(side.seconds, m.peaks, strict=True)
        row |= {"ms": middle * 1e3, "p10_ms": low * 1e3, "p90_ms": high * 1e3}
        row |= {"rounds": len(side.seconds), "calls": side.calls, "results": side.results}
        row |= {"gflops": m.flops / middle / 1e9, "open_seconds": side.open_seconds}
        row["peak_share"] = statistics.median(m.flops / s / (p * 1e9) for s, p in pairs)
        if name != "aisc":
            row |= _numbers(ratio(side.seconds, mine))
    return rows


def _numbers(e: Estimate) -> Row:
    return {"ratio": e.value, "ratio_low": e.low, "ratio_high": e.high}


def summary(measurements: Sequence[Measurement]) -> list[Row]:
    """Per number of threads: the geometric mean over the models of best peer / aisc, and of each
    peer over the models that it ran."""
    rows: list[Row] = []
    for threads in dict.fromkeys(m.threads for m in measurements):
        some = [m for m in measurements if m.threads == threads and m.peers]
        names = dict.fromkeys(n for m in some for n in m.peers)
        for name in (*(["best peer"] if len(names) > 1 else []), *names):
            found = [r for m in some if (r := _ratios(m, name)) is not None]
            mean = _numbers(geometric_mean(found))
            rows.append({"threads": threads, "peer": name, "models": len(found), **mean})
    return rows


def _ratios(m: Measurement, name: str) -> list[float] | None:
    """Ratios of a peer per round, or of the one that is nearest to aisc in this measurement."""
    mine = m.sides["aisc"].seconds
    chosen = best_peer(m.peers, mine) if name == "best peer" else name
    if chosen not in m.peers:
        return None
    return [p / a for p, a in zip(m.peers[chosen], mine, strict=True)]


def cells(row: Row) -> list[str]:
    """The texts of a row of a side that took part, in the order of :data:`HEAD`."""
    low, middle, high = (_time(row[k]) for k in ("p10_ms", "ms", "p90_ms"))
    share = f"{row['peak_share']:.0%}"
    return [
        row["model"], row["side"], middle, f"{low}-{high}", share, *_ratio(row), row["results"]
    ]  # fmt: skip


def _time(ms: float) -> str:
    return f"{ms:.{3 if ms < 1 else 2 if ms < 10 else 1}f}"


def _ratio(row: Row) -> tuple[str, str]:
    if "ratio" not in row:
        return "", ""
    return f"{row['ratio']:.2f}", f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}"


def title(threads: int, peak: float, about: Row) -> str:
    """The line above a table."""
    return f"{_threads(threads)}, fp32, {about['cpu']}: peak {peak:.0f} GFLOP/s"


def _threads(count: int) -> str:
    return f"{count} thread" + "s" * (count > 1)


def tables(rows: Sequence[Row], means: Sequence[Row], about: Row) -> list[Table]:
    """A table per number of threads, and one of the means."""
    result: list[Table] = []
    for threads, some in _by_threads(rows).items():
        table = Table(box=box.SIMPLE, padding=0, title=title(threads, _peak(some), about))
        for name in HEAD:
            text = name in ("model", "side", "results")
            table.add_column(name, justify="left" if text else "right", no_wrap=True)
        before = ""
        for row in some:
            model, *rest = cells(row)
            if before and model != before:
                table.add_section()
            table.add_row("" if model == before else model, *rest)
            before = model
        result.append(table)
    if means:
        table = Table(*MEANS, box=box.SIMPLE, title="geometric means; above 1, aisc is faster")
        for m in means:
            table.add_row(*_mean_cells(m))
        result.append(table)
    return result


def failures(rows: Sequence[Row]) -> list[str]:
    """Why sides did not take part, a line each."""
    found = (f"{r['model']}, {r['side']}: {r['reason']}" for r in rows if "reason" in r)
    return list(dict.fromkeys(found))


def disturbed(rows: Sequence[Row]) -> list[str]:
    """Measurements during which other processes used the machine, a line each."""
    found = (
        f"{r['model']}, {_threads(r['threads'])}: other processes used {r['others']:.1f} cores"
        for r in rows
        if r["others"] > LIMIT
    )
    return list(dict.fromkeys(found))


def _mean_cells(m: Row) -> list[str]:
    return [str(m["threads"]), m["peer"], str(m["models"]), *_ratio(m)]


def _by_threads(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """The rows of sides that took part."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        if "reason" not in row:
            found.setdefault(row["threads"], []).append(row)
    return found


def _peak(rows: Sequence[Row]) -> float:
    return statistics.median(r["peak_gflops"] for r in rows)


def markdown(rows: Sequence[Row], means: Sequence[Row], about: Row, command: str) -> str:
    """The tables and what they were measured with, as a page."""
    versions = {r["side"]: r["version"] for r in rows if r["version"]}
    lines = [
        "# aisc and other runtimes", "", f"`{command}`", "",
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]  # fmt: skip
    for threads, some in _by_threads(rows).items():
        lines += [
            "",
            f"## {title(threads, _peak(some), about)}",
            "",
            *_grid(HEAD, map(cells, some)),
        ]
    if means:
        lines += ["", "## Geometric means", "", *_grid(MEANS, map(_mean_cells, means))]
    for heading, texts in (("Not measured", failures(rows)), ("Disturbed", disturbed(rows))):
        if texts:
            lines += ["", f"## {heading}", "", *(f"- {text}" for text in texts)]
    return "\n".join(lines) + "\n"


def _grid(head: Sequence[str], rows: Any) -> list[str]:
    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(t.replace("|", "/") for t in texts) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows)]


def plot(rows: Sequence[Row], about: Row, path: Path) -> None:
    """Bars of peer / aisc with confidence bounds, a panel per number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = {t: [r for r in some if "ratio" in r] for t, some in _by_threads(rows).items()}
    models = list(dict.fromkeys(r["model"] for r in rows))
    peers = list(dict.fromkeys(r["side"] for r in rows if "ratio" in r))
    figure, axes = pyplot.subplots(
        1,
        len(groups),
        figsize=(5 * len(groups) + 1, 1.8 + 0.6 * len(models)),
        squeeze=False,
        layout="constrained",
    )
    for axis, (threads, some) in zip(axes[0], groups.items(), strict=True):
        for k, name in enumerate(peers):
            _bars(axis, [r for r in some if r["side"] == name], models, k, len(peers))
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_yticks(range(len(models)), models)
        axis.invert_yaxis()
        axis.set_xlabel("peer / aisc: above 1, aisc is faster")
        axis.set_title(_threads(threads))
    figure.suptitle(f"{about['cpu']}, fp32")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(axis: Any, rows: Sequence[Row], models: Sequence[str], k: int, count: int) -> None:
    """The bars of one peer."""
    height = 0.8 / count
    places = [models.index(r["model"]) + (k - (count - 1) / 2) * height for r in rows]
    errors = [
        [r["ratio"] - r["ratio_low"] for r in rows], [r["ratio_high"] - r["ratio"] for r in rows]
    ]  # fmt: skip
    values = [r["ratio"] for r in rows]
    label = rows[0]["side"] if rows else ""
    axis.barh(places, values, height, xerr=errors, label=label, error_kw={"elinewidth": 0.8})

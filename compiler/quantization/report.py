"""What quantization does to each layer: numbers, and a page with error against time."""

from __future__ import annotations

import html
from dataclasses import asdict
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.measure.page import page, scale

_WIDTH, _HEIGHT, _EDGE = 640, 300, 46


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer. error: of the outputs, relative, with this layer alone quantized; seconds of a run,
    measured and predicted, in float and quantized; bytes of its weights before and after; kept:
    whether it stays in float; why: it does, or is no faster quantized."""

    name: str
    op: str
    error: float
    seconds_float: float
    predicted_float: float
    seconds_quantized: float
    predicted_quantized: float
    bytes_float: int
    bytes_quantized: int
    kept: bool
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """All layers; the error of the whole as it is written, and with all layers quantized; seconds
    of whole calls in float, with all layers quantized, and as written, and of these what belongs to
    no layer, in float and with all quantized; the budget of the error, if there was one."""

    layers: tuple[LayerReport, ...]
    error: float
    error_all: float
    seconds_float: float
    seconds_all: float
    seconds: float
    rest_float: float
    rest_quantized: float
    budget: float | None

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON value."""
        return asdict(self)

    def points(self) -> list[tuple[float, float]]:
        """Seconds and errors, as expected, of the model with no, one, two … layers quantized:
        those first that save most time for their error. Ends are measured."""
        order = sorted(self.layers, key=lambda r: r.error**2 / max(_saved(r), 1e-9))
        total = sum(r.error**2 for r in order)
        scale = self.error_all**2 / total if total else 0.0
        saved_all = sum(map(_saved, order))
        rate = (self.seconds_float - self.seconds_all) / saved_all if saved_all else 0.0
        seconds, square = self.seconds_float, 0.0
        found = [(seconds, 0.0)]
        for r in order:
            seconds -= rate * _saved(r)
            square += scale * r.error**2
            found.append((seconds, square**0.5))
        return found


def _saved(r: LayerReport) -> float:
    return r.seconds_float - r.seconds_quantized


def as_html(model: str, report: Report) -> str:
    """A page that needs no other file: error against latency, and the layers."""
    rows = "".join(map(_row, report.layers))
    budget = "" if report.budget is None else f" (allowed {report.budget:.2%})"
    count = len(report.layers)
    done = count - sum(r.kept for r in report.layers)
    return page(
        f"{model}: quantized",
        f"""<p>{done} of {count} layers are quantized; the relative error
of the outputs is <b>{report.error:.3%}</b>{budget}, a call takes
<b>{report.seconds * 1e3:.3f} ms</b>, in float {report.seconds_float * 1e3:.3f} ms.</p>
{_plot(report)}
<table><tr><th>layer<th>operator<th>error alone<th>us in float<th>predicted<th>us quantized
<th>predicted<th>bytes<th>quantized<th>in float<th>why
{rows}{_rest(report)}</table>""",
    )


def _row(r: LayerReport) -> str:
    numbers = (
        f"{r.error:.3%}", f"{r.seconds_float * 1e6:.1f}", f"{r.predicted_float * 1e6:.1f}",
        f"{r.seconds_quantized * 1e6:.1f}", f"{r.predicted_quantized * 1e6:.1f}",
        f"{r.bytes_float}", f"{r.bytes_quantized}",
    )  # fmt: skip
    cells = "".join(f'<td class="n">{n}' for n in numbers)
    kept = "yes" if r.kept else ""
    names = f"<td><code>{html.escape(r.name)}</code><td>{r.op}"
    return f"<tr>{names}{cells}<td>{kept}<td>{html.escape(r.why)}</tr>\n"


def _rest(report: Report) -> str:
    """The line of what belongs to no layer."""
    before, after = report.rest_float * 1e6, report.rest_quantized * 1e6
    cells = ["<td>all else", "<td>", "<td>", f'<td class="n">{before:.1f}', "<td>"]
    return f'<tr>{"".join(cells)}<td class="n">{after:.1f}</tr>\n'


def _plot(report: Report) -> str:
    """Error over latency as layers are quantized one after the other, and the model as written."""
    points = report.points()
    here = report.seconds, report.error
    across = scale([s for s, _ in [*points, here]], _EDGE, _WIDTH - 10)
    up = scale([0.0, *(e for _, e in [*points, here])], _HEIGHT - _EDGE, 10)
    line = " ".join(f"{across(s):.1f},{up(e):.1f}" for s, e in points)
    dots = "".join(
        f'<circle cx="{across(s):.1f}" cy="{up(e):.1f}" r="2.5">'
        f"<title>{k} layers: {s * 1e3:.3f} ms, {e:.3%}</title></circle>"
        for k, (s, e) in enumerate(points)
    )
    limit, budget = "", report.budget
    if budget is not None and budget <= max(e for _, e in [*points, here]):
        limit = f'<line x1="{_EDGE}" y1="{up(budget):.1f}" x2="{_WIDTH}" y2="{up(budget):.1f}"/>'
    ticks = "".join(
        f'<text x="{across(s):.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{s * 1e3:.3f}</text>'
        for s in (min(s for s, _ in points), max(s for s, _ in points))
    )
    most = max(e for _, e in [*points, here])
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}"><title>error against latency</title>{limit}'
        f'<polyline points="{line}"/>{dots}<circle class="here" cx="{across(here[0]):.1f}" '
        f'cy="{up(here[1]):.1f}" r="5"><title>as written</title></circle>{ticks}'
        f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 8}" text-anchor="middle">ms of a call</text>'
        f'<text x="4" y="{up(most):.1f}" dominant-baseline="middle">{most:.2%}</text>'
        f'<text x="4" y="{up(0):.1f}" dominant-baseline="middle">0</text></svg>'
    )

"""The table of ``aisc quantize --measure``: layers with error, time and bytes, and what is odd."""

from __future__ import annotations

from rich import box
from rich.table import Table

from aisc.quantization.report import LayerReport, Report

_NUMBERS = 52  # columns of a terminal that the numbers take


def layer_table(report: Report, width: int, title: str) -> Table:
    """Layers in the order of the model, in a table of at most `width` columns."""
    space = max(24, width - _NUMBERS)
    table = Table(box=box.SIMPLE, padding=0, title=f"{title}: quantized", caption=_whole(report))
    table.add_column("layer", no_wrap=True, width=space // 2)
    for name in ("error", "us", "now", "expected", "KiB", "now"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", width=space - space // 2)
    for r in report.layers:
        table.add_row(*_cells(r, space // 2))
    before, after = (f"{t * 1e6:.0f}" for t in (report.rest_float, report.rest_quantized))
    table.add_row("all else", "", before, after)
    return table


def _cells(r: LayerReport, space: int) -> list[str]:
    name = r.name if len(r.name) <= space else f"…{r.name[len(r.name) - space + 1 :]}"
    expected = f"{r.predicted_float * 1e6:.0f}>{r.predicted_quantized * 1e6:.0f}"
    why = f"float: {r.why}" if r.kept else r.why
    return [
        name, f"{r.error:.2%}", f"{r.seconds_float * 1e6:.0f}", f"{r.seconds_quantized * 1e6:.0f}",
        expected, f"{r.bytes_float / 1024:.0f}", f"{r.bytes_quantized / 1024:.0f}", why,
    ]  # fmt: skip


def _whole(report: Report) -> str:
    kept = sum(r.kept for r in report.layers)
    allowed = "" if report.budget is None else f" of {report.budget:.2%} allowed"
    return (
        f"{len(report.layers) - kept} of {len(report.layers)} layers quantized; error "
        f"{report.error:.2%}{allowed}; a call takes {report.seconds * 1e3:.3f} ms, "
        f"in float {report.seconds_float * 1e3:.3f} ms"
    )

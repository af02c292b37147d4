"""Designs as a page: cycles against area and energy, and a table."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

from aisc.exploring.outcomes import Outcome
from aisc.measure.page import page, scale

_WIDTH, _HEIGHT, _EDGE = 520, 320, 56


def as_html(model: str, chip: str, found: Sequence[Outcome]) -> str:
    """A page that needs no other file."""
    names = list(found[0].values) if found else []
    head = "".join(f"<th>{html.escape(n)}" for n in names)
    return page(
        f"{model} on {chip}",
        f"""<p>{len(found)} designs. Area and energy are proxies: parts and movements, each with a
number of <code>[proxies]</code> of the description. Red: none is better in both cycles and
area.</p>
{_plot(found, "area, mm²", lambda x: x.area / 1e6)} {_plot(found, "energy, µJ", lambda x: x.energy)}
<table><tr>{head}<th>cycles<th>used<th>bytes moved<th>mm²<th>µJ<th>
{"".join(map(_row, found))}</table>""",
    )


def _row(x: Outcome) -> str:
    values = "".join(f'<td class="n">{v}' for v in x.values.values())
    if x.refused:
        return f'<tr>{values}<td colspan="5">{html.escape(x.refused)}<td></tr>\n'
    numbers = (
        f"{x.cycles:,}",
        f"{x.used:.1%}",
        f"{x.moved:,}",
        f"{x.area / 1e6:.3f}",
        f"{x.energy:.1f}",
    )
    cells = "".join(f'<td class="n">{n}' for n in numbers)
    return f"<tr>{values}{cells}<td>{'●' if x.best else ''}</tr>\n"


def _plot(found: Sequence[Outcome], title: str, value: Callable[[Outcome], float]) -> str:
    """Cycles to the right, a proxy upwards."""
    real = [x for x in found if not x.refused]
    if not real:
        return ""
    across = scale([float(x.cycles) for x in real], _EDGE, _WIDTH - 20)
    up = scale([value(x) for x in real], _HEIGHT - _EDGE, 20)
    dots = "".join(
        f'<circle{" class=here" if x.best else ""} cx="{across(x.cycles):.1f}" '
        f'cy="{up(value(x)):.1f}" r="4"><title>{html.escape(_words(x))}</title></circle>'
        for x in real
    )
    low, high = min(x.cycles for x in real), max(x.cycles for x in real)
    least, most = min(map(value, real)), max(map(value, real))
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}">{dots}'
        f'<text x="{_EDGE}" y="{_HEIGHT - 24}">{low:,}</text>'
        f'<text x="{_WIDTH - 20}" y="{_HEIGHT - 24}" text-anchor="end">{high:,}</text>'
        f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 8}" text-anchor="middle">cycles</text>'
        f'<text x="4" y="{up(most):.1f}">{most:.3g}</text>'
        f'<text x="4" y="{up(least):.1f}">{least:.3g}</text>'
        f'<text x="{_WIDTH // 2}" y="14" text-anchor="middle">{html.escape(title)}</text></svg>'
    )


def _words(x: Outcome) -> str:
    values = ", ".join(f"{n}={v}" for n, v in x.values.items())
    return f"{values}: {x.cycles:,} cycles, {x.area / 1e6:.3f} mm², {x.energy:.1f} µJ"

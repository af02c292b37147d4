"""What a session has found, for people: numbers of the whole, and a page with the curves."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from aisc.measure.page import page
from aisc.tuning.session import Tuned

_WIDTH, _HEIGHT = 220, 48


def whole(results: Sequence[Tuned]) -> dict[str, Any]:
    """Numbers of all kernels together: seconds of one run by default and tuned, and their ratio."""
    before = sum(r.seconds * r.calls for r in results)
    after = sum(r.seconds * r.calls * r.ratio for r in results)
    return {
        "seconds_default": before, "seconds_tuned": after,
        "speedup": before / after if after else 1.0,
        "trials": sum(r.trials for r in results), "failed": sum(r.failed for r in results),
    }  # fmt: skip


def as_html(model: str, results: Sequence[Tuned]) -> str:
    """A page that needs no other file: kernels by their part of the time, with the search's curve
    of each."""
    numbers = whole(results)
    ordered = sorted(results, key=lambda r: -r.seconds * r.calls)
    rows = "".join(_row(r, numbers["seconds_default"]) for r in ordered)
    body = f"""<p>Kernels together are <b>{numbers["speedup"]:.3f}</b> times as fast
({numbers["seconds_default"] * 1e3:.3f} ms before, {numbers["seconds_tuned"] * 1e3:.3f} ms after);
{numbers["trials"]} candidates were tried, {numbers["failed"]} failed.</p>
<table><tr><th>kernel<th>calls<th>us by default<th>of the model<th>time now<th>expected
<th>bound by<th>best over candidates<th>chosen</tr>
{rows}</table>"""
    return page(f"{model}: tuned", body)


def _row(r: Tuned, total: float) -> str:
    share = 100 * r.seconds * r.calls / total if total else 0.0
    sure = f" ({r.low:.2f} to {r.high:.2f})" if r.choices else ""
    cells = [
        f"<td>{html.escape(r.kernel)}", f'<td class="n">{r.calls}',
        f'<td class="n">{r.seconds * 1e6:.1f}', f'<td class="n">{share:.1f} %',
        f'<td class="n">{r.ratio:.3f}{sure}', f'<td class="n">{r.predicted:.3f}',
        f"<td>{html.escape(r.bound)}", f"<td>{curve(r.history)}",
        f"<td><code>{html.escape(r.label)}</code>",
    ]  # fmt: skip
    return f"<tr>{''.join(cells)}</tr>\n"


def curve(history: Sequence[float]) -> str:
    """The best ratio after each candidate as a small picture; the dashed line is the default."""
    if len(history) < 2:
        return ""
    low = min(*history, 0.5)
    step = _WIDTH / (len(history) - 1)

    def height(ratio: float) -> float:
        return 4 + (_HEIGHT - 8) * (1 - ratio) / (1 - low)

    points = " ".join(f"{k * step:.1f},{height(v):.1f}" for k, v in enumerate(history))
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}"><title>{history[-1]:.3f} after {len(history)}'
        f'</title><line x1="0" y1="4" x2="{_WIDTH}" y2="4"/><polyline points="{points}"/></svg>'
    )

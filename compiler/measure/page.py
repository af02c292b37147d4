"""Pages of results that need no other file."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence


def page(title: str, body: str) -> str:
    """A page with tables and curves."""
    name = html.escape(title)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2em; color: #222; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 4px 10px; border-bottom: 1px solid #ddd; text-align: left; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
svg {{ background: #f7f7f7; }} polyline {{ fill: none; stroke: #06c; stroke-width: 1.5; }}
line {{ stroke: #aaa; stroke-dasharray: 3 3; }}
text {{ font-size: 12px; fill: #555; }} circle {{ fill: #06c; }} circle.here {{ fill: #c30; }}
code {{ font-size: 12px; }}
</style>
<h1>{name}</h1>
{body}</html>
"""


def scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    """Where a value stands between two places."""
    low, high = min(values), max(values)
    size = (high - low) or 1.0

    def at(v: float) -> float:
        return start + (end - start) * (v - low) / size

    return at

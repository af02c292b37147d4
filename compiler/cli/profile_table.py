"""The table of ``aisc bench --profile``: layers by time, the rest, waiting, totals."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from aisc.measure.profile import Profile, Row, heaviest, layer_name

_NUMBERS = 46  # columns of a terminal that the numbers take
_HEAD = ("calls", "ms", "%", "GFLOP/s", "GB/s", "roof %")


def profile_table(profile: Profile, top: int, width: int, title: str) -> Table:
    """The `top` layers that take most time, in a table of at most `width` columns."""
    layers = heaviest(profile.rows)
    space = max(24, width - _NUMBERS)
    layer, kernel = space - space * 2 // 5, space * 2 // 5
    table = Table(box=box.SIMPLE, padding=0, title=title, caption=_limits(profile))
    table.add_column("layer", no_wrap=True, width=layer)
    table.add_column("kernel", no_wrap=True, width=kernel)
    for name in _HEAD:
        table.add_column(name, justify="right", no_wrap=True)
    for r in layers[:top]:
        names = _left(layer_name(r), layer), _right(r.kernel, kernel)
        table.add_row(*names, *_numbers(profile, [r]))
    rest = layers[top:]
    if rest:
        table.add_row(f"{len(rest)} more", "", *_numbers(profile, rest))
    table.add_section()
    table.add_row("all layers", "", *_numbers(profile, layers))
    _add_overhead(table, profile)
    return table


def _add_overhead(table: Table, profile: Profile) -> None:
    """Lines for what is not a layer. As all are medians, they add up to the call about."""
    waits = [r for r in profile.rows if r.kind == "wait"]
    waiting = sum(r.seconds for r in waits)
    between = profile.between
    if profile.threads > 1:
        count = f"{sum(r.calls for r in waits):g}"
        table.add_row("waiting for threads", "", count, *_share(profile, waiting))
    else:
        between += waiting
    table.add_row("entry: sizes, memory", "", "", *_share(profile, between))
    table.add_row("call, fork, join", "", "", *_share(profile, profile.around))
    table.add_row("whole call", "", "", *_share(profile, profile.wall))


def _limits(profile: Profile) -> str:
    threads = f"{profile.threads} thread" + "s" * (profile.threads > 1)
    return (
        f"{threads}, medians of {profile.runs} runs; "
        f"limits {profile.fma:.0f} GFLOP/s, {profile.copy:.1f} GB/s"
    )


def _share(profile: Profile, seconds: float) -> tuple[str, str]:
    return f"{seconds * 1e3:.3f}", f"{100 * seconds / profile.wall:.1f}"


def _numbers(profile: Profile, rows: Sequence[Row]) -> list[str]:
    seconds = max(sum(r.seconds for r in rows), 1e-9)
    work, moved = sum(r.flops for r in rows), sum(r.bytes for r in rows)
    least = sum(map(profile.least, rows))
    return [
        f"{sum(r.calls for r in rows):g}",
        *_share(profile, seconds),
        f"{work / seconds / 1e9:.1f}" if work else "",
        f"{moved / seconds / 1e9:.1f}",
        f"{100 * least / seconds:.0f}",
    ]


def _left(text: str, width: int) -> str:
    """The end of a text: names of nodes differ there."""
    return text if len(text) <= width else f"…{text[len(text) - width + 1 :]}"


def _right(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"

"""The table of ``aisc check --cycles``: what each layer takes on a simulated target."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from aisc.codegen.backend import KernelTime
from aisc.measure.cycles import LayerTime, used_share


def cycle_table(layers: Sequence[LayerTime], name: str) -> Table:
    """Layers in the order of the model, and what they take together."""
    cycles = sum(x.time.cycles for x in layers)
    work = sum(x.time.work for x in layers)
    share = used_share(layers)
    caption = f"{cycles} cycles, {work} multiply-adds, {share:.1%} of what the arrays could do"
    table = Table(box=box.SIMPLE, padding=0, title=f"{name}: cycles", caption=caption)
    table.add_column("layer", no_wrap=True, max_width=32)
    for title in ("cycles", "used", "busiest", "waits for", "MACs", "loaded", "stored"):
        table.add_column(title, justify="right", no_wrap=True)
    for x in layers:
        table.add_row(
            x.name, str(x.time.cycles), f"{x.time.utilization:.1%}", x.time.busiest, _stall(x.time),
            str(x.time.work), str(x.time.loaded), str(x.time.stored),
        )  # fmt: skip
    return table


def _stall(time: KernelTime) -> str:
    """What the busiest unit waits for longest, and its share of the time."""
    why, cycles = time.stall
    return f"{why} {cycles / time.cycles:.0%}" if why else ""

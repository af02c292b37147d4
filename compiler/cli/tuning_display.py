"""What a tuning session shows on a terminal while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from aisc.tuning.session import Budget, Progress

ROWS = 12


@contextmanager
def display(title: str, budget: Budget) -> Iterator[Callable[[Progress], None]]:
    """A function that shows how far a session is; nothing is shown where nobody looks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: None
        return
    seen: dict[str, Progress] = {}
    with Live(console=console, transient=True, refresh_per_second=4) as live:

        def show(p: Progress) -> None:
            seen[p.kernel] = p
            live.update(_view(title, budget, p, seen))

        yield show


def _view(title: str, budget: Budget, p: Progress, seen: dict[str, Progress]) -> Group:
    """The whole, then the kernels that gained most."""
    head = Table.grid(padding=(0, 2))
    done = max(0.0, budget.seconds - p.left)
    if budget.trials:
        bar = ProgressBar(total=budget.trials, completed=p.trials, width=30)
    else:
        bar = ProgressBar(total=budget.seconds, completed=done, width=30)
    head.add_row(title, bar, f"{p.left:.0f} s left", f"{p.trials} candidates")
    head.add_row(
        "model", f"{1 / max(p.model, 1e-9):.3f} x as fast", "another round of all:",
        f"{100 * p.promise:.1f} % more",
    )  # fmt: skip
    table = Table("kernel", "faster by", "")
    for q in sorted(seen.values(), key=lambda q: q.factor)[:ROWS]:
        now = q.phase if q.kernel == p.kernel else ""
        table.add_row(q.kernel, f"{1 / max(q.factor, 1e-9):.2f} x", now)
    return Group(head, table)

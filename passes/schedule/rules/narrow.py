"""The last panel of columns, where they are no whole number of panels: fewer vectors, not zeros.

before: ``for t in 0..2: tile of 4 × 3 vectors``, of whose last panel one vector is beyond the end
after:  ``tile of 4 × 3 vectors; tile of 4 × 2 vectors``
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.tensor.tree import Place, find_place, places
from aisc.passes.schedule.schedule import Schedule


def narrow_last(
    s: Schedule, panels: str, whole: int, vectors: str, needed: int, blocks: Sequence[str]
) -> Schedule:
    """Let the panels from the `whole`-th on have `needed` vectors. `vectors` is the loop over those
    of a panel; `blocks` fill its accumulators, then read them."""
    loops = {name: _vectors_of(find_place(s.func, name), vectors) for name in blocks}
    before = [p.block.name for p in places(s.func.body)]
    s = s.partition(panels, whole)
    made = [p for p in places(s.func.body) if p.block.name not in before]
    copies = dict(zip((n for n in before if n in blocks), made, strict=True))
    dropped = []
    for name, copy in copies.items():
        known = {p.block.name for p in places(s.func.body)}
        s = s.partition(copy.loops[loops[name]].var.name, needed)
        dropped += [p.block.name for p in places(s.func.body) if p.block.name not in known]
    for name in reversed(dropped):
        s = s.remove_unread(name)
    return s


def _vectors_of(place: Place, loop: str) -> int:
    """The position of the loop over vectors among those of a block: that loop, or one called after
    it, or else the unrolled one that is next to the lanes."""
    names = [f.var.name for f in place.loops]
    own = [k for k, n in enumerate(names) if n == loop or n.startswith(f"{loop}_")]
    return own[0] if own else len(names) - 2

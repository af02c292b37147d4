"""Stacked values of a loop: each turn writes its part of the result.

Where the number of turns and the sizes of a part are known before the loop, the result is there
from the start. Otherwise its storage grows by one part a turn; sizes that only a turn knows are
held from the first one on, and every other turn must have the same.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.poly import Dim, product, symbol
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc
from aisc.ir.tensor.expr import ZERO, Binary, Expr, Var, equal, logical_and, of_dim
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.stmt import Bind, Copy, Require, Reserve
from aisc.passes.lower.state import State


def copy_into(st: State, source: Buffer, target: Buffer) -> None:
    """Copy under the shape of `target`, which the source has by now."""
    if source.shape != target.shape:
        source = st.view(source, target.type, source.name)
    st.body.append(Copy(source, target))


def finish(st: State, v: Value, found: Buffer) -> None:
    """Make `found` the buffer of a result, or copy it where the result must be."""
    out = st.buffers.get(v)
    if out is None:
        st.buffers[v] = found
    else:
        st.allocate(out)
        st.body.append(Copy(found, out))


class Scan:
    """One stacked value: `output` is the result, `inner` the part that a turn makes."""

    def __init__(
        self,
        st: State,
        output: Value,
        inner: Value,
        index: Var,
        trip: Dim | None,
        loc: Loc,
    ) -> None:
        self.output, self.inner, self.index, self.trip = output, inner, index, trip
        self.loc = loc
        outer = output.type.shape[1:]
        self.held = {
            str(known): Var(st.fresh("part"))
            for known, d in zip(outer, inner.type.shape, strict=True)
            if known != d
        }
        self.grows = trip is None or bool(self.held)
        if not self.grows:
            self.whole = st.result(output)
            return
        shaped = buffer(st.fresh(output.name), output.type.dtype, ())
        self.whole = replace(shaped, base=f"{shaped.name}.grown")
        st.body.append(Reserve(self.whole.base, ZERO))
        if self.held:
            names = tuple(self.held.values())
            st.body.append(Bind(names, (ZERO,) * len(names)))

    def _part(self, st: State) -> Buffer:
        at = symbol(self.index.name, kind="data")
        size = product(self.inner.type.shape) * self.inner.type.dtype.bytes
        if self.grows:
            st.body.append(Reserve(self.whole.base, of_dim((at + 1) * size), keep=True))
        return st.view(self.whole, self.inner.type, self.inner.name, at * size)

    def before(self, st: State) -> Buffer | None:
        """This turn's part of the result, where its sizes are known before the turn."""
        return None if self.held else self._part(st)

    def after(self, st: State) -> None:
        """Store a part whose sizes the turn has computed."""
        if not self.held:
            return
        pairs = self._sizes()
        first = equal(self.index, 0)
        same = logical_and(*(equal(var, size) for var, size in pairs))
        text = "the values that a loop stacks differ in size from turn to turn"
        st.body.append(Require(Binary("or", first, same), text, loc=self.loc))
        st.body.append(Bind(tuple(v for v, _ in pairs), tuple(e for _, e in pairs)))
        copy_into(st, st.use(self.inner), self._part(st))

    def _sizes(self) -> list[tuple[Var, Expr]]:
        outer = self.output.type.shape[1:]
        return [
            (self.held[str(known)], of_dim(d))
            for known, d in zip(outer, self.inner.type.shape, strict=True)
            if known != d
        ]

    def sizes(self) -> dict[Var, Expr]:
        """Sizes of the result that are known after the loop."""
        found: dict[Var, Expr] = {Var(name): held for name, held in self.held.items()}
        if self.trip is None:
            found[Var(str(self.output.type.shape[0]))] = self.index
        return found

    def finish(self, st: State) -> None:
        """Make the grown storage the result."""
        if self.grows:
            finish(st, self.output, st.view(self.whole, self.output.type, self.output.name))

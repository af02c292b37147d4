"""Nests become instructions of an accelerator that mean the same.

before: ``for i in 0..16: for k in 0..16: tile[i, k] = x[m*16 + i, k]``
after:  ``invoke load(x[m*16 +: 16, 0 +: 16], tile[0 +: 16, 0 +: 16]; 16, 16)``

Each nest is compared with the declared meaning of every instruction over memories and types like
its own (:mod:`aisc.passes.schedule.match`); maps of sums that are none are programs of the vector
unit (:mod:`aisc.passes.tensor.vector_programs`). Precondition: scheduled blocks. Postcondition: no
blocks; E402 names a nest that no instruction computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Block, For, If, Invoke, Seq, Stmt, seq
from aisc.ir.tensor.tree import indexer, places
from aisc.passes.schedule.match import match_nest
from aisc.passes.tensor.vector_programs import PREFIX, program, with_programs

Signature = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SelectInstructions:
    """The pass for one target."""

    target: Target
    name: str = "select-instructions"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        table: dict[Signature, list[Intrinsic]] = {}
        for found in self.target.instructions.values():
            table.setdefault(_signature(found.semantics.params), []).append(found)
        selector = _Selector(self.target, table)
        body = selector.stmt(func.body, indexer((), func.dims))
        return with_programs(replace(func, body=body), selector.programs)


@dataclass(frozen=True, slots=True)
class _Selector:
    target: Target
    table: dict[Signature, list[Intrinsic]]
    programs: dict[str, str] = field(default_factory=dict)

    def stmt(self, s: Stmt, index: Indexer) -> Stmt:
        """A statement where `index` knows the ranges of variables."""
        if isinstance(s, Seq):
            return seq(*(self.stmt(x, index) for x in s.stmts))
        if isinstance(s, If):
            other = None if s.other is None else self.stmt(s.other, index)
            return If(s.cond, self.stmt(s.then, index), other)
        if isinstance(s, For):
            return self.loop(s, index)
        return s

    def loop(self, s: For, index: Indexer, why: CompileError | None = None) -> Stmt:
        """The instruction for a nest, or else the loop around what is in it; `why` none fits
        the loop around it."""
        found, why = (None, why) if len(places(s)) != 1 else self.instruction(s, index, why)
        if found is not None:
            return found
        if isinstance(s.body, Block):
            raise error(
                "E402", f"{self.target.name} has no instruction for {s.body.name}",
                *((why.diagnostics[0].message, *why.diagnostics[0].notes) if why else ()),
            )  # fmt: skip
        low, high = index.bounds(s.low), index.bounds(s.low + s.extent)
        inside = index.bind(s.var, low[0], high[1] - 1)
        if isinstance(s.body, For):
            return replace(s, body=self.loop(s.body, inside, why))
        return replace(s, body=self.stmt(s.body, inside))

    def instruction(
        self, s: For, index: Indexer, why: CompileError | None
    ) -> tuple[Invoke | None, CompileError | None]:
        """The instruction for a nest, or else why there is none: of the largest nest that has as
        many loops as an instruction."""
        block = places(s)[0].block
        touched = dict.fromkeys(r.buffer for r in (*block.reads, *block.writes))
        found = {}
        loops = len(places(s)[0].loops)
        for candidate in self.table.get(_signature(touched), ()):
            if len(places(candidate.semantics.body)[0].loops) != loops:
                continue
            try:
                found[candidate.name] = match_nest(s, candidate, index)
            except CompileError as fault:
                why = why or fault
        if found:
            return found[min(found)], why
        return self.vector(s, index), why

    def vector(self, s: For, index: Indexer) -> Invoke | None:
        """A program of the vector unit for a nest."""
        name = f"{PREFIX}{len(self.programs)}"
        made = program(s, name, self.target)
        if made is None:
            return None
        call = match_nest(s, made[0], index)
        self.programs[name] = made[1]
        return call


def _signature(buffers: Iterable[Buffer]) -> Signature:
    """Types and memories of operands."""
    return tuple(sorted((b.dtype.name, b.space) for b in buffers))

"""How the statements of an entry are divided.

The reservation at its start stands alone; many statements in a row become functions of their
own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

from aisc.ir.arith.poly import symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.stmt import Alloc, Barrier, CallKernel, Copy, Reserve, Seq, Stmt
from aisc.ir.tensor.visitor import buffers_of

# Statements in a row from which on they are divided, and those of a piece.
LONG, PIECE = 512, 128


@dataclass(frozen=True, slots=True)
class Piece:
    """Statements that become a function of their own."""

    stmts: tuple[Stmt, ...]


def in_pieces(stmts: Sequence[Stmt]) -> Iterator[Stmt | Piece]:
    """Statements, many of which in a row are divided into pieces, as generating code takes longer
    than in proportion to the length of a function; up to the first that changes what others see."""
    simple = list(takewhile(lambda s: isinstance(s, CallKernel | Copy | Barrier | Alloc), stmts))
    count = len(simple) - len(simple) % PIECE if len(simple) > LONG else 0
    for k in range(0, count, PIECE):
        yield Piece(tuple(simple[k : k + PIECE]))
    yield from stmts[count:]


def offsets(stmts: Sequence[Stmt]) -> frozenset[str]:
    """The names in the places of buffers that statements use."""
    places = [b.offset for s in stmts for b in buffers_of(s)]
    return frozenset(x.name for d in places for x in symbols(d))


def split_first(body: Stmt) -> tuple[Reserve | None, tuple[Stmt, ...]]:
    """The reservation at the start of an entry, and what follows."""
    stmts = body.stmts if isinstance(body, Seq) else (body,)
    if stmts and isinstance(stmts[0], Reserve):
        return stmts[0], stmts[1:]
    return None, stmts

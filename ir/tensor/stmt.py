"""Statements of the tensor IR.

Grammar::

    Stmt = For(var, low, extent, kind, body, annotations) | While(cond, body)
         | Block(name, iters, bindings, reads, writes, init, body, combiner)
         | Store(buffer, indices, value, stream) | If(cond, then, other) | Let(var, value, body)
         | Alloc(buffer) | Seq(stmts) | Barrier(scope) | Invoke(intrinsic, operands, args)
         | Prefetch(buffer, indices, write) | Handover(giver, taker) | Await(pending)
         | CallKernel(kernel, args, dims) | Copy(src, dst) | Bind(vars, values) | Require(cond)
         | HostCall(op, inputs, outputs, attrs, binds) | Reserve(segment, size, slots, keep)

The last two rows stand only in entries of Programs. Unrolled and vectorized loops stay loops
until they are printed.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from aisc.ir.dataclass import dataclass
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.node import Node
from aisc.ir.tensor.expr import ONE, Expr, Var

if TYPE_CHECKING:
    from aisc.ir.graph.core import AttrValue
    from aisc.ir.tensor.func import Attribute, Buffer
    from aisc.ir.tensor.tree import Place

# serial, parallel (over SPMD threads), unroll, vectorize, or bind to a hardware axis.
ForKind = Literal[
    "serial", "parallel", "unroll", "vectorize",
    "block.x", "block.y", "block.z", "thread.x", "thread.y", "thread.z",
]  # fmt: skip
FOR_KINDS: tuple[ForKind, ...] = (
    "serial", "parallel", "unroll", "vectorize",
    "block.x", "block.y", "block.z", "thread.x", "thread.y", "thread.z",
)  # fmt: skip
IterKind = Literal["spatial", "reduce", "ordered"]


class Stmt(Node):
    """Base of statements.

    Besides its fields a statement keeps what was asked of it: the statements and blocks below it
    (:mod:`aisc.ir.tensor.tree`), the variables and the buffers that it mentions and how many nodes
    it has (:mod:`aisc.ir.tensor.visitor`), and a block its accesses."""

    __slots__ = ("_accesses", "_buffers", "_loops", "_places", "_size", "_statements", "_variables")
    _accesses: tuple[object, ...]
    _buffers: frozenset[Buffer]
    _loops: tuple[For, ...]
    _places: tuple[Place, ...]
    _size: int
    _statements: tuple[Stmt, ...]
    _variables: frozenset[Var]


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """``for var in [low, low + extent)``."""

    var: Var
    low: Expr
    extent: Expr
    kind: ForKind
    body: Stmt
    annotations: tuple[tuple[str, Attribute], ...] = ()


@dataclass(frozen=True, slots=True)
class While(Stmt):
    """Repeat `body` while `cond` holds; the condition is evaluated before each turn."""

    cond: Expr
    body: Stmt


@dataclass(frozen=True, slots=True)
class Iter(Node):
    """A block iterator with the domain ``[0, extent)``."""

    var: Var
    extent: Expr
    kind: IterKind


@dataclass(frozen=True, slots=True)
class Region(Node):
    """A rectangular part of a buffer: per dimension a low index, an extent and a step, which is 0
    where the index is one, and is only given where that is not all that the extents say
    (:func:`region`)."""

    buffer: Buffer
    low: tuple[Expr, ...]
    extent: tuple[Expr, ...]
    step: tuple[int, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """The step in each dimension."""
        return self.step or tuple(0 if e == ONE else 1 for e in self.extent)

    def dims_of(self, rank: int) -> tuple[int | None, ...]:
        """The dimensions that an operand of some rank has: those with one index are dropped, outer
        ones first; ``None`` for outer ones of size 1 that are lacking."""
        excess = len(self.low) - rank
        found: list[int | None] = []
        for d, step in enumerate(self.steps):
            if step == 0 and (self.step or excess > 0):
                excess -= 1
            else:
                found.append(d)
        return (*(None for _ in range(rank - len(found))), *found)


def region(
    buffer: Buffer, low: tuple[Expr, ...], extent: tuple[Expr, ...], step: tuple[int, ...]
) -> Region:
    """A region with these steps, in the form that it is printed in."""
    usual = all((s == 0) == (e == ONE) and s <= 1 for s, e in zip(step, extent, strict=True))
    return Region(buffer, low, extent, () if usual else step)


@dataclass(frozen=True, slots=True)
class Block(Stmt):
    """A unit of computation that declares its iterators and the regions it touches.

    `bindings` give each iterator's value from the loop variables around the block. `body` may be
    executed once for each point of the iteration domain, in any order for *spatial* iterators;
    over *reduce* iterators it combines into what it writes with the named `combiner`
    (:mod:`aisc.ir.tensor.combiner`), in any order up to rounding; over *ordered* iterators in
    ascending order. `init` is executed before the first reduce point of each spatial point
    (``None`` once the reduction has been decomposed).
    """

    name: str
    iters: tuple[Iter, ...]
    bindings: tuple[Expr, ...]
    reads: tuple[Region, ...]
    writes: tuple[Region, ...]
    init: Stmt | None
    body: Stmt
    combiner: str = ""
    loc: Loc = field(default=UNKNOWN, compare=False)


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    """``buffer[indices] = value``; a hint if `stream`: nothing reads it before it has left the
    caches, so it may be written past them."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr
    stream: bool = False


@dataclass(frozen=True, slots=True)
class Prefetch(Stmt):
    """A hint: the cache line of ``buffer[indices]`` is soon read, or written if `write`. The place
    may lie outside of the buffer; nothing is loaded then."""

    buffer: Buffer
    indices: tuple[Expr, ...]
    write: bool = False


@dataclass(frozen=True, slots=True)
class If(Stmt):
    """Conditional execution. A condition that varies over a vectorized loop becomes a mask."""

    cond: Expr
    then: Stmt
    other: Stmt | None = None


@dataclass(frozen=True, slots=True)
class Let(Stmt):
    """Bind a scalar for the duration of `body`."""

    var: Var
    value: Expr
    body: Stmt


@dataclass(frozen=True, slots=True)
class Alloc(Stmt):
    """Declare a buffer for the rest of the enclosing ``Seq``; contents start undefined."""

    buffer: Buffer


@dataclass(frozen=True, slots=True)
class Seq(Stmt):
    """Statements in order."""

    stmts: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Barrier(Stmt):
    """All threads of `scope` (``threads`` of a Func, ``block`` of a SIMT block, ``warp`` of one of
    its warps) wait here."""

    scope: Literal["threads", "block", "warp"] = "threads"


@dataclass(frozen=True, slots=True)
class Handover(Stmt):
    """What the unit `taker` of an accelerator does after this comes after what `giver` did before:
    the one gives a token, the other takes the next one there is."""

    giver: str
    taker: str


@dataclass(frozen=True, slots=True)
class Await(Stmt):
    """What this thread has asked to be copied since the last such statement is a group; it waits
    until all groups but the `pending` newest ones are there."""

    pending: int = 0


@dataclass(frozen=True, slots=True)
class Invoke(Stmt):
    """An instruction declared by the target, applied to buffer regions (in the order of its
    semantics' parameters) and scalars."""

    intrinsic: str
    operands: tuple[Region, ...]
    args: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class CallKernel(Stmt):
    """Run a kernel of the Program; arguments in the order of its parameters and dims."""

    kernel: str
    args: tuple[Buffer, ...]
    dims: tuple[Expr, ...] = ()
    loc: Loc = field(default=UNKNOWN, compare=False)  # of the call: equal layers share a kernel
    faults: Loc = field(default=UNKNOWN, compare=False)  # of the nodes that may report an error


@dataclass(frozen=True, slots=True)
class HostCall(Stmt):
    """Run a graph operator through its numpy reference.

    A call that has `binds` only gives these dimensions, sizes of its results, their values; the
    call after it, equal but for `binds`, stores the results.
    """

    op: str
    inputs: tuple[Buffer | None, ...]
    outputs: tuple[Buffer, ...]
    attrs: tuple[tuple[str, AttrValue], ...] = ()
    binds: tuple[Var, ...] = ()
    loc: Loc = field(default=UNKNOWN, compare=False)


@dataclass(frozen=True, slots=True)
class Copy(Stmt):
    """Copy a whole buffer into another of the same type."""

    src: Buffer
    dst: Buffer


@dataclass(frozen=True, slots=True)
class Bind(Stmt):
    """Give dimensions their values, for what follows in this sequence (loops around included) and
    until they are bound again. All values are evaluated before any is bound."""

    vars: tuple[Var, ...]
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Require(Stmt):
    """End the run with an error unless `cond` holds: sizes that only the run knows do not fit.

    `text` is the message; each ``{}`` in it stands for one of `values` (at most three, i64).
    `sizes` are dimensions of the program's inputs, ``name`` or ``name=value``: with those that have
    these values fixed, another version of the model does not need the condition."""

    cond: Expr
    text: str = "a size computed at run time does not fit"
    values: tuple[Expr, ...] = ()
    loc: Loc = field(default=UNKNOWN, compare=False)
    sizes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Slot(Node):
    """A place in a segment: `var` becomes its offset in bytes; `size` is in bytes. It is in use
    from `first` to `last`: slots whose spans do not meet may share memory."""

    var: Var
    size: Expr
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reserve(Stmt):
    """Make a memory segment large enough for `size` bytes and for its `slots`, which get their
    offsets (:func:`aisc.ir.tensor.first_fit.first_fit`). Contents are lost unless `keep`."""

    segment: str
    size: Expr
    slots: tuple[Slot, ...] = ()
    keep: bool = False


def seq(*stmts: Stmt | None) -> Stmt:
    """A flat sequence; a single statement stands for itself."""
    flat: list[Stmt] = []
    for s in stmts:
        if isinstance(s, Seq):
            flat.extend(s.stmts)
        elif s is not None:
            flat.append(s)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))

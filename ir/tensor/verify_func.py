"""The verifier of the tensor IR: what every function and program must satisfy, and what each
level of the pipeline allows beside (:data:`LEVELS`).

Faults are gathered into one ``CompileError`` of E301 diagnostics, each with the printed lines
around the guilty statement.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from typing import Literal

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import Diagnostics
from aisc.ir.node import MAX_DEPTH, deeper_than
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import (
    FOR_KINDS,
    Alloc,
    Await,
    Barrier,
    Bind,
    Block,
    CallKernel,
    Copy,
    For,
    Handover,
    HostCall,
    If,
    Invoke,
    Let,
    Prefetch,
    Region,
    Require,
    Reserve,
    Seq,
    Stmt,
    Store,
    While,
)
from aisc.ir.tensor.verify_expr import ExprRules

LevelName = Literal["lowered", "scheduled", "planned"]
_MAX_FAULTS = 8
MAX_VALUES = 3  # that the message of a ``require`` may speak of


@dataclass(frozen=True, slots=True)
class Level:
    """What a level allows. blocks_only: stores stand inside blocks, whose names are unique;
    placed: buffers that an entry allocates have a base and an offset."""

    statements: frozenset[type[Stmt]]
    loops: frozenset[str]
    blocks_only: bool = False
    placed: bool = False


_PLAIN: tuple[type[Stmt], ...] = (For, While, Block, Store, If, Let, Alloc, Seq)
KERNEL = frozenset((*_PLAIN, Barrier, Invoke, Prefetch, Handover, Await))
ENTRY = frozenset(
    (CallKernel, HostCall, Copy, Alloc, Barrier, If, While, Let, Seq, Bind, Require, Reserve)
)
LEVELS: Mapping[str, Level] = {
    "lowered": Level(frozenset(_PLAIN), frozenset({"serial"}), blocks_only=True),
    "scheduled": Level(KERNEL, frozenset(FOR_KINDS)),
    "planned": Level(KERNEL, frozenset(FOR_KINDS), placed=True),
}


def verify_func(
    func: Func, level: LevelName = "scheduled", names: Container[str] | None = None
) -> None:
    """Check a kernel. `names` are the intrinsics and functions of the target that it may use
    (``None``: any). E301 on faults."""
    report = Diagnostics()
    check_func(func, LEVELS[level], KERNEL, names, report)
    report.raise_if_errors()


def check_func(
    func: Func,
    level: Level,
    statements: frozenset[type[Stmt]],
    names: Container[str] | None,
    report: Diagnostics,
) -> FuncChecker:
    """Check one function, adding faults to `report`."""
    checker = FuncChecker(func, level, statements, names, report)
    checker.run()
    return checker


@dataclass(slots=True)
class _Inside:
    """Declared accesses of an enclosing block."""

    block: Block
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)


def deferred_outputs(func: Func) -> tuple[Buffer, ...]:
    """Outputs whose sizes are bound in the body: an ``Alloc`` declares where they are known."""
    given = {v.name for v in func.dims}
    return tuple(
        b
        for b in func.params
        if b.role == "output" and any(s.name not in given for s in b.type.symbols)
    )


class FuncChecker:
    """Checks one function, statement by statement, with what is in scope."""

    def __init__(
        self,
        func: Func,
        level: Level,
        statements: frozenset[type[Stmt]],
        names: Container[str] | None,
        report: Diagnostics,
    ) -> None:
        self.func, self.level, self.statements = func, level, statements
        self.names, self.report = names, report
        self.variables: dict[str, Var] = {}
        self.buffers: dict[str, Buffer] = {}
        self.taken: set[str] = set()
        self.loops: list[str] = []
        self.blocks: list[_Inside] = []
        self.at: Stmt | None = None
        self.rules = ExprRules(self.variables, self.buffers, names, self.fault)

    def run(self) -> None:
        """Check the head, then the body."""
        if deeper_than(self.func.body):
            self.report.add("E301", f"{self.func.name} is nested more than {MAX_DEPTH} deep")
            return
        for v in self.func.dims:
            self.bind(v)
        for cond in self.func.requires:
            self.rules.typed(cond, dtypes.boolean, "a requirement")
        for b in self.func.params:
            if b not in deferred_outputs(self.func):
                self.declare(b)
        self.stmt(self.func.body)
        if self.level.blocks_only and self.statements is not ENTRY and not self.report.errors:
            self.accesses()

    def accesses(self) -> None:
        """Every access is tested by the run, or known to be inside."""
        from aisc.ir.tensor.inside import unproved  # what verifies only is not loaded to compile
        from aisc.ir.text.printer_tensor import expr_text

        for access in unproved(self.func):
            index = expr_text(access.index)
            what = f"axis {access.axis} of {access.buffer.name}: {access.buffer.type}"
            self.fault(f"the index {index} is neither tested nor known to be inside {what}")

    def fault(self, message: str) -> None:
        """Record a fault of the statement being checked."""
        if len(self.report.items) < _MAX_FAULTS:
            where = f"in {self.func.name}: {message}"
            self.report.add("E301", where, *_context(self.func, self.at), loc=self.func.loc)

    def need(self, holds: bool, message: str) -> None:
        """Record `message` unless the condition holds."""
        if not holds:
            self.fault(message)

    def bind(self, v: Var) -> None:
        """A new variable, whose name no other has."""
        self.need(v.name not in self.taken, f"the name {v.name} is bound twice")
        self.taken.add(v.name)
        self.variables[v.name] = v

    def rebind(self, variables: tuple[Var, ...]) -> None:
        """Dimensions that are bound, for the first time or again."""
        for v in variables:
            if v.name in self.variables:
                fixed = any(v.name == d.name for d in self.func.dims)
                self.need(not fixed, f"the dimension {v.name} of the function is bound again")
            else:
                self.bind(v)

    def declare(self, b: Buffer) -> None:
        """A new buffer, whose dimensions are known here."""
        key = f"[{b.name}]"
        self.need(key not in self.taken, f"buffer {b.name} is declared twice")
        self.taken.add(key)
        self.buffers[b.name] = b
        same = len(b.shape) == len(b.strides)
        self.need(same, f"{b.name} has {b.rank} dimensions and {len(b.strides)} strides")
        power = b.alignment > 0 and not b.alignment & (b.alignment - 1)
        self.need(power, f"the alignment {b.alignment} of {b.name} is no power of two")
        for d in (*b.shape, *b.strides, b.offset):
            self._known_dim(d, b)

    def _known_dim(self, d: Dim, b: Buffer) -> None:
        if isinstance(d, int):
            self.need(d >= 0, f"{b.name} has a negative dimension, stride or offset")
            return
        for s in sorted(symbols(d), key=str):
            known = self.variables.get(s.name)
            found = known is not None and known.dtype is dtypes.i64
            self.need(found, f"dimension {s.name} of {b.name} is not bound here")

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is bound or declared inside is forgotten after."""
        variables, buffers = dict(self.variables), dict(self.buffers)
        yield
        for table, before in ((self.variables, variables), (self.buffers, buffers)):
            table.clear()
            table.update(before)  # type: ignore[arg-type]

    def stmt(self, s: Stmt) -> None:
        """Check a statement."""
        outer, self.at = self.at, s
        if type(s) not in self.statements or (
            type(s) not in self.level.statements and self.statements is not ENTRY
        ):
            self.fault(f"{type(s).__name__} is not allowed here")
        elif isinstance(s, Seq):
            with self.scope():
                for item in s.stmts:
                    self.stmt(item)
        elif isinstance(s, (For, While, If, Let, Block)):
            with self.scope():
                self._nested(s)
        else:
            self._simple(s)
        self._reads()
        self.at = outer

    def _nested(self, s: Stmt) -> None:
        if isinstance(s, For):
            self._loop(s)
        elif isinstance(s, Block):
            self._block(s)
        elif isinstance(s, Let):
            self.rules.typed(s.value, s.var.dtype, f"the value of {s.var.name}")
            self._reads()
            self.bind(s.var)
            self.stmt(s.body)
        elif isinstance(s, (If, While)):
            self.rules.typed(s.cond, dtypes.boolean, "the condition")
            self._reads()
            bodies = (s.then, s.other) if isinstance(s, If) else (s.body,)
            for body in bodies:
                if body is not None:
                    with self.scope():
                        self.stmt(body)

    def _loop(self, s: For) -> None:
        allowed = s.kind in FOR_KINDS and s.kind in self.level.loops
        self.need(allowed, f"a loop of kind '{s.kind}' is not allowed here")
        for e, what in ((s.low, "the start"), (s.extent, "the extent")):
            self.rules.index(e, f"{what} of loop {s.var.name}")
        self._reads()
        if s.kind == "parallel" or "." in s.kind:
            self.need(s.kind not in self.loops, f"a loop of kind '{s.kind}' inside another")
        self.need(s.var.dtype is dtypes.i64, f"loop variable {s.var.name} is not i64")
        self.bind(s.var)
        self.loops.append(s.kind)
        self.stmt(s.body)
        self.loops.pop()

    def _block(self, s: Block) -> None:
        counts = len(s.iters), len(s.bindings)
        self.need(counts[0] == counts[1], f"{counts[0]} iterators have {counts[1]} bindings")
        if self.level.blocks_only:
            self.need(f"{{{s.name}}}" not in self.taken, f"two blocks are called {s.name}")
            self.taken.add(f"{{{s.name}}}")
        for it, binding in zip(s.iters, s.bindings, strict=False):
            self.need(it.kind in ("spatial", "reduce", "ordered"), f"iterator kind '{it.kind}'")
            self.rules.index(it.extent, f"the extent of {it.var.name}")
            self.rules.typed(binding, it.var.dtype, f"the binding of {it.var.name}")
        for it in s.iters:
            self.bind(it.var)
        known = s.combiner in COMBINERS or not s.combiner
        self.need(known, f"unknown combiner '{s.combiner}'")
        reduces = any(it.kind == "reduce" for it in s.iters)
        self.need(bool(s.combiner) or not reduces, "a block that reduces names no combiner")
        for r in s.reads + s.writes:
            self.region(r)
        self.rules.loads.clear()  # regions may depend on data: not accesses of the block
        writes = {r.buffer.name for r in s.writes}
        self.blocks.append(_Inside(s, {r.buffer.name for r in s.reads} | writes, writes))
        for part in (s.init, s.body):
            if part is not None:
                with self.scope():
                    self.stmt(part)
        self.blocks.pop()

    def region(self, r: Region) -> None:
        """Check a region: rank and indices."""
        rank = r.buffer.rank
        fits = len(r.low) == len(r.extent) == len(r.steps) == rank
        self.need(fits, f"a region of {r.buffer.name} does not have its rank {rank}")
        positive = all(n >= 0 for n in r.steps)
        self.need(positive, f"a step of a region of {r.buffer.name} is negative")
        self.rules.declared(r.buffer)
        for e in r.low + r.extent:
            self.rules.index(e, f"a bound of a region of {r.buffer.name}")

    def _reads(self) -> None:
        """Reads since the last statement are declared by the blocks around."""
        for b in self.rules.loads:
            for outer in self.blocks:
                self.need(
                    b.name in outer.reads,
                    f"block {outer.block.name} does not declare that it reads {b.name}",
                )
        self.rules.loads.clear()

    def _writes(self, b: Buffer) -> None:
        self.need(b.role not in ("input", "weight"), f"{b.role} {b.name} is written")
        for outer in self.blocks:
            self.need(
                b.name in outer.writes,
                f"block {outer.block.name} does not declare that it writes {b.name}",
            )

    def _simple(self, s: Stmt) -> None:
        if isinstance(s, Store):
            self.need(bool(self.blocks) or not self.level.blocks_only, "a store outside of blocks")
            self.rules.access(s.buffer, s.indices)
            self.rules.typed(s.value, s.buffer.dtype, f"the value stored into {s.buffer.name}")
            self._writes(s.buffer)
        elif isinstance(s, Prefetch):
            self.rules.access(s.buffer, s.indices)
        elif isinstance(s, Alloc):
            self.declare(s.buffer)
            for outer in self.blocks:
                outer.reads.add(s.buffer.name)
                outer.writes.add(s.buffer.name)
        elif isinstance(s, Barrier):
            self._barrier(s)
        elif isinstance(s, Await):
            self.need(s.pending >= 0, f"{s.pending} groups of copies")
        elif isinstance(s, Invoke):
            known = self.names is None or s.intrinsic in self.names
            self.need(known, f"unknown intrinsic '{s.intrinsic}'")
            for r in s.operands:
                self.region(r)
                self.rules.loads.append(r.buffer)
            self._scalars(s.args)
        elif isinstance(s, CallKernel):
            self._buffers(s.args)
            self._scalars(s.dims)
        elif isinstance(s, HostCall):
            self._buffers(tuple(b for b in s.inputs if b is not None))
            self._together((*s.inputs, *s.outputs), "given to the host")
            self.rebind(s.binds)
            if not s.binds:
                self._buffers(s.outputs)
                for b in s.outputs:
                    self._writes(b)
        elif isinstance(s, Bind):
            same = len(s.vars) == len(s.values)
            self.need(same, f"{len(s.vars)} dimensions get {len(s.values)} values")
            for v, e in zip(s.vars, s.values, strict=False):
                self.rules.index(e, f"the value of {v.name}")
            self.rebind(s.vars)
        elif isinstance(s, Require):
            self.rules.typed(s.cond, dtypes.boolean, "the condition")
            for e in s.values:
                self.rules.index(e, "a value of the message")
            self.need(len(s.values) <= MAX_VALUES, f"a message has {len(s.values)} values")
            self.need(s.text.count("{}") == len(s.values), f"values do not fit '{s.text}'")
        elif isinstance(s, Reserve):
            self.rules.index(s.size, f"the size of segment {s.segment}")
            for slot in s.slots:
                self.rules.index(slot.size, f"the size of {slot.var.name}")
                self.need(slot.first <= slot.last, f"{slot.var.name} ends before it begins")
            self.rebind(tuple(slot.var for slot in s.slots))
        elif isinstance(s, Copy):
            self._buffers((s.src, s.dst))
            same = s.src.shape == s.dst.shape and s.src.dtype is s.dst.dtype
            self.need(same, f"{s.src.name}: {s.src.type} is copied to {s.dst.name}: {s.dst.type}")
            self._together((s.src, s.dst), "copied")
            self._writes(s.dst)

    def _together(self, buffers: tuple[Buffer | None, ...], what: str) -> None:
        """Buffers whose elements lie one after the other."""
        for b in buffers:
            self.need(b is None or b.is_dense, f"{b and b.name} is {what}, but has strides")

    def _buffers(self, buffers: tuple[Buffer, ...]) -> None:
        for b in buffers:
            self.rules.declared(b)

    def _scalars(self, items: tuple[Expr, ...]) -> None:
        for e in items:
            self.rules.expr(e)

    def _barrier(self, s: Barrier) -> None:
        if s.scope == "threads":
            free = not any(k == "parallel" or "." in k for k in self.loops)
            self.need(free, "a barrier of all threads inside a loop that they share")
        else:
            inside = any("." in k for k in self.loops)
            self.need(
                s.scope in ("block", "warp") and inside,
                "a block barrier outside of a block's loops",
            )


def _context(func: Func, guilty: Stmt | None) -> tuple[str, ...]:
    """The printed lines around a statement, the first of its lines marked."""
    from aisc.ir.text.printer_tensor import func_lines

    where: list[int] = []
    lines = func_lines(func, lambda s, n: where.append(n) if s is guilty else None)
    line = where[0] if where else 0
    first = max(0, line - 2)
    shown = [
        f"{'>' if n == line else ' '} {lines[n]}" for n in range(first, min(line + 3, len(lines)))
    ]
    return ("\n        ".join(shown),)

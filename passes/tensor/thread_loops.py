"""A SIMT kernel as an ordinary function for CPUs: threads become loops between barriers.

before: ``block.x b { alloc s shared;  thread.x t { s[t] = …;  barrier block;  y[t] = s[t ^ 1] } }``
after:  ``parallel b { alloc s stack;  for t { s[t] = … }  for u { y[u] = s[u ^ 1] } }``
Statements between two barriers are executed thread by thread; loops around barriers are executed
once for all threads. What a thread keeps in registers across a barrier gets thread dimensions.
Instructions of warps are executed once for each warp, those of threads by each of them, as loops
over what they mean. Copies are made at once, so that nobody waits for them.
Precondition: kernel form with sufficient barriers (:mod:`aisc.passes.tensor.simt_barriers`).
"""

from __future__ import annotations

from dataclasses import field, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr, Load, Var
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import (
    Alloc,
    Await,
    Barrier,
    For,
    Invoke,
    Region,
    Seq,
    Stmt,
    Store,
    region,
    seq,
)
from aisc.ir.tensor.tree import all_names, loops_of, nest, transform_statements
from aisc.ir.tensor.visitor import buffers_of, replace_buffers, substitute, transform
from aisc.passes.analysis.simt_kernel import Kernel, joined, launches, of_warp
from aisc.passes.schedule.copies import Names
from aisc.passes.tensor.inline_instructions import meaning
from aisc.passes.tensor.lower_blocks import simplified


@dataclass(frozen=True, slots=True)
class ThreadLoops:
    """The pass; see the module's docstring. Instructions are those of `target`."""

    target: Target | None = None
    name: str = "thread-loops"

    def run(self, func: Func) -> Func:
        """Apply to one kernel; the result is SPMD over its blocks, launch after launch."""
        names = all_names(func)
        parts = [_over_threads(part, names, self.target) for part in launches(func)]
        result = replace(joined(func, parts), target="cpu")
        divided = any(f.kind == "parallel" for f in loops_of(result.body))
        return result.with_attrs(parallel=True) if divided else result


def _over_threads(func: Func, names: set[str], target: Target | None) -> Func:
    """One launch, the threads of which are loops."""
    kernel = Kernel.of(func)
    split = _Split(kernel.threads, names, target)
    body = split.stmt(transform_statements(kernel.body, split.alone))
    shared = [Alloc(s.buffer.with_(space="stack")) for s in kernel.shared]
    table = {s.buffer: n.buffer for s, n in zip(kernel.shared, shared, strict=True)}
    body = replace_buffers(body, table)
    block = seq(*shared, *split.kept, body)
    kinds = ["parallel", *["serial"] * len(kernel.grid)]
    grid = tuple(
        replace(f, kind=kind)  # type: ignore[arg-type]
        for f, kind in zip(kernel.grid, kinds, strict=False)
    )
    return replace(func, body=nest(grid, block))


@dataclass(slots=True)
class _Split:
    """Splits a thread's body at barriers; `kept` declares registers that live across them."""

    threads: tuple[For, ...]
    names: set[str]
    target: Target | None
    kept: list[Alloc] = field(default_factory=list)
    wide: dict[Buffer, Buffer] = field(default_factory=dict)

    def stmt(self, s: Stmt) -> Stmt:
        """`s` for all threads."""
        if not _waits(s):
            return self.run([s])
        if isinstance(s, For):
            return replace(s, body=self.stmt(s.body))
        if isinstance(s, Barrier):
            return Seq(())
        if isinstance(s, Invoke):
            return self.together(s)
        if not isinstance(s, Seq):
            raise error("E302", f"thread-loops: a barrier inside {type(s).__name__}")
        for child in s.stmts:
            if isinstance(child, Alloc):
                self.widen(child.buffer)
        out: list[Stmt] = []
        group: list[Stmt] = []
        for child in s.stmts:
            if isinstance(child, Alloc):
                continue
            if _waits(child):
                out.extend([self.run(group), self.stmt(child)])
                group = []
            else:
                group.append(child)
        return seq(*out, self.run(group))

    def alone(self, s: Stmt) -> Stmt:
        """What a thread does alone: instructions by their meaning, and no waits."""
        if isinstance(s, Await):
            return Seq(())
        if isinstance(s, Seq):
            return seq(*s.stmts)
        return self.meant(s) if isinstance(s, Invoke) and not of_warp(s) else s

    def meant(self, s: Invoke) -> Stmt:
        """The meaning of an instruction."""
        if self.target is None:
            raise error("E402", f"thread-loops: nobody says what {s.intrinsic} means")
        meant = meaning(self.target.intrinsic(s.intrinsic), s, Names.of(self.names))
        return simplified(meant, Indexer())

    def together(self, s: Invoke) -> Stmt:
        """An instruction of a warp, for each of them."""
        warps = tuple(f for f in self.threads if f.kind != "thread.x")
        loops = tuple(replace(f, var=self.fresh(f.var), kind="serial") for f in warps)
        rename: dict[Var, Expr] = {f.var: n.var for f, n in zip(warps, loops, strict=True)}
        return nest(loops, self.meant(substitute(s, rename)))

    def widen(self, b: Buffer) -> None:
        """Give a buffer one dimension per thread axis."""
        sizes = tuple(int(f.extent.value) for f in self.threads if isinstance(f.extent, Const))
        shape = (*sizes, *b.shape)
        new = b.with_(shape=shape, strides=row_major(shape), space="stack")
        self.wide[b] = new
        self.kept.append(Alloc(new))

    def run(self, group: list[Stmt]) -> Stmt:
        """Loops over all threads around statements without barriers."""
        if not group:
            return Seq(())
        loops = tuple(replace(f, var=self.fresh(f.var), kind="serial") for f in self.threads)
        rename: dict[Var, Expr] = {
            f.var: new.var for f, new in zip(self.threads, loops, strict=True)
        }
        body = substitute(seq(*group), rename)
        at = tuple(f.var for f in loops)
        used = [b for b in buffers_of(body) if b in self.wide]
        body = _extend(body, {b: (self.wide[b], at) for b in used})
        return nest(loops, body)

    def fresh(self, var: Var) -> Var:
        """A thread number's name for one more loop."""
        count = 0
        while f"{var.name}_{count}" in self.names:
            count += 1
        self.names.add(f"{var.name}_{count}")
        return Var(f"{var.name}_{count}")


def _waits(s: Stmt) -> bool:
    return any(isinstance(n, Barrier | Invoke) for n in walk(s))


def _extend(body: Stmt, table: dict[Buffer, tuple[Buffer, tuple[Var, ...]]]) -> Stmt:
    """Exchange buffers, with more indices in front."""

    def swap(n: Node) -> Node:
        if isinstance(n, Load) and n.buffer in table:
            new, at = table[n.buffer]
            return Load(new, (*at, *n.indices))
        if isinstance(n, Store) and n.buffer in table:
            new, at = table[n.buffer]
            return replace(n, buffer=new, indices=(*at, *n.indices))
        if isinstance(n, Region) and n.buffer in table:
            new, at = table[n.buffer]
            one, none = tuple(Const(1) for _ in at), tuple(0 for _ in at)
            return region(new, (*at, *n.low), (*one, *n.extent), (*none, *n.steps))
        return n

    return transform(body, swap)

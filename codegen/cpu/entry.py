"""The entry of a Program as LLVM IR: one fork per inference, kernels called in order.

``aisc_entry(frame)`` hands ``aisc_body`` to the pool; the body, run by every thread, reads the
frame's pointers and calls the kernels. A kernel without parallel loops is run by thread 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from aisc.codegen.abi import offset
from aisc.codegen.llvm.index import IndexEmitter, Scalar
from aisc.codegen.llvm.writer import Writer
from aisc.ir.arith.poly import Dim
from aisc.ir.diagnostics import InternalError
from aisc.ir.node import walk
from aisc.ir.tensor.expr import of_dim
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, Barrier, CallKernel, Copy, Seq, Stmt
from aisc.passes.analysis.cost import PARALLEL_OPERATIONS

_SEGMENTS = {"input": "inputs", "output": "outputs", "weight": "weights"}


class EntryEmitter(IndexEmitter):
    """Emits the body of one entry."""

    def __init__(self, entry: Func, kernels: Mapping[str, Func]) -> None:
        super().__init__(Writer())
        self.entry = entry
        self.kernels = kernels
        self.storages: dict[str, tuple[str, int]] = {}
        counts: dict[str, int] = {}
        for b in entry.params:
            segment = _SEGMENTS[b.role]
            self.storages[b.base or b.name] = (segment, counts.get(segment, 0))
            counts[segment] = counts.get(segment, 0) + 1

    def emit(self, name: str) -> str:
        """Definition of the SPMD body called `name`."""
        for k, d in enumerate(self.entry.dims):
            table = self._field("dims")
            at = self.w.let(f"getelementptr i64, ptr {table}, i64 {k}")
            self.bind(d, Scalar(self.w.let(f"load i64, ptr {at}, align 8"), 0), 0, inf)
        body = self.entry.body
        for s in body.stmts if isinstance(body, Seq) else (body,):
            self._stmt(s)
        lines = self.w.finish()
        head = f"define void @{name}(ptr %frame, i64 %tid, i64 %nthreads, ptr %sync) #0 {{"
        return "\n".join([head, *lines, "}"])

    def _field(self, name: str) -> str:
        at = self.w.shared(f"getelementptr i8, ptr %frame, i64 {offset(name)}", "f", 0)
        return self.w.shared(f"load ptr, ptr {at}, align 8", "f", 0)

    def pointer(self, b: Buffer) -> str:
        """Pointer to the first element of an entry buffer."""
        if b.base == "arena":
            where = self.scalar(of_dim(b.offset))
            return self.w.shared(f"getelementptr i8, ptr {self._field('arena')}, i64 {where}", "b")
        segment, k = self.storages[b.base or b.name]
        table = self._field(segment)
        at = self.w.shared(f"getelementptr ptr, ptr {table}, i64 {k}", "f", 0)
        return self.w.shared(f"load ptr, ptr {at}, align 8", "f", 0)

    def _stmt(self, s: Stmt) -> None:
        if isinstance(s, Alloc):
            return
        if isinstance(s, CallKernel):
            self._call(s)
        elif isinstance(s, Barrier):
            self.w.declare("declare void @aisc_barrier(ptr, i64)")
            self.w.line("call void @aisc_barrier(ptr %sync, i64 %nthreads)")
        elif isinstance(s, Copy):
            self._copy(s)
        else:
            raise InternalError(f"no code for {type(s).__name__} in an entry")

    def _call(self, s: CallKernel) -> None:
        kernel = self.kernels[s.kernel]
        fails = bool(kernel.attr("status", False))
        kinds = ["ptr"] * len(s.args) + ["i64"] * len(s.dims) + ["i64", "i64", "ptr"]
        types = ", ".join(kinds + ["ptr"] * fails)
        self.w.declare(f"declare void @{s.kernel}({types})")
        args = [f"ptr {self.pointer(b)}" for b in s.args]
        args += [f"i64 {self.scalar(d)}" for d in s.dims]
        threads = self._threads(kernel)
        end = self.w.open_if(self.w.shared(f"icmp ult i64 %tid, {threads}", "mine", 0))
        args += ["i64 %tid", f"i64 {threads}", "ptr %sync"]
        if fails:
            place = f"getelementptr i8, ptr %frame, i64 {offset('error')}"
            args.append(f"ptr {self.w.shared(place, 'f', 0)}")
        self.w.line(f"call void @{s.kernel}({', '.join(args)})")
        self.w.close_if(end)

    def _threads(self, kernel: Func) -> str:
        """How many threads run a kernel: all of them, if there is work for them this time."""
        if not kernel.attr("parallel", False):
            return "1"
        work = int(kernel.attr("operations", 0) or 0)
        if work >= PARALLEL_OPERATIONS or not self.entry.dims:
            return "%nthreads"
        total = self.w.shared(f"mul i64 {self._sizes()}, {work}", "work", 0)
        enough = self.w.shared(f"icmp uge i64 {total}, {PARALLEL_OPERATIONS}", "enough", 0)
        return self.w.shared(f"select i1 {enough}, i64 %nthreads, i64 1", "threads", 0)

    def _sizes(self) -> str:
        """The product of all symbolic dimensions."""
        total = "1"
        for d in self.entry.dims:
            total = self.w.shared(f"mul i64 {total}, {self.scalar(d)}", "sizes", 0)
        return total

    def _copy(self, s: Copy) -> None:
        source, target = self.pointer(s.src), self.pointer(s.dst)
        size = self._bytes(s.dst.bytes)
        name = "llvm.memcpy.p0.p0.i64"
        self.w.declare(f"declare void @{name}(ptr, ptr, i64, i1)")
        end = self.w.open_if(self.w.shared("icmp eq i64 %tid, 0", "first", 0))
        self.w.line(f"call void @{name}(ptr {target}, ptr {source}, i64 {size}, i1 false)")
        self.w.close_if(end)

    def _bytes(self, size: Dim) -> str:
        return self.scalar(of_dim(size))


def entry_text(program: Program) -> tuple[str, dict[str, None]]:
    """Definitions of ``aisc_entry`` and, if there is one, ``aisc_prepare``; and declarations."""
    kernels = {k.name: k for k in program.kernels}
    parts: list[str] = []
    declarations: dict[str, None] = {}
    for func, name in ((program.entry, "entry"), (program.prepare, "prepare")):
        if func is None:
            continue
        emitter = EntryEmitter(func, kernels)
        parts.append(emitter.emit(f"aisc_{name}_body"))
        parts.append(_fork(name, len(func.dims), _least_sizes(func, kernels)))
        declarations.update(emitter.w.declarations)
    declarations["declare void @aisc_pool_run(ptr, i64, ptr, ptr, i64)"] = None
    return "\n\n".join(parts), declarations


def _least_sizes(entry: Func, kernels: Mapping[str, Func]) -> int:
    """The product of dimensions from which on some kernel has work for several threads; 0 when
    one always has, -1 when none ever has."""
    work = [
        int(kernels[s.kernel].attr("operations", 0) or 0)
        for s in walk(entry.body)
        if isinstance(s, CallKernel) and kernels[s.kernel].attr("parallel", False)
    ]
    most = max(work, default=0)
    if most >= PARALLEL_OPERATIONS or (most and not entry.dims):
        return 0
    return -(-PARALLEL_OPERATIONS // most) if most else -1


def _fork(name: str, dims: int, least: int) -> str:
    """``aisc_<name>(frame)``: the body on one thread, or on the pool if the product of the
    dimensions is at least `least`. The pool's size is kept in the eight bytes before it."""
    fields = {k: offset(k) for k in ("pool", "threads", "error")}
    small = _is_small(dims, least)
    return f"""define i32 @aisc_{name}(ptr %frame) #0 {{
  %np = getelementptr i8, ptr %frame, i64 {fields["threads"]}
  %n = load i64, ptr %np, align 8
  %pp = getelementptr i8, ptr %frame, i64 {fields["pool"]}
  %pool = load ptr, ptr %pp, align 8
  %one = icmp ule i64 %n, 1
{small}
  %single = or i1 %one, %small
  br i1 %single, label %alone, label %fork
alone:
  call void @aisc_{name}_body(ptr %frame, i64 0, i64 1, ptr %pool)
  br label %done
fork:
  %sizep = getelementptr i8, ptr %pool, i64 -8
  %size = load i64, ptr %sizep, align 8
  call void @aisc_pool_run(ptr %pool, i64 %size, ptr @aisc_{name}_body, ptr %frame, i64 %n)
  br label %done
done:
  %ep = getelementptr i8, ptr %frame, i64 {fields["error"]}
  %e = load i64, ptr %ep, align 8
  %code = trunc i64 %e to i32
  ret i32 %code
}}"""


def _is_small(dims: int, least: int) -> str:
    """Instructions that compute ``%small``: too little work for several threads."""
    if least <= 0:
        return f"  %small = or i1 {'true' if least < 0 else 'false'}, false"
    lines = [
        f"  %dp = getelementptr i8, ptr %frame, i64 {offset('dims')}",
        "  %dims = load ptr, ptr %dp, align 8",
    ]
    total = "1"
    for k in range(dims):
        lines.append(f"  %d{k}p = getelementptr i64, ptr %dims, i64 {k}")
        lines.append(f"  %d{k} = load i64, ptr %d{k}p, align 8")
        lines.append(f"  %m{k} = mul i64 {total}, %d{k}")
        total = f"%m{k}"
    lines.append(f"  %small = icmp ult i64 {total}, {least}")
    return "\n".join(lines)

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
from aisc.ir.tensor.expr import of_dim
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, Barrier, CallKernel, Copy, Seq, Stmt

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
        types = ", ".join(["ptr"] * len(s.args) + ["i64"] * len(s.dims) + ["i64", "i64", "ptr"])
        self.w.declare(f"declare void @{s.kernel}({types})")
        args = [f"ptr {self.pointer(b)}" for b in s.args]
        args += [f"i64 {self.scalar(d)}" for d in s.dims]
        if kernel.attr("parallel", False):
            args += ["i64 %tid", "i64 %nthreads", "ptr %sync"]
            self.w.line(f"call void @{s.kernel}({', '.join(args)})")
            return
        end = self.w.open_if(self.w.shared("icmp eq i64 %tid, 0", "first", 0))
        args += ["i64 0", "i64 1", "ptr %sync"]
        self.w.line(f"call void @{s.kernel}({', '.join(args)})")
        self.w.close_if(end)

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
        parts.append(_fork(name))
        declarations.update(emitter.w.declarations)
    declarations["declare void @aisc_pool_run(ptr, i64, ptr, ptr, i64)"] = None
    return "\n\n".join(parts), declarations


def _fork(name: str) -> str:
    """``aisc_<name>(frame)``: the body on one thread, or on the pool. The pool's size is kept in
    the eight bytes before it."""
    fields = {k: offset(k) for k in ("pool", "threads", "error")}
    return f"""define i32 @aisc_{name}(ptr %frame) #0 {{
  %np = getelementptr i8, ptr %frame, i64 {fields["threads"]}
  %n = load i64, ptr %np, align 8
  %pp = getelementptr i8, ptr %frame, i64 {fields["pool"]}
  %pool = load ptr, ptr %pp, align 8
  %one = icmp ule i64 %n, 1
  br i1 %one, label %alone, label %fork
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

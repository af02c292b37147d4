"""The entry of a Program as LLVM IR: one fork per inference, statements in order.

``aisc_entry(frame)`` reserves what is known to be needed, then hands ``aisc_entry_body`` to the
pool; the body, run by every thread, reads the frame's pointers and calls the kernels. A kernel
without parallel loops is run by thread 0, and so are copies and calls of the host. Every thread
evaluates sizes and conditions itself, from memory that is not written before they all have done so
(see :mod:`aisc.passes.plan.barriers`): they always take the same way.

Variables that are bound more than once live in stack cells; their values are read again where
ways meet: at the head of a loop, after it, and after a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from math import inf
from typing import Any

from aisc.codegen.abi import BAD_SIZE, error_at, offset
from aisc.codegen.callbacks import crosses
from aisc.codegen.cpu.faults import can_report, fault_of, faults_of
from aisc.codegen.cpu.memory import Memory, emit_reserve
from aisc.codegen.cpu.pieces import Piece, in_pieces, offsets, split_first
from aisc.codegen.cpu.profile import Stamps, Timed
from aisc.codegen.cpu.threads import sizes_of, work_of
from aisc.codegen.faults import Fault
from aisc.codegen.host import host_dims
from aisc.codegen.llvm.index import Scalar
from aisc.codegen.llvm.values import ExprEmitter
from aisc.codegen.llvm.writer import Writer
from aisc.ir.diagnostics import InternalError
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import (
    Alloc,
    Barrier,
    Bind,
    CallKernel,
    Copy,
    HostCall,
    If,
    Require,
    Reserve,
    Seq,
    Stmt,
    While,
)
from aisc.ir.tensor.verify_func import deferred_outputs

_SEGMENTS = {"input": "inputs", "output": "outputs", "weight": "weights"}


def result_dims(entry: Func) -> list[str]:
    """Dimensions of results that are known only after a run: the frame's ``dims`` hold them after
    those that the entry takes."""
    return sorted({s.name for b in deferred_outputs(entry) for s in b.type.symbols})


class EntryEmitter(ExprEmitter):
    """Emits the body of one entry."""

    keeps_names = False

    def __init__(
        self,
        entry: Func,
        kernels: Mapping[str, Func],
        memory: Memory,
        enough: int,
        stamps: Stamps | None = None,
        faults: Mapping[Fault, int] | None = None,
    ) -> None:
        super().__init__(Writer())
        self.enough = enough  # work of a kernel that all threads share
        self.stamps = stamps
        self.faults = faults_of(entry, kernels) if faults is None else faults
        self.entry = entry
        self.kernels = kernels
        self.memory = memory
        self.storages: dict[str, tuple[str, int]] = {}
        self.segments: dict[str, str] = {}  # segment -> its base pointer here
        self.cells: dict[str, tuple[str, str]] = {}  # variable or segment -> (cell, type)
        self.count_host = 0
        later = {b.name for b in deferred_outputs(entry)}
        counts: dict[str, int] = {}
        for b in entry.params:
            segment = _SEGMENTS[b.role]
            if b.name not in later:
                self.storages[b.base or b.name] = (segment, counts.get(segment, 0))
            counts[segment] = counts.get(segment, 0) + 1

    def emit(self, name: str) -> str:
        """Definition of the SPMD body called `name`."""
        if self.stamps is not None:
            self.stamps.start(self)
        self._bind_dims()
        body = self.entry.body
        first, rest = split_first(body)
        if first is not None:
            self._locate(first, fixed=True)
        apart: list[str] = []
        for s in rest if self.stamps is not None else in_pieces(rest):
            if isinstance(s, Piece):
                apart.append(self._call_piece(f"{name}_{len(apart)}", s, first))
            else:
                self._stmt(s)
        self._publish_results()
        if self.stamps is not None:
            self.stamps.end(self)
        lines = self.w.finish()
        head = f"define void @{name}(ptr %frame, i64 %tid, i64 %nthreads, ptr %sync) #0 {{"
        return "\n\n".join([*apart, "\n".join([head, *lines, "}"])])

    def _call_piece(self, name: str, piece: Piece, first: Reserve | None) -> str:
        """Call statements as a function of their own: its definition. It needs the frame alone, for
        whatever changes on the way is bound by no statement of a piece."""
        common = self.entry, self.kernels, self.memory, self.enough
        part = EntryEmitter(*common, faults=self.faults)
        part._bind_dims()
        if first is not None:
            part._locate(first, True, offsets(piece.stmts))
        for s in piece.stmts:
            part._stmt(s)
        self.w.declarations.update(part.w.declarations)
        self.w.line(f"call void @{name}(ptr %frame, i64 %tid, i64 %nthreads, ptr %sync)")
        head = f"define internal void @{name}(ptr %frame, i64 %tid, i64 %nthreads, ptr %sync) #0 {{"
        return "\n".join([head, *part.w.finish(), "}"])

    def emit_setup(self, name: str) -> str:
        """Definition of what one thread does before the fork: memory for sizes known already."""
        self._bind_dims()
        first, _ = split_first(self.entry.body)
        status = "0" if first is None else emit_reserve(self, self.memory, first)
        lines = self.w.finish(f"ret i64 {status}")
        return "\n".join([f"define i64 @{name}(ptr %frame) #0 {{", *lines, "}"])

    def _bind_dims(self) -> None:
        for k, d in enumerate(self.entry.dims):
            at = self.w.let(f"getelementptr i64, ptr {self.field('dims')}, i64 {k}")
            self.bind(d, Scalar(self.w.let(f"load i64, ptr {at}, align 8"), 0), 0, inf)

    def field(self, name: str) -> str:
        """A pointer held by the frame."""
        at = self.w.shared(f"getelementptr i8, ptr %frame, i64 {offset(name)}", "f", 0)
        return self.w.shared(f"load ptr, ptr {at}, align 8", "f", 0)

    def pointer(self, b: Buffer) -> str:
        """Pointer to the first element of an entry buffer."""
        base = b.base or b.name
        if base in self.storages:
            segment, k = self.storages[base]
            at = self.w.shared(f"getelementptr ptr, ptr {self.field(segment)}, i64 {k}", "f", 0)
            start = self.w.shared(f"load ptr, ptr {at}, align 8", "f", 0)
        else:
            start = self.segments[base]
        if b.offset == 0:
            return start
        where = self.scalar(of_dim(b.offset))
        return self.w.shared(f"getelementptr i8, ptr {start}, i64 {where}", "b")

    def base(self, buffer: Buffer) -> str:
        """Name of the pointer to the first element."""
        return self.pointer(buffer)

    # -- variables ---------------------------------------------------------------------------

    def _level(self) -> int:
        return len(self.w.scopes) - 1

    def _cell(self, name: str, kind: str) -> str:
        if name not in self.cells:
            cell = f"%cell{len(self.cells)}"
            self.w.allocas.append(f"{cell} = alloca {kind}, align 8")
            self.cells[name] = (cell, kind)
        return self.cells[name][0]

    def assign(self, name: str, value: str) -> None:
        """Give a variable a value, from here on and where ways meet."""
        self.w.line(f"store i64 {value}, ptr {self._cell(name, 'i64')}, align 8")
        self.bind(Var(name), Scalar(value, self._level()), 0, inf)

    def _refresh(self, names: list[str]) -> None:
        """Read variables again that were bound on one of the ways that led here."""
        for name in names:
            cell, kind = self.cells[name]
            value = self.w.let(f"load {kind}, ptr {cell}, align 8")
            if kind == "ptr":
                self.segments[name] = value
            else:
                self.bind(Var(name), Scalar(value, self._level()), 0, inf)

    def _bound_in(self, s: Stmt) -> list[str]:
        """Variables and segments that have a cell already and change inside `s`."""
        names: dict[str, None] = {}
        for n in walk(s):
            if isinstance(n, Bind):
                names.update({v.name: None for v in n.vars})
            elif isinstance(n, HostCall):
                names.update({v.name: None for v in n.binds})
            elif isinstance(n, Reserve):
                names[n.segment] = None
                names.update({x.var.name: None for x in n.slots})
        return [n for n in names if n in self.cells]

    # -- statements --------------------------------------------------------------------------

    def _stmt(self, s: Stmt) -> None:
        handler = _HANDLERS.get(type(s))
        if handler is None:
            raise InternalError(f"no code for {type(s).__name__} in an entry")
        if self.stamps is not None and isinstance(s, Timed):
            self.stamps.around(self, s, partial(handler, self, s))
        else:
            handler(self, s)

    def seq(self, s: Seq) -> None:
        """Statements in order."""
        for x in s.stmts:
            self._stmt(x)

    def alloc(self, s: Alloc) -> None:
        """Nothing: segments hold the buffers."""

    def barrier(self, s: Barrier | None = None) -> None:
        """All threads meet."""
        self.w.declare("declare void @aisc_barrier(ptr, i64)")
        self.w.line("call void @aisc_barrier(ptr %sync, i64 %nthreads)")

    def bind_stmt(self, s: Bind) -> None:
        """Dimensions get values; all are evaluated before any is bound."""
        values = [self.value(e).ref for e in s.values]
        for v, value in zip(s.vars, values, strict=True):
            self.assign(v.name, value)

    def require(self, s: Require) -> None:
        """Leave with an error unless the condition holds."""
        failed = self.math.negate(self.value(s.cond)).ref
        end = self.w.open_if(failed)
        self.fail(str(error_at(BAD_SIZE, self.faults[fault_of(s)])), s.values)
        self.w.close_if(end)
        self.leave(failed)

    def fail(self, error: str, values: Sequence[Expr] = ()) -> None:
        """Set the error slot and what the message speaks of, unless something has failed before."""
        slot = self.w.let(f"getelementptr i8, ptr %frame, i64 {offset('error')}", "f")
        pair = self.w.let(f"cmpxchg ptr {slot}, i64 0, i64 {error} monotonic monotonic, align 8")
        if not values:
            return
        end = self.w.open_if(self.w.let(f"extractvalue {{ i64, i1 }} {pair}, 1"))
        for k, e in enumerate(values, 1):
            at = self.w.let(f"getelementptr i64, ptr {slot}, i64 {k}")
            self.w.line(f"store i64 {self.value(e).ref}, ptr {at}, align 8")
        self.w.close_if(end)

    def leave(self, cond: str) -> None:
        """Return from the body where `cond`, the same in all threads, holds."""
        out, go = self.w.label("leave"), self.w.label("go")
        self.w.line(f"br i1 {cond}, label %{out}, label %{go}")
        self.w.scope.lines += [f"{out}:", "  ret void"]
        self.w.start_block(go)

    def branch(self, s: If) -> None:
        """A branch that all threads take alike."""
        cond = self.value(s.cond)
        for test, arm in ((cond, s.then), (self.math.negate(cond), s.other)):
            if arm is not None:
                end = self.w.open_if(test.ref)
                self._refresh(self._bound_in(s))
                self._stmt(arm)
                self.w.close_if(end)
        self._refresh(self._bound_in(s))

    def loop(self, s: While) -> None:
        """A loop that all threads run through alike."""
        changed = self._bound_in(s)
        end = self.w.open_while()
        self._refresh(changed)
        self.w.test_while(end, self.value(s.cond).ref)
        self._stmt(s.body)
        if any(self._may_fail(n) for n in walk(s.body)):
            self._leave_after_faults(s.body)
        self.w.close_while(end)
        self._refresh(changed)

    def _may_fail(self, n: Node) -> bool:
        return isinstance(n, CallKernel) and can_report(self.kernels[n.kernel])

    def _leave_after_faults(self, body: Stmt) -> None:
        """Leave a loop in which a kernel has failed: what it did not compute may be the reason to
        end. Thread 0 tells all what to do, since one may fail again while others still look."""
        if not (isinstance(body, Seq) and isinstance(body.stmts[-1], Barrier)):
            self.barrier()
        end = self.w.open_if(self._is_first())
        place = self.w.let(f"getelementptr i8, ptr %frame, i64 {offset('error')}")
        code = self.w.let(f"load atomic i64, ptr {place} monotonic, align 8")
        self.w.line(f"store i64 {code}, ptr {self.word(self.memory.status)}, align 8")
        self.w.close_if(end)
        self.barrier()
        self._leave_on_status()

    def _leave_on_status(self) -> None:
        """Leave if thread 0 has told so before the last barrier."""
        status = self.w.let(f"load i64, ptr {self.word(self.memory.status)}, align 8")
        self.leave(self.w.let(f"icmp ne i64 {status}, 0"))

    def reserve(self, s: Reserve) -> None:
        """Thread 0 reserves memory while the others wait; all read where it lies."""
        self.barrier()
        end = self.w.open_if(self._is_first())
        emit_reserve(self, self.memory, s)
        self.w.close_if(end)
        self.barrier()
        self._leave_on_status()
        self._locate(s, fixed=False)

    def word(self, index: int) -> str:
        """Pointer to a word of the program's memory block."""
        block = self.field("memory")
        return self.w.shared(f"getelementptr i64, ptr {block}, i64 {index}", "m", 0)

    def _locate(self, s: Reserve, fixed: bool, wanted: Set[str] | None = None) -> None:
        """Where a segment and its slots lie, or those `wanted` by name; `fixed` when no other
        statement moves them."""
        words = self.memory.segments[s.segment]
        start = self.w.let(f"load ptr, ptr {self.word(words.base)}, align 8")
        self.segments[s.segment] = start
        if not fixed:
            self.w.line(f"store ptr {start}, ptr {self._cell(s.segment, 'ptr')}, align 8")
        for k, slot in enumerate(s.slots):
            if wanted is not None and slot.var.name not in wanted:
                continue
            value = self.w.let(f"load i64, ptr {self.word(words.offsets + k)}, align 8")
            if fixed:
                self.bind(slot.var, Scalar(value, 0), 0, inf)
            else:
                self.assign(slot.var.name, value)

    def _is_first(self) -> str:
        return self.w.shared("icmp eq i64 %tid, 0", "first", 0)

    # -- kernels -----------------------------------------------------------------------------

    def call(self, s: CallKernel) -> None:
        """A kernel on as many threads as it has work for."""
        kernel = self.kernels[s.kernel]
        if kernel.target != self.entry.target:
            self.launch(s)
            return
        fails = can_report(kernel)
        kinds = ["ptr"] * len(s.args) + ["i64"] * len(s.dims) + ["i64", "i64", "ptr"]
        types = ", ".join(kinds + ["ptr", "i64"] * fails)
        self.w.declare(f"declare void @{s.kernel}({types})")
        args = [f"ptr {self.pointer(b)}" for b in s.args]
        args += [f"i64 {self.scalar(d)}" for d in s.dims]
        threads = self._threads(kernel, s)
        end = self.w.open_if(self.w.shared(f"icmp ult i64 %tid, {threads}", "mine"))
        args += ["i64 %tid", f"i64 {threads}", "ptr %sync"]
        if fails:
            place = f"getelementptr i8, ptr %frame, i64 {offset('error')}"
            number = error_at(0, self.faults[fault_of(s)])
            args += [f"ptr {self.w.shared(place, 'f', 0)}", f"i64 {number}"]
        self.w.line(f"call void @{s.kernel}({', '.join(args)})")
        self.w.close_if(end)
        self._pass_by(threads)

    def _threads(self, kernel: Func, call: CallKernel) -> str:
        """How many threads run a kernel: all of them, if there is work for them this time."""
        if not kernel.attr("parallel", False):
            return "1"
        work, sizes = work_of(kernel), sizes_of(kernel)
        if not kernel.attr("scales", False):
            return "%nthreads" if work >= self.enough else "1"
        if work >= self.enough or not sizes:
            return "%nthreads"
        total, level = str(work), 0
        for v, d in zip(kernel.dims, call.dims, strict=True):
            if v.name in sizes:
                size, at = self.leveled(d)
                level = max(level, at)
                total = self.w.shared(f"mul i64 {total}, {size}", "work", level)
        enough = self.w.shared(f"icmp uge i64 {total}, {self.enough}", "enough", level)
        return self.w.shared(f"select i1 {enough}, i64 %nthreads, i64 1", "threads", level)

    def _pass_by(self, threads: str) -> None:
        """All threads come past what so many of them have executed."""
        if threads == "%nthreads":
            return
        self.w.declare("declare void @aisc_passed(ptr, i64)")
        one = None if threads == "1" else self.w.let(f"icmp eq i64 {threads}, 1")
        end = None if one is None else self.w.open_if(one)
        self.w.line("call void @aisc_passed(ptr %sync, i64 %tid)")
        if end is not None:
            self.w.close_if(end)

    def copy(self, s: Copy) -> None:
        """A copy by thread 0; one to or from the memory of a device is asked for."""
        if crosses(s):
            self._call_back(self._move_words, s)
            return
        source, target = self.pointer(s.src), self.pointer(s.dst)
        size = self.scalar(of_dim(s.dst.bytes))
        name = "llvm.memcpy.p0.p0.i64"
        self.w.declare(f"declare void @{name}(ptr, ptr, i64, i1)")
        end = self.w.open_if(self._is_first())
        self.w.line(f"call void @{name}(ptr {target}, ptr {source}, i64 {size}, i1 false)")
        self.w.close_if(end)
        self._pass_by("1")

    # -- callbacks ---------------------------------------------------------------------------

    def host(self, s: HostCall) -> None:
        """An operator of the host: with pointers, sizes and the dimensions of attributes; all
        threads read the sizes that come back."""
        self._call_back(self._host_words, s)
        for k in range(len(s.binds)):
            value = self.w.let(f"load i64, ptr {self.word(self.memory.host + k)}, align 8")
            self.assign(s.binds[k].name, value)

    def launch(self, s: CallKernel) -> None:
        """A kernel of a device: with pointers and dimensions."""
        self._call_back(self._launch_words, s)

    def _call_back(self, words_of: Callable[[Any], list[str]], s: Stmt) -> None:
        """Thread 0 calls back with an array of words; all threads read whether it succeeded."""
        self.barrier()  # nobody writes the status and the sizes again before all have read them
        words = words_of(s)
        index, self.count_host = self.count_host, self.count_host + 1
        table = f"%host{index}"
        self.w.allocas.append(f"{table} = alloca [{max(1, len(words))} x i64], align 8")
        end = self.w.open_if(self._is_first())
        for k, word in enumerate(words):
            at = self.w.let(f"getelementptr i64, ptr {table}, i64 {k}")
            self.w.line(f"store i64 {word}, ptr {at}, align 8")
        at = self.w.let(f"getelementptr i8, ptr %frame, i64 {offset('host')}")
        function = self.w.let(f"load ptr, ptr {at}, align 8")
        into = self.word(self.memory.host)
        status = self.w.let(f"call i64 {function}(i64 {index}, ptr {table}, ptr {into})")
        self.w.line(f"store i64 {status}, ptr {self.word(self.memory.status)}, align 8")
        failed = self.w.let(f"icmp ne i64 {status}, 0")
        bad = self.w.open_if(failed)
        self.fail(status)
        self.w.close_if(bad)
        self.w.close_if(end)
        self.barrier()
        self._leave_on_status()

    def _launch_words(self, s: CallKernel) -> list[str]:
        pointers = [self.w.let(f"ptrtoint ptr {self.pointer(b)} to i64") for b in s.args]
        return pointers + [self.scalar(d) for d in s.dims]

    def _move_words(self, s: Copy) -> list[str]:
        pointers = [self.w.let(f"ptrtoint ptr {self.pointer(b)} to i64") for b in (s.src, s.dst)]
        return [*pointers, self.scalar(of_dim(s.dst.bytes))]

    def _host_words(self, s: HostCall) -> list[str]:
        words: list[str] = []
        for b in (*s.inputs, *(() if s.binds else s.outputs)):
            if b is not None:
                words.append(self.w.let(f"ptrtoint ptr {self.pointer(b)} to i64"))
                words += [self.scalar(of_dim(d)) for d in b.shape]
        return words + [self.scalar(Var(n)) for n in host_dims(s)]

    # -- results -----------------------------------------------------------------------------

    def _publish_results(self) -> None:
        """Tell the caller where results lie whose sizes were not known before, and the sizes."""
        later = {b.name for b in deferred_outputs(self.entry)}
        if not later:
            return
        end = self.w.open_if(self._is_first())
        outputs = [b for b in self.entry.params if b.role == "output"]
        for k, b in enumerate(outputs):
            if b.name in later:
                at = self.w.let(f"getelementptr ptr, ptr {self.field('outputs')}, i64 {k}")
                self.w.line(f"store ptr {self.pointer(b)}, ptr {at}, align 8")
        for k, name in enumerate(result_dims(self.entry), len(self.entry.dims)):
            at = self.w.let(f"getelementptr i64, ptr {self.field('dims')}, i64 {k}")
            self.w.line(f"store i64 {self.scalar(Var(name))}, ptr {at}, align 8")
        self.w.close_if(end)


_HANDLERS: dict[type[Stmt], Callable[[EntryEmitter, Any], None]] = {
    Seq: EntryEmitter.seq,
    Alloc: EntryEmitter.alloc,
    Barrier: EntryEmitter.barrier,
    Bind: EntryEmitter.bind_stmt,
    Require: EntryEmitter.require,
    If: EntryEmitter.branch,
    While: EntryEmitter.loop,
    Reserve: EntryEmitter.reserve,
    CallKernel: EntryEmitter.call,
    Copy: EntryEmitter.copy,
    HostCall: EntryEmitter.host,
}

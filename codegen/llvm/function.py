"""Statements of one kernel as LLVM IR text.

A kernel is ``void name(ptr buffers…, i64 dims…, i64 tid, i64 nthreads, ptr sync)``. The threads
that call it take shares of the iterations of *parallel* loops; what stands outside of them is run
by thread 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from aisc.codegen.llvm.early import early_tests, is_filled
from aisc.codegen.llvm.index import Lane, Scalar
from aisc.codegen.llvm.stores import StoreEmitter
from aisc.codegen.llvm.transpose import Tile
from aisc.codegen.llvm.types import Val, memory_type
from aisc.codegen.llvm.values import ZERO_BLOCK, ZERO_BYTES
from aisc.codegen.llvm.writer import Writer
from aisc.ir.diagnostics import InternalError
from aisc.ir.tensor.expr import Const, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import (
    Alloc,
    Await,
    Barrier,
    For,
    If,
    Invoke,
    Let,
    Prefetch,
    Seq,
    Stmt,
    Store,
    While,
)
from aisc.ir.tensor.tree import loops_of, statements
from aisc.ir.tensor.visitor import size
from aisc.passes.schedule.rules.turns import TO_AND_FRO
from aisc.passes.tensor.counters import counted

PRIVATE_SPACES = ("register", "stack")
# Nodes of a loop's body beside which finding its place costs nothing.
LITTLE = 1000
NONTEMPORAL_NODE = "!0 = !{i32 1}"


class FunctionEmitter(StoreEmitter):
    """Emits one function whose blocks have been lowered."""

    def __init__(self, func: Func, features: Sequence[str] = ()) -> None:
        super().__init__(Writer(), features)
        self.func = func
        self.bases: dict[str, str] = {}
        self.in_parallel = False
        self.is_shared = any(
            isinstance(n, For) and n.kind == "parallel" for n in statements(func.body)
        )
        self.streams = self.STREAMS and any(
            isinstance(n, Store) and n.stream for n in statements(func.body)
        )

    # -- the function ------------------------------------------------------------------------

    def emit(self) -> str:
        """Text of the whole function definition."""
        params = self.signature()
        for k, dim in enumerate(self.func.dims):  # by number: their names may be any text
            self.dimension(dim, f"%dim{k}")
        self.top(self.func.body)
        if not self.is_shared:
            self.drain()
        lines = self.w.finish()
        head = (
            f"define {self.linkage()}void @{self.func.name}({', '.join(params)}) {self.attrs()} {{"
        )
        return "\n".join([head, *lines, "}"])

    def dimension(self, dim: Var, given: str) -> None:
        """Give a dimension its value, which is a parameter."""
        self.bind(dim, Scalar(given, 0), 0, inf)

    def linkage(self) -> str:
        """Linkage and calling convention, with a trailing space."""
        return ""

    def attrs(self) -> str:
        """Attribute group of the function."""
        return "#0"

    def signature(self) -> list[str]:
        """Parameters; ``noalias`` where a buffer is the only one of its alias set."""
        sets = [b.alias_set for b in self.func.params]
        params = []
        for k, b in enumerate(self.func.params):
            self.bases[b.name] = f"%b{k}"
            alone = "noalias " if b.alias_set and sets.count(b.alias_set) == 1 else ""
            params.append(f"ptr {alone}align {b.dtype.bytes} %b{k}")
        params += [f"i64 %dim{k}" for k in range(len(self.func.dims))]
        status = ["ptr %status", "i64 %place"] if self.func.attr("status", False) else []
        return [*params, "i64 %tid", "i64 %nthreads", "ptr %sync", *status]

    def report(self, code: int, failed: Val, *values: Val) -> None:
        """Store `code` and the number of the place where any executed lane has failed, unless
        something has failed before; and `values`, those of the first such lane."""
        if not self.func.attr("status", False):
            return
        if failed.lanes > 1 and self.mask is not None:
            failed = self._and(failed, self.mask)
        any_lane = failed.ref
        if failed.lanes > 1:
            any_lane = self.math.any_lane(failed).ref
        if self.guard is not None:
            any_lane = self.w.let(f"and i1 {any_lane}, {self.guard}")
        end = self.w.open_if(any_lane)
        error = self.w.let(f"or i64 %place, {code}")
        pair = self.w.let(f"cmpxchg ptr %status, i64 0, i64 {error} monotonic monotonic, align 8")
        first = self.w.open_if(self.w.let(f"extractvalue {{ i64, i1 }} {pair}, 1"))
        for k, value in enumerate(values, 1):
            ref = self._of_first_lane(value, failed)
            at = self.w.let(f"getelementptr i64, ptr %status, i64 {k}")
            self.w.line(f"store i64 {ref}, ptr {at}, align 8")
        self.w.close_if(first)
        self.w.close_if(end)

    def _of_first_lane(self, value: Val, failed: Val) -> str:
        """What `value` is in the first lane where `failed` holds."""
        if value.lanes == 1:
            return value.ref
        n = value.lanes
        bits = self.w.let(f"bitcast {failed.text} to i{n}")
        self.w.declare(f"declare i{n} @llvm.cttz.i{n}(i{n}, i1)")
        lane = self.w.let(f"call i{n} @llvm.cttz.i{n}(i{n} {bits}, i1 false)")
        return self.w.let(f"extractelement {value.text}, i{n} {lane}")

    def base(self, buffer: Buffer) -> str:
        """Name of the pointer to a buffer's first element."""
        if buffer.name not in self.bases:
            raise InternalError(f"{self.func.name}: buffer {buffer.name} has no storage")
        return self.bases[buffer.name]

    def top(self, body: Stmt) -> None:
        """The outermost statements."""
        for stmt in body.stmts if isinstance(body, Seq) else (body,):
            divided = any(
                isinstance(n, Barrier) or (isinstance(n, For) and n.kind == "parallel")
                for n in statements(stmt)
            )
            if divided or isinstance(stmt, Alloc):
                self.stmt(stmt)
            else:
                first = self.w.shared("icmp eq i64 %tid, 0", "first", 0)
                end = self.w.open_if(first)
                self.stmt(stmt)
                self.w.close_if(end)
                self.passed()

    # -- statements --------------------------------------------------------------------------

    def stmt(self, s: Stmt) -> None:
        """Emit one statement."""
        if isinstance(s, Seq):
            for child in s.stmts:
                self.stmt(child)
        elif isinstance(s, For):
            self.loop(s)
        elif isinstance(s, Store):
            self.store(s)
        elif isinstance(s, If):
            self.branch(s)
        elif isinstance(s, Let):
            self.values[s.var] = self.value(s.value)
            self.stmt(s.body)
        elif isinstance(s, Prefetch):
            self.prefetch(s)
        elif isinstance(s, Alloc):
            self.alloc(s.buffer)
        elif isinstance(s, Barrier):
            self.barrier(s)
        elif isinstance(s, Invoke):
            self.invoke(s)
        elif isinstance(s, Await):
            self.wait(s)
        elif isinstance(s, While):
            self.repeat(s)
        else:
            raise InternalError(f"{self.func.name}: no code for {type(s).__name__}")

    def alloc(self, buffer: Buffer) -> None:
        """Private storage: a stack slot, which SROA turns into registers where it can."""
        if buffer.space not in PRIVATE_SPACES:
            raise InternalError(f"{self.func.name}: {buffer.name} is declared in {buffer.space}")
        count = static_size(buffer)
        name = f"%{clean(buffer.name)}.slot"
        if buffer.name not in self.bases:
            text = f"{name} = alloca [{count} x {memory_type(buffer.dtype)}], align 64"
            self.w.allocas.append(text)
        self.bases[buffer.name] = name

    def passed(self) -> None:
        """All threads come past what thread 0 has executed alone, where it is not the only one."""
        if not self.is_shared:
            return
        self.drain()
        self.w.declare("declare void @aisc_passed(ptr, i64)")
        end = self.w.open_if(self.w.shared("icmp ugt i64 %nthreads, 1", level=0))
        self.w.line("call void @aisc_passed(ptr %sync, i64 %tid)")
        self.w.close_if(end)

    def barrier(self, s: Barrier) -> None:
        """What is before it is done before anything behind it begins."""
        self.w.declare("declare void @aisc_barrier(ptr, i64)")
        self.w.line("call void @aisc_barrier(ptr %sync, i64 %nthreads)")

    def wait(self, s: Await) -> None:
        """A thread waits for what it copies."""
        raise InternalError(f"{self.func.name}: no code for a wait for copies")

    def drain(self) -> None:
        """Wait until what was stored past the caches is visible: other stores do not order it."""
        if self.streams:
            self.w.line("fence seq_cst")

    def prefetch(self, s: Prefetch) -> None:
        """Ask for a cache line, to be kept in all caches."""
        pointer, _ = self.address(s.buffer, s.indices)
        name = "llvm.prefetch.p0"
        self.w.declare(f"declare void @{name}(ptr, i32, i32, i32)")
        self.w.line(f"call void @{name}(ptr {pointer}, i32 {int(s.write)}, i32 3, i32 1)")

    def invoke(self, s: Invoke) -> None:
        """An instruction of the target."""
        raise InternalError(f"{self.func.name}: no code for the intrinsic {s.intrinsic}")

    def loop(self, s: For) -> None:
        """Emit a loop by its kind."""
        if s.kind == "unroll":
            self.unrolled(s)
        elif s.kind == "vectorize":
            self.vectorized(s)
        elif s.kind == "parallel":
            self.divided(s)
        elif s.kind == "serial":
            self.counted(s, self.scalar(s.low), self.scalar(s.low + s.extent))
        else:
            raise InternalError(f"{self.func.name}: no code for a loop over {s.kind}")

    def repeat(self, s: While) -> None:
        """A loop whose turns decide whether another follows. What has failed ends it: it may be
        what the condition waits for."""
        end = self.w.open_while()
        go = self.value(s.cond).ref
        if self.func.attr("status", False):
            failed = self.w.let("load i64, ptr %status, align 8")
            well = self.w.let(f"icmp eq i64 {failed}, 0")
            go = self.w.let(f"and i1 {go}, {well}")
        self.w.test_while(end, go)
        self.stmt(s.body)
        self.w.close_while(end)

    def span(self, s: For) -> tuple[float, float]:
        """Least and greatest value of a loop's variable."""
        low, high = self.index.bounds(s.low)[0], self.index.bounds(s.low + s.extent)[1]
        return low, high - 1

    def unrolled(self, s: For) -> None:
        """Emit the body once per iteration."""
        low, n = self.linear(s.low), self.linear(s.extent)
        if not (low.is_const and n.is_const):
            raise InternalError(f"{self.func.name}: unrolled loop {s.var.name} is not constant")
        tile = self.tile_of(s)
        if tile is not None:
            self.tile(tile)
            return
        for k in range(low.const, low.const + n.const):
            self.bind(s.var, k, *self.span(s))
            self.stmt(s.body)
        self.unbind(s.var)

    def tile(self, t: Tile) -> None:
        """Emit a tile whose loads or stores are transposed in registers."""
        columns = {n: self.columns_of(t, n) for n in t.loads}
        values: list[str] = []
        for k in range(t.count):
            self.bind(t.rows.var, k, *self.span(t.rows))
            self.columns = {n: found[k] for n, found in columns.items()}
            if t.woven:
                values.append(self.turn(t))
            else:
                self.vectorized(t.lanes)
        self.unbind(t.rows.var)
        self.columns = {}
        if t.woven:
            self.weave(t, values)

    def turn(self, t: Tile) -> str:
        """The values that one turn of a tile would store."""
        self.lanes, self.lane_var = t.width, t.lanes.var
        self.bind(t.lanes.var, Lane(t.width), 0, t.width - 1)
        text = self._to_memory(self.broadcast(self.whole(t.store.value), t.width))
        self.unbind(t.lanes.var)
        self.lanes, self.lane_var = 1, None
        return text

    def vectorized(self, s: For) -> None:
        """Emit the body once, all iterations as lanes."""
        if not isinstance(s.extent, Const) or self.lane_var is not None:
            raise InternalError(f"{self.func.name}: loop {s.var.name} cannot be lanes")
        self.lanes, self.lane_var = int(s.extent.value), s.var
        self.bind(s.var, Lane(self.lanes), 0, self.lanes - 1)
        self.stmt(s.body)
        self.unbind(s.var)
        self.lanes, self.lane_var = 1, None

    @property
    def shares(self) -> int:
        """Into how many parts what a thread has to do in a parallel loop is cut."""
        return 1

    def divided(self, s: For) -> None:
        """Emit contiguous shares of the iterations, one after the other as the thread gets them."""
        if self.in_parallel:
            raise InternalError(f"{self.func.name}: nested parallel loops")
        n, low = self.scalar(s.extent), self.scalar(s.low)
        w, each = self.w, self.shares
        several = w.shared("icmp ugt i64 %nthreads, 1", level=0)
        of_all = w.shared(f"mul i64 %nthreads, {each}", level=0)
        count = w.shared(f"select i1 {several}, i64 {of_all}, i64 1", level=0)
        share = w.fresh("share")
        w.allocas.append(f"{share} = alloca i64, align 8")
        w.line(f"store i64 -1, ptr {share}, align 8")
        w.declare("declare i64 @aisc_share(ptr, i64, i64, i64)")
        end = w.open_while()
        last = w.let(f"load i64, ptr {share}, align 8")
        k = w.let(f"call i64 @aisc_share(ptr %sync, i64 %nthreads, i64 {each}, i64 {last})")
        w.line(f"store i64 {k}, ptr {share}, align 8")
        w.test_while(end, w.let(f"icmp sge i64 {k}, 0"))
        start = w.let(f"udiv i64 {w.let(f'mul i64 {n}, {k}')}, {count}")
        after = w.let(f"add i64 {k}, 1")
        stop = w.let(f"udiv i64 {w.let(f'mul i64 {n}, {after}')}, {count}")
        if low != "0":
            start, stop = w.let(f"add i64 {start}, {low}"), w.let(f"add i64 {stop}, {low}")
        self.in_parallel = True
        self.share(s, start, stop)
        self.in_parallel = False
        self.drain()
        w.close_while(end)

    def share(self, s: For, start: str, stop: str) -> None:
        """The iterations from `start` to `stop`, each axis of a fused loop counted for itself
        where little is done in each: not for tiles, which have storage of their own, nor for
        bodies of many expressions."""
        if size(s.body) >= LITTLE or any(isinstance(n, Alloc) for n in statements(s.body)):
            self.counted(s, start, stop)
            return
        ends = Var(f"{s.var.name}.first"), Var(f"{s.var.name}.last")
        low, high = self.span(s)
        for var, ref in zip(ends, (start, stop), strict=True):
            self.bind(var, Scalar(ref, self.w.scope.level), low, high + 1)
        nested = counted(replace(s, low=ends[0], extent=ends[1] - ends[0]), self.index)
        self.counted(nested, self.scalar(nested.low), self.scalar(nested.low + nested.extent))
        for var in ends:
            self.unbind(var)

    def counted(self, s: For, low: str, high: str) -> None:
        """A loop at run time."""
        saved = dict(self.tested)
        if self.func.attr("status", False) and self.lane_var is None and self.guard is None:
            for index, size in early_tests(s, self.index, self.bound.keys()):
                if (index, size) not in self.tested:
                    self.tested[index, size] = self._in_range(index, size)
        var, end = self.w.open_loop(low, high, not is_filled(s, self.index), self.number)
        at = self.backwards(s, var, low, high) if dict(s.annotations).get(TO_AND_FRO) else var
        self.bind(s.var, Scalar(at, self.w.scope.level), *self.span(s))
        self.stmt(s.body)
        self.unbind(s.var)
        self.w.close_loop(end)
        self.tested = saved

    def backwards(self, s: For, var: str, low: str, high: str) -> str:
        """The value of a loop's variable that goes down from the last one in every other turn of
        the loop around the kernel."""
        turn = self.scalar(Var(str(dict(s.annotations)[TO_AND_FRO])))
        odd = self.w.let(f"trunc i64 {turn} to i1")
        last = self.w.let(f"sub i64 {self.w.let(f'add i64 {low}, {high}')}, 1")
        return self.w.let(f"select i1 {odd}, i64 {self.w.let(f'sub i64 {last}, {var}')}, i64 {var}")

    def branch(self, s: If) -> None:
        """A branch, or a mask where the condition varies over lanes."""
        s = self.branch_first(s)
        cond = self.value(s.cond)
        if cond.ref in ("true", "false"):
            taken = s.then if cond.ref == "true" else s.other
            if taken is not None:
                self.stmt(taken)
            return
        if cond.lanes > 1:
            self._masked(cond, s.then)
            if s.other is not None:
                self._masked(self.opposite(cond), s.other)
            return
        end = self.w.open_if(cond.ref)
        self.stmt(s.then)
        self.w.close_if(end)
        if s.other is not None:
            end = self.w.open_if(self.math.negate(cond).ref)
            self.stmt(s.other)
            self.w.close_if(end)

    def _masked(self, cond: Val, body: Stmt) -> None:
        """What is done in some lanes; a loop is jumped over where no lane does it."""
        saved = self.mask
        self.mask = cond if saved is None else self._and(saved, cond)
        if any(n.kind == "serial" for n in loops_of(body)):
            end = self.w.open_if(self.math.any_lane(self.mask).ref)
            self.stmt(body)
            self.w.close_if(end)
        else:
            self.stmt(body)
        self.mask = saved


def static_size(buffer: Buffer) -> int:
    """Elements of storage for a buffer of constant shape, at least one: rows may be longer than
    what lies in them."""
    last = 0
    for d, stride in zip(buffer.shape, buffer.strides, strict=True):
        if not isinstance(d, int) or not isinstance(stride, int):
            raise InternalError(f"private buffer {buffer.name} has the extent {d}")
        if d == 0:
            return 1
        last += (d - 1) * stride
    return last + 1


def clean(name: str) -> str:
    """A name as an LLVM identifier."""
    return "".join(c if c.isalnum() or c in "._" else "_" for c in name)


def zeros_global() -> str:
    """The block of zeros that suppressed loads read."""
    return f"{ZERO_BLOCK} = private constant [{ZERO_BYTES} x i8] zeroinitializer, align 64"

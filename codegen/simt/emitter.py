"""One SIMT kernel as LLVM IR.

A kernel is ``void name(ptr addrspace(1) buffers…, i64 dims…)``. Loops over blocks and threads
become special registers (:mod:`aisc.codegen.simt.isa`), ``shared`` buffers module globals in
address space 3, private buffers stack slots, which SROA turns into registers. Where more blocks are
asked for than the machine has along an axis, each does several, one after the other.

A *short* kernel counts in 32 bits; what that needs of its dimensions it gathers on the way
(:mod:`aisc.codegen.simt.narrow`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, inf, prod

from aisc.codegen.llvm.function import PRIVATE_SPACES, FunctionEmitter, clean, static_size
from aisc.codegen.llvm.index import Parts, Scalar, flat_index
from aisc.codegen.llvm.instructions import emit_instruction
from aisc.codegen.llvm.types import Val, memory_type, scalar_type, vector_type
from aisc.codegen.llvm.values import ZERO_BYTES
from aisc.codegen.llvm.vector_math import MathEmitter
from aisc.codegen.simt.isa import WARP, isa_of
from aisc.codegen.simt.narrow import Magnitudes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import InternalError, error
from aisc.ir.dtypes import DType
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.dims import as_dim
from aisc.ir.tensor.expr import Call, Const, Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import Await, Barrier, For, Invoke, Stmt
from aisc.passes.analysis.simt_kernel import SHUFFLE, Kernel
from aisc.passes.tensor.warp_registers import LANE_AXES, WarpRegisters

GLOBAL, SHARED = "ptr addrspace(1)", "ptr addrspace(3)"
ZEROS = "@aisc.zeros.global"
SHARED_ALIGNMENT = 16
DYNAMIC = "@aisc_shared"  # shared memory of which a launch says how much it is


class SimtMath(MathEmitter):
    """Arithmetic of SIMT machines."""

    def converts(self, dtype: DType) -> bool:
        """Short floats are an instruction away from f32."""
        return True


class SimtEmitter(FunctionEmitter):
    """Emits one function in kernel form; `globals` are what the module declares for it."""

    MATH = SimtMath

    STREAMS = False
    FILLS = False
    SHUFFLES = False

    def __init__(self, func: Func, target: Target, short: bool = False) -> None:
        func = WarpRegisters(int(target.limits.get("warp", WARP))).run(func)
        super().__init__(func)
        self.sizes = Magnitudes()
        self.number = "i32" if short else "i64"
        self.bounds = {s.name: s.upper for b in func.params for s in b.type.symbols}
        self.target, self.isa = target, isa_of(target)
        self.kernel = Kernel.of(func)
        self.globals: list[str] = []
        self.shared_bytes = 0
        self.dynamic_bytes = 0  # of these, what a launch asks for
        self._taken = 0

    def emit(self) -> str:
        """Text of the function; E402 where the kernel exceeds the target's limits."""
        self.shared_bytes = require_limits(self.func, self.target)
        most = self.target.limits.get("static_shared_bytes", self.shared_bytes)
        self.dynamic_bytes = self.shared_bytes if self.shared_bytes > most else 0
        return super().emit()

    # -- indices -----------------------------------------------------------------------------

    @property
    def is_short(self) -> bool:
        """Whether it counts in 32 bits."""
        return self.number == "i32"

    def dimension(self, dim: Var, given: str) -> None:
        """A dimension, of which the buffers may know a bound."""
        most = self.bounds.get(dim.name)
        self.sizes.dims[dim] = high = inf if most is None else most
        ref = self.w.let(f"trunc i64 {given} to i32", "d") if self.is_short else given
        self.bind(dim, Scalar(ref, 0), 0, high)

    def parts(self, expr: Expr) -> Parts:
        """An index, which short kernels must be able to count."""
        if self.is_short:
            self.sizes.require(self.linear(expr), self.index)
        return super().parts(expr)

    def _in_range(self, index: Expr, size: Expr) -> Expr:
        found = super()._in_range(index, size)
        if isinstance(found, Var):
            self.sizes.last[found] = size
        return found

    # -- hooks -------------------------------------------------------------------------------

    def linkage(self) -> str:
        """Kernels have a calling convention of their own."""
        return f"{self.isa.kernel} "

    def attrs(self) -> str:
        """The block's size is fixed at compile time."""
        return f"{self.isa.size_attribute(self.kernel.block_size)} #0"

    def signature(self) -> list[str]:
        """Parameters in global memory, then dimensions, then the error slot of kernels that may
        report one."""
        count, dims = len(self.func.params), len(self.func.dims)
        every = super().signature()
        status = every[-2:] if self.func.attr("status", False) else []
        params = [
            p.replace("ptr ", f"{GLOBAL} ", 1).replace(
                f" align {b.dtype.bytes} ", f" align {b.alignment} "
            )
            for p, b in zip(every[:count], self.func.params, strict=True)
        ]
        return params + every[count : count + dims] + status

    def pointer_type(self, buffer: Buffer) -> str:
        """Address space by the buffer's memory."""
        if buffer.space in PRIVATE_SPACES:
            return "ptr"
        return SHARED if buffer.space == "shared" else GLOBAL

    def alignment(self, buffer: Buffer, indices: tuple[Expr, ...]) -> int:
        """Buffers begin where they are said to; what is added is a multiple of what divides all
        terms of the index."""
        if self.is_private(buffer):
            return buffer.dtype.bytes
        parts = self.parts(flat_index(buffer, indices))
        step = gcd(parts.const, *(c for _, _, c in parts.terms), 0) * buffer.dtype.bytes
        whole = buffer.dtype.bytes * self.lanes
        most = min(buffer.alignment if buffer.space == "global" else SHARED_ALIGNMENT, whole)
        return max(buffer.dtype.bytes, gcd(step, most) if step else most)

    def spare(self, buffer: Buffer) -> str:
        """What a suppressed load reads: zeros in global memory, the first element elsewhere."""
        return ZEROS if self.pointer_type(buffer) == GLOBAL else self.base(buffer)

    def top(self, body: Stmt) -> None:
        """All threads run the whole body."""
        self.stmt(body)

    def alloc(self, buffer: Buffer) -> None:
        """Shared memory as a global of the module; private storage as a stack slot."""
        if buffer.space != "shared":
            super().alloc(buffer)
            self.generic(buffer)
            return
        if self.dynamic_bytes:
            self.w.declare(f"{DYNAMIC} = external addrspace(3) global [0 x i8], align 128")
            at = f"getelementptr (i8, {SHARED} {DYNAMIC}, i64 {self._taken})"
            self._taken += _shared_size(buffer)
            self.bases[buffer.name] = at
            return
        name = f"@{self.func.name}.{clean(buffer.name)}"
        kind = f"[{static_size(buffer)} x {memory_type(buffer.dtype)}]"
        self.globals.append(
            f"{name} = internal addrspace(3) global {kind} undef, align {SHARED_ALIGNMENT}"
        )
        self.bases[buffer.name] = name

    def generic(self, buffer: Buffer) -> None:
        """A stack slot through a pointer to any memory, where slots have an address space."""
        slot, space = self.bases[buffer.name], self.isa.private
        if not space or not slot.endswith(".slot"):
            return
        made = f"{slot} = alloca"
        for k, text in enumerate(self.w.allocas):
            if text.startswith(made):
                lies = text.replace(made, f"{slot}.at = alloca", 1) + f", addrspace({space})"
                cast = f"{slot} = addrspacecast ptr addrspace({space}) {slot}.at to ptr"
                self.w.allocas[k : k + 1] = [lies, cast]
                return

    def invoke(self, s: Invoke) -> None:
        """An instruction of a warp, of which each lane gives the registers that it has, or of a
        thread; memory is given by its address, and the distance of its rows."""
        found = self.target.intrinsic(s.intrinsic)
        kinds = [
            vector_type(memory_type(p.dtype), prod(p.type.static_shape[LANE_AXES:]))
            if p.space == "warp" else ""
            for p in found.semantics.params
        ]  # fmt: skip
        emit_instruction(self, found, s, kinds, None if all(kinds) else self.given(found, s))

    def given(self, found: Intrinsic, s: Invoke) -> dict[str, str]:
        """What the code of an instruction on memory may name: operands there, how far their rows
        are apart, dimensions, the lane."""
        names = {}
        for region, param in zip(s.operands, found.semantics.params, strict=True):
            if param.space == "warp":
                continue
            names[f"%{param.name}"], _ = self.address(region.buffer, region.low)
            first = region.dims_of(param.rank)[0]
            step = 0 if first is None else region.buffer.strides[first]
            names[f"%{param.name}step"] = self.scalar(of_dim(step))
        for dim, value in zip(found.semantics.dims, s.args, strict=True):
            ref = self.value(value).ref
            if ref.startswith("%"):
                ref = self.w.shared(f"trunc i64 {ref} to i32", "n")
            names[f"%{dim.name}"] = ref
        lane = self.isa.thread.format(axis="x")
        self.w.declare(f"declare i32 @{lane}()")
        names["%lane"] = self.w.shared(f"call i32 @{lane}()", "axis", 0)
        return names

    def barrier(self, s: Barrier) -> None:
        """All threads of the block wait for each other."""
        if s.scope != "warp":  # lanes ask each other at the same time
            self.said(self.isa.barrier)

    def _call(self, e: Call) -> Val:
        """What another lane has is asked for by an instruction."""
        if e.name != SHUFFLE:
            return super()._call(e)
        if not self.isa.shuffle or e.dtype.bytes != 4:
            raise error("E402", f"{self.func.name}: lanes of {self.target.name} exchange nothing")
        mine, lane = self.value(e.args[0]), self.scalar(e.args[1])
        if not self.is_short:
            lane = self.w.shared(f"trunc i64 {lane} to i32", "n")
        ref = self.w.let(f"bitcast {mine.text} to i32") if e.dtype.is_float else mine.ref
        segment = (WARP - int(self.target.limits.get("warp", WARP))) << 8 | WARP - 1
        self.declared([self.isa.shuffle])
        found = self.w.let(self.isa.shuffle.format(value=ref, lane=lane, segment=segment))
        if e.dtype.is_float:
            found = self.w.let(f"bitcast i32 {found} to {scalar_type(e.dtype)}")
        return Val(found, e.dtype)

    def said(self, lines: Sequence[str], **words: int) -> None:
        """Lines of the instruction set."""
        self.declared(lines)
        for text in lines:
            self.w.line(text.format(**words))

    def declared(self, lines: Sequence[str]) -> None:
        """Declare what lines of the instruction set call."""
        for text in self.isa.declares:
            if any(text.split("(")[0].split()[-1] in line for line in lines):
                self.w.declare(text)

    def wait(self, s: Await) -> None:
        """This thread waits for what it copies."""
        if not self.isa.wait:
            raise error("E402", f"{self.func.name}: {self.target.name} has no copies to wait for")
        self.said(self.isa.wait, pending=s.pending)

    def loop(self, s: For) -> None:
        """Hardware axes are read from special registers."""
        self.sizes.last[s.var] = s.low + s.extent
        if "." not in s.kind:
            super().loop(s)
            return
        unit, axis = s.kind.split(".")
        number = self.special(self.isa.block if unit == "block" else self.isa.thread, axis)
        if unit == "block" and self.is_long(s, axis):
            self.strided(s, axis, number)
        else:
            self.bound_to(s, number)

    def bound_to(self, s: For, number: str) -> None:
        """The body of a loop, of which this is the turn with a number."""
        if self.scalar(s.low) != "0":
            number = self.w.let(f"add {self.number} {number}, {self.scalar(s.low)}")
        self.bind(s.var, Scalar(number, self.w.scope.level), *self.span(s))
        self.stmt(s.body)
        self.unbind(s.var)

    def special(self, name: str, axis: str) -> str:
        """A special register of an axis as an index."""
        name = name.format(axis=axis)
        self.w.declare(f"declare i32 @{name}()")
        number = self.w.shared(f"call i32 @{name}()", "axis", 0)
        if self.is_short:
            return number
        return self.w.shared(f"zext i32 {number} to i64", "axis", 0)

    def is_long(self, s: For, axis: str) -> bool:
        """Whether a loop over blocks may have more turns than an axis has blocks. A short kernel
        only has so many where sizes are not known."""
        most = self.target.limits.get(f"blocks_{axis}")
        if most is None or self.index.bounds(s.extent)[1] <= most:
            return False
        if not self.isa.blocks:
            raise error("E402", f"{self.func.name}: {self.target.name} has no {s.extent} blocks")
        if not self.is_short or isinstance(s.extent, Const):
            return True
        size = as_dim(s.extent, lambda v: symbol(v.name))
        if size is None:
            raise InternalError(f"{self.func.name}: blocks are counted by no dimension")
        self.sizes.assume(size, most)
        return False

    def strided(self, s: For, axis: str, number: str) -> None:
        """A block does all turns that lie as far apart as there are blocks. What it shares the next
        one may overwrite when no thread reads it any more."""
        w, kind = self.w, self.number
        count = self.special(self.isa.blocks, axis)
        left = w.let(f"sub {kind} {self.scalar(s.extent)}, {number}")
        more = w.let(f"sub {kind} {w.let(f'add {kind} {left}, {count}')}, 1")
        turn, end = w.open_loop("0", w.let(f"udiv {kind} {more}, {count}"), False, kind)
        far = w.let(f"mul {kind} {turn}, {count}")
        self.bound_to(s, w.let(f"add {kind} {far}, {number}"))
        if any(isinstance(n, Await) for n in walk(s)):
            self.wait(Await(0))
        if self.kernel.shared:
            self.barrier(Barrier("block"))
        w.close_loop(end)


def require_limits(func: Func, target: Target) -> int:
    """The bytes of shared memory that a launch takes; E402 where it exceeds the target's limits."""
    limits, kernel = target.limits, Kernel.of(func)
    size = kernel.block_size
    threads = size[0] * size[1] * size[2]
    if threads > limits.get("threads_per_block", threads):
        raise error("E402", f"{func.name}: {target.name} has no {threads} threads")
    for count, axis in zip(size, "xyz", strict=True):
        if count > limits.get(f"threads_{axis}", count):
            raise error("E402", f"{func.name}: too many threads along {axis}: {count}")
    held = [s.buffer for s in kernel.shared if s.buffer.space == "shared"]
    shared = sum(map(_shared_size, held))
    if shared > limits.get("shared_bytes", shared):
        raise error("E402", f"{func.name} needs {shared} bytes of shared memory")
    return shared


def _shared_size(b: Buffer) -> int:
    """Bytes of shared memory from one buffer to the next."""
    return -(-static_size(b) * b.dtype.bytes // SHARED_ALIGNMENT) * SHARED_ALIGNMENT


def zeros_global() -> str:
    """The block of zeros that suppressed loads from global memory read."""
    kind = f"[{ZERO_BYTES} x i8]"
    return f"{ZEROS} = internal addrspace(1) constant {kind} zeroinitializer, align 64"

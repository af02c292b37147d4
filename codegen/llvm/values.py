"""Scalar and vector values: expressions of the tensor IR as LLVM instructions.

Inside a vectorized loop every value is either lane-invariant (one scalar) or a vector; scalars are
broadcast when they meet vectors. A load under a ``Select`` or a mask is never executed where its
condition does not hold: conditions that vary over lanes become masks of masked loads, others
redirect the address to a block of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TypeVar

from aisc.codegen.abi import BAD_INDEX
from aisc.codegen.llvm.certain import certain_loads, conditional, is_certain
from aisc.codegen.llvm.index import NotLinearInLane, Parts, Scalar, flat_index
from aisc.codegen.llvm.types import (
    Val,
    literal,
    memory_suffix,
    memory_type,
    scalar_type,
    vector_type,
)
from aisc.codegen.llvm.vector_math import MathEmitter
from aisc.codegen.llvm.windows import WindowEmitter
from aisc.codegen.llvm.writer import Writer
from aisc.ir import dtypes
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    COMPARISONS,
    WITHIN,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    const,
    is_tested,
    of_dim,
)
from aisc.ir.tensor.func import Buffer

T = TypeVar("T")
ZERO_BLOCK = "@aisc.zeros"
ZERO_BYTES = 1024


class ExprEmitter(WindowEmitter):
    """Evaluates expressions; subclasses say where buffers live, and what their machine can do."""

    MATH: type[MathEmitter] = MathEmitter
    FILLS = True  # whether suppressed loads may read blocks of any constant

    def __init__(self, writer: Writer, features: Sequence[str] = ()) -> None:
        super().__init__(writer)
        self.math = self.MATH(writer, self.report, features)
        self.values: dict[Var, Val] = {}
        self.guard: str | None = None  # scalar i1: loads are executed only where it holds
        self.filling: Expr | None = None  # what suppressed loads read, if not zeros
        self.zero_beside: dict[str, str] = {}  # masked loads, zero where the mask does not hold
        self._checks = 0
        self.tested: dict[tuple[Expr, Expr], Expr] = {}  # indices and sizes that were tested before
        # Of the statement at hand: loads that it does whatever the conditions inside of it, and
        # calls of what they give.
        self.certain: frozenset[Load] = frozenset()
        self._calls: dict[Call, Val] = {}
        self.columns: dict[Load, Val] = {}  # loads of this turn that a tile has transposed

    # -- errors ------------------------------------------------------------------------------

    def report(self, code: int, failed: Val, *values: Val) -> None:
        """Set the error slot where `failed` holds in a lane that is executed; `values` are what
        the message speaks of."""

    def checked(
        self, buffer: Buffer, indices: tuple[Expr, ...]
    ) -> tuple[tuple[Expr, ...], Val | None]:
        """Indices that are tested (:func:`is_tested`): what is out of range is reported and reads
        or writes element 0 instead. With them a condition, where it must be tested, that there is
        an element 0."""
        if not any(map(is_tested, indices)):
            return indices, None
        safe, filled = [], None
        for i, size in zip(indices, buffer.shape, strict=True):
            safe.append(self._in_range(i, of_dim(size)) if is_tested(i) else i)
            if is_tested(i) and not (isinstance(size, int) and size > 0):
                text = f"icmp sgt {self.number} {self.scalar(of_dim(size))}, 0"
                some = Val(self.w.shared(text, "some"), dtypes.boolean)
                filled = some if filled is None else self._and(filled, some)
        return tuple(safe), filled

    def _in_range(self, index: Expr, size: Expr) -> Expr:
        if (index, size) in self.tested:
            return self.tested[index, size]
        value = index.args[0] if isinstance(index, Call) and index.name == WITHIN else index
        kept = self._inside(self.value(value), size)
        self._checks += 1
        name = Var(f"checked.{self._checks}")
        if kept.lanes == 1:
            self.bind(name, Scalar(self.counted_in(kept.ref), len(self.w.scopes) - 1), 0, inf)
        else:
            self.values[name] = kept
        return name

    def _inside(self, value: Val, size: Expr) -> Val:
        """`value` where it is at least 0 and below `size`; elsewhere that is reported, and 0."""
        scalar = self.index_value(size)
        limit = self.broadcast(scalar, value.lanes)
        text = f"icmp ult {value.text}, {limit.ref}"  # unsigned: negative ones are too large
        inside = Val(self.w.let(text), dtypes.boolean, value.lanes)
        self.report(BAD_INDEX, self.math.negate(inside), value, scalar)
        return self.math.select(inside, value, self.math.const(0, value))

    # -- buffers -----------------------------------------------------------------------------

    def address(self, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[str, int]:
        """Pointer to an element (of lane 0) and the lane stride in elements."""
        return self._element(buffer, self.parts(flat_index(buffer, indices)))

    def _element(self, buffer: Buffer, parts: Parts) -> tuple[str, int]:
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        pointer = self.base(buffer)
        by_level: dict[int, list[tuple[int, str, int]]] = {}
        for term in parts.terms:
            by_level.setdefault(term[0], []).append(term)
        for level in sorted(by_level):
            offset, at = self.sum(tuple(by_level[level]), 0)
            text = f"getelementptr {mem}, {space} {pointer}, {self.number} {offset}"
            pointer = self.w.shared(text, "p", max(at, level))
        if parts.const:
            text = f"getelementptr {mem}, {space} {pointer}, i64 {parts.const}"
            pointer = self.w.shared(text, "p")
        return pointer, parts.lane

    # -- loads -------------------------------------------------------------------------------

    def load(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Val:
        """The element(s) at `indices` for the lanes in force."""
        indices, filled = self.checked(buffer, indices)
        if filled is not None:
            return self.under(filled, lambda: self._plain_load(buffer, indices))
        return self._plain_load(buffer, indices)

    def _plain_load(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Val:
        """The element(s) at indices that are inside."""
        try:
            parts = self.parts(flat_index(buffer, indices))
        except NotLinearInLane:
            return self._from_anywhere(buffer, indices)
        pointer, stride = self._element(buffer, parts)
        saved, private = self.guard, self.is_private(buffer)
        if private and parts.is_within(buffer, self.lanes):
            self.guard = None  # which would keep it out of registers
        v = self._lanes_at(buffer, indices, pointer, stride)
        self.guard = saved
        return v

    def _lanes_at(
        self, buffer: Buffer, indices: tuple[Expr, ...], pointer: str, stride: int
    ) -> Val:
        """The elements at `pointer` and every `stride` elements from there."""
        if stride == 0:
            return self._shared_load(buffer, pointer)
        if stride == 1:
            return self.vector_load(buffer, pointer, self.alignment(buffer, indices))
        found = self.strided_load(buffer, pointer, stride)
        return self._from_anywhere(buffer, indices) if found is None else found

    def strided_load(self, buffer: Buffer, pointer: str, stride: int) -> Val | None:
        """Lanes that lie `stride` elements apart, if there is a better way than to gather them."""
        return None

    def _from_anywhere(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Val:
        """Lanes from places that are not one after the other."""
        found = self.shuffled(buffer, indices)
        if found is None:
            return self._gather(buffer, indices)
        return self._from_memory(found, buffer.dtype, self.lanes)

    def _shared_load(self, buffer: Buffer, pointer: str) -> Val:
        """One element for all lanes, if any is executed."""
        known = self.mask is None or self.constant_lanes(self.mask) is not None
        if self.mask is None or known or self.is_private(buffer):
            return self._scalar_load(buffer, pointer)
        some, saved, self.mask = self.math.any_lane(self.mask), self.mask, None
        result = self.under(some, lambda: self._scalar_load(buffer, pointer))
        self.mask = saved
        return result

    def is_private(self, buffer: Buffer) -> bool:
        """Whether a buffer is the thread's own, and longer than any mask."""
        return buffer.space in ("register", "stack")

    def _scalar_load(self, buffer: Buffer, pointer: str) -> Val:
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        pointer = self.guarded(pointer, buffer)
        ref = self.w.let(f"load {mem}, {space} {pointer}, align {buffer.dtype.bytes}")
        return self._from_memory(ref, buffer.dtype, 1)

    def spare(self, buffer: Buffer) -> str:
        """Pointer to memory, of the buffer's address space, that a suppressed load may read."""
        if isinstance(self.filling, Const) and self.filling != const(0, buffer.dtype):
            return self._block_of(self.filling)
        return ZERO_BLOCK

    def _block_of(self, value: Const) -> str:
        """A constant block that has a value everywhere."""
        text, kind = literal(value.value, value.dtype), memory_type(value.dtype)
        count = ZERO_BYTES // value.dtype.bytes
        name = f"@aisc.filled.{value.dtype.name}.{text}"
        block = f"<{count} x {kind}> splat ({kind} {text})"
        self.w.declare(f"{name} = private constant {block}, align 64")
        return name

    def guarded(self, pointer: str, buffer: Buffer) -> str:
        """The pointer, or one to zeros, where the guard in force does not hold."""
        if self.guard is None:
            return pointer
        kind, spare = self.pointer_type(buffer), self.spare(buffer)
        return self.w.let(f"select i1 {self.guard}, {kind} {pointer}, {kind} {spare}", "p")

    def alignment(self, buffer: Buffer, indices: tuple[Expr, ...]) -> int:
        """What the address of the first of some elements side by side is a multiple of: buffers of
        callers have the alignment of their elements alone."""
        return buffer.dtype.bytes

    def vector_load(self, buffer: Buffer, pointer: str, align: int = 0) -> Val:
        """Elements side by side, the first at a multiple of `align`."""
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        kind = vector_type(mem, self.lanes)
        size = align or buffer.dtype.bytes
        if self.mask is not None and not self.is_private(buffer):
            pointer = self.guarded(pointer, buffer)
            suffix = f"v{self.lanes}{memory_suffix(buffer.dtype)}.p0"
            name = f"llvm.masked.load.{suffix}"
            mask = f"<{self.lanes} x i1>"
            self.w.declare(f"declare {kind} @{name}(ptr, {mask}, {kind})")
            ref = self.w.let(
                f"call {kind} @{name}(ptr align {size} {pointer}, {mask} {self.mask.ref}, "
                f"{kind} zeroinitializer)"
            )
            value = self._from_memory(ref, buffer.dtype, self.lanes)
            self.zero_beside[value.ref] = self.mask.ref
            return value
        else:
            pointer = self.guarded(pointer, buffer)
            ref = self.w.let(f"load {kind}, {space} {pointer}, align {size}")
        return self._from_memory(ref, buffer.dtype, self.lanes)

    def _gather(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Val:
        """Load each lane from its own address."""
        offsets = self._lane_offsets(buffer, indices)
        mem, space, n = memory_type(buffer.dtype), self.pointer_type(buffer), self.lanes
        pointers = self.w.let(
            f"getelementptr {mem}, {space} {self.base(buffer)}, <{n} x i64> {offsets.ref}", "p"
        )
        mask = self._lane_mask()
        kind = vector_type(mem, n)
        name = f"llvm.masked.gather.v{n}{memory_suffix(buffer.dtype)}.v{n}p0"
        self.w.declare(f"declare {kind} @{name}(<{n} x ptr>, <{n} x i1>, {kind})")
        ref = self.w.let(
            f"call {kind} @{name}(<{n} x ptr> align {buffer.dtype.bytes} {pointers}, "
            f"<{n} x i1> {mask}, {kind} zeroinitializer)"
        )
        return self._from_memory(ref, buffer.dtype, n)

    def _lane_offsets(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Val:
        flat = self.index.simplify(flat_index(buffer, indices))
        return self.broadcast(self.value(flat), self.lanes)

    def _lane_mask(self) -> str:
        """The mask in force, with the scalar guard folded in, as an i1 vector."""
        if self.mask is None and self.guard is None:
            return "splat (i1 true)"
        if self.guard is None:
            assert self.mask is not None, "one of mask and guard is set"
            return self.mask.ref
        spread = self.broadcast(Val(self.guard, dtypes.boolean), self.lanes)
        if self.mask is None:
            return spread.ref
        return self.w.let(f"and {self.mask.text}, {spread.ref}")

    def _from_memory(self, ref: str, dtype: DType, lanes: int) -> Val:
        if dtype.kind == "bool":
            ref = self.w.let(
                f"trunc {vector_type('i8', lanes)} {ref} to {vector_type('i1', lanes)}"
            )
        return Val(ref, dtype, lanes)

    # -- expressions -------------------------------------------------------------------------

    def value(self, e: Expr) -> Val:
        """Evaluate an expression."""
        if isinstance(e, Const):
            return Val(literal(e.value, e.dtype), e.dtype)
        if isinstance(e, Var):
            return self._variable(e)
        if isinstance(e, Load):
            if self.columns and e in self.columns:
                return self.columns[e]
            return self.unconditional(e) if e in self.certain else self.load(e.buffer, e.indices)
        if isinstance(e, Select):
            return self._select(e)
        if isinstance(e, Cast):
            whole = rounded(e)
            if whole is not None:
                return self.math.rounded_to_int(self.value(whole[0]), whole[1], e.dtype)
            return self.convert(self.value(e.a), e.dtype)
        if isinstance(e, Unary):
            return self.math.unary(e.op, self.value(e.a))
        if isinstance(e, Call):
            return self._call(e)
        assert isinstance(e, Binary), f"unknown expression {type(e).__name__}"
        return self._binary_value(e)

    def _variable(self, v: Var) -> Val:
        if v in self.values:
            return self.values[v]
        if v == self.lane_var:
            items = ", ".join(f"i64 {k}" for k in range(self.lanes))
            return Val(f"<{items}>", dtypes.i64, self.lanes)
        return self.index_value(v)

    def index_value(self, e: Expr) -> Val:
        """An index that no lane bears on, as a value."""
        ref, level = self.leveled(e)
        if self.number != "i64" and ref.startswith("%"):
            ref = self.w.shared(f"sext {self.number} {ref} to i64", "t", level)
        return Val(ref, dtypes.i64)

    def counted_in(self, ref: str) -> str:
        """A value of 64 bits as an index, which it is known to be."""
        return ref if self.number == "i64" else self.w.let(f"trunc i64 {ref} to {self.number}")

    def _binary_value(self, e: Binary) -> Val:
        if e.dtype is dtypes.i64 and self.is_index(e):
            try:
                return self.index_value(e)
            except NotLinearInLane:
                pass
        if e.op == "add" and e.dtype.is_float:
            fused = self._fused(e)
            if fused is not None:
                return fused
        known = self.known_comparison(e)
        if known is not None:
            return known
        a, b = self.value(e.a), self.value(e.b)
        if e.dtype is dtypes.boolean and e.op in ("and", "or"):
            decided = self.decided(e.op, a, b)
            if decided is not None:
                return decided
        a, b = self.unify(a, b)
        if e.op in COMPARISONS:
            return self.math.compare(e.op, a, b)
        return self.math.binary(e.op, a, b, self._signs(e))

    def _signs(self, e: Binary) -> bool:
        """Whether both operands of an integer division are known to be non-negative."""
        if e.op not in ("floordiv", "mod", "truncdiv", "truncmod") or e.dtype is not dtypes.i64:
            return False
        return self.index.bounds(e.a)[0] >= 0 and self.index.bounds(e.b)[0] > 0

    def _fused(self, e: Binary) -> Val | None:
        """``c + a*b`` as one fused multiply-add: the only contraction, always done, so that
        results do not depend on the schedule."""
        for product, addend in ((e.b, e.a), (e.a, e.b)):
            if isinstance(product, Binary) and product.op == "mul":
                values = [self.value(x) for x in (product.a, product.b, addend)]
                lanes = max(v.lanes for v in values)
                return self.math.fma(*(self.broadcast(v, lanes) for v in values))
        return None

    def _call(self, e: Call) -> Val:
        """An elementary function; once for all its uses in a statement where no condition inside
        of it bears on the arguments."""
        if e.name == WITHIN:
            return self._inside(self.value(e.args[0]), e.args[1])
        shared = bool(self.certain) and is_certain(e, self.certain)
        if shared and e in self._calls:
            return self._calls[e]
        args = [self.value(a) for a in e.args]
        lanes = max((a.lanes for a in args), default=1)
        result = self.math.call(e.name, [self.broadcast(a, lanes) for a in args], e.dtype)
        if shared:
            self._calls[e] = result
        return result

    def whole(self, e: Expr) -> Val:
        """The value of a statement. What it loads or calls outside of the arms of its selects is
        known in the arms too: there it is no conditional load, and no second call."""
        self.outer = self.mask, self.guard
        self.certain = frozenset(certain_loads(e)) if conditional(e) else frozenset()
        result = self.value(e)
        self.certain, self._calls = frozenset(), {}
        return result

    def unconditional(self, e: Load) -> Val:
        """A load that the statement does in any case: under its own mask and guard alone."""
        saved = self.mask, self.guard
        self.mask, self.guard = self.outer
        result = self.load(e.buffer, e.indices)
        self.mask, self.guard = saved
        return result

    def _select(self, e: Select) -> Val:
        e = self.alike_first(e)
        test = self.settled(e.cond) if self.fixed else e.cond
        if isinstance(test, Const):
            return self.value(e.then if test.value else e.other)
        cond = self.value(e.cond)  # not `test`, whose loads would not be found among the certain
        if cond.ref in ("true", "false"):
            return self.value(e.then if cond.ref == "true" else e.other)
        if cond.lanes == 1 and self._is_filled(e):
            saved, self.filling = self.filling, e.other
            result = self.under(cond, lambda: self.value(e.then))
            self.filling = saved
            return result
        then, zeros = self.under(cond, lambda: self._with_zeros(e.then))
        if zeros and e.other == const(0, e.dtype) and cond.lanes == then.lanes:
            return then
        other = self.under(self.opposite(cond), lambda: self.value(e.other))
        lanes = max(cond.lanes, then.lanes, other.lanes)
        then, other = self.broadcast(then, lanes), self.broadcast(other, lanes)
        if cond.lanes > 1:
            cond = self.broadcast(cond, lanes)
        return Val(self.w.let(f"select {cond.text}, {then.text}, {other.text}"), e.dtype, lanes)

    def _with_zeros(self, e: Expr) -> tuple[Val, bool]:
        """A value, and whether it is zero in the lanes that the mask leaves out."""
        v, mask = self.value(e), self.mask
        return v, mask is not None and self.zero_beside.get(v.ref) == mask.ref

    def _is_filled(self, e: Select) -> bool:
        """Whether the select is a load or a constant, which a suppressed load reads instead."""
        if isinstance(e.then, Select) and e.then.other == e.other:
            return self._is_filled(e.then)
        if not isinstance(e.then, Load) or e.then.buffer.space != "global":
            return False
        if e.then in self.certain:
            return False
        plain = self.FILLS and isinstance(e.other, Const) and e.then.dtype.is_float
        return e.other == const(0, e.dtype) or plain

    def under(self, cond: Val, action: Callable[[], T]) -> T:
        """Evaluate `action` with loads restricted to where `cond` holds."""
        saved = self.mask, self.guard
        if cond.lanes > 1:
            self.mask = cond if self.mask is None else self._and(self.mask, cond)
        else:
            both = cond.ref
            if self.guard is not None:
                both = self.w.shared(f"and i1 {self.guard}, {cond.ref}")
            self.guard = both
        result = action()
        self.mask, self.guard = saved
        return result

    def _atom(self, atom: Expr) -> tuple[str, int]:
        if isinstance(atom, Var) and atom in self.values:
            return self.data_dependent(atom)
        return super()._atom(atom)

    def data_dependent(self, atom: Expr) -> tuple[str, int]:
        """An index that comes from data: evaluated here, valid in the innermost scope."""
        value = self.value(atom)
        if value.lanes > 1:
            raise NotLinearInLane
        return value.ref, len(self.w.scopes) - 1

    # -- shapes and types --------------------------------------------------------------------

    def unify(self, a: Val, b: Val) -> tuple[Val, Val]:
        """Both operands with the same number of lanes."""
        lanes = max(a.lanes, b.lanes)
        return self.broadcast(a, lanes), self.broadcast(b, lanes)

    def broadcast(self, v: Val, lanes: int) -> Val:
        """A scalar repeated over all lanes; vectors pass."""
        if v.lanes == lanes:
            return v
        if v.lanes != 1:
            raise InternalError(f"{v.lanes} lanes where {lanes} are needed")
        kind = vector_type(scalar_type(v.dtype), lanes)
        if not v.ref.startswith("%"):
            return Val(f"splat ({scalar_type(v.dtype)} {v.ref})", v.dtype, lanes)
        first = self.w.let(f"insertelement {kind} poison, {v.text}, i64 0")
        spread = self.w.let(
            f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )
        return Val(spread, v.dtype, lanes)

    def convert(self, v: Val, to: DType) -> Val:
        """Conversion with the semantics of ``Cast``."""
        return self.math.convert(v, to)


def rounded(e: Cast) -> tuple[Expr, int] | None:
    """(x, n) of ``cast(round(x) + n)``, a short integer made of an f32."""
    if e.dtype.kind not in ("int", "uint") or e.dtype.bits > 16 or e.a.dtype is not dtypes.f32:
        return None
    inner, more = e.a, 0
    if isinstance(inner, Binary) and inner.op == "add" and isinstance(inner.b, Const):
        value = float(inner.b.value)
        if not e.dtype.min_value <= value <= e.dtype.max_value or not value.is_integer():
            return None
        inner, more = inner.a, int(value)
    return (inner.a, more) if isinstance(inner, Unary) and inner.op == "round" else None

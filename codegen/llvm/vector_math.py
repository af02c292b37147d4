"""Arithmetic on scalars and vectors as LLVM instructions.

No fast-math flags anywhere: NaN propagates through min and max, denormals are kept, integers wrap,
division by zero and INT_MIN / -1 are guarded (LLVM leaves them undefined). The elementary
functions are in :mod:`aisc.codegen.llvm.elementary`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

from aisc.codegen.abi import DIVISION_BY_ZERO
from aisc.codegen.llvm import soft_float
from aisc.codegen.llvm.elementary import Elementary
from aisc.codegen.llvm.types import (
    Val,
    is_short,
    known_integer,
    literal,
    scalar_type,
    vector_type,
)
from aisc.codegen.llvm.writer import Writer
from aisc.ir import dtypes
from aisc.ir.dtypes import DType

_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INT = {"add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor"}
_ORDER = {"lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "eq": "eq", "ne": "ne"}
# Lanes from which a vector is rounded and converted at once; shorter ones some machines take apart.
LEAST_ROUNDED = 4


# Called with an error code and the lanes in which it has happened.
Report = Callable[[int, Val], None]


class MathEmitter:
    """Emits arithmetic; operands of binary operations already have the same number of lanes."""

    def __init__(self, writer: Writer, report: Report, features: Sequence[str] = ()) -> None:
        self.w = writer
        self.report = report
        self.features = features  # LLVM's names of what the target can do
        self.elementary = Elementary(self)

    def is_soft(self, dtype: DType) -> bool:
        """Whether arithmetic of a type is that of f32 (:mod:`.soft_float`)."""
        return is_short(dtype)

    def converts(self, dtype: DType) -> bool:
        """Whether the target has instructions between a short type and f32."""
        return False

    # -- building blocks used by the elementary functions too ------------------------------------

    def let(self, text: str, dtype: DType, lanes: int) -> Val:
        """An instruction's result as a value."""
        return Val(self.w.let(text), dtype, lanes)

    def const(self, value: float | int | bool, like: Val, dtype: DType | None = None) -> Val:
        """A literal with as many lanes as `like`."""
        t = dtype or like.dtype
        text = literal(value, t)
        if like.lanes > 1:
            text = f"splat ({scalar_type(t)} {text})"
        return Val(text, t, like.lanes)

    def intrinsic(self, name: str, args: Sequence[Val], result: DType | None = None) -> Val:
        """Call an overloaded intrinsic ``llvm.<name>.<type>`` of the first operand's type."""
        first = args[0]
        kind = vector_type(scalar_type(result or first.dtype), first.lanes)
        full = f"llvm.{name}.{_mangled(first)}"
        self.w.declare(f"declare {kind} @{full}({', '.join(a.type for a in args)})")
        return self.let(
            f"call {kind} @{full}({', '.join(a.text for a in args)})",
            result or first.dtype,
            first.lanes,
        )

    # -- what some machines can do ---------------------------------------------------------------

    @property
    def has_bit_masks(self) -> bool:
        """Whether masks of lanes are bits, so that comparing is done in vectors of any type."""
        return False

    def has_masked_loads(self, dtype: DType) -> bool:
        """Whether some lanes of a vector of such elements are loaded by one instruction."""
        return self.has_bit_masks

    def has_scaling(self, v: Val) -> bool:
        """Whether the target multiplies such values by powers of two in one instruction."""
        return False

    @property
    def has_look_up(self) -> bool:
        """Whether one instruction takes each of 16 f32 lanes from a table of 16."""
        return False

    def look_up(self, table: Sequence[float], place: Val) -> Val:
        """``table[place % 16]`` in each of 16 lanes, where :attr:`has_look_up`."""
        raise NotImplementedError

    def scale_floor(self, v: Val, n: Val) -> Val:
        """``v * 2^floor(n)`` of 16 lanes, rounded once to nearest, where :attr:`has_look_up`."""
        raise NotImplementedError

    def add_down(self, a: Val, b: Val) -> Val:
        """``a + b`` of 16 lanes, rounded towards minus infinity, where :attr:`has_look_up`."""
        raise NotImplementedError

    def ldexp(self, v: Val, k: Val) -> Val:
        """``v * 2^k`` rounded once, where :meth:`has_scaling` says so."""
        name = f"llvm.ldexp.{_mangled(v)}.{_mangled(k)}"
        self.w.declare(f"declare {v.type} @{name}({v.type}, {k.type})")
        return self.let(f"call {v.type} @{name}({v.text}, {k.text})", v.dtype, v.lanes)

    def element(self, table: Sequence[int], place: Val) -> Val:
        """``table[place]`` in each lane, from constants of 64 bits in memory."""
        kind, n = vector_type("i64", place.lanes), place.lanes
        numbers = ", ".join(f"i64 {literal(t, dtypes.u64)}" for t in table)
        name = f"@table.{zlib.crc32(numbers.encode()):08x}"
        self.w.declare(f"{name} = private unnamed_addr constant [{len(table)} x i64] [{numbers}]")
        address = self.w.let(f"getelementptr i64, ptr {name}, {place.text}")
        if n == 1:
            return self.let(f"load i64, ptr {address}", dtypes.u64, 1)
        ones, pointers = f"<{n} x i1> splat (i1 true)", f"<{n} x ptr>"
        gather = f"@llvm.masked.gather.v{n}i64.v{n}p0"
        self.w.declare(f"declare {kind} {gather}({pointers}, i32, <{n} x i1>, {kind})")
        args = f"{pointers} {address}, i32 8, {ones}, {kind} poison"
        return self.let(f"call {kind} {gather}({args})", dtypes.u64, n)

    def any_lane(self, mask: Val) -> Val:
        """Whether a mask lets any lane pass."""
        n = mask.lanes
        bits = self.w.shared(f"bitcast {mask.text} to i{n}", "m")
        return Val(self.w.shared(f"icmp ne i{n} {bits}, 0", "m"), dtypes.boolean)

    def branch(
        self, rare: Val, there: Callable[[], Sequence[Val]], usual: Sequence[Val]
    ) -> list[Val]:
        """Values that `there` emits code for, run when any lane is `rare`; else `usual`."""
        cond = rare.ref
        if rare.lanes > 1:
            cond = self.any_lane(rare).ref
        before = self.w.scope.block
        end = self.w.open_if(cond)
        others, inside = list(there()), self.w.scope.block
        self.w.close_if(end)
        return [
            self.let(f"phi {a.type} [{a.ref}, %{before}], [{b.ref}, %{inside}]", a.dtype, a.lanes)
            for a, b in zip(usual, others, strict=True)
        ]

    def halves(self, v: Val) -> tuple[Val, Val]:
        """The first and the second half of the lanes."""
        n = v.lanes // 2
        low, high = (", ".join(f"i32 {k}" for k in range(first, first + n)) for first in (0, n))
        text = f"shufflevector {v.text}, {v.type} poison, <{n} x i32>"
        return self.let(f"{text} <{low}>", v.dtype, n), self.let(f"{text} <{high}>", v.dtype, n)

    def joined(self, a: Val, b: Val) -> Val:
        """The lanes of `a`, then as many of `b`."""
        n = 2 * a.lanes
        items = ", ".join(f"i32 {k}" for k in range(n))
        return self.let(f"shufflevector {a.text}, {b.text}, <{n} x i32> <{items}>", a.dtype, n)

    def resized(self, v: Val, lanes: int) -> Val:
        """The first `lanes` lanes; more than there are repeat them."""
        if v.lanes == lanes:
            return v
        kind = scalar_type(v.dtype)
        if v.lanes == 1:
            one = f"<{lanes} x {kind}>"
            first = self.w.let(f"insertelement {one} poison, {v.text}, i64 0")
            text = f"shufflevector {one} {first}, {one} poison, <{lanes} x i32> zeroinitializer"
        elif lanes == 1:
            text = f"extractelement {v.text}, i64 0"
        else:
            items = ", ".join(f"i32 {k % v.lanes}" for k in range(lanes))
            text = f"shufflevector {v.text}, {v.type} poison, <{lanes} x i32> <{items}>"
        return self.let(text, v.dtype, lanes)

    def select(self, cond: Val, a: Val, b: Val) -> Val:
        """Lane-wise choice."""
        return self.let(f"select {cond.text}, {a.text}, {b.text}", a.dtype, a.lanes)

    def bitcast(self, v: Val, to: DType) -> Val:
        """The same bits as another type of the same width."""
        kind = vector_type(scalar_type(to), v.lanes)
        if kind == v.type:
            return Val(v.ref, to, v.lanes)
        return self.let(f"bitcast {v.text} to {kind}", to, v.lanes)

    def negate(self, cond: Val) -> Val:
        """Logical not."""
        if cond.ref in ("true", "false"):
            return Val("false" if cond.ref == "true" else "true", cond.dtype, 1)
        one = self.const(True, cond)
        return self.let(f"xor {cond.text}, {one.ref}", dtypes.boolean, cond.lanes)

    def fma(self, a: Val, b: Val, c: Val) -> Val:
        """``a*b + c`` rounded once."""
        if a.dtype.bits < 32:
            wide = [self.convert(x, dtypes.f32) for x in (a, b, c)]
            return self.convert(self.intrinsic("fma", wide), a.dtype)
        return self.intrinsic("fma", (a, b, c))

    # -- operators ---------------------------------------------------------------------------

    def unary(self, op: str, a: Val) -> Val:
        """One of ``UNARY_OPS``."""
        if self.is_soft(a.dtype):
            return self.convert(self.unary(op, self.convert(a, dtypes.f32)), a.dtype)
        if op == "not":
            return self.negate(a) if a.dtype.kind == "bool" else self._bit_not(a)
        if a.dtype.is_float:
            if op == "neg":
                return self.let(f"fneg {a.text}", a.dtype, a.lanes)
            name = {"abs": "fabs", "round": "roundeven"}.get(op, op)
            return self.intrinsic(name, (a,))
        if op == "neg":
            return self.let(f"sub {self.const(0, a).text}, {a.ref}", a.dtype, a.lanes)
        if op == "abs" and a.dtype.kind == "int":
            negative = self.compare("lt", a, self.const(0, a))
            return self.select(negative, self.unary("neg", a), a)
        return a  # abs of unsigned; floor, ceil, trunc, round of integers

    def _bit_not(self, a: Val) -> Val:
        ones = self.const(-1, a)
        return self.let(f"xor {a.text}, {ones.ref}", a.dtype, a.lanes)

    def binary(self, op: str, a: Val, b: Val, non_negative: bool = False) -> Val:
        """One of ``BINARY_OPS`` other than comparisons."""
        if self.is_soft(a.dtype):
            wide = self.binary(op, self.convert(a, dtypes.f32), self.convert(b, dtypes.f32))
            return self.convert(wide, a.dtype)
        if op in ("min", "max"):
            return self._extreme(op, a, b)
        if op == "pow":
            return self.elementary.power(a, b)
        if a.dtype.is_float:
            return self._float(op, a, b)
        if op in _INT:
            return self.let(f"{_INT[op]} {a.text}, {b.ref}", a.dtype, a.lanes)
        if op in ("shl", "shr"):
            return self._shift(op, a, b)
        assert op in ("floordiv", "mod", "truncdiv", "truncmod", "div"), f"unknown operator {op}"
        if non_negative:
            name = "udiv" if "div" in op else "urem"
            return self.let(f"{name} {a.text}, {b.ref}", a.dtype, a.lanes)
        return self._divide(op, a, b)

    def _float(self, op: str, a: Val, b: Val) -> Val:
        if op in _FLOAT:
            return self.let(f"{_FLOAT[op]} {a.text}, {b.ref}", a.dtype, a.lanes)
        if op in ("truncmod", "mod"):
            return self._float_remainder(op, a, b)
        quotient = self.let(f"fdiv {a.text}, {b.ref}", a.dtype, a.lanes)
        return self.intrinsic("trunc" if op == "truncdiv" else "floor", (quotient,))

    def _float_remainder(self, op: str, a: Val, b: Val) -> Val:
        """C's fmod, or Python's modulo with the divisor's sign."""
        rem = self.let(f"frem {a.text}, {b.ref}", a.dtype, a.lanes)
        if op == "truncmod":
            return rem
        zero = self.const(0.0, a)
        nonzero = self.compare("ne", rem, zero)
        differs = self.let(
            f"xor {self.compare('lt', rem, zero).text}, {self.compare('lt', b, zero).ref}",
            dtypes.boolean,
            a.lanes,
        )
        lift = self.let(f"and {nonzero.text}, {differs.ref}", dtypes.boolean, a.lanes)
        return self.select(lift, self._float("add", rem, b), rem)

    def _extreme(self, op: str, a: Val, b: Val) -> Val:
        if a.dtype.is_float:
            # llvm.minimum and llvm.maximum order -0 before +0; x86 has no such instruction, so
            # two selects are emitted, and the first of equal ones is taken.
            return self._float_extreme(op, a, b)
        if a.dtype.kind == "bool":
            name = "and" if op == "min" else "or"
            return self.let(f"{name} {a.text}, {b.ref}", a.dtype, a.lanes)
        sign = "s" if a.dtype.kind == "int" else "u"
        return self.intrinsic(f"{sign}{op}", (a, b))

    def _float_extreme(self, op: str, a: Val, b: Val) -> Val:
        """``b op a ? b : a``, which gives `a` when either is NaN or both are equal, then `b` where
        `b` is NaN. A reduction's state is `a`: its next value waits for one instruction and one
        move, as the test for NaN looks at the new element alone."""
        if not a.ref.startswith("%"):  # a literal is not NaN
            return self._better(op, a, b, or_equal=a.ref == self.const(0.0, a).ref)
        chosen = self._better(op, b, a)
        if not b.ref.startswith("%"):
            return chosen
        nan = self.let(f"fcmp uno {b.text}, {b.ref}", dtypes.boolean, b.lanes)
        return self.select(nan, b, chosen)

    def _better(self, op: str, a: Val, b: Val, or_equal: bool = False) -> Val:
        """``a op b ? a : b``: one instruction of x86, which gives `b` when either is NaN; with
        `or_equal` two, which give `a` of zeros with different signs."""
        compare = ("ol" if op == "min" else "og") + ("e" if or_equal else "t")
        cond = self.let(f"fcmp {compare} {a.text}, {b.ref}", dtypes.boolean, a.lanes)
        return self.select(cond, a, b)

    def _shift(self, op: str, a: Val, b: Val) -> Val:
        """Shifts by the width or more give zero (or the sign)."""
        top, known = self.const(a.dtype.bits - 1, a), known_integer(b)
        if known is not None and 0 <= known < a.dtype.bits:
            plain = "shl" if op == "shl" else "ashr" if a.dtype.kind == "int" else "lshr"
            return self.let(f"{plain} {a.text}, {b.ref}", a.dtype, a.lanes) if known else a
        over = self.let(f"icmp ugt {b.text}, {top.ref}", dtypes.boolean, a.lanes)
        by = self.select(over, top, b)
        if op == "shr" and a.dtype.kind == "int":
            return self.let(f"ashr {a.text}, {by.ref}", a.dtype, a.lanes)
        name = "shl" if op == "shl" else "lshr"
        shifted = self.let(f"{name} {a.text}, {by.ref}", a.dtype, a.lanes)
        return self.select(over, self.const(0, a), shifted)

    def _divide(self, op: str, a: Val, b: Val) -> Val:
        """Integer division; by zero is reported and gives 0, INT_MIN / -1 wraps."""
        zero, one = self.const(0, a), self.const(1, a)
        by_zero = self.compare("eq", b, zero)
        self.report(DIVISION_BY_ZERO, by_zero)
        divisor = self.select(by_zero, one, b)
        if a.dtype.kind == "uint":
            name = "udiv" if "div" in op else "urem"
            result = self.let(f"{name} {a.text}, {divisor.ref}", a.dtype, a.lanes)
            return self.select(by_zero, zero, result)
        minus = self.compare("eq", b, self.const(-1, a))
        divisor = self.select(minus, one, divisor)
        quotient = self.let(f"sdiv {a.text}, {divisor.ref}", a.dtype, a.lanes)
        quotient = self.select(minus, self.unary("neg", a), quotient)
        product = self.binary("mul", quotient, b)
        rem = self.binary("sub", a, product)
        if op in ("floordiv", "mod"):
            signs = self.binary("xor", rem, b)
            negative = self.compare("lt", signs, zero)
            adjust = self.let(
                f"and {negative.text}, {self.compare('ne', rem, zero).ref}",
                dtypes.boolean,
                a.lanes,
            )
            quotient = self.select(adjust, self.binary("sub", quotient, one), quotient)
            rem = self.select(adjust, self.binary("add", rem, b), rem)
        result = quotient if "div" in op else rem
        return self.select(by_zero, zero, result)

    def compare(self, op: str, a: Val, b: Val) -> Val:
        """A comparison; with NaN all but ``ne`` are false."""
        if self.is_soft(a.dtype):
            a, b = (self.convert(x, dtypes.f32) for x in (a, b))
        if a.dtype.is_float:
            prefix = "une" if op == "ne" else f"o{_ORDER[op]}"
            return self.let(f"fcmp {prefix} {a.text}, {b.ref}", dtypes.boolean, a.lanes)
        if op in ("eq", "ne"):
            pred = op
        else:
            pred = ("s" if a.dtype.kind == "int" else "u") + op
        return self.let(f"icmp {pred} {a.text}, {b.ref}", dtypes.boolean, a.lanes)

    def call(self, name: str, args: Sequence[Val], dtype: DType) -> Val:
        """One of ``MATH_CALLS``."""
        a = args[0]
        if name == "fma":
            return self.fma(*args)
        if name == "ordinal":
            return self._ordinal(a)
        if self.is_soft(a.dtype):
            wide = [self.convert(x, dtypes.f32) for x in args]
            return self.convert(self.call(name, wide, dtypes.f32), dtype)
        if name == "isnan":
            return self.let(f"fcmp uno {a.text}, {a.ref}", dtypes.boolean, a.lanes)
        if name == "isinf":
            return self.compare("eq", self.unary("abs", a), self.const(float("inf"), a))
        return self.elementary.call(name, a)

    def _ordinal(self, v: Val) -> Val:
        """The magnitude of a float as an integer with its sign; NaN is the greatest."""
        wide = {16: dtypes.i16, 32: dtypes.i32}.get(v.dtype.bits, dtypes.i64)
        bits = self.bitcast(v, wide)
        most = self.const(wide.max_value, bits)
        magnitude = self.binary("and", bits, most)
        minus = self.compare("lt", bits, self.const(0, bits))
        signed = self.select(minus, self.binary("sub", self.const(0, bits), magnitude), magnitude)
        infinity = self.bitcast(self.const(float("inf"), v), wide)
        return self.select(self.compare("gt", magnitude, infinity), most, signed)

    # -- conversions -------------------------------------------------------------------------

    def convert(self, v: Val, to: DType) -> Val:
        """``Cast``: floats to integers truncate and saturate, integers wrap."""
        if v.dtype is to:
            return v
        kind = vector_type(scalar_type(to), v.lanes)
        if to.kind == "bool":
            return self.compare("ne", v, self.const(0, v))
        if v.dtype.is_float and to.is_float:
            if v.dtype.bits == to.bits:  # f16 <-> bf16
                return self.convert(self.convert(v, dtypes.f32), to)
            if v.dtype.bits == 64 and to.bits == 16:
                return self.convert(self._to_odd(v), to)
            if self.is_soft(to):
                return soft_float.narrowed(self, v, to)
            if self.is_soft(v.dtype):
                return self.convert(soft_float.widened(self, v), to)
            name = "fpext" if to.bits > v.dtype.bits else "fptrunc"
            return self.let(f"{name} {v.text} to {kind}", to, v.lanes)
        if v.dtype.is_float:
            return self._float_to_int(v, to)
        if self.is_soft(to):
            return self.convert(self.convert(v, dtypes.f32), to)
        if to.is_float:
            name = "sitofp" if v.dtype.kind == "int" else "uitofp"
            return self.let(f"{name} {v.text} to {kind}", to, v.lanes)
        width = 1 if v.dtype.kind == "bool" else v.dtype.bits
        if width == to.bits:
            return Val(v.ref, to, v.lanes)
        known = known_integer(v) if v.lanes == 1 else None
        if known is not None and to.min_value <= known <= to.max_value:
            return Val(literal(known, to), to)
        name = "trunc" if width > to.bits else "sext" if v.dtype.kind == "int" else "zext"
        return self.let(f"{name} {v.text} to {kind}", to, v.lanes)

    def _to_odd(self, v: Val) -> Val:
        """f64 as f32 rounded to odd, so that rounding on to 16 bits is as if done once (Boldo &
        Melquiond 2008); a direct conversion would call the compiler's run time."""
        near = self.convert(v, dtypes.f32)
        back = self.convert(near, dtypes.f64)
        larger = self.compare("gt", self.unary("abs", back), self.unary("abs", v))
        inexact = self.let(f"fcmp one {back.text}, {v.ref}", dtypes.boolean, v.lanes)
        bits = self.bitcast(near, dtypes.i32)
        bits = self.binary("sub", bits, self.convert(larger, dtypes.i32))
        bits = self.binary("or", bits, self.convert(inexact, dtypes.i32))
        return self.bitcast(bits, dtypes.f32)

    def _float_to_int(self, v: Val, to: DType) -> Val:
        """Truncation; what does not fit gives the nearest integer that does, NaN gives 0."""
        if v.dtype.bits < 32:
            v = self.convert(v, dtypes.f32)
        if to.bits <= 16 and v.lanes > 1:
            return self._float_to_short(v, to)
        kind = vector_type(scalar_type(to), v.lanes)
        target = f"v{v.lanes}i{to.bits}" if v.lanes > 1 else f"i{to.bits}"
        sign = "si" if to.kind == "int" else "ui"
        name = f"llvm.fpto{sign}.sat.{target}.{_mangled(v)}"
        self.w.declare(f"declare {kind} @{name}({v.type})")
        return self.let(f"call {kind} @{name}({v.text})", to, v.lanes)

    def _float_to_short(self, v: Val, to: DType) -> Val:
        """The same for lanes of a short type, whose values floats hold: LLVM would take each lane
        for itself."""
        v = self._within(v, to, 0)
        wide = self.let(f"fptosi {v.text} to <{v.lanes} x i32>", dtypes.i32, v.lanes)
        return self.convert(wide, to)

    def _within(self, v: Val, to: DType, more: int) -> Val:
        """What gives a value of `to` when `more` is added to its integer: the nearest one, 0 for
        NaN, which a comparison with the lowest one leaves out."""
        if to.min_value:
            number = self.let(f"fcmp ord {v.text}, {self.const(0, v).ref}", dtypes.boolean, v.lanes)
            v = self.select(number, v, self.const(-more, v))
        for op, bound in (("gt", to.min_value), ("lt", to.max_value)):
            limit = self.const(bound - more, v)
            v = self.select(self.compare(op, v, limit), v, limit)
        return v

    def rounded_to_int(self, v: Val, more: int, to: DType) -> Val:
        """``cast(round(v) + more)`` for f32 and a short integer, both saturated: machines round
        as they convert."""
        if v.lanes < LEAST_ROUNDED:
            v = self.unary("round", v)
            return self.convert(self.binary("add", v, self.const(more, v)) if more else v, to)
        v = self._within(v, to, more)
        kind, name = f"<{v.lanes} x i32>", f"llvm.lrint.v{v.lanes}i32.v{v.lanes}f32"
        self.w.declare(f"declare {kind} @{name}({v.type})")
        wide = self.let(f"call {kind} @{name}({v.text})", dtypes.i32, v.lanes)
        if more:
            wide = self.binary("add", wide, self.const(more, wide))
        return self.convert(wide, to)


def _mangled(v: Val) -> str:
    """The type suffix of an overloaded intrinsic."""
    name = v.dtype.name if v.dtype.is_float else f"i{v.dtype.bits}"
    if v.dtype.kind == "bool":
        name = "i1"
    return f"v{v.lanes}{name}" if v.lanes > 1 else name

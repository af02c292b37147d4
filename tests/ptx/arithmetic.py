"""What instructions compute that touch no memory: integers, floats, predicates, conversions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.memory import Fault
from ptx.state import KINDS, Mask, State
from ptx.syntax import Instruction, Several

Array = NDArray[Any]


def kind_of(i: Instruction, back: int = 1) -> str:
    """The last type among the modifiers, or the one before it."""
    return _kind(i.parts, back)


@cache
def _kind(parts: tuple[str, ...], back: int) -> str:
    found = [p for p in parts[1:] if p in KINDS]
    if len(found) < back:
        raise Fault("unknown", "no type")
    return found[-back]


# -- arithmetic -----------------------------------------------------------------------------------


def fused(a: Array, b: Array, c: Array) -> Array:
    """``a * b + c`` rounded once."""
    if a.dtype == np.float64:
        return _fused_double(a, b, c)
    wide = [x.astype(np.float64) for x in (a, b, c)]
    product = wide[0] * wide[1]  # exact
    total = product + wide[2]
    back = total - product
    rest = (product - (total - back)) + (wide[2] - back)
    bits = np.atleast_1d(total).view(np.int64).copy()
    rest, total = np.atleast_1d(rest), np.atleast_1d(total)
    inexact = np.isfinite(total) & (rest != 0) & ~np.isnan(rest)
    below = (rest > 0) == (total > 0)
    odd = np.where(below, bits, bits - 1) | 1  # rounding to odd, so that the next one is right
    found = np.where(inexact, odd, bits).view(np.float64).astype(a.dtype)
    return found.reshape(np.broadcast(a, b, c).shape)


def _fused_double(a: Array, b: Array, c: Array) -> Array:
    split = np.float64(134217729.0)

    def halves(x: Array) -> tuple[Array, Array]:
        high = x * split
        high = high - (high - x)
        return high, x - high

    p = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    e = ((ah * bh - p) + ah * bl + al * bh) + al * bl
    s = p + c
    t = s - p
    rest = (p - (s - t)) + (c - t) + e
    return np.asarray(np.where(np.isfinite(rest), s + rest, s))


def _flush(x: Array, i: Instruction) -> Array:
    if "ftz" in i.parts and x.dtype == np.float32:
        return np.asarray(np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(0, x), x))
    return x


def _minimum(a: Array, b: Array, i: Instruction) -> Array:
    if a.dtype.kind in "iu":
        return np.minimum(a, b)
    return np.minimum(a, b) if "NaN" in i.parts else np.fmin(a, b)


def _maximum(a: Array, b: Array, i: Instruction) -> Array:
    if a.dtype.kind in "iu":
        return np.maximum(a, b)
    return np.maximum(a, b) if "NaN" in i.parts else np.fmax(a, b)


def _divide(a: Array, b: Array, i: Instruction) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    found = np.floor_divide(a, safe)
    if a.dtype.kind == "i":
        found = found + ((found * safe != a) & ((a < 0) != (safe < 0)))
    return np.where(b == 0, np.array(-1).astype(a.dtype), found).astype(a.dtype)


def _remainder(a: Array, b: Array, i: Instruction) -> Array:
    return (a - _divide(a, b, i) * b).astype(a.dtype)


def _shift_left(a: Array, n: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    return np.where(n >= bits, 0, a << np.minimum(n, bits - 1).astype(a.dtype)).astype(a.dtype)


def _shift_right(a: Array, n: Array) -> Array:
    bits = 8 * a.dtype.itemsize
    if a.dtype.kind == "i":
        return (a >> np.minimum(n, bits - 1).astype(a.dtype)).astype(a.dtype)
    return np.where(n >= bits, 0, a >> np.minimum(n, bits - 1).astype(a.dtype)).astype(a.dtype)


def high_product(a: Array, b: Array) -> Array:
    """The upper half of a product."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}8")
        return ((a.astype(wide) * b.astype(wide)) >> bits).astype(a.dtype)
    found = _high64(a.view(np.uint64), b.view(np.uint64))
    if a.dtype.kind == "i":
        found = found - np.where(a < 0, b.view(np.uint64), np.uint64(0))
        found = found - np.where(b < 0, a.view(np.uint64), np.uint64(0))
    return found.view(a.dtype)


def _high64(a: Array, b: Array) -> Array:
    low, half = np.uint64(0xFFFF_FFFF), np.uint64(32)
    a0, a1, b0, b1 = a & low, a >> half, b & low, b >> half
    mid = a1 * b0 + (a0 * b0 >> half)
    other = a0 * b1 + (mid & low)
    return np.asarray(a1 * b1 + (mid >> half) + (other >> half))


BINARY: dict[str, Callable[[Array, Array, Instruction], Array]] = {
    "add": lambda a, b, i: a + b, "sub": lambda a, b, i: a - b,
    "min": _minimum, "max": _maximum, "div": _divide, "rem": _remainder,
    "and": lambda a, b, i: a & b, "or": lambda a, b, i: a | b, "xor": lambda a, b, i: a ^ b,
    "copysign": lambda a, b, i: np.copysign(b, a),
}  # fmt: skip
UNARY: dict[str, Callable[[Array], Array]] = {
    "neg": lambda a: -a if a.dtype.kind != "u" else (0 - a), "abs": np.abs,
    "not": lambda a: ~a, "cnot": lambda a: (a == 0).astype(a.dtype),
    "sqrt": np.sqrt, "rsqrt": lambda a: 1 / np.sqrt(a), "rcp": lambda a: 1 / a,
    "ex2": np.exp2, "lg2": np.log2, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
}  # fmt: skip


def binary(s: State, i: Instruction, mask: Mask) -> None:
    kind = kind_of(i)
    a, b = (s.value(x, kind) for x in i.operands[1:3])
    found = _flush(np.asarray(BINARY[i.parts[0]](a, b, i)), i)
    if "sat" in i.parts:
        found = np.clip(found, 0, 1) if found.dtype.kind == "f" else found
    s.put(i.operands[0], found.astype(a.dtype, copy=False), mask)


def unary(s: State, i: Instruction, mask: Mask) -> None:
    kind = kind_of(i)
    a = _flush(s.value(i.operands[1], kind), i)
    s.put(i.operands[0], np.asarray(UNARY[i.parts[0]](a)).astype(a.dtype, copy=False), mask)


def multiply(s: State, i: Instruction, mask: Mask) -> None:
    """``mul``, ``mad`` and ``fma``."""
    kind = kind_of(i)
    a, b = (s.value(x, kind) for x in i.operands[1:3])
    add = i.operands[3] if i.parts[0] in ("mad", "fma") else None
    if a.dtype.kind not in "iu":
        found = a * b if add is None else fused(a, b, s.value(add, kind))
        if "relu" in i.parts:
            found = np.maximum(found, np.zeros((), a.dtype))
        found = _flush(np.asarray(found), i)
        s.put(i.operands[0], np.clip(found, 0, 1) if "sat" in i.parts else found, mask)
        return
    if "wide" in i.parts:
        kind = f"{kind[0]}{2 * int(kind[1:])}"
        found = a.astype(KINDS[kind]) * b.astype(KINDS[kind])
    else:
        found = high_product(a, b) if "hi" in i.parts else a * b
    if add is not None:
        found = found + s.value(add, kind)
    s.put(i.operands[0], np.asarray(found).astype(KINDS[kind], copy=False), mask)


def shift(s: State, i: Instruction, mask: Mask) -> None:
    kind = kind_of(i)
    a, n = s.value(i.operands[1], kind), s.value(i.operands[2], "u32")
    found = _shift_left(a, n) if i.parts[0] == "shl" else _shift_right(a, n)
    s.put(i.operands[0], found, mask)


def funnel(s: State, i: Instruction, mask: Mask) -> None:
    """``shf``: 32 bits of a pair of registers."""
    low, high, n = (s.value(x, "u32").astype(np.uint64) for x in i.operands[1:4])
    n = np.minimum(n, 32) if "clamp" in i.parts else n & np.uint64(31)
    both = high << np.uint64(32) | low
    found = both << n >> np.uint64(32) if "l" in i.parts else both >> n
    s.put(i.operands[0], found.astype(np.uint32), mask)


def logic3(s: State, i: Instruction, mask: Mask) -> None:
    """``lop3``: any function of three bits."""
    a, b, c = (s.value(x, "u32") for x in i.operands[1:4])
    table, found = int(s.value(i.operands[4], "u32")), np.zeros(s.count, np.uint32)
    for k in range(8):
        if table >> k & 1:
            term = (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
            found = found | term
    s.put(i.operands[0], found, mask)


def permute(s: State, i: Instruction, mask: Mask) -> None:
    """``prmt``: four bytes of eight."""
    a, b, select = (s.value(x, "u32").astype(np.uint64) for x in i.operands[1:4])
    both, found = b << np.uint64(32) | a, np.zeros(s.count, np.uint64)
    if any(p in i.parts for p in ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")):
        raise Fault("unknown", "a mode of prmt")
    for k in range(4):
        nibble = select >> np.uint64(4 * k) & np.uint64(15)
        byte = both >> (np.uint64(8) * (nibble & np.uint64(7))) & np.uint64(255)
        sign = np.where(byte >> np.uint64(7) > 0, np.uint64(255), np.uint64(0))
        found = found | np.where(nibble > 7, sign, byte) << np.uint64(8 * k)
    s.put(i.operands[0], found.astype(np.uint32), mask)


def field_of(s: State, i: Instruction, mask: Mask) -> None:
    """``bfe``: a field of bits."""
    kind = kind_of(i)
    a = s.value(i.operands[1], kind)
    at, size = (s.value(x, "u32").astype(np.int64) & 255 for x in i.operands[2:4])
    bits = 8 * a.dtype.itemsize
    if a.dtype.kind == "u":
        ones = _shift_left(np.array(1, a.dtype), size.astype(np.uint32)) - np.array(1, a.dtype)
        found = _shift_right(a, at.astype(np.uint32)) & np.where(
            size >= bits, ~a.dtype.type(0), ones
        )
    else:
        up = np.clip(bits - at - size, 0, bits)
        moved = _shift_left(a, up.astype(np.uint32))
        found = _shift_right(moved, (np.minimum(at + up, bits)).astype(np.uint32))
        found = np.where(size == 0, 0, found)
    s.put(i.operands[0], np.asarray(found).astype(a.dtype), mask)


def insert(s: State, i: Instruction, mask: Mask) -> None:
    """``bfi``: a field of bits put into a number."""
    kind = kind_of(i)
    a, b = (s.value(x, kind) for x in i.operands[1:3])
    at, size = (s.value(x, "u32") & 255 for x in i.operands[3:5])
    ones = _shift_left(np.array(1, a.dtype), size) - np.array(1, a.dtype)
    place = _shift_left(np.broadcast_to(ones, np.broadcast(a, ones).shape), at)
    s.put(i.operands[0], np.asarray(b & ~place | _shift_left(a, at) & place), mask)


def bits_of(s: State, i: Instruction, mask: Mask) -> None:
    """``popc``, ``clz``, ``brev``, ``bfind``."""
    a = s.value(i.operands[1], kind_of(i))
    raw = np.broadcast_to(a, s.count).astype(f">u{a.dtype.itemsize}")
    rows = np.unpackbits(raw.view(np.uint8).reshape(s.count, -1), axis=1)
    if i.parts[0] == "brev":
        back = np.packbits(rows[:, ::-1], axis=1).view(f">u{a.dtype.itemsize}")[:, 0]
        s.put(i.operands[0], back.astype(a.dtype), mask)
        return
    leading = np.where(rows.any(axis=1), rows.argmax(axis=1), rows.shape[1])
    found = {"popc": rows.sum(axis=1), "clz": leading, "bfind": rows.shape[1] - 1 - leading}
    s.put(i.operands[0], found[i.parts[0]].astype(np.int64).astype(np.uint32), mask)


def dot4(s: State, i: Instruction, mask: Mask) -> None:
    """``dp4a``: four products of bytes, added up."""
    kinds = [p for p in i.parts if p in ("u32", "s32")]
    total = s.value(i.operands[3], "s32").astype(np.int64)
    parts = []
    for operand, kind in zip(i.operands[1:3], kinds, strict=True):
        raw = np.ascontiguousarray(np.broadcast_to(s.value(operand, "u32"), s.count))
        parts.append(raw.view("i1" if kind == "s32" else "u1").reshape(-1, 4).astype(np.int64))
    s.put(i.operands[0], (total + (parts[0] * parts[1]).sum(1)).astype(np.int32), mask)


# -- predicates -----------------------------------------------------------------------------------

COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater,
    "hs": np.greater_equal,
}  # fmt: skip
JOIN: dict[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
}  # fmt: skip


def _compared(how: str, a: Array, b: Array) -> Array:
    if a.dtype.kind in "iub":
        return COMPARE[how](a, b)
    unordered = np.isnan(a) | np.isnan(b)
    if how in ("num", "nan"):
        return unordered if how == "nan" else ~unordered
    if how.endswith("u"):
        return COMPARE[how[:-1]](a, b) | unordered
    return COMPARE[how](a, b) & ~unordered


def compare(s: State, i: Instruction, mask: Mask) -> None:
    """``setp`` and ``set``."""
    result, kind = i.operands[0], kind_of(i)
    found = _compared(i.parts[1], s.value(i.operands[1], kind), s.value(i.operands[2], kind))
    other, join = ~found, next((JOIN[p] for p in i.parts[2:] if p in JOIN), None)
    if join is not None:
        third = s.value(i.operands[3], "pred")
        found, other = join(found, third), join(other, third)
    if i.parts[0] == "set":
        into = kind_of(i, 2)
        ones = np.ones((), KINDS[into]) if into[0] == "f" else np.array(-1).astype(KINDS[into])
        s.put(result, np.where(found, ones, np.zeros((), KINDS[into])), mask)
    elif isinstance(result, Several):
        s.put(result.parts[0], found, mask)
        s.put(result.parts[1], other, mask)
    else:
        s.put(result, found, mask)


def select(s: State, i: Instruction, mask: Mask) -> None:
    kind = kind_of(i)
    a, b = (s.value(x, kind) for x in i.operands[1:3])
    s.put(i.operands[0], np.where(s.value(i.operands[3], "pred"), a, b), mask)


def test_class(s: State, i: Instruction, mask: Mask) -> None:
    """``testp``: what kind of float a number is."""
    a = s.value(i.operands[1], kind_of(i))
    tests: dict[str, Callable[[Array], Array]] = {
        "finite": np.isfinite, "infinite": np.isinf, "notanumber": np.isnan,
        "number": lambda x: ~np.isnan(x),
    }  # fmt: skip
    s.put(i.operands[0], tests[i.parts[1]](a), mask)


# -- moves and conversions ------------------------------------------------------------------------


def move(s: State, i: Instruction, mask: Mask) -> None:
    """``mov``, also of parts to a whole and back."""
    to, source, kind = i.operands[0], i.operands[1], kind_of(i)
    if isinstance(to, Several):
        whole = np.ascontiguousarray(np.broadcast_to(s.value(source, kind), s.count))
        size = KINDS[kind].itemsize // len(to.parts)
        rows = whole.view(f"u{size}").reshape(s.count, len(to.parts))
        for k, part in enumerate(to.parts):
            s.put(part, rows[:, k], mask)
    elif isinstance(source, Several):
        size = KINDS[kind].itemsize // len(source.parts)
        columns = [np.broadcast_to(s.value(p, f"b{8 * size}"), s.count) for p in source.parts]
        rows = np.ascontiguousarray(np.stack(columns, axis=1))
        s.put(to, rows.view(f"u{KINDS[kind].itemsize}")[:, 0], mask)
    else:
        s.put(to, s.value(source, kind), mask)


ROUND: dict[str, Callable[[Array], Array]] = {
    "rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil,
}  # fmt: skip


def convert(s: State, i: Instruction, mask: Mask) -> None:
    """``cvt``."""
    to, source = kind_of(i, 2), kind_of(i)
    if to in ("f16x2", "bf16x2"):
        rows = np.stack([np.broadcast_to(s.value(x, "f32"), s.count) for x in i.operands[:0:-1]], 1)
        rows = np.maximum(rows, 0) if "relu" in i.parts else rows
        s.put(i.operands[0], rows.astype(KINDS[to]), mask)
        return
    a = s.value(i.operands[1], source)
    if a.dtype.kind == "f" and a.dtype == np.float32:
        a = _flush(a, i)
    rounding = next((ROUND[p] for p in i.parts if p in ROUND), None)
    if rounding is not None:
        a = rounding(a.astype(np.float64) if a.dtype.itemsize < 4 else a).astype(a.dtype)
    s.put(i.operands[0], _converted(a, to, source, i), mask)


def _converted(a: Array, to: str, source: str, i: Instruction) -> Array:
    kind = KINDS[to]
    if to == "tf32":
        bits = a.view(np.uint32)
        bits = (bits + np.uint32(0x1000)) & np.uint32(0xFFFF_E000)
        return np.where(np.isnan(a), a.view(np.uint32), bits)
    if kind.kind in "iu":
        if a.dtype.kind not in "iub":
            return _saturated(a, kind)
        if "sat" in i.parts:
            limits = np.iinfo(kind)
            return np.clip(a.astype(object), limits.min, limits.max).astype(kind)
        return a.astype(kind)
    if "rz" in i.parts and kind.itemsize < a.dtype.itemsize:
        near = a.astype(kind)
        away = np.abs(near.astype(a.dtype)) > np.abs(a)
        return np.where(away, (near.view(f"u{kind.itemsize}") - 1).view(kind), near)
    found = a.astype(kind)
    if "relu" in i.parts:
        found = np.maximum(found, np.zeros((), kind))
    return np.clip(found, 0, 1) if "sat" in i.parts else found


def _saturated(a: Array, kind: np.dtype[Any]) -> Array:
    """Floats as integers: what is too large is the largest, NaN is 0."""
    limits, wide = np.iinfo(kind), np.nan_to_num(np.trunc(a.astype(np.float64)), posinf=np.inf)
    low, high = wide <= float(limits.min), wide >= float(limits.max)
    middle = np.where(low | high, 0, wide).astype(kind)
    found = np.where(high, kind.type(limits.max), np.where(low, kind.type(limits.min), middle))
    return np.where(np.isnan(a), kind.type(0), found).astype(kind)


HANDLERS: dict[str, Callable[[State, Instruction, Mask], None]] = {
    **dict.fromkeys(BINARY, binary), **dict.fromkeys(UNARY, unary),
    "mul": multiply, "mad": multiply, "fma": multiply, "mul24": multiply,
    "shl": shift, "shr": shift, "shf": funnel, "lop3": logic3, "prmt": permute,
    "bfe": field_of, "bfi": insert, "popc": bits_of, "clz": bits_of, "brev": bits_of,
    "bfind": bits_of, "dp4a": dot4, "setp": compare, "set": compare, "selp": select,
    "testp": test_class, "mov": move, "cvt": convert,
}  # fmt: skip

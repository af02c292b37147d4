"""Reduction of large arguments of sin, cos and tan modulo pi/2, in integers.

A float is ``m * 2^e``. Of the product with 2/pi only the part modulo 4 matters: the binary digits
of 2/pi that stand before it give multiples of 4, those far behind it nothing. What is left is a
window of the digits, multiplied with m in integers (Payne & Hanek, *Radian Reduction for
Trigonometric Functions*, 1983).
"""

from __future__ import annotations

from itertools import pairwise

from aisc.codegen.llvm.lanes import Lanes, element, fma, where
from aisc.ir import dtypes

# The binary digits of 2/pi behind the point; after two zeros in words of 32 bits, and after eight
# in words of 64.
_DIGITS = (
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561"
    "b7246e3a424dd2e006492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484"
    "e99c7026b45f7e413991d639835339f49c845f8bbdf9283b1ff897ffde05980f"
    "ef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d7527bac7ebe5f17b"
    "3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d"
)
_BITS = int(_DIGITS, 16)
SHORT_WORDS = tuple(_BITS >> (1250 - 32 * k) & (1 << 32) - 1 for k in range(7))
LONG_WORDS = tuple(_BITS >> (1224 - 64 * k) & (1 << 64) - 1 for k in range(20))


def quarters_f32(x: Lanes) -> Lanes:
    """``x * 2/pi`` modulo 4, times 2^62, as an integer, for f32 ``|x| >= 2^24``.

    x is ``m * 2^e``; the bits of 2/pi from place e on (the ones before give multiples of 4) are
    taken as a window of 64 and one of 32 bits."""
    bits = x.bits().convert(dtypes.i64)
    m = (bits & 0x7FFFFF) | 0x800000
    e = ((bits >> 23) & 255) - 150
    start, s = e >> 5, e & 31
    words = []
    for offset in range(4):
        word = e.of(SHORT_WORDS[offset])
        for k in (1, 2, 3):
            word = where(start.eq(k), SHORT_WORDS[k + offset], word)
        words.append(word)
    a, b, c, d = words
    first = (((a << 32) | b) << s) | ((c << s) >> 32)
    second = ((c << s) & 0xFFFFFFFF) | ((d << s) >> 32)
    total = m * first + ((m * second) >> 32)
    return where(bits < 0, 0 - total, total)


def reduced_f64(x: Lanes, half_pi: tuple[float, float, float]) -> tuple[Lanes, Lanes, Lanes]:
    """``x = n pi/2 + r`` for finite f64 ``|x| >= 2^48``: r, its low part, and n modulo 4.

    The product has 126 bits behind its point. No f64 is nearer to a multiple of pi/2 than 2^-62 of
    it, so that r keeps 64."""
    high, low = _product(x)
    n = (high + (1 << 61)) >> 62
    high = (high - (n << 62)).convert(dtypes.i64)  # signed from here on
    below = high < 0
    borrow = low.eq(0).convert(dtypes.i64)
    high = where(below, ~high + borrow, high)
    low = where(below, 0 - low, low)
    first = high.convert(dtypes.f64)
    rest = (high - first.convert(dtypes.i64)).convert(dtypes.f64)
    rest = fma(low.convert(dtypes.f64), 2.0**-64, rest)
    total = first + rest
    lost = (first - total) + rest
    factor = half_pi[0] * 2.0**-62
    r = total * factor
    r_low = fma(total, factor, -r) + fma(total, half_pi[1] * 2.0**-62, lost * factor)
    flip = below ^ (x < 0.0)
    k = n.convert(dtypes.i64)
    return where(flip, -r, r), where(flip, -r_low, r_low), where(x < 0.0, 0 - k, k)


def _product(x: Lanes) -> tuple[Lanes, Lanes]:
    """``|x| * 2/pi`` modulo 4, times 2^126, in two words."""
    bits = x.bits().convert(dtypes.u64)
    m = (bits & (1 << 52) - 1) | 1 << 52
    place = ((bits >> 52) & 2047) - 1069  # of the digit that counts two
    start, s = place >> 6, place & 63
    words = [element(LONG_WORDS, start + k) for k in range(4)]
    a, b, c = ((p << s) | (q >> 1 >> (63 - s)) for p, q in pairwise(words))
    low = m * b
    more = low + _high(m, c)
    return m * a + _high(m, b) + (more < low).convert(dtypes.u64), more


def _high(a: Lanes, b: Lanes) -> Lanes:
    """The upper 64 bits of a product of unsigned numbers."""
    mask = (1 << 32) - 1
    a0, a1, b0, b1 = a & mask, a >> 32, b & mask, b >> 32
    middle = a1 * b0 + (a0 * b0 >> 32)
    return a1 * b1 + (middle >> 32) + (a0 * b1 + (middle & mask) >> 32)

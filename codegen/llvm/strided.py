"""Lanes whose elements lie a few places apart, or in reverse: vectors are loaded, lanes picked.

What is gathered one element at a time costs a load for each lane. Elements at most
:data:`MOST_APART` places apart lie in as many vectors, which are loaded whole, from the first
element to the last one and nothing beyond, and joined by a shuffle each. A masked load leaves out
what no lane asks for. Stores leave what lies between as it is, so that they need masks, of bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen.llvm.types import Val, memory_type
from aisc.codegen.llvm.values import ExprEmitter
from aisc.ir import dtypes
from aisc.ir.tensor.func import Buffer

MOST_APART = 4


class StridedEmitter(ExprEmitter):
    """Loads and stores such lanes."""

    def strided_load(self, buffer: Buffer, pointer: str, stride: int) -> Val | None:
        """The lanes at `pointer` and every `stride` elements from there; ``None`` where no vectors
        are better."""
        if not self._is_near(stride) or (self.mask is not None and not self._loads_some(buffer)):
            return None
        parts = _parts(stride, self.lanes)
        mask, loaded = self.mask, []
        for first in parts:
            self.mask = None if mask is None else self._spread(mask, first, stride)
            loaded.append(self.vector_load(buffer, self._moved(buffer, pointer, first)))
        self.mask = mask
        result = loaded[0]
        for k, other in enumerate(loaded[1:] or loaded):
            result = self._joined(result, other, _picks(parts, stride, self.lanes, k))
        if mask is not None:
            self.zero_beside[result.ref] = mask.ref
        return result

    def _is_near(self, stride: int) -> bool:
        return self.SHUFFLES and self.lanes >= 4 and abs(stride) <= MOST_APART and stride != 0

    def _masks_places(self, buffer: Buffer) -> bool:
        return self.math.has_bit_masks and not self.is_private(buffer)

    def _loads_some(self, buffer: Buffer) -> bool:
        """Whether some lanes of a vector are loaded as fast as all."""
        return self.math.has_masked_loads(buffer.dtype) and not self.is_private(buffer)

    def _moved(self, buffer: Buffer, pointer: str, elements: int) -> str:
        if not elements:
            return pointer
        mem, space = memory_type(buffer.dtype), self.pointer_type(buffer)
        return self.w.let(f"getelementptr {mem}, {space} {pointer}, i64 {elements}", "p")

    def _spread(self, mask: Val, first: int, stride: int) -> Val:
        """The mask of the places from `first` on of which lanes ask for."""
        n = self.lanes
        lane = [(first + j) // stride if (first + j) % stride == 0 else n for j in range(n)]
        places = [k if 0 <= k < n else n for k in lane]
        zeros = Val("zeroinitializer", dtypes.boolean, n)
        if self.math.has_bit_masks:
            return self._joined(mask, zeros, places)
        # Lanes of 32 bits, of which LLVM takes the signs: it would shuffle lanes of 16.
        wide = self.w.shared(f"sext {mask.text} to <{n} x i32>", "m")
        items = ", ".join(f"i32 {k}" for k in places)
        kind = f"<{n} x i32>"
        picked = self.w.shared(
            f"shufflevector {kind} {wide}, {kind} zeroinitializer, {kind} <{items}>", "m"
        )
        ref = self.w.shared(f"icmp slt {kind} {picked}, zeroinitializer", "m")
        return Val(ref, dtypes.boolean, n)

    def _joined(self, a: Val, b: Val, places: Sequence[int]) -> Val:
        """Lanes from the concatenation of two vectors; any where a place is below zero."""
        items = ", ".join("i32 poison" if k < 0 else f"i32 {k}" for k in places)
        ref = self.w.let(f"shufflevector {a.text}, {b.text}, <{len(places)} x i32> <{items}>")
        return Val(ref, a.dtype, len(places))

    def strided_store(self, buffer: Buffer, pointer: str, stride: int, value: Val) -> bool:
        """Store lanes every `stride` elements from `pointer`; whether that was done."""
        if not self._is_near(stride) or not self._masks_places(buffer):
            return False
        n, mask = self.lanes, self.mask
        every = Val("splat (i1 true)", dtypes.boolean, n)
        for first in _parts(stride, n):
            places = [(first + j) // stride if (first + j) % stride == 0 else -1 for j in range(n)]
            part = self._joined(value, value, [k if 0 <= k < n else -1 for k in places])
            wanted = self._spread(every if mask is None else mask, first, stride)
            self.vector_store(buffer, self._moved(buffer, pointer, first), part, wanted)
        return True

    def vector_store(self, buffer: Buffer, pointer: str, value: Val, mask: Val) -> None:
        """Store the lanes that a mask lets pass side by side."""
        raise NotImplementedError


def _parts(stride: int, lanes: int) -> list[int]:
    """Where vectors begin, seen from the place of lane 0, that hold the places of all lanes and
    nothing before the first or behind the last of them."""
    low, far = min(0, stride * (lanes - 1)), abs(stride) * (lanes - 1) + 1
    starts = [k * lanes for k in range(abs(stride) - 1)]
    return [low + k for k in (*starts, far - lanes)]


def _picks(parts: Sequence[int], stride: int, lanes: int, k: int) -> list[int]:
    """How the k-th shuffle joins what was joined before and the next vector: the first takes two
    vectors as they were loaded, or one that it reverses."""
    found = []
    for lane in range(lanes):
        part = next(p for p, first in enumerate(parts) if 0 <= lane * stride - first < lanes)
        place = lane * stride - parts[part]
        if len(parts) == 1 or (part == 0 and k == 0):
            found.append(place)
        elif part <= k:
            found.append(lane)
        else:
            found.append(lanes + place if part == k + 1 else -1)
    return found

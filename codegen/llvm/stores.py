"""Stores: of one element, of vectors with or without masks, past the caches, strided, scattered."""

from __future__ import annotations

from dataclasses import replace

from aisc.codegen.llvm.index import NotLinearInLane, flat_index
from aisc.codegen.llvm.masks import FEW_PIECES, pieces_of
from aisc.codegen.llvm.transpose import TransposeEmitter
from aisc.codegen.llvm.types import Val, memory_suffix, memory_type, vector_type
from aisc.ir.diagnostics import InternalError
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Store

NONTEMPORAL = "!nontemporal !0"


class StoreEmitter(TransposeEmitter):
    """Emits the stores of a function."""

    STREAMS = True  # whether stores past the caches are worth it on this kind of machine

    func: Func

    def store(self, s: Store) -> None:
        """Store the value for all lanes in force."""
        value = self.whole(s.value)
        indices, filled = self.checked(s.buffer, s.indices)
        if filled is None:
            self._plain_store(replace(s, indices=indices) if indices is not s.indices else s, value)
            return
        end = self.w.open_if(filled.ref)
        self._plain_store(replace(s, indices=indices), value)
        self.w.close_if(end)

    def _plain_store(self, s: Store, value: Val) -> None:
        """Store at indices that are inside."""
        try:
            pointer, stride = self.address(s.buffer, s.indices)
        except NotLinearInLane:
            pointer, stride = "", None
        mem, space = memory_type(s.buffer.dtype), self.pointer_type(s.buffer)
        if self.lanes == 1 or (stride == 0 and self.mask is None):
            if value.lanes != 1:
                raise InternalError(f"{self.func.name}: lanes race on {s.buffer.name}")
            self.w.line(
                f"store {mem} {self._to_memory(value)}, {space} {pointer}, "
                f"align {s.buffer.dtype.bytes}"
            )
            return
        value = self.broadcast(value, self.lanes)
        if stride == 1:
            self._store_vector(s, value, pointer)
        elif stride is None or not self.strided_store(s.buffer, pointer, stride, value):
            self._scatter(s, value)

    def _to_memory(self, v: Val) -> str:
        if v.dtype.kind != "bool":
            return v.ref
        kind = vector_type("i8", v.lanes)
        return self.w.let(f"zext {v.text} to {kind}")

    def _store_vector(self, s: Store, value: Val, pointer: str) -> None:
        if self.mask is not None and not self.is_private(s.buffer):
            self.vector_store(s.buffer, pointer, value, self.mask)
            return
        mem, space = memory_type(s.buffer.dtype), self.pointer_type(s.buffer)
        kind, size = vector_type(mem, self.lanes), s.buffer.dtype.bytes
        if s.buffer.space == "stack" and not self.math.has_bit_masks:
            # Where a state becomes itself or something else, lane by lane, LLVM would make a masked
            # store of the choice, which is slow, and which the next load has to wait for.
            value = replace(value, ref=self.w.let(f"freeze {value.text}"))
        plain = f"store {kind} {self._to_memory(value)}, {space} {pointer}, align "
        aligned = self._whole_vectors(s) if s.stream else None
        if aligned is None:
            self.w.line(f"{plain}{self.alignment(s.buffer, s.indices)}")
        else:
            past = f"{plain}{size * self.lanes}, {NONTEMPORAL}"
            self.w.either(aligned, past, f"{plain}{size}")

    def vector_store(self, buffer: Buffer, pointer: str, value: Val, mask: Val) -> None:
        """Store the lanes that a mask lets pass side by side; in a few plain pieces where they are
        known, and the machine has no registers for masks."""
        mem, size = memory_type(buffer.dtype), buffer.dtype.bytes
        kind, stored = vector_type(mem, self.lanes), self._to_memory(value)
        live = None if self.math.has_bit_masks else self.constant_lanes(mask)
        pieces = [] if live is None else pieces_of(live)
        if 0 < len(pieces) <= FEW_PIECES:
            for first, count in pieces:
                part = self._piece(kind, stored, first, count)
                at = self._moved(buffer, pointer, first)
                self.w.line(f"store {vector_type(mem, count)} {part}, ptr {at}, align {size}")
            return
        name, bits = f"llvm.masked.store.v{self.lanes}{memory_suffix(buffer.dtype)}.p0", mask.type
        self.w.declare(f"declare void @{name}({kind}, ptr, {bits})")
        text = f"{kind} {stored}, ptr align {size} {pointer}, {mask.text}"
        self.w.line(f"call void @{name}({text})")

    def _piece(self, kind: str, vector: str, first: int, count: int) -> str:
        """Some lanes of a vector that lie side by side."""
        if count == 1:
            return self.w.let(f"extractelement {kind} {vector}, i64 {first}")
        places = ", ".join(f"i32 {first + k}" for k in range(count))
        text = f"shufflevector {kind} {vector}, {kind} poison, <{count} x i32> <{places}>"
        return self.w.let(text)

    def _whole_vectors(self, s: Store) -> str | None:
        """A condition under which a store of all lanes is aligned to its size, as stores past the
        caches must be: the buffer is; ``None`` where its indices leave that open. Buffers of
        callers have the alignment of their elements alone, so it is tested, once per call."""
        bytes_ = s.buffer.dtype.bytes * self.lanes
        if not self.STREAMS or self.is_private(s.buffer) or bytes_ & (bytes_ - 1):
            return None
        parts = self.parts(flat_index(s.buffer, s.indices))
        if any(c % self.lanes for c in (parts.const, *(c for _, _, c in parts.terms))):
            return None
        at = self.w.shared(f"ptrtoint ptr {self.base(s.buffer)} to i64", "a", 0)
        rest = self.w.shared(f"and i64 {at}, {bytes_ - 1}", "a", 0)
        return self.w.shared(f"icmp eq i64 {rest}, 0", "a", 0)

    def _scatter(self, s: Store, value: Val) -> None:
        offsets = self._lane_offsets(s.buffer, s.indices)
        mem, n = memory_type(s.buffer.dtype), self.lanes
        base = self.base(s.buffer)
        pointers = self.w.let(f"getelementptr {mem}, ptr {base}, <{n} x i64> {offsets.ref}", "p")
        name = f"llvm.masked.scatter.v{n}{memory_suffix(s.buffer.dtype)}.v{n}p0"
        kind = vector_type(mem, n)
        self.w.declare(f"declare void @{name}({kind}, <{n} x ptr>, <{n} x i1>)")
        mask = "splat (i1 true)" if self.mask is None else self.mask.ref
        self.w.line(
            f"call void @{name}({kind} {self._to_memory(value)}, "
            f"<{n} x ptr> align {s.buffer.dtype.bytes} {pointers}, <{n} x i1> {mask})"
        )

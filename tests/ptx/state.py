"""Threads that run together: their registers, and values in the types of PTX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ptx.memory import Clock, Fault, Space
from ptx.syntax import Imm, Kernel, Name, Operand, Reg, Variable

Array = NDArray[Any]
Mask = NDArray[np.bool_] | None  # ``None``: all threads

BF16 = np.dtype(ml_dtypes.bfloat16)
KINDS: dict[str, np.dtype[Any]] = {
    "pred": np.dtype(np.bool_),
    **{f"{c}{n}": np.dtype(f"u{n // 8}") for c in "bu" for n in (8, 16, 32, 64)},
    **{f"s{n}": np.dtype(f"i{n // 8}") for n in (8, 16, 32, 64)},
    "f16": np.dtype(np.float16), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64),
    "bf16": BF16, "f16x2": np.dtype(np.float16), "bf16x2": BF16, "tf32": np.dtype(np.float32),
}  # fmt: skip
RAW = {1: np.dtype(np.bool_), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"),
       64: np.dtype("u8")}  # fmt: skip
PAIRS = ("f16x2", "bf16x2")


@dataclass(slots=True)
class Layout:
    """Where the variables of one memory of a kernel lie. Gaps between them belong to nobody; they
    keep what an address is modulo 128, so that banks are those of the real layout."""

    offsets: dict[str, int] = field(default_factory=dict)
    owner: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))

    @staticmethod
    def of(variables: list[Variable], dynamic: int = 0) -> Layout:
        """That of variables, in order; those without a size get `dynamic` bytes."""
        made, gap, at = Layout(), 1024, 0
        owners: list[tuple[int, int]] = []
        for k, v in enumerate(variables):
            at = -(-at // v.align) * v.align
            start, size = at + gap * k, v.bytes or dynamic
            made.offsets[v.name] = start
            owners.append((start, start + size))
            at += size
        made.owner = np.full(at + gap * len(variables), -1, np.int16)
        for k, (low, high) in enumerate(owners):
            made.owner[low:high] = k
        return made

    def inside(self, at: NDArray[np.int64], size: int) -> bool:
        """Whether every access lies in one variable."""
        if not len(at):
            return True
        if at.min() < 0 or at.max() + size > self.owner.size:
            return False
        first = self.owner[at]
        return bool(((first >= 0) & (first == self.owner[at + size - 1])).all())


@dataclass(slots=True)
class State:
    """Several blocks of threads in lockstep."""

    kernel: Kernel
    count: int
    warp: int
    registers: dict[str, Array]
    specials: dict[str, Array]
    names: dict[str, int]
    params: dict[str, tuple[int, bytes]]
    memory: Space
    clock: Clock
    who: NDArray[np.int64]
    warps: NDArray[np.int64]

    def value(self, operand: Operand, kind: str) -> Array:
        """An operand in a type: one number, or one a thread; pairs have two a thread."""
        dtype = KINDS[kind]
        if isinstance(operand, Imm):
            return _immediate(operand, kind)
        if isinstance(operand, Name):
            if operand.name not in self.names:
                raise Fault("unknown", f"the name {operand.name}")
            return np.array(self.names[operand.name], np.uint64).astype(dtype)
        if not isinstance(operand, Reg):
            raise Fault("unknown", f"an operand {operand}")
        raw = self.registers.get(operand.name)
        if raw is None:
            raw = self.special(operand.name)
        if kind in PAIRS:
            return np.ascontiguousarray(raw).view(dtype).reshape(self.count, 2)
        if raw.dtype.itemsize == dtype.itemsize:
            return raw.view(dtype)
        return raw.astype(f"u{dtype.itemsize}").view(dtype)

    def special(self, name: str) -> Array:
        """A special register; a register that nothing has set has a pattern."""
        if name in self.specials:
            return self.specials[name]
        bits = self.kernel.registers.get(name)
        if bits is None:
            raise Fault("unknown", f"the register {name}")
        pattern = 0 if bits == 1 else 0xA5A5_A5A5_A5A5_A5A5 & ((1 << bits) - 1)
        return np.full(self.count, pattern, RAW[bits])

    def put(self, operand: Operand, value: Array, mask: Mask) -> None:
        """Give a register a value, in the threads of the mask."""
        if not isinstance(operand, Reg):
            raise Fault("unknown", f"a result {operand}")
        if operand.name == "_":
            return
        raw = RAW[self.kernel.registers[operand.name]]
        if value.ndim == 2:
            value = np.ascontiguousarray(value).view(np.uint32)[:, 0]
        if value.dtype != raw:
            if value.dtype.kind not in "iub" or value.dtype.itemsize == raw.itemsize:
                value = value.view(f"u{value.dtype.itemsize}")
            value = value.astype(raw, copy=False)
        if mask is None:
            value = value if value.shape else np.full(self.count, value)
        else:
            value = np.where(mask, value, self.value(operand, f"b{8 * raw.itemsize}")
                             if raw != np.bool_ else self.value(operand, "pred"))  # fmt: skip
        self.registers[operand.name] = value

    def guard(self, name: str, negated: bool, mask: Mask) -> Mask:
        """The threads of a mask in which a predicate holds; ``None`` where it is all of all."""
        holds = self.value(Reg(name), "pred")
        holds = ~holds if negated else holds
        if mask is not None:
            return holds & mask
        return None if holds.all() else holds


def _immediate(operand: Imm, kind: str) -> Array:
    dtype = KINDS[kind]
    if operand.bits:
        found = np.array(operand.value, f"u{operand.bits // 8}")
        if dtype.itemsize * 8 == operand.bits:
            return found.view(dtype)
        real = found.view(np.float32 if operand.bits == 32 else np.float64)
        return real.astype(dtype)
    if dtype == np.bool_:
        return np.array(bool(operand.value))
    if dtype.kind not in "iu" and operand.value == 0:
        return np.zeros((), dtype)
    size = dtype.itemsize
    return np.array(operand.value & ((1 << 8 * size) - 1), f"u{size}").view(dtype)

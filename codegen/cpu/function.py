"""Functions for CPUs: arithmetic with the instructions that only some of them have."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from aisc.codegen.llvm.function import FunctionEmitter, static_size
from aisc.codegen.llvm.instructions import emit_instruction
from aisc.codegen.llvm.types import Val, constants, memory_type, vector_type
from aisc.codegen.llvm.vector_math import MathEmitter
from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Invoke

# Shares of a loop for each thread, at most; and the work of one, in parts worth dividing.
MOST_SHARES, SHARE = 4, 4
AVX512 = "+avx512f"
AVX2 = "+avx2"
# LLVM's names of features that convert a type to and from f32.
CONVERTS: dict[DType, tuple[str, ...]] = {
    dtypes.bf16: ("+avx512bf16", "+avxneconvert", "+bf16", "+zfbfmin"),
    dtypes.f16: ("+f16c", "+avx512fp16", "+neon", "+fullfp16", "+fp16", "+zfhmin", "+zfh"),
}


class CpuMath(MathEmitter):
    """AVX-512: masks of bits, tables in a register, scaling, directed rounding (Intel 64 and IA-32
    Architectures Software Developer's Manual, volume 2: VPERMPS, VSCALEFPS, VADDPS)."""

    def converts(self, dtype: DType) -> bool:
        """If one of the features does."""
        return any(f in self.features for f in CONVERTS.get(dtype, ()))

    @property
    def has_bit_masks(self) -> bool:
        """Masks have registers of their own."""
        return AVX512 in self.features

    def has_masked_loads(self, dtype: DType) -> bool:
        """With bits for any, with vectors for lanes of 32 and 64 bits."""
        return self.has_bit_masks or (AVX2 in self.features and dtype.bytes in (4, 8))

    def has_scaling(self, v: Val) -> bool:
        """Sixteen f32 at once."""
        return AVX512 in self.features and v.dtype is dtypes.f32 and v.lanes == 16

    @property
    def has_look_up(self) -> bool:
        """A register of sixteen f32 is a table."""
        return AVX512 in self.features

    def look_up(self, table: Sequence[float], place: Val) -> Val:
        """A permutation of the table."""
        numbers = constants(struct.pack(f"<{len(table)}d", *table))
        return self._avx512("permvar.sf", numbers, place.text)

    def scale_floor(self, v: Val, n: Val) -> Val:
        """In all lanes, rounded as usual."""
        return self._avx512("mask.scalef.ps", v.text, n.text, v.text, "i16 -1", "i32 4")

    def add_down(self, a: Val, b: Val) -> Val:
        """With the rounding in the instruction."""
        return self._avx512("add.ps", a.text, b.text, "i32 9")

    def _avx512(self, name: str, *args: str) -> Val:
        kinds = ", ".join(a.partition("> ")[0] + ">" if ">" in a else a.split()[0] for a in args)
        self.w.declare(f"declare <16 x float> @llvm.x86.avx512.{name}.512({kinds})")
        text = f"call <16 x float> @llvm.x86.avx512.{name}.512({', '.join(args)})"
        return self.let(text, dtypes.f32, 16)


class CpuFunction(FunctionEmitter):
    """Emits one function for a CPU, with the instructions that it declares."""

    MATH = CpuMath

    def __init__(self, func: Func, target: Target) -> None:
        super().__init__(func, target.features)
        self.target = target

    @property
    def shares(self) -> int:
        """Several where each of them is worth the while: a core that others use takes fewer."""
        enough = SHARE * self.target.costs.parallel_work * max(1, self.target.cores)
        return max(1, min(MOST_SHARES, int(self.func.attr("work", 0) or 0) // enough))

    def invoke(self, s: Invoke) -> None:
        """The code of an instruction: operands are loaded whole, what is written is stored."""
        found = self.target.intrinsic(s.intrinsic)
        emit_instruction(self, found, s, [_whole(p) for p in found.semantics.params])


def _whole(param: Buffer) -> str:
    """The type of a vector of all elements."""
    return vector_type(memory_type(param.dtype), static_size(param))

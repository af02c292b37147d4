"""What functions of the tensor IR are written with, in one place.

a = tensor.buffer("a", tensor.f32, (64, 32))
c = tensor.ComputeBuilder()
c.map(b, lambda i, j: tensor.Load(a, (i, j)) * 2.0)
func = c.func("double", (a, b))
"""

from __future__ import annotations

from aisc.ir.arith.poly import symbol
from aisc.ir.dtypes import bf16, boolean, f16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var, cast, const, math, maximum, minimum, select
from aisc.ir.tensor.func import Buffer, Func, Program, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

__all__ = [
    "Buffer",
    "ComputeBuilder",
    "Func",
    "Load",
    "Program",
    "TensorType",
    "Var",
    "bf16",
    "boolean",
    "buffer",
    "cast",
    "const",
    "f16",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "math",
    "maximum",
    "minimum",
    "parse_func",
    "print_ir",
    "run_func",
    "select",
    "symbol",
    "u8",
    "u16",
    "u32",
    "u64",
]

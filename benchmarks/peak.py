"""The machine's multiply-add peak, measured by a loop of independent fused multiply-adds."""

from __future__ import annotations

import ctypes
import time
from functools import cache

from aisc.api import resolve_target
from aisc.codegen.llvm import engine
from aisc.codegen.llvm.link import Linked

CHAINS = 12


@cache
def _burn() -> tuple[Linked, int]:
    """A function ``double burn(i64 n)`` of n rounds of CHAINS multiply-adds, and its lanes."""
    target = resolve_target("cpu")
    lanes = target.vector_bits // 32
    vec = f"<{lanes} x float>"
    phis, body = [], []
    for k in range(CHAINS):
        phis.append(f"  %a{k} = phi {vec} [splat (float 1.0), %entry], [%b{k}, %loop]")
        body.append(f"  %b{k} = call {vec} @llvm.fma.v{lanes}f32({vec} %a{k}, {vec} %x, {vec} %y)")
    sums, last = [], "%b0"
    for k in range(1, CHAINS):
        sums.append(f"  %s{k} = fadd {vec} {last}, %b{k}")
        last = f"%s{k}"
    text = "\n".join(
        [
            "define float @burn(i64 %n, float %f) #0 {",
            "entry:",
            f"  %i0 = insertelement {vec} poison, float %f, i64 0",
            f"  %x = shufflevector {vec} %i0, {vec} poison, <{lanes} x i32> zeroinitializer",
            f"  %y = fmul {vec} %x, splat (float 0x3DDB7CDFE0000000)",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [0, %entry], [%j, %loop]",
            *phis,
            *body,
            "  %j = add i64 %i, 1",
            "  %c = icmp ult i64 %j, %n",
            "  br i1 %c, label %loop, label %done",
            "done:",
            *sums,
            f"  %r = extractelement {vec} {last}, i64 0",
            "  ret float %r",
            "}",
        ]
    )
    declaration = f"declare {vec} @llvm.fma.v{lanes}f32({vec}, {vec}, {vec})"
    module = engine.module_text(target, [text], [declaration], [])
    return Linked([engine.assemble(module, target).object], ["burn"]), lanes


def fma_gflops(rounds: int = 2_000_000) -> float:
    """GFLOP/s of one core, one measurement of a few hundredths of a second."""
    linked, lanes = _burn()
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)(
        linked.addresses["burn"]
    )
    start = time.perf_counter()
    function(rounds, 0.999)
    return 2 * lanes * CHAINS * rounds / (time.perf_counter() - start) / 1e9


if __name__ == "__main__":
    print(f"{max(fma_gflops() for _ in range(5)):.1f} GFLOP/s")

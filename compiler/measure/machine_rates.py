"""What a core of this machine does in a cycle, measured: bytes that it reads from each level of the
memory, multiply-adds that it begins. The cycle itself is that of a chain of operations of which
each waits for the one before, and which take one cycle on every processor."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np

from aisc.codegen.arrays import aligned
from aisc.codegen.llvm import engine
from aisc.codegen.llvm.link import Linked
from aisc.driver.api import resolve_target
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target
from aisc.measure.machine_limits import fma_gflops

REPEATS = 7
STREAMS = 8  # vectors that a turn of the reading loop loads
CHAIN = 32  # rotations and additions that a turn of the clock's loop does
FAR = 4  # memory is read over so many times the last cache


@dataclass(frozen=True, slots=True)
class Rates:
    """Billions of cycles in a second; bytes per cycle from each level, `memory` the last; vector
    multiply-adds per cycle."""

    clock: float
    reads: Mapping[str, float]
    fma: float


def measure() -> Rates:
    """Measure a core; takes some seconds. What disturbs makes slower: the best of some counts."""
    target = resolve_target("cpu")
    clock = max(_clock() for _ in range(REPEATS))
    reads = {name: _read(size) / clock for name, size in _sizes(target).items()}
    lanes = target.vector_bits // 32
    fma = max(fma_gflops(400_000) for _ in range(REPEATS)) / (2 * lanes * clock)
    return Rates(clock, reads, fma)


def _sizes(target: Target) -> dict[str, int]:
    """Bytes to read for each level: half of a cache, more than the one before holds."""
    caches = [m for m in target.memories if m.name in ("L1", "L2", "L3")]
    found = {m.name: m.bytes // 2 for m in caches}
    found["memory"] = FAR * max((m.bytes for m in caches), default=32 << 20)
    return found


@cache
def _code() -> Linked:
    """``i64 clock(i64 turns, i64 x)`` and ``float read(ptr, i64 bytes, i64 times)``."""
    target = resolve_target("cpu")
    lanes = target.vector_bits // 32
    vec, step = f"<{lanes} x float>", target.vector_bits // 8 * STREAMS
    chain, last = [], "%x"
    for k in range(CHAIN):
        chain.append(f"  %r{k} = call i64 @llvm.fshl.i64(i64 {last}, i64 {last}, i64 7)")
        chain.append(f"  %c{k} = add i64 %r{k}, %n")
        last = f"%c{k}"
    clock = [
        "define i64 @clock(i64 %n, i64 %x0) #0 {", "entry:", "  br label %loop", "loop:",
        "  %i = phi i64 [0, %entry], [%j, %loop]", f"  %x = phi i64 [%x0, %entry], [{last}, %loop]",
        *chain, "  %j = add i64 %i, 1", "  %more = icmp ult i64 %j, %n",
        "  br i1 %more, label %loop, label %done", "done:", f"  ret i64 {last}", "}",
    ]  # fmt: skip
    read = [
        "define float @read(ptr %p, i64 %bytes, i64 %times) #0 {", "entry:", "  br label %outer",
        "outer:", "  %t = phi i64 [0, %entry], [%t1, %next]",
        *(f"  %o{k} = phi {vec} [zeroinitializer, %entry], [%b{k}, %next]" for k in range(STREAMS)),
        "  br label %inner", "inner:", "  %at = phi i64 [0, %outer], [%at1, %inner]",
        *(f"  %a{k} = phi {vec} [%o{k}, %outer], [%b{k}, %inner]" for k in range(STREAMS)),
    ]  # fmt: skip
    for k in range(STREAMS):
        offset = k * target.vector_bits // 8
        read += [
            f"  %w{k} = add i64 %at, {offset}", f"  %q{k} = getelementptr i8, ptr %p, i64 %w{k}",
            f"  %v{k} = load {vec}, ptr %q{k}, align 64" if offset % 64 == 0
            else f"  %v{k} = load {vec}, ptr %q{k}, align 16",
            f"  %b{k} = fadd {vec} %a{k}, %v{k}",
        ]  # fmt: skip
    sums, total = [], "%b0"
    for k in range(1, STREAMS):
        sums.append(f"  %s{k} = fadd {vec} {total}, %b{k}")
        total = f"%s{k}"
    read += [
        f"  %at1 = add i64 %at, {step}", "  %in = icmp ult i64 %at1, %bytes",
        "  br i1 %in, label %inner, label %next", "next:", "  %t1 = add i64 %t, 1",
        "  %again = icmp ult i64 %t1, %times", "  br i1 %again, label %outer, label %done", "done:",
        *sums, f"  %f = extractelement {vec} {total}, i64 0", "  ret float %f", "}",
    ]  # fmt: skip
    declared = ["declare i64 @llvm.fshl.i64(i64, i64, i64)"]
    module = engine.module_text(target, ["\n".join(clock), "\n".join(read)], declared, [])
    return Linked([engine.assemble(module, target).object], ["clock", "read"])


def _clock(turns: int = 200_000) -> float:
    """Billions of cycles in a second: a rotation and an addition are two."""
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(
        _code().addresses["clock"]
    )
    return 2 * CHAIN * turns / _seconds(lambda: function(turns, 3)) / 1e9


def _read(size: int) -> float:
    """GB/s that a core reads from arrays of a size."""
    array = aligned((size // 4,), np.dtype(np.float32))
    array[...] = 1
    kinds = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    function = ctypes.CFUNCTYPE(ctypes.c_float, *kinds)(_code().addresses["read"])
    step = STREAMS * resolve_target("cpu").vector_bits // 8
    whole, times = size // step * step, max(1, (64 << 20) // size)
    best = min(_seconds(lambda: function(array.ctypes.data, whole, times)) for _ in range(REPEATS))
    return whole * times / best / 1e9


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

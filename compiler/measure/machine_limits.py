"""What the machine can do at most, measured: multiply-adds per second in registers, and bytes per
second that copying large arrays reads and writes. Several threads at once give what they reach
together."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from aisc.codegen.llvm import engine
from aisc.codegen.llvm.link import Linked
from aisc.driver.api import resolve_target

CHAINS = 12
COPY_BYTES = 1 << 26  # of each array: more than caches hold


@cache
def _burn() -> tuple[Linked, int]:
    """A function ``float burn(i64 n, float f)``: n rounds of CHAINS multiply-adds; its lanes."""
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


def fma_gflops(rounds: int = 2_000_000, threads: int = 1) -> float:
    """GFLOP/s of fp32 multiply-adds, one measurement: a million rounds take some hundredths of a
    second."""
    linked, lanes = _burn()
    function = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)(
        linked.addresses["burn"]
    )
    return _rate(threads, 2 * lanes * CHAINS * rounds, lambda k: function(rounds, 0.999)) / 1e9


@cache
def _arrays(threads: int, size: int) -> list[tuple[int, int, object]]:
    """A source and a target of `size` bytes per thread: two addresses and what keeps them alive."""
    pairs = [np.ones((2, size), np.uint8) for _ in range(threads)]
    return [(p[0].ctypes.data, p[1].ctypes.data, p) for p in pairs]


def copy_gbytes(threads: int = 1, size: int = COPY_BYTES) -> float:
    """GB/s read and written by copies of `size` bytes, by default more than a cache holds; one
    measurement of some hundredths of a second."""
    arrays, times = _arrays(threads, size), max(1, COPY_BYTES // size)

    def copy(k: int) -> None:
        source, target, _ = arrays[k]
        for _ in range(times):
            ctypes.memmove(target, source, size)

    return _rate(threads, 2 * size * times, copy) / 1e9


def _rate(threads: int, work: int, run: Callable[[int], object]) -> float:
    """`work` per second of each thread that executes `run`, added up; all run at once."""
    rates = [0.0] * threads
    together = threading.Barrier(threads)

    def one(k: int) -> None:
        if threads > 1:
            _settle(k)
            together.wait()
        start = time.perf_counter()
        run(k)
        rates[k] = work / (time.perf_counter() - start)

    if threads == 1:
        one(0)
        return rates[0]
    all_ = [threading.Thread(target=one, args=(k,)) for k in range(threads)]
    for t in all_:
        t.start()
    for t in all_:
        t.join()
    return sum(rates)


def _settle(k: int) -> None:
    """Give the calling thread, number `k`, a core of its own: threads that wait for each other and
    then wake are often put on one."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[k % len(cores)]})

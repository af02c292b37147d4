"""A matrix product scheduled step by step, from three plain loops to near the machine's peak.

Each step is built from schedule primitives, compiled on its own, checked against numpy, and
measured in turn with the multiply-add peak of the same core::

    python examples/schedule_matmul.py [--size 512] [--repeats 7] [--threads 2]

docs/schedule-a-matmul.md explains the steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import aisc
from aisc import Schedule
from aisc.measure.machine_limits import fma_gflops
from aisc.tensor import ComputeBuilder, Func, Load, buffer, f32

# Rows and columns of a register tile: 14 × 2 vectors of 16 lanes, on a machine with 32 of them.
ROWS, LANES, VECTORS = 14, 16, 2
WIDTH = LANES * VECTORS
Array = np.ndarray


def product(n: int) -> Func:
    """``c[i, j] = sum over k of a[i, k] * b[k, j]``; `b` is constant, so it may be packed."""
    a, b = (buffer(x, f32, (n, n), r) for x, r in (("a", "input"), ("b", "weight")))
    c = buffer("c", f32, (n, n), "output")
    builder = ComputeBuilder()
    builder.reduce(c, (n,), "sum", lambda i, k: Load(a, (i[0], k[0])) * Load(b, (k[0], i[1])), "mm")
    return builder.func("matmul", (a, b, c))


def naive(s: Schedule) -> Schedule:
    """The loops as they are: mm_i0 over rows, mm_i1 over columns, mm_r_i0 over the sum."""
    return s


def vectors(s: Schedule) -> Schedule:
    """Columns innermost and as lanes: a row of c grows by multiples of rows of b."""
    s = s.reorder("mm_i0", "mm_r_i0", "mm_i1")
    s = s.split("mm_i1", LANES, names=("j", "lane")).vectorize("lane")
    return s.decompose_reduction("mm", "mm_r_i0")


def registers(s: Schedule) -> Schedule:
    """A tile of c stays in registers over the whole sum, and is stored once."""
    return tiled(s.cache_write("mm", "register", "tile"))


def tiled(s: Schedule) -> Schedule:
    """Loops over tiles, the sum of one, its rows of vectors."""
    s = s.split("mm_i0", ROWS, names=("i", "row")).split("mm_i1", WIDTH, names=("j", "column"))
    s = s.split("column", LANES, names=("vector", "lane"))
    s = s.reorder("j", "i", "mm_r_i0", "row", "vector", "lane")
    s = s.reverse_compute_at("mm_copy", "i").set_scope("tile", "register")
    s = s.unroll("row").unroll("vector").vectorize("lane")
    return stored(s.decompose_reduction("mm", "mm_r_i0"))


def stored(s: Schedule) -> Schedule:
    """The store of a tile by unrolled rows of vectors."""
    s = s.split("mm_copy_v1_1", LANES, names=("out_vector", "out_lane"))
    return s.unroll("mm_copy_v0_1").unroll("out_vector").vectorize("out_lane")


def clamped(s: Schedule) -> Schedule:
    """Full tiles at the edges as well: rows beyond the end repeat the last one, and only what is
    stored is guarded."""
    s = s.cache_write("mm", "register", "tile")
    s = s.clamp_tail("mm", "mm_i0", ROWS).clamp_tail("mm", "mm_i1", WIDTH, zero=True)
    return tiled(s)


def packed(s: Schedule) -> Schedule:
    """The columns of a tile lie together: b in panels, filled when the program is compiled."""
    return clamped(s.pack("b", 1, WIDTH, (1, 0, 2)))


def ahead(s: Schedule) -> Schedule:
    """The lines of c that a tile will fill are asked for before its sum begins."""
    return packed(s).prefetch("mm_copy", "c", "i")


def threads(s: Schedule) -> Schedule:
    """Panels are divided among threads."""
    return ahead(s).parallel("j")


STEPS: dict[str, Callable[[Schedule], Schedule]] = {
    f.__name__: f for f in (naive, vectors, registers, clamped, packed, ahead, threads)
}


Kernel = Callable[[], Array]


def checked(s: Schedule, n: int, nthreads: int = 1) -> Kernel:
    """A call of the machine code of a schedule, whose result was compared with numpy's."""
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(3))
    product = aisc.build(s, threads=nthreads, weights={"b": b})
    assert np.allclose(product(a), a @ b, rtol=1e-4, atol=1e-3), f"wrong result of\n{s.to_python()}"
    return lambda: product(a, out=c)


def measure(kernel: Kernel, n: int, repeats: int) -> tuple[list[float], float]:
    """Samples in GFLOP/s, ascending, and one core's peak, the median of samples in between."""
    rates, peaks = [], []
    for _ in range(repeats):
        peaks.append(fma_gflops(300_000))
        start = time.perf_counter()
        kernel()
        rates.append(2 * n**3 / (time.perf_counter() - start) / 1e9)
    return sorted(rates), statistics.median(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of the last step")
    options = parser.parse_args()
    func = product(options.size)
    print("step        GFLOP/s (least to most)   share of one core's peak")
    for name, step in STEPS.items():
        count = options.threads if name == "threads" else 1
        kernel = checked(step(Schedule.of(func)), options.size, count)
        rates, peak = measure(kernel, options.size, options.repeats)
        middle, spread = statistics.median(rates), f"({rates[0]:.1f} to {rates[-1]:.1f})"
        print(f"{name:10} {middle:8.1f} {spread:18} {middle / peak:6.0%}", flush=True)


if __name__ == "__main__":
    main()

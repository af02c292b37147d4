"""How fast formulas are: against the operators that they spell out, and against hand-written loops.

    python benchmarks/formulas.py [--rounds 40] [NAME …]

One thread, one process, interleaved. The first table compares formulas with the operators of the
library that they should be recognised as: ratios of medians, operator / formula, from 0.95 on are
what is wanted. The second compares formulas that no library has with numpy, and with numba where it
is installed (fast-math, loops in the order that vectorises): ratios aisc / best, wanted below 1.3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy comes

import numpy as np
from rich.console import Console
from rich.table import Table

import aisc
from aisc.frontend.lang.model import graph_of

try:
    from numba import njit
except ImportError:
    njit = None

Array = np.ndarray[Any, Any]
Way = Callable[..., object]
_WEIGHTS = "param w: f32[64, 64, 3, 3] = normal()\n"
_GAINS = "param g: f32[768] = normal(1)\nparam b: f32[768] = normal(1)\n"
# Name -> (inputs, the operator, the formula).
SPELLED: dict[str, tuple[str, str, str]] = {
    "product": (
        "a: f32[256, 512], b: f32[512, 384]",
        "return a @ b",
        "y[i, j] = sum[k](a[i, k] * b[k, j])\nreturn y",
    ),
    "product of weights": (
        "a: f32[64, 512]",
        "param b: f32[512, 384] = normal()\nreturn a @ b",
        "param b: f32[512, 384] = normal()\ny[i, j] = sum[k](a[i, k] * b[k, j])\nreturn y",
    ),
    "convolution 3x3": (
        "x: f32[1, 64, 56, 56]",
        f"{_WEIGHTS}return conv(x, w, pads=[1, 1, 1, 1])",
        f"{_WEIGHTS}y[b, o, i in 0..56, j in 0..56] = "
        "sum[c, r, s]((x[b, c, i + r - 1, j + s - 1] else 0) * w[o, c, r, s])\nreturn y",
    ),
    "convolution, stride 2": (
        "x: f32[1, 64, 56, 56]",
        f"{_WEIGHTS}return conv(x, w, strides=[2, 2], pads=[1, 1, 1, 1])",
        f"{_WEIGHTS}y[b, o, i in 0..28, j in 0..28] = "
        "sum[c, r, s]((x[b, c, 2*i + r - 1, 2*j + s - 1] else 0) * w[o, c, r, s])\nreturn y",
    ),
    "convolution, depthwise": (
        "x: f32[1, 96, 56, 56]",
        "param w: f32[96, 1, 3, 3] = normal()\nreturn conv(x, w, pads=[1, 1, 1, 1], group=96)",
        "param w: f32[96, 3, 3] = normal()\ny[b, c, i in 0..56, j in 0..56] = "
        "sum[r, s]((x[b, c, i + r - 1, j + s - 1] else 0) * w[c, r, s])\nreturn y",
    ),
    "softmax": (
        "x: f32[512, 1024]",
        "return softmax(x)",
        "m[i] = max[j](x[i, j])\n"
        "y[i, j] = exp(x[i, j] - m[i]) / sum[k](exp(x[i, k] - m[i]))\nreturn y",
    ),
    "layer norm": (
        "x: f32[512, 768]",
        f"{_GAINS}return layer_norm(x, g, b, axis=1)",
        f"{_GAINS}m[i] = mean[j](x[i, j])\nv[i] = mean[j]((x[i, j] - m[i])**2)\n"
        "y[i, j] = (x[i, j] - m[i]) / sqrt(v[i] + 1e-5) * g[j] + b[j]\nreturn y",
    ),
    "attention": (
        "q: f32[12, 128, 64], k: f32[12, 128, 64], v: f32[12, 128, 64]",
        "return softmax(q @ transpose(k, perm=[0, 2, 1]) * 0.125) @ v",
        """s[h, i, j] = sum[d](q[h, i, d] * k[h, j, d]) * 0.125
        m[h, i] = max[j](s[h, i, j])
        e[h, i, j] = exp(s[h, i, j] - m[h, i])
        p[h, i, j] = e[h, i, j] / sum[l](e[h, i, l])
        o[h, i, d] = sum[j](p[h, i, j] * v[h, j, d])
        return o""",
    ),
    "maximum pool": (
        "x: f32[1, 64, 112, 112]",
        "return max_pool(x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])",
        "y[b, c, i in 0..56, j in 0..56] = "
        "max[r in 0..3, s in 0..3]((x[b, c, 2*i + r - 1, 2*j + s - 1] else -inf))\nreturn y",
    ),
    "average pool": (
        "x: f32[1, 64, 56, 56]",
        "return avg_pool(x, kernel_shape=[2, 2], strides=[2, 2])",
        "y[b, c, i, j] = mean[r in 0..2, s in 0..2](x[b, c, 2*i + r, 2*j + s])\nreturn y",
    ),
}


# --- hand-written loops -------------------------------------------------------------------------
def bilateral_by_rows(x: Array, y: Array, p: Array, num: Array, den: Array) -> None:
    h, w = x.shape
    p[:] = 0
    p[2 : h + 2, 2 : w + 2] = x
    for i in range(h):
        num[:] = 0
        den[:] = 0
        for r in range(5):
            for s in range(5):
                for j in range(w):
                    v = p[i + r, j + s]
                    d = v - x[i, j]
                    weight = np.exp(-d * d * np.float32(2.0))
                    num[j] += weight * v
                    den[j] += weight
        for j in range(w):
            y[i, j] = num[j] / den[j]


def correlation_loops(a: Array, b: Array, y: Array) -> None:
    for d in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                y[d, i, j] = 0
            for c in range(a.shape[0]):
                for j in range(y.shape[2]):
                    y[d, i, j] += a[c, i, j] * b[c, i, j + d]


def triangle_loops(x: Array, y: Array) -> None:
    for i in range(x.shape[0]):
        total = np.float32(0)
        for j in range(i + 1):
            total += x[i, j]
        y[i] = total


def distance_loops(a: Array, b: Array, y: Array) -> None:
    for i in range(a.shape[0]):
        for j in range(b.shape[0]):
            total = np.float32(0)
            for k in range(a.shape[1]):
                total += abs(a[i, k] - b[j, k])
            y[i, j] = total


def stencil_loops(x: Array, y: Array) -> None:
    n, m = x.shape
    for i in range(1, n - 1):
        for j in range(1, m - 1):
            around = x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1]
            y[i - 1, j - 1] = np.float32(0.5) * x[i, j] + np.float32(0.125) * around


def bilateral_of_numpy(x: Array) -> Array:
    p = np.pad(x, 2)
    h, w = x.shape
    num, den = np.zeros_like(x), np.zeros_like(x)
    for r in range(5):
        for s in range(5):
            v = p[r : r + h, s : s + w]
            weight = np.exp(-2 * (v - x) ** 2)
            num += weight * v
            den += weight
    return num / den


def empty(*shape: int) -> Array:
    return np.empty(shape, np.float32)


# Name -> (inputs, formula, loops for numba with their further arguments, numpy).
UNFORESEEN: dict[str, tuple[str, str, tuple[Way, Sequence[Array]] | None, Way | None]] = {
    "bilateral filter": (
        "x: f32[256, 256]",
        """v[i in 0..256, j in 0..256, r in 0..5, s in 0..5] = (x[i + r - 2, j + s - 2] else 0)
        w[i, j, r, s] = exp(-(v[i, j, r, s] - x[i, j])**2 * 2.0)
        y[i, j] = sum[r, s](w[i, j, r, s] * v[i, j, r, s]) / sum[r, s](w[i, j, r, s])
        return y""",
        (bilateral_by_rows, (empty(256, 256), empty(260, 260), empty(256), empty(256))),
        bilateral_of_numpy,
    ),
    "correlation": (
        "a: f32[64, 64, 64], b: f32[64, 64, 72]",
        "y[d, i, j] = sum[c](a[c, i, j] * b[c, i, j + d])\nreturn y",
        (correlation_loops, (empty(9, 64, 64),)),
        lambda a, b: np.stack([(a * b[:, :, d : d + 64]).sum(0) for d in range(9)]),
    ),
    "contraction of five indices": (
        "a: f32[64, 16, 32], b: f32[32, 48, 16, 20]",
        "y[i, j, m] = sum[k, l](a[i, k, l] * b[l, j, k, m])\nreturn y",
        None,
        lambda a, b: np.einsum("ikl,ljkm->ijm", a, b, optimize=True),
    ),
    "sum over a triangle": (
        "x: f32[2048, 2048]",
        "y[i] = sum[j in 0..i + 1](x[i, j])\nreturn y",
        (triangle_loops, (empty(2048),)),
        lambda x: np.tril(x).sum(1),
    ),
    "sums of distances": (
        "a: f32[256, 64], b: f32[256, 64]",
        "y[i, j] = sum[k](abs(a[i, k] - b[j, k]))\nreturn y",
        (distance_loops, (empty(256, 256),)),
        lambda a, b: np.abs(a[:, None] - b[None]).sum(2),
    ),
    "five points": (
        "x: f32[1024, 1024]",
        "y[i in 0..1022, j in 0..1022] = 0.5 * x[i + 1, j + 1] + 0.125 * "
        "(x[i, j + 1] + x[i + 2, j + 1] + x[i + 1, j] + x[i + 1, j + 2])\nreturn y",
        (stencil_loops, (empty(1022, 1022),)),
        None,
    ),
}


def compiled(head: str, body: str) -> tuple[aisc.Executable, list[Array]]:
    """A model of a body, and inputs for it."""
    graph = graph_of(f"model m({head}) {{\n{body}\n}}\n", "m.aim", Path(), {})
    rng = np.random.default_rng(0)
    inputs = [rng.random(v.type.static_shape, dtype=np.float32) for v in graph.inputs]
    return aisc.compile(graph, threads=1), inputs


def interleaved(ways: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each way, taking turns, each with its data in the caches."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds):
        order = range(len(ways)) if turn % 2 else reversed(range(len(ways)))
        for k in order:
            ways[k]()
            start = time.perf_counter()
            ways[k]()
            times[k].append(time.perf_counter() - start)
    return times


def against_operators(names: Sequence[str], rounds: int) -> Table:
    """The first table."""
    table = Table("formula", "operator us", "formula us", "operator / formula")
    for name in names:
        head, operator, formula = SPELLED[name]
        (one, inputs), (other, _) = compiled(head, operator), compiled(head, formula)
        times = interleaved([lambda: one(*inputs), lambda: other(*inputs)], rounds)  # noqa: B023
        a, b = (statistics.median(t) * 1e6 for t in times)
        table.add_row(name, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}")
    return table


def against_loops(names: Sequence[str], rounds: int) -> Table:
    """The second table."""
    table = Table("formula", "numpy us", "numba us", "aisc us", "aisc / best")
    for name in names:
        head, body, loops, plain = UNFORESEEN[name]
        exe, inputs = compiled(head, body)
        ways: dict[str, Callable[[], object]] = {"aisc": lambda: exe(*inputs)}  # noqa: B023
        if plain is not None:
            ways["numpy"] = lambda: plain(*inputs)  # noqa: B023
        if loops is not None and njit is not None:
            fast, more = njit(fastmath=True)(loops[0]), loops[1]
            ways["numba"] = lambda: fast(*inputs, *more)  # noqa: B023
        times = interleaved(list(ways.values()), rounds)
        found = {n: statistics.median(t) * 1e6 for n, t in zip(ways, times, strict=True)}
        peers = [v for n, v in found.items() if n != "aisc"]
        ratio = f"{found['aisc'] / min(peers):.2f}" if peers else "-"
        shown = (f"{found[n]:.1f}" if n in found else "-" for n in ("numpy", "numba", "aisc"))
        table.add_row(name, *shown, ratio)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="formulas; by default all")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    chosen = [n for n in (*SPELLED, *UNFORESEEN) if not given.names or n in given.names]
    console = Console()
    for ways, table in ((SPELLED, against_operators), (UNFORESEEN, against_loops)):
        names = [n for n in chosen if n in ways]
        if names:
            console.print(table(names, given.rounds))


if __name__ == "__main__":
    main()

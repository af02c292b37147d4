"""Families whose work is sums of products: convolutions, matrix products, recurrent layers."""

from __future__ import annotations

import math

import numpy as np

from fuzzing.draft import Draft

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 31, 32, 48, 64, 96, 100, 128, 160, 256, 384)
EXTENTS = (1, 2, 5, 7, 8, 13, 14, 17, 28, 31, 32, 56, 64, 80, 112)
DEEP_EXTENT = 16  # of each axis, where there are three
ROWS = (1, 1, 2, 3, 7, 16, 33, 64, 77, 100, 128, 197, 256, 512, 1000)
MOST_CONV_PRODUCTS, MOST_ELEMENTS, MOST_PRODUCTS = 4e8, 4e6, 3e8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


# -- convolutions ----------------------------------------------------------------------------------
def conv(d: Draft) -> list[str]:
    """A convolution over 1 to 3 axes, plain, depthwise, grouped or transposed."""
    while True:
        rank = d.pick(1, 2, 2, 2, 2, 3)
        kernel = [d.pick(1, 1, 2, 3, 3, 3, 5, 7) for _ in range(rank)]
        spread = [d.pick(1, 1, 1, 1, 2, 4) for _ in range(rank)]
        kind = d.pick("plain", "plain", "plain", "depthwise", "grouped", "transposed")
        inner, outer, groups = _channels(d, kind)
        image = _image(d, kernel, spread)
        size = math.prod(image)
        products = size * inner * outer / groups * math.prod(kernel)
        if products <= MOST_CONV_PRODUCTS and max(inner, outer) * size <= MOST_ELEMENTS:
            break
    strides = [d.pick(1, 1, 1, 2, 3) for _ in range(rank)]
    pads = [d.pick(0, (k - 1) // 2) for k in kernel] * 2
    x, bias = d.array(d.pick(1, 1, 1, 2, 4), inner, *image), d.weight(outer)
    window = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    if kind == "transposed":
        y = d.op("ConvTranspose", x, d.weight(inner, outer, *kernel), bias, **window)
    else:
        w = d.weight(outer, inner // groups, *kernel)
        y = d.op("Conv", x, w, bias, **window, dilations=spread, group=groups)
    return [d.op(d.pick("Relu", "Sigmoid", "HardSwish"), y) if d.often(0.5) else y]


def _channels(d: Draft, kind: str) -> tuple[int, int, int]:
    """Channels before and after, and groups of them."""
    if kind == "depthwise":
        return (same := d.pick(*CHANNELS)), same, same
    if kind == "grouped":
        groups = d.pick(2, 4, 8)
        return groups * d.pick(1, 2, 3, 8, 16, 24), groups * d.pick(1, 2, 4, 8, 16, 20), groups
    return d.pick(*CHANNELS), d.pick(*CHANNELS), 1


def _image(d: Draft, kernel: list[int], spread: list[int]) -> list[int]:
    """Sizes that hold the window at least once."""
    least = [(k - 1) * s + 1 for k, s in zip(kernel, spread, strict=True)]
    image = [d.pick(*EXTENTS) for _ in kernel]
    if len(kernel) == 1:
        image = [image[0] * d.pick(1, 4, 30)]
    if len(kernel) == 3:
        image = [min(v, DEEP_EXTENT) for v in image]
    return [max(v, n) for v, n in zip(image, least, strict=True)]


# -- matrix products -------------------------------------------------------------------------------
def matmul(d: Draft) -> list[str]:
    """A product of an input with weights or with an input, single or in batches."""
    while True:
        m, n, k = (d.pick(*ROWS) for _ in range(3))
        batch: tuple[int, ...] = d.pick((), (), (2,), (8,), (3, 4))
        if m * n * k * math.prod(batch) <= MOST_PRODUCTS:
            break
    kind = d.pick("weights", "weights", "inputs", "gemm", "transposed")
    if kind == "gemm":
        y = _gemm(d, m, n, k)
    elif kind == "weights":
        y = d.op("MatMul", d.array(*batch, m, k), d.normal((k, n), 1 / math.sqrt(k)))
    elif kind == "inputs":
        y = d.op("MatMul", d.array(*batch, m, k), d.array(*batch, k, n))
    else:
        rank = len(batch)
        turned = d.op("Transpose", d.array(*batch, k, m), perm=[*range(rank), rank + 1, rank])
        y = d.op("MatMul", turned, d.array(*batch, k, n))
    return [d.op(d.pick("Relu", "Tanh", "Sigmoid"), y) if d.often(0.4) else y]


def _gemm(d: Draft, m: int, n: int, k: int) -> str:
    first, second = d.often(0.3), d.often(0.6)
    x = d.array(k, m) if first else d.array(m, k)
    w = d.normal((n, k) if second else (k, n), 1 / math.sqrt(k))
    return d.op("Gemm", x, w, d.weight(n), transA=int(first), transB=int(second))


# -- recurrent layers ------------------------------------------------------------------------------
def recurrent(d: Draft) -> list[str]:
    """A recurrent layer over a sequence, in one direction or two, some with lengths."""
    kind, hidden = d.pick("LSTM", "GRU", "RNN"), d.pick(16, 50, 64, 128, 200)
    steps, batch, inner = d.pick(5, 20, 60), d.pick(1, 1, 4), d.pick(16, 40, 128)
    both, lengths = d.often(1 / 3), d.often(0.25)
    before = d.pick(0, 1)
    y = cells(d, kind, d.array(steps, batch, inner), (steps, batch, inner, hidden), both=both,
              lengths=lengths, linear_before_reset=before)  # fmt: skip
    return [y]


def cells(
    d: Draft, kind: str, x: str, sizes: tuple[int, int, int, int], *, both: bool = False,
    lengths: bool | str = False, linear_before_reset: int = 0,
) -> str:  # fmt: skip
    """A layer of cells over `x`; sizes are steps, batch, inputs, hidden. The lengths of the
    sequences are drawn, or the value of that name. The result is of ONNX's order: steps,
    directions, batch, hidden."""
    steps, batch, inner, hidden = sizes
    ways, gates = 1 + both, GATES[kind] * hidden
    weights = [d.weight(ways, gates, inner, scale=1 / math.sqrt(inner)),
               d.weight(ways, gates, hidden, scale=1 / math.sqrt(hidden)),
               d.weight(ways, 2 * gates, scale=0.1)]  # fmt: skip
    if lengths is True:
        lengths = drawn_lengths(d, steps, batch)
    extra = [lengths] if lengths else []
    form = {"linear_before_reset": linear_before_reset} if kind == "GRU" else {}
    direction = "bidirectional" if both else "forward"
    outputs = d.multi(kind, 1, x, *weights, *extra, hidden_size=hidden, direction=direction, **form)
    return outputs[0]


def drawn_lengths(d: Draft, steps: int, batch: int) -> str:
    """An input of the lengths of sequences, the first of which is the longest there can be."""
    drawn = [d.chance.randint(1, steps) for _ in range(batch - 1)]
    return d.given(np.array([steps, *drawn], np.int32))

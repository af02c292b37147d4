"""Families that do little with each element: work along rows, maps, moves."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fuzzing.draft import Draft

SIZES = (1, 2, 3, 5, 7, 8, 12, 16, 31, 32, 49, 64, 77, 100, 128, 197, 256, 512, 1000)
LEAST_ELEMENTS, MOST_ELEMENTS = 2000, 1.5e6
MAPS = ("Relu", "Tanh", "Sigmoid", "Exp", "Erf", "Softplus", "Abs", "Neg", "HardSigmoid", "Elu")
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp")
Shape = list[int]


def shape(d: Draft, rank: int = 0) -> Shape:
    """Sizes of an array of thousands to a million elements."""
    while True:
        found = [d.pick(*SIZES) for _ in range(rank or d.pick(2, 3, 3, 4))]
        if LEAST_ELEMENTS < math.prod(found) < MOST_ELEMENTS:
            return found


def some_axes(d: Draft, rank: int) -> list[int]:
    """One axis or more, mostly few."""
    most = rank if d.often(0.2) else min(2, rank)
    return sorted(d.chance.sample(range(rank), d.chance.randint(1, most)))


# -- rows ------------------------------------------------------------------------------------------
def rows(d: Draft) -> list[str]:
    """Softmax, normalization, reduction, position, running sum or order along axes."""
    return d.pick(*ROWS)(d, shape(d))


def _softmax(d: Draft, s: Shape) -> list[str]:
    kind = d.pick("Softmax", "Softmax", "LogSoftmax")
    return [d.op(kind, d.array(*s), axis=d.chance.randrange(len(s)))]


def _layer_norm(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    x, gain, shift = d.array(*s), d.gain(*s[axis:]), d.gain(*s[axis:])
    return [d.op("LayerNormalization", x, gain, shift, axis=axis)]


def _reduction(d: Draft, s: Shape) -> list[str]:
    axes = d.ints(*some_axes(d, len(s)))
    return [d.op(d.pick(*REDUCTIONS), d.array(*s), axes, keepdims=d.pick(0, 1))]


def _position(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    return [d.op(d.pick("ArgMax", "ArgMin"), d.array(*s), axis=axis, keepdims=d.pick(0, 1))]


def _running_sum(d: Draft, s: Shape) -> list[str]:
    axis = d.constant(np.array(d.chance.randrange(len(s))))
    return [d.op("CumSum", d.array(*s), axis, reverse=d.pick(0, 0, 1))]


def _top(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    count = min(s[axis], d.pick(1, 5, 40))
    return d.multi("TopK", 2, d.array(*s), d.ints(count), axis=axis, largest=d.pick(1, 1, 0))


def _instance_norm(d: Draft, s: Shape) -> list[str]:
    s = shape(d, 4)
    return [d.op("InstanceNormalization", d.array(*s), d.gain(s[1]), d.gain(s[1]))]


def _rms_norm(d: Draft, s: Shape) -> list[str]:
    """As exporters write it, node by node."""
    x = d.array(*s)
    power = d.op("ReduceMean", d.op("Mul", x, x), d.ints(len(s) - 1), keepdims=1)
    root = d.op("Sqrt", d.op("Add", power, d.number(1e-5)))
    return [d.op("Mul", d.op("Mul", x, d.op("Reciprocal", root)), d.gain(s[-1]))]


Drawn = Callable[[Draft, Shape], list[str]]
ROWS: tuple[Drawn, ...] = (
    _softmax, _softmax, _softmax, _layer_norm, *[_reduction] * 5, _position, _running_sum, _top,
    _instance_norm, _rms_norm,
)  # fmt: skip


# -- maps ------------------------------------------------------------------------------------------
def maps(d: Draft) -> list[str]:
    """A chain of up to four maps: functions, arithmetic with broadcast operands, choices."""
    s = shape(d)
    x = d.array(*s)
    for _ in range(d.chance.randint(1, 4)):
        x = d.pick(_function, _function, _arithmetic, _choice)(d, s, x)
    return [x]


def _function(d: Draft, s: Shape, x: str) -> str:
    return d.op(d.pick(*MAPS), x)


def _arithmetic(d: Draft, s: Shape, x: str) -> str:
    other = d.array(*(n if d.often(0.6) else 1 for n in s))
    return d.op(d.pick("Add", "Mul", "Sub", "Max"), x, other)


def _choice(d: Draft, s: Shape, x: str) -> str:
    return d.op("Where", d.op("Greater", x, d.number(0)), x, d.array(*s))


# -- moves -----------------------------------------------------------------------------------------
def moves(d: Draft) -> list[str]:
    """Elements are rearranged, picked, repeated, resized or pooled."""
    return d.pick(*MOVES)(d, shape(d))


def _transpose(d: Draft, s: Shape) -> list[str]:
    order = list(range(len(s)))
    d.chance.shuffle(order)
    return [d.op("Transpose", d.array(*s), perm=order)]


def _concat(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    other = [d.pick(1, 3, n) if k == axis else n for k, n in enumerate(s)]
    return [d.op("Concat", d.array(*s), d.array(*other), axis=axis)]


def _split(d: Draft, s: Shape) -> list[str]:
    axis = d.pick(*(k for k, n in enumerate(s) if n > 1))
    first = d.chance.randint(1, s[axis] - 1)
    return d.multi("Split", 2, d.array(*s), d.ints(first, s[axis] - first), axis=axis)


def _slice(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    first, step = d.chance.randrange(s[axis]), d.pick(1, 1, 2)
    bounds = (d.ints(first), d.ints(s[axis]), d.ints(axis), d.ints(step))
    return [d.op("Slice", d.array(*s), *bounds)]


def _pad(d: Draft, s: Shape) -> list[str]:
    widths = d.ints(*(d.pick(0, 0, 1, 2) for _ in range(2 * len(s))))
    return [d.op("Pad", d.array(*s), widths, mode=d.pick("constant", "edge"))]


def _gather(d: Draft, s: Shape) -> list[str]:
    axis = d.chance.randrange(len(s))
    places = d.ints(*(d.chance.randrange(s[axis]) for _ in range(d.pick(1, 7, 64))))
    return [d.op("Gather", d.array(*s), places, axis=axis)]


def _tile(d: Draft, s: Shape) -> list[str]:
    return [d.op("Tile", d.array(*s), d.ints(*(d.pick(1, 1, 2, 3) for _ in s)))]


def _expand(d: Draft, s: Shape) -> list[str]:
    return [d.op("Expand", d.array(*(n if d.often(0.5) else 1 for n in s)), d.ints(*s))]


def _image(d: Draft, times: int = 1) -> str:
    sides = (7, 14, 20, 28, 40, 56)
    return d.array(1, times * d.pick(1, 3, 16, 32, 64, 100), d.pick(*sides), d.pick(*sides))


def _resize(d: Draft, s: Shape) -> list[str]:
    scales = d.constant(np.array([1, 1, d.pick(0.5, 1.5, 2, 3), d.pick(0.5, 2)], np.float32))
    return [d.op("Resize", _image(d), "", scales, mode=d.pick("nearest", "linear", "cubic"))]


def _depth_to_space(d: Draft, s: Shape) -> list[str]:
    return [d.op("DepthToSpace", _image(d, 4), blocksize=2)]


def _pool(d: Draft, s: Shape) -> list[str]:
    side = d.pick(2, 3, 5)
    strides, pads = [d.pick(1, 2)] * 2, [side // 2 if d.often(0.5) else 0] * 4
    kind = d.pick("MaxPool", "AveragePool")
    return [d.op(kind, _image(d), kernel_shape=[side, side], strides=strides, pads=pads)]


MOVES: tuple[Drawn, ...] = (
    _transpose, _transpose, _concat, _split, _slice, _pad, _gather, _resize, _tile, _expand,
    _depth_to_space, _pool, _pool,
)  # fmt: skip

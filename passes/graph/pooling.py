"""Rules on pools: windows that are whole axes become reductions, large ones one axis at a time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import call_of
from aisc.ir.graph.ops.window import pool_window
from aisc.ir.graph.shapes.spatial import Window
from aisc.ir.rewrite.rules import Match, rule

# A chain of pools reads and writes what lies between them, so it has to save more than a little.
WORTH_SEPARATING = 2
# What a vector of elements that lie apart takes, in vectors of such that lie together.
APART = 3


@rule("max_pool", "avg_pool")
def pool_is_reduction(m: Match) -> Sequence[Value] | None:
    """``avg_pool(x) -> reduce_mean(x)`` where the only window holds the whole image, and perhaps
    more; ``max_pool`` likewise. A window of 1280 places over 7 is 7 long."""
    call = call_of(m.node)
    window = pool_window(call)
    _, _, sizes = window.split(call.type(0).shape)
    _, _, results = window.split(m.node.output.type.shape)
    if any(d != 1 for d in results) or any(d != 1 for d in window.dilations):
        return None
    for size, kernel, begin in zip(sizes, window.kernel, window.begins, strict=True):
        if not isinstance(size, int) or not 0 < size <= kernel - begin:
            return None
    if m.node.op == "avg_pool" and call.attrs["count_include_pad"] and window.is_padded:
        return None
    axes = tuple(range(window.first_spatial, window.first_spatial + window.spatial))
    op = "reduce_max" if m.node.op == "max_pool" else "reduce_mean"
    return (m.add(op, m.node.inputs, {"axes": axes, "keepdims": True}),)


@rule("max_pool", "avg_pool")
def separate_windows(m: Match) -> Sequence[Value] | None:
    """``max_pool(x, [h, w]) -> max_pool(max_pool(x, [h, 1]), [1, w])`` for large windows: h + w
    places for a result instead of h * w; ``avg_pool`` likewise, whose windows have the same places
    inside the image in each row."""
    window = pool_window(call_of(m.node))
    long = [a for a in range(window.spatial) if window.kernel[a] > 1]
    if len(long) < 2 or (m.node.op == "avg_pool" and m.node.output.type.dtype.bits < 32):
        return None
    lanes = None if window.channels_last else window.spatial - 1
    strided = lanes is not None and window.strides[lanes] > 1
    # Each pool but the last one runs where the strides of later ones have not thinned out results.
    places = sum(
        window.kernel[a]
        * prod(window.strides[b] for b in long[k + 1 :])
        * (APART if strided and a == lanes else 1)
        for k, a in enumerate(long)
    )
    if WORTH_SEPARATING * places > prod(window.kernel) * (APART if strided else 1):
        return None
    value = m.input(0)
    for axis in long:
        value = m.add(m.node.op, (value,), {**m.node.attr_map, **_alone(window, axis)})
    return None if value is None else (value,)


def _alone(window: Window, axis: int) -> dict[str, AttrValue]:
    """The attributes of a window along one of its axes."""

    def only(values: Sequence[int], other: int) -> tuple[int, ...]:
        return tuple(v if a == axis else other for a, v in enumerate(values))

    return {
        "kernel_shape": only(window.kernel, 1), "strides": only(window.strides, 1),
        "dilations": only(window.dilations, 1),
        "pads": (*only(window.begins, 0), *only(window.ends, 0)),
    }  # fmt: skip


RULES = (pool_is_reduction, separate_windows)

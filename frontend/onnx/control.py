"""ONNX If, Loop and Scan: subgraphs become regions of ``if`` and ``loop``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aisc.frontend.building.choices import ArmNeeded
from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.regions import (
    Inline,
    RanksDiffer,
    Region,
    either,
    element,
    loop,
    only_arm,
)
from aisc.frontend.building.report import Report
from aisc.frontend.onnx.fitting import one_value
from aisc.frontend.onnx.functions import Frame
from aisc.frontend.onnx.node import Node
from aisc.frontend.onnx.tensors import to_blob
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value
from aisc.ir.types import MAX_SIZE

if TYPE_CHECKING:
    from onnx import GraphProto, ValueInfoProto

    from aisc.frontend.onnx.translate import Translator

MAX_NESTING = 16


class LostRegion(Exception):
    """A result of a subgraph is missing, for a reason that has been reported."""


def translate_control(tr: Translator, node: Node, frame: Frame) -> Sequence[Value]:
    """The results of an If, Loop or Scan node."""
    if tr.nesting >= MAX_NESTING:
        message = f"subgraphs are nested deeper than {MAX_NESTING}"
        raise error("E105", message, loc=node.loc)
    return {"If": _if, "Loop": _loop, "Scan": _scan}[node.op](tr, node, frame)


def _translate(
    tr: Translator,
    region: Region | Inline,
    graph: GraphProto,
    node: Node,
    frame: Frame,
    given: Mapping[str, Value],
) -> list[Value]:
    """The outputs of a subgraph whose inputs are `given`, emitted into a region."""
    inner = Frame(graph.node, frame.opsets)
    inner.attributes, inner.parent = frame.attributes, node.loc
    for name in dict.fromkeys(_names(graph)):
        if name in frame.scope and name not in given:
            outer = frame.scope[name]
            inner.scope[name] = None if outer is None else region.capture(outer)
        elif name in frame.lost:
            inner.lost.add(name)
    inner.scope.update(given)
    for tensor in graph.initializer:
        blob = to_blob(tensor, tr.folder, node.loc)
        inner.scope[tensor.name] = region.em.blob(blob, tensor.name)
    tr.run(inner)
    region.em.loc = node.loc
    outputs: list[Value] = []
    for info in graph.output:
        value = inner.scope.get(info.name)
        if value is None:
            if info.name not in inner.lost:
                message = f"a subgraph of {node.op} does not compute '{info.name}'"
                tr.report.malformed(message, loc=node.loc)
            raise LostRegion
        outputs.append(value)
    return outputs


def _names(graph: GraphProto) -> Iterator[str]:
    """Every name that a subgraph, or one inside it, reads."""
    stack = [graph]
    while stack:
        top = stack.pop()
        yield from (info.name for info in top.output)
        for n in top.node:
            yield from filter(None, n.input)
            for a in n.attribute:
                stack.extend([a.g] if a.HasField("g") else [])
                stack.extend(a.graphs)


# --- If ---------------------------------------------------------------------------------------
def _if(tr: Translator, node: Node, frame: Frame) -> Sequence[Value]:
    em = tr.emitter
    cond = one_value(em, node, em.cast(node.input(0), dtypes.boolean), "the condition")

    graphs = [(name, node.graph(name)) for name in ("else_branch", "then_branch")]

    def arm(region: Region | Inline, here: bool) -> list[Value]:
        name, graph = graphs[here]
        apart = tr.inside(region.em, Report(tr.report.words))
        try:
            outputs = _translate(apart, region, graph, node, frame, {})
        except LostRegion:
            if apart.report.is_about_sizes:
                apart.report.finish()
            tr.report.found.extend(apart.report.found.items)
            raise
        if len(outputs) != len(node.outputs):
            raise node.malformed(f"{name} has {len(outputs)} results")
        return outputs

    key = str(node.loc)
    if key in tr.choices.taken:
        return only_arm(em, cond, arm, tr.choices.taken[key], tr.choices.reasons[key])
    try:
        return either(em, cond, arm)
    except RanksDiffer as fault:
        raise ArmNeeded(fault, key) from None


# --- Loop -------------------------------------------------------------------------------------
def _loop(tr: Translator, node: Node, frame: Frame) -> Sequence[Value]:
    em, body = tr.emitter, node.graph("body")
    initial = [node.input(k) for k in range(2, len(node.inputs))]
    names = [info.name for info in body.input]
    if len(names) != 2 + len(initial) or len(body.output) < 1 + len(initial):
        raise node.malformed("the body does not fit the loop's values")
    trip, limit = _turns(em, node)
    cond, never = _first_condition(em, node)

    def step(
        region: Region, index: Dim, carried: list[Value]
    ) -> tuple[Value | None, Sequence[Value], Sequence[Value]]:
        inside = region.em
        turn = inside.reshape(inside.dims_value(index), _shape(body.input[0]))
        true = inside.constant(np.full(_shape(body.input[1]), True))
        given = dict(zip(names, [turn, true, *carried], strict=True))
        flag, *rest = _translate(tr.inside(inside), region, body, node, frame, given)
        known = inside.array(flag)
        endless = known is not None and bool(known.all())
        flag = one_value(inside, node, inside.cast(flag, dtypes.boolean), "the condition")
        return (None if endless else flag), rest[: len(carried)], rest[len(carried) :]

    return loop(em, step, initial, trip=0 if never else trip, limit=limit, cond=cond)


def _shape(info: ValueInfoProto) -> tuple[int, ...]:
    """The shape of a value with one element."""
    return (1,) * len(info.type.tensor_type.shape.dim)


def _turns(em: Emitter, node: Node) -> tuple[Dim | None, Value | None]:
    """The greatest number of turns: a size known now, or a value."""
    value = node.optional(0)
    if value is None:
        return None, None
    known = em.known(value)
    if known is not None and known.size == 1:
        size: Dim = known.reshape(-1)[0]
        return (None if isinstance(size, int) and size > MAX_SIZE else size), None
    return None, one_value(em, node, em.cast(value, dtypes.i64), "the number of turns")


def _first_condition(em: Emitter, node: Node) -> tuple[Value | None, bool]:
    """The condition of the first turn, ``None`` when it holds; whether it is known not to."""
    value = node.optional(1)
    known = em.array(value)
    if value is None or (known is not None and bool(known.all())):
        return None, False
    if known is not None:
        return None, True
    return one_value(em, node, em.cast(value, dtypes.boolean), "the condition"), False


# --- Scan -------------------------------------------------------------------------------------
def _scan(tr: Translator, node: Node, frame: Frame) -> Sequence[Value]:
    if node.version < 9:
        raise node.unsupported("the batched form of opset 8 is not supported")
    em, body, count = tr.emitter, node.graph("body"), node.integer("num_scan_inputs")
    if not 1 <= count <= len(node.inputs):
        raise node.malformed(f"num_scan_inputs is {count}, with {len(node.inputs)} inputs")
    states = [node.input(k) for k in range(len(node.inputs) - count)]
    scanned = [node.input(k) for k in range(len(states), len(node.inputs))]
    names = [info.name for info in body.input]
    outputs = len(body.output) - len(states)
    if len(names) != len(node.inputs) or outputs < 0:
        raise node.malformed("the body does not fit the scan's values")
    axes = _axes(node, "scan_input_axes", scanned)
    flips = _flags(node, "scan_input_directions", count)
    trip: Dim = scanned[0].type.shape[axes[0]]
    for k, (x, axis) in enumerate(zip(scanned, axes, strict=True)):
        size = x.type.shape[axis]
        if size != trip and isinstance(size, int) and isinstance(trip, int):
            raise node.malformed(f"scanned sizes {trip} and {size} differ")
        scanned[k] = em.assume(x, (*x.type.shape[:axis], trip, *x.type.shape[axis + 1 :]))

    def step(
        region: Region, index: Dim, carried: list[Value]
    ) -> tuple[Value | None, Sequence[Value], Sequence[Value]]:
        parts: list[Value] = []
        for x, axis, flip in zip(scanned, axes, flips, strict=True):
            at = trip - 1 - index if flip else index
            parts.append(element(region.em, region.capture(x), axis, at))
        given = dict(zip(names, [*carried, *parts], strict=True))
        found = _translate(tr.inside(region.em), region, body, node, frame, given)
        return None, found[: len(states)], found[len(states) :]

    results = loop(em, step, states, trip=trip)
    stacked = results[len(states) :]
    out_flips = _flags(node, "scan_output_directions", outputs)
    out_axes = _axes(node, "scan_output_axes", stacked)
    placed = [
        moved(em, reversed_rows(em, y) if flip else y, axis)
        for y, flip, axis in zip(stacked, out_flips, out_axes, strict=True)
    ]
    return [*results[: len(states)], *placed]


def _axes(node: Node, name: str, values: Sequence[Value]) -> list[int]:
    given = node.ints(name) or (0,) * len(values)
    if len(given) != len(values):
        raise node.malformed(f"{name} has {len(given)} entries for {len(values)} values")
    axes: list[int] = []
    for axis, v in zip(given, values, strict=True):
        if not -v.type.rank <= axis < v.type.rank:
            raise node.malformed(f"axis {axis} is outside {v.type}")
        axes.append(axis % v.type.rank)
    return axes


def _flags(node: Node, name: str, count: int) -> tuple[int, ...]:
    given = node.ints(name) or (0,) * count
    if len(given) != count:
        raise node.malformed(f"{name} has {len(given)} entries for {count} values")
    return given


def reversed_rows(em: Emitter, x: Value) -> Value:
    """`x` with the order of its first axis reversed."""
    shape = x.type.shape
    starts = (shape[0] - 1, *(0,) * (x.type.rank - 1))
    steps = (-1, *(1,) * (x.type.rank - 1))
    return em.op("slice", x, starts=starts, ends=(-1, *shape[1:]), steps=steps)


def moved(em: Emitter, x: Value, axis: int) -> Value:
    """`x` with its first axis moved to `axis`."""
    perm = list(range(1, x.type.rank))
    perm.insert(axis, 0)
    return em.transpose(x, perm)

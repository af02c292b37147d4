"""ONNX LSTM, GRU and RNN as loops over the sequence.

The input's share of all gates is one matmul for the whole sequence; each turn adds the recurrent
share. Gates stand in ONNX's order: LSTM i, o, f, c; GRU z, r, h. A sequence shorter than the
longest keeps its states from its last element on, and gives zeros.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.regions import Region, Stepped, element, loop
from aisc.frontend.onnx.control import reversed_rows
from aisc.frontend.onnx.fitting import fitted
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value

Activation = Callable[[Emitter, Value], Value]
_PLAIN = {
    "sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "softsign": "softsign",
    "softplus": "softplus",
}  # fmt: skip
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction of a recurrent node: weights without the leading axis, and its functions."""

    em: Emitter
    node: Node
    recurrent: Value  # (hidden, gates * hidden)
    input_bias: Value | None
    recurrent_bias: Value | None
    peephole: Value | None
    activations: tuple[Activation, ...]
    hidden: int
    clip: float

    def gate(self, value: Value, index: int, count: int = 1) -> Value:
        """Columns of gate `index` of a (batch, gates * hidden) tensor, or of `count` gates."""
        start, stop = index * self.hidden, (index + count) * self.hidden
        return self.em.slice_axis(value, value.type.rank - 1, start, stop)

    def clipped(self, value: Value) -> Value:
        """Bounded by the clip attribute, before an activation."""
        if math.isinf(self.clip):
            return value
        return self.em.op("clip", value, min=-self.clip, max=self.clip)

    def step(self, x: Value, h: Value, c: Value | None) -> tuple[Value, Value | None]:
        """The next states, from one step's input share of the gates."""
        if self.node.op == "LSTM":
            assert c is not None, "an LSTM has a cell state"
            return self._lstm(x, h, c)
        return (self._gru(x, h) if self.node.op == "GRU" else self._rnn(x, h)), None

    def _recur(self, h: Value, index: int = 0, count: int | None = None) -> Value:
        """The recurrent share with its bias, of all gates or of `count` from gate `index` on."""
        weight, bias = self.recurrent, self.recurrent_bias
        if count is not None:
            weight = self.gate(weight, index, count)
            bias = None if bias is None else self.gate(bias, index, count)
        y = self.em.op("matmul", h, weight)
        return y if bias is None else self.em.op("add", y, bias)

    def _lstm(self, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
        em, (f, g, last) = self.em, self.activations
        sums = em.op("add", x, self._recur(h))
        i, o, forget, cell = (self.gate(sums, k) for k in range(4))
        if self.peephole is not None:
            i = em.op("add", i, em.op("mul", c, self.gate(self.peephole, 0)))
            forget = em.op("add", forget, em.op("mul", c, self.gate(self.peephole, 2)))
        i, forget = f(em, self.clipped(i)), f(em, self.clipped(forget))
        fresh = em.op("mul", i, g(em, self.clipped(cell)))
        c = em.op("add", em.op("mul", forget, c), fresh)
        if self.peephole is not None:
            o = em.op("add", o, em.op("mul", c, self.gate(self.peephole, 1)))
        return em.op("mul", f(em, self.clipped(o)), last(em, c)), c

    def _gru(self, x: Value, h: Value) -> Value:
        em, (f, g) = self.em, self.activations
        linear = self.node.flag("linear_before_reset")
        sums = self._recur(h, 0, 3 if linear else 2)
        z = f(em, self.clipped(em.op("add", self.gate(x, 0), self.gate(sums, 0))))
        r = f(em, self.clipped(em.op("add", self.gate(x, 1), self.gate(sums, 1))))
        if linear:
            part = em.op("mul", r, self.gate(sums, 2))
        else:
            part = self._recur(em.op("mul", r, h), 2, 1)
        fresh = g(em, self.clipped(em.op("add", self.gate(x, 2), part)))
        keep = em.op("mul", z, h)
        return em.op("add", em.op("mul", em.op("sub", em.like(1, z), z), fresh), keep)

    def _rnn(self, x: Value, h: Value) -> Value:
        (f,) = self.activations
        return f(self.em, self.clipped(self.em.op("add", x, self._recur(h))))


def _activations(node: Node, directions: int) -> list[tuple[Activation, ...]]:
    """The functions of each direction; E102 for those that take parameters."""
    count = len(_DEFAULTS[node.op])
    names = node.attr("activations", "strs") or _DEFAULTS[node.op] * directions
    if len(names) != count * directions:
        raise node.malformed(f"activations {names}")
    unknown = [n for n in names if n.lower() not in _PLAIN]
    if unknown or node.attr("activation_alpha", "floats") or node.attr("activation_beta", "floats"):
        raise node.unsupported(f"activations {names} with parameters")

    def function(name: str) -> Activation:
        return lambda em, x: em.op(_PLAIN[name.lower()], x)

    made = [function(n) for n in names]
    return [tuple(made[k * count : (k + 1) * count]) for k in range(directions)]


def _of_direction(em: Emitter, value: Value | None, index: int) -> Value | None:
    """Part `index` of a tensor along its leading axis, without that axis."""
    if value is None:
        return None
    part = em.slice_axis(value, 0, index, index + 1)
    return em.reshape(part, value.type.shape[1:])


def _needed(value: Value | None) -> Value:
    assert value is not None, "a required operand"
    return value


def _cell(
    em: Emitter, node: Node, index: int, hidden: int, functions: tuple[Activation, ...]
) -> _Cell:
    gates = _GATES[node.op] * hidden
    r = _needed(_of_direction(em, node.input(2), index))
    text = f"recurrent weight {node.input(2).type} for {hidden} units"
    r = fitted(em, node, r, (gates, hidden), text)
    b = _of_direction(em, node.optional(3), index)
    if b is not None:
        text = f"bias {_needed(node.optional(3)).type} for {hidden} units"
        b = fitted(em, node, b, (2 * gates,), text)
    halves = (0, gates), (gates, 2 * gates)
    own, other = (None if b is None else em.slice_axis(b, 0, *part) for part in halves)
    peephole = _of_direction(em, node.optional(7), index) if node.op == "LSTM" else None
    clip = node.number("clip", math.inf)
    return _Cell(em, node, em.transpose(r, (1, 0)), own, other, peephole, functions, hidden, clip)


def _inside(cell: _Cell, region: Region) -> _Cell:
    """The cell as a region sees it."""

    def seen(v: Value | None) -> Value | None:
        return None if v is None else region.capture(v)

    return replace(
        cell,
        em=region.em,
        recurrent=region.capture(cell.recurrent),
        recurrent_bias=seen(cell.recurrent_bias),
        peephole=seen(cell.peephole),
    )


def _run(
    cell: _Cell, x: Value, w: Value, states: Sequence[Value], lengths: Value | None, reverse: bool
) -> tuple[Value, list[Value]]:
    """All hidden states (steps, batch, hidden) in the order of the sequence, the last states."""
    em, steps = cell.em, x.type.shape[0]
    share = em.op("matmul", x, em.transpose(w, (1, 0)))
    if cell.input_bias is not None:
        share = em.op("add", share, cell.input_bias)

    def step(region: Region, index: Dim, carried: list[Value]) -> Stepped:
        at = steps - 1 - index if reverse else index
        part = element(region.em, region.capture(share), 0, at)
        h, c = _inside(cell, region).step(part, carried[0], carried[1] if carried[1:] else None)
        new = [h] if c is None else [h, c]
        if lengths is None:
            return None, new, [h]
        valid = _valid(region, lengths, at)
        zero = region.em.like(0, h)
        kept = [region.em.op("where", valid, a, b) for a, b in zip(new, carried, strict=True)]
        return None, kept, [region.em.op("where", valid, h, zero)]

    *last, rows = loop(em, step, states, trip=steps)
    return reversed_rows(em, rows) if reverse else rows, last


def _valid(region: Region, lengths: Value, at: Dim) -> Value:
    """Whether each sequence of the batch is longer than `at`: (batch, 1)."""
    em = region.em
    inside = em.op("less", em.dims_value([at]), em.cast(region.capture(lengths), dtypes.i64))
    return em.reshape(inside, (*inside.type.shape, 1))


def _lengths(em: Emitter, node: Node, x: Value) -> Value | None:
    """The lengths of the sequences, unless all are known to be whole."""
    if node.flag("input_forget"):
        raise node.unsupported("coupled input and forget gates")
    node.flag("linear_before_reset")
    lengths = node.optional(4)
    known = em.array(lengths)
    if lengths is None or (known is not None and bool((known == x.type.shape[0]).all())):
        return None
    return em.reshape(lengths, (x.type.shape[1],))


def _stack(em: Emitter, values: Sequence[Value], axis: int) -> Value:
    shape = values[0].type.shape
    parts = [em.reshape(v, (*shape[:axis], 1, *shape[axis:])) for v in values]
    return parts[0] if len(parts) == 1 else em.op("concat", *parts, axis=axis)


@onnx_op("LSTM", "GRU", "RNN", since=7)
def _recurrent(em: Emitter, node: Node) -> Sequence[Value]:
    x, batch_first = node.input(0), node.flag("layout")
    if x.type.rank != 3 or any(node.input(k).type.rank != 3 for k in (1, 2)):
        raise node.malformed(f"operands {x.type}, {node.input(1).type}, {node.input(2).type}")
    x = em.transpose(x, (1, 0, 2)) if batch_first else x
    lengths = _lengths(em, node, x)
    direction, hidden = node.text("direction", "forward"), node.integer("hidden_size")
    directions = 2 if direction == "bidirectional" else 1
    text = f"{direction}, {hidden} units, weight {node.input(1).type}"
    if hidden < 1:
        raise node.malformed(text)
    fitted(em, node, node.input(1), (directions, *node.input(1).type.shape[1:]), text)
    functions = _activations(node, directions)
    rows: list[Value] = []
    lasts: list[list[Value]] = []
    for k in range(directions):
        places = (5, 6) if node.op == "LSTM" else (5,)
        start = [_initial(em, node, x, place, k, hidden, batch_first) for place in places]
        w = _needed(_of_direction(em, node.input(1), k))
        reverse = direction == "reverse" or k == 1
        cell = _cell(em, node, k, hidden, functions[k])
        states, last = _run(cell, x, w, start, lengths, reverse)
        rows.append(states)
        lasts.append(last)
    y = _stack(em, rows, 1)
    results = [y, *(_stack(em, list(column), 0) for column in zip(*lasts, strict=True))]
    if batch_first:
        results[0] = em.transpose(y, (2, 0, 1, 3))
        results[1:] = [em.transpose(v, (1, 0, 2)) for v in results[1:]]
    return results


def _initial(
    em: Emitter, node: Node, x: Value, place: int, index: int, hidden: int, batch_first: bool
) -> Value:
    """An initial state (batch, hidden) of one direction; zeros when it is absent."""
    given = node.optional(place) if place == 5 or node.op == "LSTM" else None
    shape = (x.type.shape[1], hidden)
    if given is None:
        return em.op("expand", em.like(0, x), shape=shape)
    if batch_first:
        given = em.transpose(given, (1, 0, 2))
    state = _needed(_of_direction(em, given, index))
    pairs = list(zip(state.type.shape, shape, strict=False))
    differ = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs)
    if state.type.rank != len(shape) or differ:
        raise node.malformed(f"initial state {given.type}")
    return em.assume(state, shape)

"""ONNX LSTM, GRU and RNN, unrolled over a sequence of known, bounded length.

The input's share of all gates is one matmul for the whole sequence; each step adds the recurrent
share. Gates stand in ONNX's order: LSTM i, o, f, c; GRU z, r, h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aisc.frontend.onnx.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value

MAX_STEPS = 512
Activation = Callable[[Value], Value]
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

    def gate(self, value: Value, index: int) -> Value:
        """Columns of gate `index` of a (batch, gates * hidden) tensor."""
        start = index * self.hidden
        return self.em.slice_axis(value, value.type.rank - 1, start, start + self.hidden)

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

    def _recur(self, h: Value, index: int | None = None) -> Value:
        """The recurrent share with its bias, of all gates or of one."""
        weight, bias = self.recurrent, self.recurrent_bias
        if index is not None:
            weight = self.gate(weight, index)
            bias = None if bias is None else self.gate(bias, index)
        y = self.em.op("matmul", h, weight)
        return y if bias is None else self.em.op("add", y, bias)

    def _lstm(self, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
        em, (f, g, last) = self.em, self.activations
        sums = em.op("add", x, self._recur(h))
        i, o, forget, cell = (self.gate(sums, k) for k in range(4))
        if self.peephole is not None:
            i = em.op("add", i, em.op("mul", c, self.gate(self.peephole, 0)))
            forget = em.op("add", forget, em.op("mul", c, self.gate(self.peephole, 2)))
        i, forget = f(self.clipped(i)), f(self.clipped(forget))
        fresh = em.op("mul", i, g(self.clipped(cell)))
        c = em.op("add", em.op("mul", forget, c), fresh)
        if self.peephole is not None:
            o = em.op("add", o, em.op("mul", c, self.gate(self.peephole, 1)))
        return em.op("mul", f(self.clipped(o)), last(c)), c

    def _gru(self, x: Value, h: Value) -> Value:
        em, (f, g) = self.em, self.activations
        z = f(self.clipped(em.op("add", self.gate(x, 0), self._recur(h, 0))))
        r = f(self.clipped(em.op("add", self.gate(x, 1), self._recur(h, 1))))
        if self.node.flag("linear_before_reset"):
            part = em.op("mul", r, self._recur(h, 2))
        else:
            part = self._recur(em.op("mul", r, h), 2)
        fresh = g(self.clipped(em.op("add", self.gate(x, 2), part)))
        keep = em.op("mul", z, h)
        return em.op("add", em.op("mul", em.op("sub", em.like(1, z), z), fresh), keep)

    def _rnn(self, x: Value, h: Value) -> Value:
        (f,) = self.activations
        return f(self.clipped(self.em.op("add", x, self._recur(h))))


def _activations(em: Emitter, node: Node, directions: int) -> list[tuple[Activation, ...]]:
    """The functions of each direction; E102 for those that take parameters."""
    count = len(_DEFAULTS[node.op])
    names = node.attr("activations", "strs") or _DEFAULTS[node.op] * directions
    if len(names) != count * directions:
        raise node.malformed(f"activations {names}")
    unknown = [n for n in names if n.lower() not in _PLAIN]
    if unknown or node.attr("activation_alpha", "floats") or node.attr("activation_beta", "floats"):
        raise node.unsupported(f"activations {names} with parameters")

    def function(name: str) -> Activation:
        return lambda x: em.op(_PLAIN[name.lower()], x)

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
    if r.type.shape != (gates, hidden):
        raise node.malformed(f"recurrent weight {node.input(2).type} for {hidden} units")
    b = _of_direction(em, node.optional(3), index)
    if b is not None and b.type.shape != (2 * gates,):
        raise node.malformed(f"bias {_needed(node.optional(3)).type} for {hidden} units")
    halves = (0, gates), (gates, 2 * gates)
    own, other = (None if b is None else em.slice_axis(b, 0, *part) for part in halves)
    peephole = _of_direction(em, node.optional(7), index) if node.op == "LSTM" else None
    clip = node.number("clip", math.inf)
    return _Cell(em, node, em.transpose(r, (1, 0)), own, other, peephole, functions, hidden, clip)


def _run(
    cell: _Cell, x: Value, w: Value, h: Value, c: Value | None, reverse: bool
) -> tuple[list[Value], Value, Value | None]:
    """All hidden states in the order of the sequence, and the last states."""
    em, steps = cell.em, x.type.shape[0]
    assert isinstance(steps, int), "a known number of steps"
    share = em.op("matmul", x, em.transpose(w, (1, 0)))
    if cell.input_bias is not None:
        share = em.op("add", share, cell.input_bias)
    states: dict[int, Value] = {}
    for t in reversed(range(steps)) if reverse else range(steps):
        part = em.slice_axis(share, 0, t, t + 1)
        h, c = cell.step(em.reshape(part, share.type.shape[1:]), h, c)
        states[t] = h
    return [states[t] for t in range(steps)], h, c


def _check(em: Emitter, node: Node, x: Value) -> None:
    steps = x.type.shape[0]
    if not isinstance(steps, int) or not 0 < steps <= MAX_STEPS:
        raise node.unsupported(f"a sequence of {steps} steps (at most {MAX_STEPS}, known)")
    lengths = em.array(node.optional(4))
    if node.has(4) and lengths is None:
        raise error("E204", f"{node.op}: the sequence lengths must be known", loc=node.loc)
    if lengths is not None and not (lengths == steps).all():
        raise node.unsupported("sequences of different lengths")
    if node.flag("input_forget"):
        raise node.unsupported("coupled input and forget gates")
    node.flag("linear_before_reset")


def _stack(em: Emitter, values: Sequence[Value], axis: int) -> Value:
    shape = values[0].type.shape
    parts = [em.reshape(v, (*shape[:axis], 1, *shape[axis:])) for v in values]
    return em.op("concat", *parts, axis=axis)


@onnx_op("LSTM", "GRU", "RNN", since=7)
def _recurrent(em: Emitter, node: Node) -> Sequence[Value]:
    x, batch_first = node.input(0), node.flag("layout")
    if x.type.rank != 3 or any(node.input(k).type.rank != 3 for k in (1, 2)):
        raise node.malformed(f"operands {x.type}, {node.input(1).type}, {node.input(2).type}")
    x = em.transpose(x, (1, 0, 2)) if batch_first else x
    _check(em, node, x)
    direction, hidden = node.text("direction", "forward"), node.integer("hidden_size")
    directions = 2 if direction == "bidirectional" else 1
    if node.input(1).type.shape[0] != directions or hidden < 1:
        raise node.malformed(f"{direction}, {hidden} units, weight {node.input(1).type}")
    functions = _activations(em, node, directions)
    rows: list[Value] = []
    lasts: list[tuple[Value, Value | None]] = []
    for k in range(directions):
        start = [_initial(em, node, x, place, k, hidden, batch_first) for place in (5, 6)]
        w = _needed(_of_direction(em, node.input(1), k))
        c = start[1] if node.op == "LSTM" else None
        reverse = direction == "reverse" or k == 1
        cell = _cell(em, node, k, hidden, functions[k])
        states, h, c = _run(cell, x, w, start[0], c, reverse)
        rows.append(_stack(em, states, 0))
        lasts.append((h, c))
    y, y_h = _stack(em, rows, 1), _stack(em, [h for h, _ in lasts], 0)
    cells = [c for _, c in lasts if c is not None]
    results = [y, y_h] + ([_stack(em, cells, 0)] if cells else [])
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
    if state.type.shape != shape:
        raise node.malformed(f"initial state {given.type}")
    return state

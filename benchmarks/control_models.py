"""Models with control flow, built from a seed: greedy decoding, an LSTM as a Scan, nested Ifs.

python benchmarks/peers.py greedy_decoding lstm_as_scan nested_ifs    # their time against others
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def value(name: str, kind: int, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A model of opset 18."""
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    return made


@dataclass(frozen=True)
class Sample:
    """A model with inputs."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]


class Nodes:
    """Nodes and weights of a graph being built."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.count = 0

    def add(self, op: str, *inputs: str, name: str = "", **attrs: Any) -> str:
        """Append a node with one result."""
        self.count += 1
        out = name or f"{op.lower()}_{self.count}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attrs))
        return out

    def const(self, array: Any, name: str = "") -> str:
        """A weight."""
        self.count += 1
        out = name or f"w_{self.count}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), out))
        return out

    def matrix(self, *shape: int) -> str:
        """Random weights that keep the size of what they multiply."""
        scale = 1 / np.sqrt(shape[0])
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def take(self) -> list[onnx.NodeProto]:
        """The nodes so far; the next ones belong to another graph."""
        taken, self.nodes = self.nodes, []
        return taken


def _attention_step(
    g: Nodes, x: str, past: tuple[str, str], dim: int, heads: int
) -> tuple[str, str, str]:
    """One token's attention over the cache and itself: output, new keys, new values."""
    size = dim // heads
    split = g.const(np.array([0, 1, heads, size]))
    parts = []
    for _ in range(3):
        y = g.add("MatMul", x, g.matrix(dim, dim))
        parts.append(g.add("Transpose", g.add("Reshape", y, split), perm=[0, 2, 1, 3]))
    q, k, v = parts
    keys, values = g.add("Concat", past[0], k, axis=2), g.add("Concat", past[1], v, axis=2)
    scores = g.add("MatMul", q, g.add("Transpose", keys, perm=[0, 1, 3, 2]))
    scale = g.const(np.float32(1 / np.sqrt(size)))
    weights = g.add("Softmax", g.add("Mul", scores, scale), axis=-1)
    mixed = g.add("Transpose", g.add("MatMul", weights, values), perm=[0, 2, 1, 3])
    joined = g.add("Reshape", mixed, g.const(np.array([0, 1, dim])))
    return g.add("MatMul", joined, g.matrix(dim, dim)), keys, values


def _decoder_step(
    g: Nodes, vocabulary: int, dim: int, heads: int, layers: int
) -> list[tuple[str, str, int]]:
    """Nodes of one token's pass; the carried values as (before, after, type)."""
    scale, shift = g.const(np.ones(dim, np.float32)), g.const(np.zeros(dim, np.float32))
    x = g.add("Gather", g.matrix(vocabulary, dim), "token")
    carried = [("token", "next", I64)]
    for k in range(layers):
        past = f"key{k}", f"value{k}"
        normed = g.add("LayerNormalization", x, scale, shift, axis=-1)
        y, keys, values = _attention_step(g, normed, past, dim, heads)
        x = g.add("Add", x, y)
        normed = g.add("LayerNormalization", x, scale, shift, axis=-1)
        hidden = g.add("Relu", g.add("MatMul", normed, g.matrix(dim, 4 * dim)))
        x = g.add("Add", x, g.add("MatMul", hidden, g.matrix(4 * dim, dim)))
        carried += [(past[0], keys, F32), (past[1], values, F32)]
    g.add("ArgMax", g.add("MatMul", x, g.matrix(dim, vocabulary)), axis=-1, keepdims=0, name="next")
    return carried


def greedy_decoding(
    vocabulary: int = 500, dim: int = 128, heads: int = 4, layers: int = 2, steps: int = 48
) -> Sample:
    """A Loop around a transformer step: the likeliest token is the next input, keys and values
    grow by one place a turn, and it ends at the end token or after `steps` turns."""
    g = Nodes()
    carried = _decoder_step(g, vocabulary, dim, heads, layers)
    goes_on = g.add("Not", g.add("Equal", "next", g.const(np.array(vocabulary + 1))))
    some = g.add("ReduceMin", g.add("Cast", goes_on, to=I64), keepdims=0)
    g.add("Cast", some, to=BOOL, name="go_on")
    g.add("Identity", "next", name="emitted")
    before = [value(name, kind, None) for name, _, kind in carried]
    after = [value(name, kind, None) for _, name, kind in carried]
    body = helper.make_graph(
        g.take(),
        "step",
        [value("turn", I64, []), value("going", BOOL, []), *before],
        [value("go_on", BOOL, []), *after, value("emitted", I64, None)],
    )
    empty = np.zeros((1, heads, 0, dim // heads), np.float32)
    start = ["first", *(g.const(empty, f"empty{k}") for k in range(2 * layers))]
    results = ["last", *(f"cache{k}" for k in range(2 * layers)), "tokens"]
    loop = helper.make_node("Loop", ["limit", "", *start], results, body=body)
    graph = helper.make_graph(
        [*g.take(), loop],
        "greedy",
        [value("first", I64, [1, 1]), value("limit", I64, [])],
        [value("tokens", I64, None), value("cache0", F32, None)],
        g.weights,
    )
    feeds = {"first": np.array([[7]]), "limit": np.array(steps)}
    return Sample("greedy decoding", model_of(graph), feeds)


def lstm_as_scan(steps: int = 100, batch: int = 1, inputs: int = 64, hidden: int = 256) -> Sample:
    """An LSTM cell written out as the body of a Scan."""
    g = Nodes()
    both = g.add("Concat", "x_t", "h", axis=1)
    gates = g.add("Add", g.add("MatMul", both, g.matrix(inputs + hidden, 4 * hidden)), "bias")
    g.nodes.append(helper.make_node("Split", [gates], list("ifgo"), axis=1, num_outputs=4))
    i, f, o = (g.add("Sigmoid", n) for n in "ifo")
    fresh = g.add("Mul", i, g.add("Tanh", "g"))
    g.add("Add", g.add("Mul", f, "c"), fresh, name="c_next")
    g.add("Mul", o, g.add("Tanh", "c_next"), name="h_next")
    g.add("Identity", "h_next", name="y_t")
    g.const(np.zeros(4 * hidden, np.float32), "bias")
    body = helper.make_graph(
        g.take(), "cell", [value(n, F32, None) for n in ("h", "c", "x_t")],
        [value(n, F32, None) for n in ("h_next", "c_next", "y_t")],
    )  # fmt: skip
    scan = helper.make_node(
        "Scan", ["h0", "c0", "x"], ["h_last", "c_last", "y"], body=body, num_scan_inputs=1
    )
    shapes = {"h0": ["b", hidden], "c0": ["b", hidden], "x": ["t", "b", inputs]}
    graph = helper.make_graph(
        [scan], "lstm", [value(n, F32, s) for n, s in shapes.items()],
        [value(n, F32, None) for n in ("h_last", "c_last", "y")], g.weights,
    )  # fmt: skip
    zeros = np.zeros((batch, hidden), np.float32)
    x = g.rng.standard_normal((steps, batch, inputs)).astype(np.float32)
    return Sample("LSTM as Scan", model_of(graph), {"h0": zeros, "c0": zeros, "x": x})


def nested_ifs(depth: int = 4, dim: int = 256, sign: float = 1.0) -> Sample:
    """Ifs inside Ifs, each on the sum of what was computed before it."""
    g = Nodes()
    g.const(np.float32(0), "zero")
    nodes = _level(g, 0, depth, "x", dim)
    result = nodes[-1].output[0]
    graph = helper.make_graph(
        nodes, "ifs", [value("x", F32, ["n", dim])], [value(result, F32, None)], g.weights
    )
    x = (g.rng.standard_normal((8, dim)) * sign).astype(np.float32)
    return Sample("nested Ifs", model_of(graph), {"x": x})


def _level(g: Nodes, level: int, depth: int, source: str, dim: int) -> list[onnx.NodeProto]:
    """A product, and an If whose branches do the same one level deeper."""
    if level == depth:
        g.add("Relu" if g.count % 2 else "Tanh", source)
        return g.take()
    y = g.add("MatMul", source, g.matrix(dim, dim))
    test = g.add("Greater", g.add("ReduceSum", y, keepdims=0), "zero")
    head = g.take()
    arms = []
    for arm in ("then", "else"):
        nodes = _level(g, level + 1, depth, y, dim)
        last = value(nodes[-1].output[0], F32, None)
        arms.append(helper.make_graph(nodes, f"{arm}{level}", [], [last]))
    g.add("If", test, then_branch=arms[0], else_branch=arms[1])
    return [*head, *g.take()]


SAMPLES: Mapping[str, Callable[..., Sample]] = {
    "greedy_decoding": greedy_decoding,
    "lstm_as_scan": lstm_as_scan,
    "nested_ifs": nested_ifs,
}

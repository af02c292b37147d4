"""A layer while it is drawn: a graph of ONNX, the inputs that it will get, and chance."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from zoo.net import Net

Array = NDArray[Any]
T = TypeVar("T")
OPSET, IR_VERSION = 18, 9
MOST_TOLD = 8  # elements of a constant that a description holds
# What attributes are where nothing is said about them, lists element by element.
_USUAL = {
    "strides": 1, "dilations": 1, "group": 1, "keepdims": 1, "largest": 1, "pads": 0,
    "transA": 0, "transB": 0, "reverse": 0, "linear_before_reset": 0, "direction": "forward",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A model with its inputs; `about` says what it computes, in a line."""

    family: str
    about: str
    model: ModelProto
    feeds: Mapping[str, Array]


class Draft(Net):
    """A net whose inputs are arrays, with a source of chance for its sizes. The same seed gives the
    same layer everywhere."""

    def __init__(self, family: str, seed: str) -> None:
        self.chance = random.Random(seed)
        super().__init__(family, self.chance.randrange(2**31))
        self.feeds: dict[str, Array] = {}

    # --- chance -------------------------------------------------------------------------------
    def pick(self, *choices: T) -> T:
        """One of the choices; those that stand there twice are picked twice as often."""
        return self.chance.choice(choices)

    def often(self, share: float) -> bool:
        """True in a share of all cases."""
        return self.chance.random() < share

    # --- inputs and weights -------------------------------------------------------------------
    def array(self, *shape: int) -> str:
        """An input of normal numbers."""
        return self.given(self.rng.standard_normal(shape, np.float32))

    def given(self, array: Array) -> str:
        """An input that is this array."""
        name = self.fresh("x")
        self.feeds[name] = array
        return name

    def weight(self, *shape: int, scale: float | None = None) -> str:
        """Normal weights, by default so that a sum over all axes but the first has spread 1."""
        return self.normal(shape, scale or 1 / math.sqrt(max(1, math.prod(shape[1:]))))

    def gain(self, *shape: int) -> str:
        """Weights around 0 of spread 1."""
        return self.normal(shape, 1.0)

    # --- the end ------------------------------------------------------------------------------
    def layer(self, outputs: Sequence[str], about: str = "") -> Layer:
        """What was drawn, without inputs and weights that nothing reads; told in a line, by default
        from its nodes."""
        nodes = [n for n in self.nodes if isinstance(n, NodeProto)]
        used = {name for n in nodes for name in n.input}
        feeds = {name: a for name, a in self.feeds.items() if name in used}
        weights = [w for w in self.weights if w.name in used]
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in feeds.items()
        ]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(nodes, self.name, inputs, results, weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)
        return Layer(self.name, about or described(model, feeds), model, feeds)


def described(model: ModelProto, feeds: Mapping[str, Array]) -> str:
    """``Conv(kernel 3x3, strides 2x2) Relu: 1x8x28x28; weights 16x8x3x3 16``."""
    nodes = " ".join(f"{n.op_type}{_attributes(n)}" for n in model.graph.node)
    parts = [f"{nodes}: {' '.join(_sizes(a.shape) for a in feeds.values())}"]
    arrays = [numpy_helper.to_array(w) for w in model.graph.initializer]
    small = [a for a in arrays if a.dtype == np.int64 and a.size <= MOST_TOLD]
    weights = [_sizes(a.shape) for a in arrays if a.dtype == np.float32 and a.ndim]
    if weights:
        parts.append("weights " + " ".join(weights))
    if small:
        parts.append("constants " + " ".join(str(a.tolist()).replace(" ", "") for a in small))
    return "; ".join(parts)


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "number"


def _attributes(node: NodeProto) -> str:
    """The attributes that say something, in brackets."""
    told = []
    for a in node.attribute:
        value = helper.get_attribute_value(a)
        value = value.decode() if isinstance(value, bytes) else value
        values = list(value) if isinstance(value, Sequence) and value != str(value) else [value]
        if any(v != _USUAL.get(a.name) for v in values):
            told.append(f"{a.name.removesuffix('_shape')} {_sizes(values)}")
    return f"({', '.join(told)})" if told else ""

"""A small builder of ONNX graphs: nodes by name, seeded weights, symbolic inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
_ELEMENTS = {"f32": TensorProto.FLOAT, "i64": TensorProto.INT64}
Size = int | str


class Net:
    """A graph under construction. Every method returns the name of its result."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list[object] = []
        self.weights: list[TensorProto] = []
        self.inputs: list[object] = []
        self.outputs: list[object] = []
        self._names: dict[str, int] = {}
        self._ints: dict[tuple[int, ...], str] = {}

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet."""
        count = self._names.get(hint, 0)
        self._names[hint] = count + 1
        return f"{hint}_{count}" if count else hint

    # --- the outside --------------------------------------------------------------------------
    def input(self, name: str, shape: Sequence[Size], element: str = "f32") -> str:
        self._names[name] = 1
        self.inputs.append(helper.make_tensor_value_info(name, _ELEMENTS[element], list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sequence[Size | None]) -> None:
        """Give `value` the name of an output."""
        self._names[name] = 1
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def model(self) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, self.name, self.inputs, self.outputs, initializer=self.weights
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=opsets)

    # --- constants ----------------------------------------------------------------------------
    def constant(self, array: NDArray[np.generic], hint: str = "w") -> str:
        name = self.fresh(hint)
        data = np.ascontiguousarray(array).reshape(array.shape)
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.asarray(value, np.float32), "c")

    def ints(self, *values: int) -> str:
        """A vector of int64, shared by equal uses."""
        if values not in self._ints:
            self._ints[values] = self.constant(np.asarray(values, np.int64), "i")
        return self._ints[values]

    def normal(self, shape: Sequence[int], scale: float, hint: str = "w") -> str:
        data = self.rng.standard_normal(tuple(shape), np.float32) * np.float32(scale)
        return self.constant(data.astype(np.float32), hint)

    def uniform(self, shape: Sequence[int], low: float, high: float, hint: str = "w") -> str:
        return self.constant(self.rng.uniform(low, high, tuple(shape)).astype(np.float32), hint)

    # --- nodes --------------------------------------------------------------------------------
    def op(self, kind: str, *inputs: str, **attrs: object) -> str:
        return self.multi(kind, 1, *inputs, **attrs)[0]

    def multi(self, kind: str, results: int, *inputs: str, **attrs: object) -> list[str]:
        names = [self.fresh(kind.lower()) for _ in range(results)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attrs))
        return names

    def size(self, value: str, axis: int) -> str:
        """One size of a tensor as a vector of one element, the way exporters write it."""
        at = self.op("Gather", self.op("Shape", value), self.ints(axis), axis=0)
        return at

    def linear(self, x: str, inputs: int, outputs: int, scale: float = 1.0) -> str:
        """``x @ w + b`` over the last axis."""
        w = self.normal((inputs, outputs), scale / np.sqrt(inputs))
        b = self.uniform((outputs,), -0.1, 0.1, "b")
        return self.op("Add", self.op("MatMul", x, w), b)

    def norm(self, x: str, width: int) -> str:
        """Layer normalization over the last axis."""
        scale = self.uniform((width,), 0.8, 1.2, "scale")
        shift = self.uniform((width,), -0.1, 0.1, "shift")
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

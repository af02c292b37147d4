"""Models to measure and test with, built from a seed: name -> builder, inputs, dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from zoo.small import lstm, mlp
from zoo.text import bert, gpt2_decode, gpt2_prefill
from zoo.vision import mobilenet_v2, resnet50, unet

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Range:
    """A symbolic dimension: the values that random shapes take, and the one that is measured."""

    low: int
    high: int
    usual: int


@dataclass(frozen=True, slots=True)
class ZooModel:
    """A model of the zoo. `tiny` are builder arguments for tests, with ranges of their own."""

    name: str
    build: Callable[..., ModelProto]
    dims: Mapping[str, Range]
    tiny: Mapping[str, Any]
    tiny_dims: Mapping[str, Range] = field(default_factory=dict)

    def usual(self) -> dict[str, int]:
        """The dimensions that are measured."""
        return {name: r.usual for name, r in self.dims.items()}

    def random_dims(self, rng: np.random.Generator, tiny: bool = False) -> dict[str, int]:
        """Dimensions drawn at random from their ranges."""
        ranges = {**self.dims, **self.tiny_dims} if tiny else self.dims
        return {name: int(rng.integers(r.low, r.high + 1)) for name, r in ranges.items()}

    def even_dims(self, rng: np.random.Generator) -> dict[str, int]:
        """Dimensions drawn evenly over orders of size."""
        ends = {name: (max(r.low, 1), r.high) for name, r in self.dims.items()}
        return {n: int(low * (high / low) ** rng.random() + 0.5) for n, (low, high) in ends.items()}


def feeds(model: ModelProto, dims: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Seeded inputs of a model, of plausible contents."""
    rng = np.random.default_rng(seed)
    return {v.name: _input(v, dims, rng, _vocabulary(model)) for v in model.graph.input}


def _input(value: Any, dims: Mapping[str, int], rng: np.random.Generator, vocab: int) -> Array:
    tensor = value.type.tensor_type
    shape = tuple(dims[d.dim_param] if d.dim_param else d.dim_value for d in tensor.shape.dim)
    if tensor.elem_type == TensorProto.FLOAT:
        return rng.standard_normal(shape, np.float32)
    if value.name == "attention_mask":  # every sequence has at least one token
        lengths = rng.integers(1, shape[1] + 1, (shape[0], 1)) if shape[1] else 0
        return (np.arange(shape[1])[None, :] < lengths).astype(np.int64)
    return rng.integers(0, 2 if value.name == "token_type_ids" else vocab, shape)


def _vocabulary(model: ModelProto) -> int:
    """Rows of the table that the input ids choose from."""
    tables = {t.name: t.dims[0] for t in model.graph.initializer if t.dims}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] == "input_ids":
            return int(tables[node.input[0]])
    return 0


_BATCH = Range(1, 8, 1)
_TINY_TEXT = {"layers": 2, "hidden": 32, "heads": 4, "vocab": 61, "positions": 64}
_TINY_LENGTH = Range(1, 40, 16)
ZOO: dict[str, ZooModel] = {
    m.name: m
    for m in (
        ZooModel(
            "resnet50", resnet50, {"batch": Range(1, 4, 1)},
            {"size": 33, "width": 8, "blocks": (1, 2, 1), "classes": 10},
        ),
        ZooModel(
            "mobilenet_v2", mobilenet_v2, {"batch": _BATCH},
            {"size": 33, "stem": 8, "last": 40, "classes": 10,
             "stages": ((1, 8, 1, 1), (6, 12, 2, 2))},
        ),
        ZooModel(
            "bert", bert, {"batch": Range(1, 4, 1), "sequence": Range(1, 256, 128)}, _TINY_TEXT,
            {"sequence": _TINY_LENGTH},
        ),
        ZooModel(
            "gpt2_prefill", gpt2_prefill, {"batch": Range(1, 4, 1), "sequence": Range(1, 256, 64)},
            _TINY_TEXT, {"sequence": _TINY_LENGTH},
        ),
        ZooModel(
            "gpt2_decode", gpt2_decode, {"batch": Range(1, 4, 1), "past": Range(0, 512, 128)},
            _TINY_TEXT, {"past": Range(0, 40, 16)},
        ),
        ZooModel(
            "lstm", lstm, {"batch": _BATCH}, {"sequence": 5, "inputs": 12, "hidden": 20},
        ),
        ZooModel(
            "unet", unet,
            {"batch": Range(1, 2, 1), "height": Range(64, 320, 256), "width": Range(64, 320, 256)},
            {"width": 8, "depth": 2},
            {"height": Range(4, 40, 16), "width": Range(4, 40, 16)},
        ),
        ZooModel("mlp", mlp, {"batch": Range(1, 128, 64)}, {"sizes": (20, 33, 17, 10)}),
    )
}  # fmt: skip

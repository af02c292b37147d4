"""Which nodes are quantized, and which values they want in 8 bits.

Contractions want theirs. What only moves, adds or pools values is computed in 8 bits where its
result is wanted so: then activations stay in 8 bits from layer to layer, and where they do not,
nothing is rounded for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

import numpy as np
from onnx import NodeProto

from aisc.ir.dataclass import dataclass
from aisc.quantization.network import Array, Network, attribute
from aisc.quantization.settings import CONTRACTIONS, Settings

# Operators whose results have the range of what they read: they take its scale.
SAME_RANGE = (
    "MaxPool", "Concat", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze", "Slice",
    "Split", "DepthToSpace", "SpaceToDepth", "Expand", "Gather",
)  # fmt: skip
POOLS = ("AveragePool", "GlobalAveragePool", "MaxPool")
_MOVES = tuple(op for op in SAME_RANGE if op not in ("MaxPool", "Concat"))
# Maps that make the last operation of a fused layer: a range is that of their results.
_ENDS = ("Relu", "Clip", "LeakyRelu", "Identity")


@dataclass(frozen=True, slots=True)
class Layer:
    """A contraction: its node, the positions of operands that are activations, and, of one with
    weights, their position, the axis of output channels and that of input channels."""

    node: NodeProto
    activations: tuple[int, ...]
    weight: int | None = None
    axis: int = 0
    inner: int = 1

    @property
    def name(self) -> str:
        """The name of the node."""
        return str(self.node.name)

    @property
    def channels(self) -> int:
        """The axis of the input that the weights' input channels multiply."""
        if self.node.op_type == "Conv":
            return 1
        return -2 if self.weight == 0 else -1

    def is_matrix(self, net: Network) -> bool:
        """Whether rows of a value are multiplied by a matrix of weights."""
        return self.weight == 1 and self.node.op_type != "Conv" and self.weights(net).ndim == 2

    def turned(self, matrix: Array) -> Array:
        """A matrix ``[K, N]`` as the layer has its weights, or such weights as this."""
        return matrix.T if self.inner == 1 else matrix

    def weights(self, net: Network) -> Array:
        """The weights of a layer that has some."""
        assert self.weight is not None, "a product of activations has no weights"
        found = net.constant(self.node.input[self.weight])
        assert found is not None, "weights are constants"
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What is quantized: layers, other nodes that compute in 8 bits, and, by the name of a value,
    the reads of it that get 8 bits. groups: values that share a scale, by the name of one."""

    layers: tuple[Layer, ...]
    others: tuple[NodeProto, ...]
    reads: dict[str, list[tuple[NodeProto, int]]]
    groups: dict[str, str] = field(default_factory=dict)

    def group(self, name: str) -> str:
        """The value that stands for all that share a scale with this one."""
        while name in self.groups:
            name = self.groups[name]
        return name


def find_layers(net: Network, settings: Settings) -> tuple[Layer, ...]:
    """The contractions that can be quantized, in the order of the model."""
    return tuple(_layers(net, settings))


def _layers(net: Network, settings: Settings) -> Iterator[Layer]:
    for node in net.graph.node:
        if node.op_type not in CONTRACTIONS or node.op_type not in settings.operators:
            continue
        if node.domain not in ("", "ai.onnx") or node.name in settings.keep:
            continue
        layer = _contraction(net, node)
        if layer is None or (layer.weight is None and not settings.products):
            continue
        if settings.weights_alone and not layer.is_matrix(net):
            continue
        yield layer


def _contraction(net: Network, node: NodeProto) -> Layer | None:
    """A contraction as a layer; its constants must be finite floats of 32 bits."""
    values = [net.constant(name) for name in node.input[:2]]
    known = [v for v in values if v is not None]
    if any(v.dtype != np.float32 or not np.isfinite(v).all() for v in known):
        return None
    x, w = values
    if x is not None and w is not None:
        return None
    if node.op_type == "Conv":
        return Layer(node, (0,), 1, 0, 1) if w is not None else None
    if node.op_type == "Gemm":
        if w is None or w.ndim != 2 or attribute(node, "transA", 0):
            return None
        turned = attribute(node, "transB", 0)
        return Layer(node, (0,), 1, 0, 1) if turned else Layer(node, (0,), 1, 1, 0)
    if w is not None:
        return Layer(node, (0,), 1, w.ndim - 1, w.ndim - 2) if w.ndim >= 2 else None
    if x is not None:
        return Layer(node, (1,), 0, x.ndim - 2, x.ndim - 1) if x.ndim >= 2 else None
    return Layer(node, (0, 1))


def plan(net: Network, layers: Sequence[Layer], settings: Settings) -> Plan:
    """Which values are wanted in 8 bits when these layers are quantized."""
    found = Plan(tuple(layers), (), {})
    for layer in () if settings.weights_alone else layers:
        for k in layer.activations:
            found.reads.setdefault(layer.node.input[k], []).append((layer.node, k))
    others = [n for n in reversed(net.graph.node) if _follows(net, n, found, settings)]
    return Plan(found.layers, tuple(reversed(others)), found.reads, found.groups)


def _follows(net: Network, node: NodeProto, found: Plan, settings: Settings) -> bool:
    """Whether a node computes in 8 bits because its results are wanted so; if it does, it wants its
    operands so."""
    if node.domain not in ("", "ai.onnx") or node.name in settings.keep:
        return False
    op = node.op_type
    if op not in _MOVES and (op in CONTRACTIONS or op not in settings.operators):
        return False
    if op in SAME_RANGE:
        wanted = all(name in found.reads for name in node.output if name)
    else:
        wanted = _wanted(net, node.output[0], found)
    operands = [(k, n) for k, n in enumerate(node.input) if _is_activation(net, node, k, n)]
    if not wanted or not operands:
        return False
    if op == "Add" and len(operands) != 2:
        return False
    for k, name in operands:
        found.reads.setdefault(name, []).append((node, k))
    if op in SAME_RANGE:
        _share(found, [*(n for _, n in operands), *node.output])
    return True


def _is_activation(net: Network, node: NodeProto, k: int, name: str) -> bool:
    """Whether an operand is data of the node, and not a parameter of it."""
    if not name or net.is_constant(name):
        return False
    return node.op_type in ("Add", "Concat") or k == 0


def _wanted(net: Network, name: str, found: Plan) -> bool:
    """Whether a value, or what a last map makes of it, is read in 8 bits."""
    if name in found.reads:
        return True
    reader = net.only_reader(name)
    return reader is not None and reader.op_type in _ENDS and _wanted(net, reader.output[0], found)


def _share(found: Plan, names: Sequence[str]) -> None:
    """Let values share a scale."""
    roots = sorted({found.group(n) for n in names})
    found.groups.update((n, roots[0]) for n in roots[1:])

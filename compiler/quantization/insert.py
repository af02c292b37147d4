"""Quantizers in a model: values that layers want in 8 bits, weights as bytes, biases as integers.

before: ``y = Conv(x, w, b)``
after:  ``y = Conv(DequantizeLinear(QuantizeLinear(x)), DequantizeLinear(q), DequantizeLinear(c))``
with `q` of 8 bits, and `c` of 32 bits whose scale is the product of the other two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

import ml_dtypes
import numpy as np
from onnx import NodeProto, helper

from aisc.ir.dataclass import dataclass
from aisc.quantization.affine import Affine, dequantized, of_range, quantize_weights
from aisc.quantization.layers import Layer, Plan
from aisc.quantization.network import Array, Network, attribute
from aisc.quantization.rounding import Few
from aisc.quantization.settings import Settings

GREATEST = {"i8": 127, "i7": 63}


@dataclass(frozen=True, slots=True)
class Known:
    """What the data told: ranges of values, means of their channels, and, by layer, weights in 4
    bits."""

    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    means: Mapping[str, Array] = field(default_factory=dict)
    few: Mapping[str, Few] = field(default_factory=dict)


def insert(net: Network, plan: Plan, known: Known, settings: Settings) -> None:
    """Quantize the layers of a plan, in place."""
    _Inserter(net, plan, known, settings).run()


class _Inserter:
    def __init__(self, net: Network, plan: Plan, known: Known, settings: Settings) -> None:
        self.net, self.plan, self.known, self.settings = net, plan, known, settings
        self.before: list[NodeProto] = []  # dequantized constants
        self.weights: dict[tuple[str, int | None], tuple[str, Array, Affine]] = {}
        self.parameters = self._parameters()

    def run(self) -> None:
        """Weights and biases first, then reads of activations."""
        for layer in self.plan.layers:
            self._layer(layer)
        after = {name: self._read_quantized(name) for name in self.plan.reads}
        nodes = list(self.before)
        made = {name for node in self.net.graph.node for name in node.output}
        for name in (n for n in after if n not in made):
            nodes += after[name]
        for node in self.net.graph.node:
            nodes.append(node)
            for name in node.output:
                nodes += after.get(name, [])
        self.net.replace_nodes(nodes)
        self.net.drop_unread()

    def _parameters(self) -> dict[str, tuple[Affine, str, str]]:
        """Scales and zero points by value, with their names; those of a group are one."""
        bounds: dict[str, tuple[float, float]] = {}
        for name in self.plan.reads:
            root = self.plan.group(name)
            low, high = self.known.ranges[name]
            old = bounds.get(root, (0.0, 0.0))
            bounds[root] = min(low, old[0]), max(high, old[1])
        made: dict[str, tuple[Affine, str, str]] = {}
        for root, (low, high) in bounds.items():
            by = of_range(low, high, self.settings.activations)
            made[root] = (by, *self._constants(root, by))
        return {name: made[self.plan.group(name)] for name in self.plan.reads}

    def _constants(self, base: str, by: Affine) -> tuple[str, str]:
        add = self.net.add_constant
        return add(f"{base}_scale", by.scale), add(f"{base}_zero_point", by.zero)

    def _read_quantized(self, name: str) -> list[NodeProto]:
        """The quantizer of a value, which its reads go through from now on."""
        _, scale, zero = self.parameters[name]
        q, d = self.net.fresh(f"{name}_quantized"), self.net.fresh(f"{name}_dequantized")
        for node, k in self.plan.reads[name]:
            node.input[k] = d
        return [
            helper.make_node("QuantizeLinear", [name, scale, zero], [q], f"{name}_quantize"),
            helper.make_node("DequantizeLinear", [q, scale, zero], [d], f"{name}_dequantize"),
        ]

    def _layer(self, layer: Layer) -> None:
        if layer.weight is None:
            return
        axis = layer.axis if self.settings.per_channel else None
        w = layer.weights(self.net)
        few, by = self.known.few.get(layer.name), None
        if few is None:
            name, q, by = self._quantized_weights(layer, w, axis)
            wide = dequantized(q, by, axis)
        else:
            name, wide = self._few_bits(layer, few), layer.turned(few.widened())
        self._bias(layer, wide.astype(np.float64) - w, by)
        layer.node.input[layer.weight] = name

    def _few_bits(self, layer: Layer, few: Few) -> str:
        """The name of weights in 4 bits as they are read."""
        base = layer.node.input[1]
        name = self.net.fresh(f"{base}_dequantized")
        q = layer.turned(few.q).astype(ml_dtypes.int4)
        inputs = [
            self.net.add_constant(f"{base}_quantized", q),
            self.net.add_constant(f"{base}_scale", layer.turned(few.scale)),
        ]
        node = helper.make_node(
            "DequantizeLinear", inputs, [name], f"{base}_dequantize", axis=layer.inner,
            block_size=few.group,
        )  # fmt: skip
        self.before.append(node)
        return name

    def _quantized_weights(
        self, layer: Layer, w: Array, axis: int | None
    ) -> tuple[str, Array, Affine]:
        """The name of the weights as they are read, the integers and their scales."""
        assert layer.weight is not None, "the layer has weights"
        base = layer.node.input[layer.weight]
        if (base, axis) not in self.weights:
            q, by = quantize_weights(w, axis, GREATEST[self.settings.weights])
            stored = self.net.add_constant(f"{base}_quantized", q)
            name = self._dequantize(base, stored, by, axis)
            self.weights[base, axis] = name, q, by
        return self.weights[base, axis]

    def _dequantize(self, base: str, stored: str, by: Affine, axis: int | None) -> str:
        name = self.net.fresh(f"{base}_dequantized")
        inputs = [stored, *self._constants(base, by)]
        node = helper.make_node("DequantizeLinear", inputs, [name], f"{base}_dequantize")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self.before.append(node)
        return name

    def _bias(self, layer: Layer, error: Array, by: Affine | None) -> None:
        """Correct a bias by what the error of the weights moves the output by on average; that of a
        convolution or a Gemm becomes integers with the scale of the product, where these have
        one."""
        place, source = bias_of(self.net, layer), layer.node.input[layer.activations[0]]
        if place is None:
            return
        node, k, bias = place
        moved = self._moved(layer, source, error)
        if moved is not None:
            bias = (bias - moved).astype(np.float32)
        elif k >= len(node.input):  # there is none, and none is needed
            return
        own = node is layer.node and by is not None
        stored = self._integers(layer, source, bias, by) if own and by is not None else None
        name = stored or self.net.add_constant(f"{layer.name}.bias", bias)
        if k < len(node.input):
            node.input[k] = name
        else:
            node.input.append(name)

    def _moved(self, layer: Layer, source: str, error: Array) -> Array | None:
        """The mean error of each output channel, where the means of the input are known."""
        mean = self.known.means.get(source)
        if mean is None or not self.settings.bias_correction:
            return None
        return shift_of(layer, error, mean)

    def _integers(self, layer: Layer, source: str, bias: Array, by: Affine) -> str | None:
        """The name of a bias in integers; ``None`` where 32 bits do not hold them."""
        scale = np.asarray(self.parameters[source][0].scale * by.scale, np.float32)
        if attribute(layer.node, "alpha", 1.0) != 1 or attribute(layer.node, "beta", 1.0) != 1:
            return None
        if bias.ndim != 1 or (scale.size and float(scale.min()) <= 0):
            return None
        q = np.rint(bias.astype(np.float64) / scale)
        if not (np.abs(q) < 1 << 30).all():
            return None
        stored = self.net.add_constant(f"{layer.name}.bias_quantized", q.astype(np.int32))
        own = Affine(scale, np.zeros(scale.shape, np.int32))
        return self._dequantize(f"{layer.name}.bias", stored, own, 0 if scale.ndim else None)


def bias_of(net: Network, layer: Layer) -> tuple[NodeProto, int, Array] | None:
    """Where the bias of a layer is, or could be: a node, the position of the operand, the values;
    that of a MatMul is what the only node that reads it adds."""
    node, count = layer.node, layer.weights(net).shape[layer.axis]
    if node.op_type in ("Conv", "Gemm"):
        if len(node.input) < 3 or not node.input[2]:
            del node.input[2:]
            return node, 2, np.zeros(count, np.float32)
        values = net.constant(node.input[2])
        fits = values is not None and values.shape == (count,)
        return (node, 2, values) if values is not None and fits else None
    add = net.only_reader(node.output[0])
    if add is None or add.op_type != "Add" or layer.weight != 1:
        return None
    k = 1 if add.input[0] == node.output[0] else 0
    values = net.constant(add.input[k])
    fits = values is not None and values.shape == (count,)
    return (add, k, values) if values is not None and fits else None


def shift_of(layer: Layer, error: Array, mean: Array) -> Array | None:
    """What an error of the weights adds to each output, for inputs with these means."""
    if layer.node.op_type == "Conv":
        group = attribute(layer.node, "group", 1)
        taps = error.reshape(*error.shape[:2], -1).sum(axis=2)
        parts = mean.reshape(group, -1)
        outputs = taps.reshape(group, -1, taps.shape[1])
        return np.asarray(np.einsum("goi,gi->go", outputs, parts)).reshape(-1)
    if error.ndim != 2:
        return None
    return np.asarray(mean @ error if layer.axis == 1 else error @ mean)

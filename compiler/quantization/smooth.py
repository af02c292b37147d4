"""Outliers of activations moved into weights (Xiao et al., SmoothQuant, 2023).

A few channels behind a norm are often far larger than all others, and take the range of 8 bits
from them. Divided by a factor of each channel, which the weights behind take, they give the same
product.

before: ``MatMul(LayerNormalization(x, g, b), w)``
after:  ``MatMul(LayerNormalization(x, g / s, b / s), w * s)``

Where others read the norm, too, the factors stand in a product before the layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import NodeProto, helper

from aisc.quantization.layers import Layer
from aisc.quantization.network import Array, Network
from aisc.quantization.observe import Channels

# Norms by the positions of the operands that scale and shift channels; the last step of a norm that
# a model spells out does as well.
_NORMS = {"LayerNormalization": (1, 2), "RMSNormalization": (1,), "Mul": (1,)}
_CANDIDATES = (*_NORMS, "Add")


def behind_norms(net: Network, layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Layers by the value of a norm that they read."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        if not layer.is_matrix(net):
            continue
        name = layer.node.input[0]
        maker = net.makers.get(name)
        if maker is not None and maker.op_type in _CANDIDATES and _is_scaled(net, maker, layer):
            found.setdefault(name, []).append(layer)
    return found


def _is_scaled(net: Network, maker: NodeProto, layer: Layer) -> bool:
    """Whether a node scales or shifts the channels that a layer reads."""
    size = layer.weights(net).shape[layer.inner]
    values = [net.constant(name) for name in maker.input[1:]]
    return any(v is not None and v.shape == (size,) for v in values)


def smooth(net: Network, groups: dict[str, list[Layer]], channels: Channels, alpha: float) -> None:
    """Move the part `alpha` of each channel's range into the weights, in place; layers that were
    found before are others then."""
    divisions: dict[str, NodeProto] = {}
    for name, layers in groups.items():
        if name not in channels.greatest:
            continue
        factors = _factors(net, layers, channels.greatest[name], alpha)
        if not _folded(net, name, layers, factors):
            divisions[name] = _division(net, name, layers, factors)
        for layer in layers:
            w, turned = layer.weights(net), layer.inner == 1
            base = layer.node.input[1]
            scaled = w * (factors if turned else factors[:, None])
            layer.node.input[1] = net.add_constant(f"{base}_smooth", scaled.astype(w.dtype))
    nodes = []
    for node in net.graph.node:
        nodes += [node, *(divisions[name] for name in node.output if name in divisions)]
    net.replace_nodes(nodes)
    net.drop_unread()


def _factors(net: Network, layers: Sequence[Layer], greatest: Array, alpha: float) -> Array:
    """What the channels are divided by: 1 where either side is 0."""
    sizes = [np.abs(layer.weights(net)).max(axis=1 - layer.inner) for layer in layers]
    a, w = greatest.astype(np.float64), np.max(sizes, axis=0).astype(np.float64)
    some = (a > 0) & (w > 0) & np.isfinite(a)
    factors = np.ones_like(a)
    factors[some] = a[some] ** alpha / w[some] ** (1 - alpha)
    return np.asarray(np.clip(factors, 1e-5, 1e5), np.float32)


def _folded(net: Network, name: str, layers: Sequence[Layer], factors: Array) -> bool:
    """Divide what a norm scales and shifts by, if nothing else reads it."""
    maker, own = net.makers[name], {layer.name for layer in layers}
    places = [k for k in _NORMS.get(maker.op_type, ()) if k < len(maker.input) and maker.input[k]]
    values = [net.constant(maker.input[k]) for k in places]
    if not places or any(v is None or v.shape != factors.shape for v in values):
        return False
    others = [n for n, _ in net.readers[name] if n.name not in own]
    if others or name in net.outputs or name in net.captured:
        return False
    for k, v in zip(places, values, strict=True):
        assert v is not None, "parameters are constants"
        base = maker.input[k]
        maker.input[k] = net.add_constant(f"{base}_smooth", (v / factors).astype(v.dtype))
    return True


def _division(net: Network, name: str, layers: Sequence[Layer], factors: Array) -> NodeProto:
    """A node that divides what the layers read, and nobody else."""
    by = net.add_constant(f"{name}_factors", (1 / factors).astype(np.float32))
    divided = net.fresh(f"{name}_smooth")
    for layer in layers:
        layer.node.input[0] = divided
    return helper.make_node("Mul", [name, by], [divided], f"{name}_smooth")

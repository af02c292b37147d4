"""A model brought into the form that the tool reads: a recent operator set, names for all nodes,
constants as initializers, and batch norms inside of the convolutions before them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, NodeProto, helper, version_converter
from onnx import numpy_helper as arrays
from onnx.reference import ReferenceEvaluator

from aisc.ir.diagnostics import error
from aisc.quantization.network import Array, Network, attribute

# Operator sets with scales along an axis, and in blocks of 4 bits.
PER_AXIS, BLOCKED = 13, 21
# Versions of the format that came with them.
_FORMATS = {PER_AXIS: 7, BLOCKED: 10}
ALREADY = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "QGemm")
_FOLDED = ("Cast", "Constant", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def prepare(model: ModelProto, opset: int) -> Network:
    """The network of a model that is not quantized; E602 for one that is, or cannot be read in an
    operator set that has what is needed."""
    done = [n for n in model.graph.node if n.op_type in ALREADY]
    if done:
        message = f"the model is quantized already: node '{done[0].name or done[0].output[0]}'"
        raise error("E602", message, f"it is a {done[0].op_type}", "quantize the model in float")
    net = Network(_at_least(model, opset))
    _name_nodes(net)
    _fold_constants(net)
    _fold_norms(net)
    net.drop_unread()
    return net


def _at_least(model: ModelProto, opset: int) -> ModelProto:
    """A copy of a model in an operator set of at least `opset`."""
    copy = ModelProto()
    copy.CopyFrom(model)
    own = next((o for o in copy.opset_import if o.domain in ("", "ai.onnx")), None)
    if own is None:
        raise error("E602", "the model has no operators of ONNX")
    copy.ir_version = max(copy.ir_version, _FORMATS[opset])
    if own.version >= opset:
        return copy
    try:
        copy = version_converter.convert_version(copy, opset)
    except Exception as fault:  # whatever its C++ meets
        reason = str(fault).splitlines()[0]
        message = f"operator set {own.version} cannot be read as {opset}, which has the scales"
        raise error("E602", message, reason, "export the model with a newer one") from None
    return copy


def _name_nodes(net: Network) -> None:
    """Every node gets a name of its own: options and tables speak of layers by it."""
    seen = set[str]()
    for node in net.graph.node:
        base = name = node.name or next(filter(None, node.output), node.op_type)
        k = 1
        while name in seen:
            k += 1
            name = f"{base}_{k}"
        seen.add(name)
        node.name = name


def _fold_constants(net: Network) -> None:
    """What rearranges constants is one."""
    kept = []
    for node in net.graph.node:
        values = [net.constant(name) for name in node.input]
        known = node.op_type in _FOLDED and node.domain in ("", "ai.onnx")
        if not known or any(v is None for v in values) or len(node.output) != 1:
            kept.append(node)
            continue
        value = _evaluate(net, node, [v for v in values if v is not None])
        name = node.output[0]
        if value is None or name in net.outputs:
            kept.append(node)
            continue
        net.set_constant(name, value)
    net.replace_nodes(kept)


def _evaluate(net: Network, node: NodeProto, values: Sequence[Array]) -> Array | None:
    given = attribute(node, "value", None) if node.op_type == "Constant" else None
    if given is not None:
        return _numbers(arrays.to_array(given))
    (value,) = ReferenceEvaluator(_alone(net, node)).run(
        None, dict(zip(node.input, values, strict=True))
    )
    return _numbers(value)


def _numbers(value: object) -> Array | None:
    """A value that is an array of numbers or truth values, and no text or sequence."""
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" else None


def _alone(net: Network, node: NodeProto) -> ModelProto:
    """A model of one node."""
    inputs, results = (
        [helper.make_empty_tensor_value_info(n) for n in names]
        for names in (node.input, node.output)
    )
    graph = helper.make_graph([node], "one", inputs, results)
    return helper.make_model(graph, opset_imports=net.model.opset_import)


def _fold_norms(net: Network) -> None:
    """``BatchNormalization(Conv(x, w, b)) -> Conv(x, w * f, ...)``, where nothing else reads the
    convolution."""
    gone = list[NodeProto]()
    for node in net.graph.node:
        if node.op_type != "Conv":
            continue
        norm = net.only_reader(node.output[0])
        if norm is None or norm.op_type != "BatchNormalization" or len(norm.output) != 1:
            continue
        if _folded(net, node, norm):
            node.output[0] = norm.output[0]
            gone.append(norm)
    net.replace_nodes([n for n in net.graph.node if all(n is not g for g in gone)])


def _folded(net: Network, conv: NodeProto, norm: NodeProto) -> bool:
    """Give a convolution the weights of a norm behind it, if all are known."""
    w = net.constant(conv.input[1])
    known = [net.constant(name) for name in norm.input[1:5]]
    has_bias = len(conv.input) > 2 and bool(conv.input[2])
    b = net.constant(conv.input[2]) if has_bias else np.zeros(1)
    if w is None or b is None or any(v is None for v in known):
        return False
    if attribute(norm, "training_mode", 0):
        return False
    scale, shift, mean, variance = (np.asarray(v, np.float64) for v in known)
    factor = scale / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    weights = w * factor.reshape(-1, *[1] * (w.ndim - 1))
    bias = (b - mean) * factor + shift
    conv.input[1] = net.add_constant(f"{conv.name}.weight", weights.astype(w.dtype))
    name = net.add_constant(f"{conv.name}.bias", bias.astype(w.dtype))
    del conv.input[2:]
    conv.input.append(name)
    return True

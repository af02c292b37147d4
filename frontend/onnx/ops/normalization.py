"""ONNX normalizations and softmax."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Handler, Node, onnx_op
from aisc.frontend.onnx.ops.linear import with_channels
from aisc.ir import dtypes
from aisc.ir.arith.poly import product
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value


def _softmax(op: str) -> Handler:
    def handler(em: Emitter, node: Node) -> Value:
        x, axis = node.input(0), node.integer("axis", 1 if node.version < 13 else -1)
        if node.version >= 13 or x.type.rank == 0:
            return em.op(op, x, axis=axis)
        return _flattened(em, node, op, axis)

    return handler


def _flattened(em: Emitter, node: Node, op: str, axis: int) -> Value:
    """Before opset 13 all axes from `axis` on are one."""
    x = node.input(0)
    rank = x.type.rank
    if not -rank <= axis <= rank:
        raise node.malformed(f"axis {axis} is outside {x.type}")
    axis = axis + rank if axis < 0 else axis
    if axis == rank - 1:
        return em.op(op, x, axis=-1)
    shape = x.type.shape
    flat = em.reshape(x, (product(shape[:axis]), product(shape[axis:])))
    return em.reshape(em.op(op, flat, axis=-1), shape)


onnx_op("Softmax")(_softmax("softmax"))
onnx_op("LogSoftmax")(_softmax("log_softmax"))


@onnx_op("Hardmax")
def _hardmax(em: Emitter, node: Node) -> Value:
    x, axis = node.input(0), node.integer("axis", 1 if node.version < 13 else -1)
    shape = x.type.shape
    if not -len(shape) <= axis < max(len(shape), 1):
        raise node.malformed(f"axis {axis} is outside {x.type}")
    axis = axis % len(shape)
    flat = x
    if node.version < 13:
        flat = em.reshape(x, (product(shape[:axis]), product(shape[axis:])))
        axis = 1
    best = em.op("argmax", flat, axis=axis, keepdims=False)
    hot = em.op("one_hot", best, depth=(flat.type.shape[axis],), axis=axis)
    return em.reshape(em.cast(hot, x.type.dtype), shape)


@onnx_op("BatchNormalization")
def _batch_norm(em: Emitter, node: Node) -> Value | Sequence[Value]:
    node.number("momentum")
    training = node.flag("training_mode") or (node.version < 7 and not node.flag("is_test"))
    spatial = node.flag("spatial", True)
    if node.version < 7 and not node.flag("is_test"):
        training = any(node.outputs[1:])  # in practice such models are used for inference
    if training and node.version >= 14:
        return _batch_norm_of_batch(em, node)
    if training or any(node.outputs[1:]):
        raise node.unsupported("training mode is not supported before opset 14")
    x, *rest = (node.input(i) for i in range(5))
    t = x.type.dtype
    operands = [em.cast(v, t) for v in rest]
    epsilon = node.number("epsilon", 1e-5)
    if spatial:
        return em.op("batch_norm", x, *operands, axis=1, epsilon=epsilon)
    scale, bias, mean, variance = operands
    root = em.op("sqrt", em.op("add", variance, em.like(epsilon, x)))
    return em.op("add", em.op("mul", em.op("div", em.op("sub", x, mean), root), scale), bias)


def _batch_norm_of_batch(em: Emitter, node: Node) -> Sequence[Value]:
    """In training mode: with the batch's own mean and variance, which move the running ones."""
    x, scale, bias, *running = (node.input(i) for i in range(5))
    axes = tuple(k for k in range(x.type.rank) if k != 1)
    mean = em.op("reduce_mean", x, axes=axes, keepdims=True)
    away = em.op("sub", x, mean)
    variance = em.op("reduce_mean", em.op("mul", away, away), axes=axes, keepdims=True)
    own = [em.reshape(v, (x.type.shape[1],)) for v in (mean, variance)]
    operands = [em.cast(v, x.type.dtype) for v in (scale, bias)]
    epsilon, momentum = node.number("epsilon", 1e-5), node.number("momentum", 0.9)
    y = em.op("batch_norm", x, *operands, *own, axis=1, epsilon=epsilon)
    moved = [
        em.op("add", em.op("mul", old, em.like(momentum, old)),
              em.op("mul", em.cast(new, old.type.dtype), em.like(1 - momentum, old)))
        for old, new in zip(running, own, strict=True)
    ]  # fmt: skip
    return [y, *moved][: len(node.outputs)]


@onnx_op("InstanceNormalization")
def _instance_norm(em: Emitter, node: Node) -> Value:
    x, channels = node.input(0), node.input(0).type.shape[1] if node.input(0).type.rank > 1 else 1
    if not isinstance(channels, int):
        raise node.unsupported("the number of channels must be known")
    epsilon = node.number("epsilon", 1e-5)
    return em.op("group_norm", x, node.input(1), node.input(2), groups=channels, epsilon=epsilon)


@onnx_op("GroupNormalization")
def _group_norm(em: Emitter, node: Node) -> Value:
    x, scale, bias = node.input(0), node.input(1), node.input(2)
    groups = node.integer("num_groups")
    if node.version >= 21 and x.type.rank > 1 and scale.type.rank == 1:
        x = with_channels(em, x, scale.type.shape[0])
    channels = x.type.shape[1] if x.type.rank > 1 else 1
    node.integer("stash_type", 1)
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise node.misfit(f"{channels} channels do not split into {groups} groups", channels)
    if node.version < 21:  # one scale per group
        shape = (groups, channels // groups)
        scale, bias = (
            em.reshape(em.op("expand", em.reshape(v, (groups, 1)), shape=shape), (channels,))
            for v in (scale, bias)
        )
    epsilon = node.number("epsilon", 1e-5)
    return em.op("group_norm", x, scale, bias, groups=groups, epsilon=epsilon)


def _stashed(node: Node, t: DType) -> DType:
    """The dtype in which statistics are computed."""
    wide = node.integer("stash_type", 1) == 1 and t.bits < 32
    return dtypes.f32 if wide else t


@onnx_op("LayerNormalization")
def _layer_norm(em: Emitter, node: Node) -> Sequence[Value]:
    x, axis, epsilon = node.input(0), node.integer("axis", -1), node.number("epsilon", 1e-5)
    stash = _stashed(node, x.type.dtype)
    if not any(node.outputs[1:]):
        inputs = [v for v in (x, node.input(1), node.optional(2)) if v is not None]
        return (em.op("layer_norm", *inputs, axis=axis, epsilon=epsilon),)
    axes = tuple(range(axis % max(x.type.rank, 1), x.type.rank))
    wide = em.cast(x, stash)
    mean = em.op("reduce_mean", wide, axes=axes, keepdims=True)
    centred = em.op("sub", wide, mean)
    variance = em.op("reduce_mean", em.op("mul", centred, centred), axes=axes, keepdims=True)
    root = em.op("sqrt", em.op("add", variance, em.like(epsilon, wide)))
    inverse = em.op("reciprocal", root)
    y = em.op("mul", em.cast(em.op("mul", centred, inverse), x.type.dtype), node.input(1))
    if node.has(2):
        y = em.op("add", y, node.input(2))
    return y, mean, inverse


@onnx_op("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(em: Emitter, node: Node) -> Value:
    node.integer("stash_type", 1)
    axis, epsilon = node.integer("axis", -1), node.number("epsilon", 1e-5)
    return em.op("rms_norm", node.input(0), node.input(1), axis=axis, epsilon=epsilon)


@onnx_op("LRN")
def _lrn(em: Emitter, node: Node) -> Value:
    return em.op(
        "lrn",
        node.input(0),
        size=node.integer("size"),
        alpha=node.number("alpha", 1e-4),
        beta=node.number("beta", 0.75),
        bias=node.number("bias", 1.0),
        axis=1,
    )


@onnx_op("LpNormalization")
def _lp_norm(em: Emitter, node: Node) -> Value:
    x, axis, p = node.input(0), node.integer("axis", -1), node.integer("p", 2)
    if p not in (1, 2):
        raise node.malformed(f"p = {p}")
    norm = em.op(f"reduce_l{p}", x, axes=(axis,), keepdims=True)
    zero = em.op("equal", norm, em.like(0, norm))
    return em.op("where", zero, em.like(0, x), em.op("div", x, norm))


@onnx_op("MeanVarianceNormalization")
def _mean_variance(em: Emitter, node: Node) -> Value:
    x, axes = node.input(0), node.ints("axes") or (0, 2, 3)
    mean = em.op("reduce_mean", x, axes=axes, keepdims=True)
    centred = em.op("sub", x, mean)
    variance = em.op("reduce_mean", em.op("mul", centred, centred), axes=axes, keepdims=True)
    root = em.op("add", em.op("sqrt", variance), em.like(1e-9, x))
    return em.op("div", centred, root)

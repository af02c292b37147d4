"""ONNX reductions, arg-reductions, cumulative sums and top-k."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.onnx.emitter import Emitter
from aisc.frontend.onnx.node import Handler, Node, onnx_op
from aisc.frontend.onnx.ops.shapes import axes_of
from aisc.ir import dtypes
from aisc.ir.graph.core import Value

# Name -> (our op, opset since which the axes are an input).
_REDUCTIONS = {
    "ReduceSum": ("reduce_sum", 13), "ReduceMean": ("reduce_mean", 18),
    "ReduceMax": ("reduce_max", 18), "ReduceMin": ("reduce_min", 18),
    "ReduceProd": ("reduce_prod", 18), "ReduceL1": ("reduce_l1", 18),
    "ReduceL2": ("reduce_l2", 18), "ReduceLogSum": ("reduce_log_sum", 18),
    "ReduceLogSumExp": ("reduce_log_sum_exp", 18), "ReduceSumSquare": ("reduce_sum_square", 18),
}  # fmt: skip


def _reduction(op: str, since: int) -> Handler:
    def handler(em: Emitter, node: Node) -> Value:
        x, keep = node.input(0), node.flag("keepdims", True)
        axes = axes_of(em, node, 1, since)
        nothing = node.flag("noop_with_empty_axes") and not axes
        if not axes:
            axes = () if nothing else tuple(range(x.type.rank))
        if nothing and op in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min"):
            return x
        if x.type.dtype.kind == "bool":
            small = em.op(op, em.cast(x, dtypes.u8), axes=axes, keepdims=keep)
            return em.cast(small, dtypes.boolean)
        return em.op(op, x, axes=axes, keepdims=keep)

    return handler


for _name, (_op, _since) in _REDUCTIONS.items():
    onnx_op(_name)(_reduction(_op, _since))


def _arg(op: str) -> Handler:
    return lambda em, node: em.op(
        op,
        node.input(0),
        axis=node.integer("axis"),
        keepdims=node.flag("keepdims", True),
        select_last=node.flag("select_last_index"),
    )


onnx_op("ArgMax")(_arg("argmax"))
onnx_op("ArgMin")(_arg("argmin"))


def _cumulative(op: str) -> Handler:
    def handler(em: Emitter, node: Node) -> Value:
        axis = int(em.scalar(node.input(1), "the axis"))
        exclusive, reverse = node.flag("exclusive"), node.flag("reverse")
        return em.op(op, node.input(0), axis=axis, exclusive=exclusive, reverse=reverse)

    return handler


onnx_op("CumSum")(_cumulative("cumsum"))
onnx_op("CumProd")(_cumulative("cumprod"))


@onnx_op("TopK")
def _top_k(em: Emitter, node: Node) -> Sequence[Value]:
    k = (node.integer("k"),) if node.version < 10 else em.dims(node.input(1), "k")
    axis, largest = node.integer("axis", -1), node.flag("largest", True)
    node.flag("sorted", True)
    return em.multi("top_k", node.input(0), k=k, axis=axis, largest=largest)

"""ONNX reductions, arg-reductions, cumulative sums and top-k."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.building.axes import along_each, along_one, mask, without_axes
from aisc.frontend.building.emitter import Emitter
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
        if isinstance(axes, Value):
            return _reduced_at_run_time(em, node, op, axes, keep)
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


# What is applied before, how the axes are reduced one after the other, what is applied after.
_STEPS: dict[str, tuple[str, str, str]] = {
    "reduce_l1": ("abs", "reduce_sum", ""), "reduce_l2": ("square", "reduce_sum", "sqrt"),
    "reduce_log_sum": ("", "reduce_sum", "log"), "reduce_sum_square": ("square", "reduce_sum", ""),
}  # fmt: skip


def _reduced_at_run_time(em: Emitter, node: Node, op: str, axes: Value, keep: bool) -> Value:
    """A reduction over axes that only the run knows, one after the other; over all where there are
    none, unless that is to change nothing."""
    x = node.input(0)
    before, each, after = _STEPS.get(op, ("", op, ""))
    y = em.cast(x, dtypes.u8) if x.type.dtype.kind == "bool" else x
    y = em.op("mul", y, y) if before == "square" else em.op(before, y) if before else y
    chosen = mask(em, axes, x.type.rank)
    if axes.type.size == 0 and not node.flag("noop_with_empty_axes"):
        chosen = em.op("not", chosen)
    elif not isinstance(axes.type.size, int) and not node.flag("noop_with_empty_axes"):
        none = em.op("equal", em.dims_value([axes.type.size]), em.constant([0]))
        chosen = em.op("or", chosen, none)
    node.flag("noop_with_empty_axes")
    y = along_each(
        em, y, chosen, lambda inner, v, axis: inner.op(each, v, axes=(axis,), keepdims=True)
    )
    y = em.op(after, y) if after else y
    y = em.cast(y, dtypes.boolean) if x.type.dtype.kind == "bool" else y
    return y if keep else without_axes(em, y, axes)


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
        exclusive, reverse = node.flag("exclusive"), node.flag("reverse")

        def along(inner: Emitter, x: Value, axis: int) -> Value:
            return inner.op(op, x, axis=axis, exclusive=exclusive, reverse=reverse)

        x, axis = node.input(0), node.input(1)
        if em.known(axis) is None:
            return along_one(em, x, axis, x.type.rank, along)
        return along(em, x, int(em.scalar(axis, "the axis")))

    return handler


onnx_op("CumSum")(_cumulative("cumsum"))
onnx_op("CumProd")(_cumulative("cumprod"))


@onnx_op("TopK")
def _top_k(em: Emitter, node: Node) -> Sequence[Value]:
    k = (node.integer("k"),) if node.version < 10 else em.dims(node.input(1), "k")
    axis, largest = node.integer("axis", -1), node.flag("largest", True)
    node.flag("sorted", True)
    return em.multi("top_k", node.input(0), k=k, axis=axis, largest=largest)

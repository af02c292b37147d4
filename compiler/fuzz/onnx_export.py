"""What of a graph can be said in ONNX, for another runtime to answer.

Only operators with an obvious equal are exported, on element types that onnxruntime computes with.
Results that depend on anything else are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.types import TensorType

OPSET, IR_VERSION = 20, 9
PLAIN = (dtypes.f32, dtypes.f64, dtypes.i32, dtypes.i64)
STORED = (*PLAIN, dtypes.boolean, dtypes.i8, dtypes.u8)
SINGLE = (dtypes.f32,)
FLOATS = (dtypes.f32, dtypes.f64)


class _Unknown(Exception):
    """A node that has no equal."""


@dataclass
class _Writer:
    """Nodes and constants of the model so far."""

    names: dict[Value, str] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, array: np.ndarray) -> str:
        """The name of a constant."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def ints(self, items: Sequence[object]) -> str:
        """The name of a constant vector of sizes; they must be known."""
        if any(isinstance(d, Poly) for d in items):
            raise _Unknown
        return self.constant(np.array(items, np.int64))

    def emit(self, op: str, node: GraphNode, *more: str, **attrs: Any) -> None:
        """A node with the operands of `node` and more."""
        given = ["" if v is None else self.names[v] for v in node.inputs]
        outputs = [f"v{len(self.nodes)}_{k}" for k in range(len(node.outputs))]
        self.nodes.append(helper.make_node(op, [*given, *more], outputs, **attrs))
        self.names.update(zip(node.outputs, outputs, strict=True))


Export = Callable[[_Writer, GraphNode], None]


def _type(node: GraphNode) -> TensorType:
    v = node.inputs[0]
    assert v is not None, "the first operand is there"
    return v.type


def _needs(node: GraphNode, types: Sequence[DType]) -> None:
    if any(v.type.dtype not in types for v in node.input_values):
        raise _Unknown


def _plain(op: str, types: Sequence[DType], *attrs: str) -> Export:
    """The same operator with attributes of the same names."""

    def export(w: _Writer, node: GraphNode) -> None:
        _needs(node, types)
        given = {a: node.attr(a) for a in attrs}
        if () in given.values():  # which ONNX cannot write
            raise _Unknown
        w.emit(op, node, **given)

    return export


def _reduction(op: str) -> Export:
    def export(w: _Writer, node: GraphNode) -> None:
        axes = node.attr("axes")
        assert isinstance(axes, tuple), "axes are a tuple"
        _needs(node, FLOATS if "Max" not in op and "Min" not in op else PLAIN)
        if not axes or 0 in _type(node).shape:
            raise _Unknown
        w.emit(op, node, w.ints(axes), keepdims=int(bool(node.attr("keepdims"))))

    return export


def _arg(op: str) -> Export:
    def export(w: _Writer, node: GraphNode) -> None:
        _needs(node, FLOATS)
        keep, last = int(bool(node.attr("keepdims"))), int(bool(node.attr("select_last")))
        w.emit(op, node, axis=node.attr("axis"), keepdims=keep, select_last_index=last)

    return export


def _vector(op: str, attr: str) -> Export:
    """An operator whose attribute is a vector operand of ONNX."""

    def export(w: _Writer, node: GraphNode) -> None:
        _needs(node, STORED)
        items = node.attr(attr)
        assert isinstance(items, tuple), "a vector"
        if op == "Reshape" and 0 in items:
            raise _Unknown  # it means another thing
        w.emit(op, node, w.ints(items))

    return export


def _slice(w: _Writer, node: GraphNode) -> None:
    _needs(node, PLAIN)
    rank = _type(node).rank
    ends = [-(1 << 60) if e == -1 else e for e in node.attr("ends")]  # type: ignore[union-attr]
    starts, steps = node.attr("starts"), node.attr("steps")
    more = [w.ints(x) for x in (starts, ends, range(rank), steps)]  # type: ignore[arg-type]
    w.emit("Slice", node, *more)


def _pad(w: _Writer, node: GraphNode) -> None:
    _needs(node, PLAIN)
    pads, mode = node.attr("pads"), node.attr("mode")
    assert isinstance(pads, tuple), "pads are a tuple"
    if mode not in ("constant", "edge") or any(p < 0 for p in pads) or 0 in _type(node).shape:  # type: ignore[operator]
        raise _Unknown
    given = [w.names[v] for v in node.input_values]
    operands = [given[0], w.ints(pads), *given[1:]]
    out = f"v{len(w.nodes)}_0"
    w.nodes.append(helper.make_node("Pad", operands, [out], mode=mode))
    w.names[node.output] = out


def _window(op: str) -> Export:
    def export(w: _Writer, node: GraphNode) -> None:
        _needs(node, SINGLE)
        attrs = node.attr_map
        if attrs["data_layout"] != "NCHW" or attrs.get("ceil_mode") or 0 in _type(node).shape:
            raise _Unknown
        kept = {k: list(attrs[k]) for k in ("strides", "pads", "dilations") if attrs[k]}  # type: ignore[arg-type]
        for name in ("group", "kernel_shape", "p"):
            if name in attrs:
                kept[name] = attrs[name]  # type: ignore[assignment]
        if "count_include_pad" in attrs:
            kept["count_include_pad"] = int(bool(attrs["count_include_pad"]))  # type: ignore[assignment]
        w.emit(op, node, **kept)

    return export


def _clip(w: _Writer, node: GraphNode) -> None:
    _needs(node, FLOATS)
    t = _type(node).dtype.numpy
    ends = [np.array(node.attr(k)).astype(t) for k in ("min", "max")]
    w.emit("Clip", node, *map(w.constant, ends))


def _cast(w: _Writer, node: GraphNode) -> None:
    _needs(node, STORED)
    to = node.attr("to")
    assert isinstance(to, DType), "a type"
    whole = not _type(node).dtype.is_float or to.is_float or to.kind == "bool"
    if to not in STORED or not whole:  # what does not fit differs between runtimes
        raise _Unknown
    w.emit("Cast", node, to=helper.np_dtype_to_tensor_dtype(np.dtype(to.numpy)))


def _constant(w: _Writer, node: GraphNode) -> None:
    blob = node.attr("value")
    assert isinstance(blob, Blob), "constant without a blob"
    if blob.dtype not in STORED:
        raise _Unknown
    w.names[node.output] = w.constant(np.asarray(blob.array))


def _logic(op: str) -> Export:
    return _plain(op, (dtypes.boolean,))


def _top_k(w: _Writer, node: GraphNode) -> None:
    _needs(node, PLAIN)
    k = node.attr("k")
    assert isinstance(k, tuple), "one size"
    largest = int(bool(node.attr("largest")))
    w.emit("TopK", node, w.ints(k), axis=node.attr("axis"), largest=largest)


def _trilu(w: _Writer, node: GraphNode) -> None:
    _needs(node, (*FLOATS, dtypes.i64))
    w.emit("Trilu", node, w.constant(np.array(node.attr("k"), np.int64)),
           upper=int(bool(node.attr("upper"))))  # fmt: skip


def _layer_norm(w: _Writer, node: GraphNode) -> None:
    _needs(node, SINGLE)
    if len(node.inputs) < 2 or node.inputs[1] is None:
        raise _Unknown
    w.emit("LayerNormalization", node, axis=node.attr("axis"), epsilon=node.attr("epsilon"))


def _cumsum(w: _Writer, node: GraphNode) -> None:
    _needs(node, PLAIN)
    flags = {k: int(bool(node.attr(k))) for k in ("exclusive", "reverse")}
    w.emit("CumSum", node, w.constant(np.array(node.attr("axis"), np.int64)), **flags)


# Not the sigmoid, which onnxruntime approximates.
_UNARY = {
    "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh", "atan": "Atan",
    "atanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "log": "Log", "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round",
    "sin": "Sin", "sinh": "Sinh", "softplus": "Softplus",
    "softsign": "Softsign", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh", "mish": "Mish",
}  # fmt: skip
_REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin", "reduce_prod": "ReduceProd", "reduce_l1": "ReduceL1",
    "reduce_l2": "ReduceL2", "reduce_sum_square": "ReduceSumSquare",
    "reduce_log_sum": "ReduceLogSum", "reduce_log_sum_exp": "ReduceLogSumExp",
}  # fmt: skip
EXPORTS: dict[str, Export] = {
    **{name: _plain(op, SINGLE) for name, op in _UNARY.items()},
    **{name: _reduction(op) for name, op in _REDUCTIONS.items()},
    "abs": _plain("Abs", PLAIN), "neg": _plain("Neg", PLAIN), "sign": _plain("Sign", PLAIN),
    "add": _plain("Add", PLAIN), "sub": _plain("Sub", PLAIN), "mul": _plain("Mul", PLAIN),
    "div": _plain("Div", FLOATS), "max": _plain("Max", PLAIN), "min": _plain("Min", PLAIN),
    "pow": _plain("Pow", FLOATS), "not": _logic("Not"), "and": _logic("And"), "or": _logic("Or"),
    "xor": _logic("Xor"), "equal": _plain("Equal", PLAIN), "less": _plain("Less", PLAIN),
    "less_equal": _plain("LessOrEqual", PLAIN), "greater": _plain("Greater", PLAIN),
    "greater_equal": _plain("GreaterOrEqual", PLAIN),
    "where": _plain("Where", (*SINGLE, dtypes.i64, dtypes.boolean)),
    "elu": _plain("Elu", SINGLE, "alpha"), "leaky_relu": _plain("LeakyRelu", SINGLE, "alpha"),
    "selu": _plain("Selu", SINGLE, "alpha", "gamma"),
    "hard_sigmoid": _plain("HardSigmoid", SINGLE, "alpha", "beta"),
    "thresholded_relu": _plain("ThresholdedRelu", SINGLE, "alpha"),
    "shrink": _plain("Shrink", SINGLE, "lambd", "bias"),
    "gelu": _plain("Gelu", SINGLE, "approximate"), "isnan": _plain("IsNaN", SINGLE),
    "clip": _clip, "cast": _cast, "constant": _constant, "matmul": _plain("MatMul", FLOATS),
    "conv": _window("Conv"), "max_pool": _window("MaxPool"), "avg_pool": _window("AveragePool"),
    "lp_pool": _window("LpPool"), "transpose": _plain("Transpose", STORED, "perm"),
    "concat": _plain("Concat", PLAIN, "axis"), "reshape": _vector("Reshape", "shape"),
    "expand": _vector("Expand", "shape"), "tile": _vector("Tile", "repeats"), "slice": _slice,
    "pad": _pad, "trilu": _trilu, "gather": _plain("Gather", STORED, "axis"),
    "gather_elements": _plain("GatherElements", STORED, "axis"),
    "scatter_elements": _plain("ScatterElements", (*SINGLE, dtypes.i64), "axis", "reduction"),
    "softmax": _plain("Softmax", FLOATS, "axis"),
    "log_softmax": _plain("LogSoftmax", FLOATS, "axis"),
    "argmax": _arg("ArgMax"), "argmin": _arg("ArgMin"), "cumsum": _cumsum, "top_k": _top_k,
    "layer_norm": _layer_norm,
}  # fmt: skip


def exported(graph: Graph) -> tuple[onnx.ModelProto, list[int]] | None:
    """A model and the numbers of the results that it gives; ``None`` when it would give none."""
    w = _Writer()
    inputs = [v for v in graph.inputs if v.type.dtype in STORED and _named(v.type)]
    places = {v: k for k, v in enumerate(graph.inputs)}
    w.names.update({v: f"in_{places[v]}" for v in inputs})
    for node in graph.nodes:
        if node.op in EXPORTS and all(v in w.names for v in node.input_values):
            try:
                EXPORTS[node.op](w, node)
            except _Unknown:
                continue
    made = {name for n in w.nodes for name in n.output}
    results = [k for k, v in enumerate(graph.outputs) if w.names.get(v) in made]
    if not results:
        return None
    outs = [f"out_{k}" for k in results]
    same = [
        helper.make_node("Identity", [w.names[graph.outputs[k]]], [name])
        for k, name in zip(results, outs, strict=True)
    ]
    body = helper.make_graph(
        [*w.nodes, *same], "fuzz", [_info(w.names[v], v.type) for v in inputs],
        [_info(n, graph.outputs[k].type) for k, n in zip(results, outs, strict=True)], w.constants,
    )  # fmt: skip
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    return model, results


def _named(t: TensorType) -> bool:
    """Whether each size is a number or a name."""
    return all(isinstance(d, int) or str(d).isidentifier() for d in t.shape)


def _info(name: str, t: TensorType) -> Any:
    shape = [
        d if isinstance(d, int) else str(d) if str(d).isidentifier() else None for d in t.shape
    ]
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype.numpy)), shape
    )

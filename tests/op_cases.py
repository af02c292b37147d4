"""One or more small calls of every operator: operands and attributes, by operator name."""

from __future__ import annotations

from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var
from aisc.ir.tensor.func import buffer
from aisc.ir.text.printer import print_ir

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, np.nan, np.inf, -np.inf, 1e-30, -88.0, 20]
)
COUNT = (symbol("count", kind="data"),)
rng = np.random.default_rng(7)


@dataclass(frozen=True)
class Case:
    op: str
    inputs: tuple[np.ndarray | None, ...]
    attrs: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else f"{x.dtype}{list(x.shape)}" for x in self.inputs)
        return f"{self.op}({shapes}) {self.attrs}"


def f32(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def i32(*shape: int) -> np.ndarray:
    return rng.integers(-9, 9, shape).astype(np.int32)


def _maps() -> list[Case]:
    cases: list[Case] = []
    ints = np.array([0, 1, -1, 7, -7, 2**31 - 1, -(2**31)], np.int32)
    for op in opdef.all_ops():
        if op.kind != "map" or op.scalar is None or op.name in ("where", "cast"):
            continue
        for x in (SPECIAL.astype(np.float32), f32(2, 3), f32(0, 3), ints, ints > 0,
                  f32(5).astype(np.float16), f32(5).astype(ml_dtypes.bfloat16)):  # fmt: skip
            if len(op.inputs) == 1:
                cases.append(Case(op.name, (x,)))
                continue
            other = np.roll(x, 1, axis=-1) if x.dtype.kind != "i" else np.full_like(x, 3)
            cases.append(Case(op.name, (x, other)))
            if x.ndim == 2 and x.size:
                cases.append(Case(op.name, (x, f32(4, 1, 3))))
    return [c for c in cases if _accepted(c)]


def _accepted(case: Case) -> bool:
    from aisc.ir.diagnostics import CompileError

    try:
        result_types(case)
    except CompileError:
        return False
    return True


def result_types(case: Case) -> tuple[opdef.OpCall, tuple[object, ...]]:
    from aisc.ir.location import UNKNOWN
    from aisc.ir.types import TensorType

    op = opdef.get(case.op)
    types = tuple(
        None if x is None else TensorType(x.shape, dtypes.from_numpy(x.dtype)) for x in case.inputs
    )
    attrs = opdef.complete_attrs(op, case.attrs, UNKNOWN)  # type: ignore[arg-type]
    call = opdef.OpCall(op, types, attrs, (None,) * len(types))
    return call, op.infer(call)


def integers(t: str, *shape: int) -> np.ndarray:
    """All values of an integer type, the least and the greatest among them."""
    kind = np.iinfo(t)
    x = rng.integers(kind.min, kind.max + 1, shape).astype(t)
    x.reshape(-1)[:2] = kind.min, kind.max
    return x


def _scaled() -> list[Case]:
    """Every byte, and floats beside the middles between two steps, with scales of all kinds."""
    cases = []
    steps = np.concatenate([SPECIAL, np.arange(-300, 300) / 2, [1e30, 2.5e9, -1e10]])
    for t in ("u1", "i1", "i2", "i4"):
        x = integers(t, 3, 5, 2)
        zeros = x[0, :, 0]
        cases.append(Case("dequantize", (x, np.float32(0.3), x[1, 1, 1])))
        cases.append(Case("dequantize", (x, np.abs(f32(5)), zeros), {"axis": 1}))
        cases.append(Case("dequantize", (x, np.float16(0.3))))
        to = {"to": dtypes.from_numpy(x.dtype)}
        for y in (steps.astype(np.float32), steps[:100].astype(np.float16)):
            one, some = np.ones((), y.dtype), np.asarray(0.7, y.dtype)
            cases.append(Case("quantize", (y, one), {**to, "axis": 0}))
            cases.append(Case("quantize", (y, some, x[2, 1, 1]), {**to, "axis": 0}))
        along = {**to, "axis": -2}
        cases.append(Case("quantize", (f32(3, 5, 2), np.abs(f32(5)), zeros), along))
    cases.append(Case("dequantize", (integers("i1", 2, 1)[:0], np.float32(1))))
    return cases


def _stored() -> list[Case]:
    """Codes of all widths: rows that fill no byte, blocks that are not full, zero points."""
    cases = [Case("widen", (f32(2, 3, 5).astype(t),)) for t in (np.float16, ml_dtypes.bfloat16)]
    for bits, rows, block in ((4, 7, 4), (4, 8, 0), (2, 9, 3), (8, 5, 2), (4, 0, 4)):
        stored = -(-rows * bits // 8)
        blocks = -(-rows // (block or max(rows, 1)))
        attrs = {"bits": bits, "block": block, "rows": rows}
        codes = rng.integers(-128, 128, (stored, 6)).astype(np.int8)
        zeros = rng.integers(-9, 9, (blocks, 6)).astype(np.int8)
        cases.append(Case("widen", (codes, f32(blocks, 6)), attrs))
        cases.append(Case("widen", (codes, f32(blocks, 6), zeros), attrs))
    return cases


PAIRS = (("u1", "i1", "i32"), ("i1", "i1", "i32"), ("i1", "u1", "i32"), ("i2", "i1", "i32"),
         ("i2", "i2", "i64"), ("f2", "f2", "f32"), ("f4", "f4", "f64"))  # fmt: skip


def _operand(t: str, *shape: int) -> np.ndarray:
    return f32(*shape).astype(t) if t[0] == "f" else integers(t, *shape)


def _short_products() -> list[Case]:
    """Operands of short types with sums of a wider one."""
    cases = []
    for a, b, c in PAIRS:
        for n, k, m in ((5, 13, 19), (3, 8, 32), (2, 1, 7)):
            pair = _operand(a, n, k), _operand(b, k, m)
            cases.append(Case("matmul", pair, {"accumulator": c}))
        batch = _operand(a, 2, 3, 6), _operand(b, 2, 6, 17)
        cases.append(Case("matmul", batch, {"accumulator": c}))
    return cases


def _short_windows() -> list[Case]:
    """Images and kernels of short types, with borders of other values than zero."""
    cases = []
    for a, b, c in PAIRS:
        fill = 0 if a[0] == "f" else 77
        bias = _operand({"i32": "i4", "i64": "i8", "f32": "f4", "f64": "f8"}[c], 6)
        for group in (1, 2):
            x, w = _operand(a, 2, 7, 5, 6), _operand(b, 3, 2, 6 // group, 6)
            attrs = {"accumulator": c, "fill": fill, "pads": (1, 0, 2, 1), "group": group}
            cases.append(Case("conv", (x, w, bias), {**attrs, "data_layout": "NHWC"}))
            x, w = _operand(a, 2, 6, 7, 5), _operand(b, 6, 6 // group, 3, 2)
            cases.append(Case("conv", (x, w), {**attrs, "strides": (2, 1)}))
    return cases


def _windows() -> list[Case]:
    x, last = f32(2, 4, 7, 5), f32(2, 7, 5, 4)
    nhwc = {"data_layout": "NHWC"}
    cases = []
    for group, w in ((1, f32(6, 4, 3, 2)), (4, f32(4, 1, 3, 2)), (2, f32(6, 2, 3, 2))):
        for geometry in (
            {}, {"strides": (2, 1), "pads": (1, 0, 2, 1)}, {"dilations": (2, 2), "pads": (1,) * 4},
        ):  # fmt: skip
            attrs = {"group": group, **geometry}
            hwio = np.ascontiguousarray(w.transpose(2, 3, 1, 0))
            cases.append(Case("conv", (x, w, f32(w.shape[0])), attrs))
            cases.append(Case("conv", (last, hwio), {**attrs, **nhwc}))
            cases.append(Case("conv", (last, hwio, f32(w.shape[0])), {**attrs, **nhwc}))
    # Groups of few channels, several to a vector, and of many: (channels, outputs, groups).
    for c, o, group in ((16, 16, 4), (32, 32, 4), (24, 24, 12), (32, 16, 8), (16, 32, 16),
                        (48, 72, 3), (64, 96, 2), (48, 96, 3)):  # fmt: skip
        image, w = f32(1, 5, 6, c), f32(3, 2, c // group, o)
        attrs = {"group": group, "pads": (1, 0, 1, 1), **nhwc}
        cases.append(Case("conv", (image, w, f32(o)), attrs))
    cases.append(Case("conv", (f32(1, 2, 9), f32(3, 2, 4)), {"strides": (2,)}))
    cases.append(Case("conv", (f32(1, 2, 4, 3, 4), f32(3, 2, 2, 2, 2)), {"pads": (1,) * 6}))
    for group, wt in ((1, f32(4, 3, 3, 2)), (2, f32(4, 3, 2, 2))):
        for geometry in ({}, {"strides": (2, 3), "pads": (1, 0, 1, 1), "output_padding": (1, 2)},
                         {"dilations": (2, 1), "strides": (1, 2)}):  # fmt: skip
            attrs = {"group": group, **geometry}
            cases.append(Case("conv_transpose", (x, wt, f32(3 * group)), attrs))
            cases.append(Case("conv_transpose", (last, wt, f32(3 * group)), {**attrs, **nhwc}))
    # Rows of places as lanes: few channels, any stride, windows one place wide.
    row = f32(2, 3, 5, 37)
    for geometry in ({"pads": (1,) * 4}, {"strides": (1, 2), "pads": (0, 1, 1, 2)},
                     {"strides": (2, 3), "dilations": (1, 2)}, {"strides": (1, 4)}):  # fmt: skip
        cases.append(Case("conv", (row, f32(2, 3, 3, 3), f32(2)), geometry))
        cases.append(Case("conv", (row, f32(5, 3, 3, 1)), geometry | {"pads": ()}))
        cases.append(Case("conv", (row, f32(3, 1, 2, 3), f32(3)), geometry | {"group": 3}))
    # Images hardly larger than the kernel, and kernels shorter than the stride.
    small = f32(1, 40, 4, 5)
    for geometry in ({}, {"strides": (2, 3), "pads": (1, 0, 1, 2), "output_padding": (1, 2)}):
        for image, more in ((small, {}), (np.ascontiguousarray(small.transpose(0, 2, 3, 1)), nhwc)):
            for wt in (f32(40, 3, 4, 2), f32(40, 9, 1, 5)):
                attrs = {**geometry, **more}
                cases.append(Case("conv_transpose", (image, wt, f32(wt.shape[1])), attrs))
    # Kernels of 3 and strides of 2, whose phases have 2 or 1 taps: each for itself.
    deep = f32(1, 16, 3, 4)
    for image, more in ((deep, {}), (np.ascontiguousarray(deep.transpose(0, 2, 3, 1)), nhwc)):
        attrs = {"strides": (2, 2), "pads": (1, 0, 1, 1), **more}
        cases.append(Case("conv_transpose", (image, f32(16, 16, 3, 3), f32(16)), attrs))
    for layout, z in (("NCHW", f32(2, 3, 3, 2, 4, 5)), ("NHWC", f32(2, 4, 5, 3, 2, 3))):
        cut = {"pads": (1, 0, 2, 1), "dilations": (1, 2), "data_layout": layout}
        cases.extend((Case("fold", (z,), {"data_layout": layout}), Case("fold", (z,), cut)))
    cases.extend(_short_windows())
    none = f32(0, 4, 7, 5)  # no images
    cases.append(Case("conv", (none, f32(6, 4, 3, 2)), {}))
    cases.append(Case("conv_transpose", (none, f32(4, 3, 3, 2)), {"strides": (2, 1)}))
    removed = {"pads": (0, 2, 2, 2)}  # all that there is along an axis
    cases.append(Case("conv_transpose", (f32(1, 1, 2, 3), f32(1, 3, 3, 2)), removed))
    half = (x.astype(np.float16), f32(6, 4, 3, 2).astype(np.float16))
    cases.append(Case("conv", half, {}))
    for op in ("max_pool", "avg_pool", "lp_pool"):
        for geometry in (
            {}, {"strides": (2, 2), "pads": (1, 0, 1, 1)},
            {"strides": (2, 3), "ceil_mode": True, "pads": (0, 1, 1, 0)},
            {"dilations": (2, 1), "pads": (1, 1, 1, 0)},
        ):  # fmt: skip
            for inp, layout in ((x, {}), (last, nhwc)):
                attrs = {"kernel_shape": (3, 2), **geometry, **layout}
                cases.append(Case(op, (inp,), attrs))
                if op == "avg_pool":
                    cases.append(Case(op, (inp,), {**attrs, "count_include_pad": True}))
    cases.append(Case("lrn", (x,), {"size": 3, "alpha": 0.1}))
    cases.append(Case("lrn", (last,), {"size": 4, "alpha": 0.1, "axis": 3}))
    return cases


def _reductions() -> list[Case]:
    cases = []
    for op in opdef.all_ops():
        if op.name.startswith("reduce_"):
            for axes, keep in (((1,), True), ((0, 2), False), ((), True), ((-1,), False)):
                positive = np.abs(f32(2, 3, 4)) + np.float32(0.1)
                cases.append(Case(op.name, (positive,), {"axes": axes, "keepdims": keep}))
            cases.append(Case(op.name, (f32(2, 0, 3),), {"axes": (0,)}))
    odd = np.array([[-7, 2, 0], [5, 5, 4]], np.int32)
    cases.append(Case("reduce_mean", (odd,), {"axes": (1,)}))  # sums that 3 does not divide
    for most in (np.int8(-100), np.uint8(200), np.int32(2**31 - 5)):  # neither sum nor count fits
        large = np.full((2, 300), most) - np.arange(2, dtype=most.dtype)[:, None]
        cases.append(Case("reduce_mean", (large,), {"axes": (1,)}))
    for op_name in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod"):
        cases.append(Case(op_name, (i32(2, 5),), {"axes": (1,)}))
        cases.append(Case(op_name, (f32(0, 3),), {"axes": (0,)}))
    cases.append(Case("reduce_sum", (f32(3, 40).astype(np.float16),), {"axes": (1,)}))
    ties = np.array([[1, 3, 3, 2], [5, 5, 5, 5], [np.nan, 1, np.nan, 9]], np.float32)
    for op_name in ("argmax", "argmin"):
        for last in (False, True):
            for axis in (0, 1):
                attrs = {"axis": axis, "select_last": last, "keepdims": last}
                cases.append(Case(op_name, (ties,), attrs))
    for exclusive in (False, True):
        for reverse in (False, True):
            attrs = {"axis": 1, "exclusive": exclusive, "reverse": reverse}
            cases.append(Case("cumsum", (f32(2, 5, 2),), attrs))
            cases.append(Case("cumprod", (f32(2, 5, 2),), attrs))
            cases.append(Case("cumprod", (i32(2, 3, 0),), attrs))
    for op_name in ("softmax", "log_softmax"):
        for axis in (0, 1, -1):
            cases.append(Case(op_name, (f32(2, 3, 4) * 30,), {"axis": axis}))
        cases.append(Case(op_name, (f32(2, 3).astype(np.float16),), {"axis": 1}))
    cases.append(Case("layer_norm", (f32(2, 3, 4), f32(4), f32(4)), {}))
    cases.append(Case("layer_norm", (f32(2, 3, 4), f32(3, 4), f32(3, 1)), {"axis": 1}))
    cases.append(Case("layer_norm", (f32(2, 3, 4),), {"axis": 1}))
    cases.append(Case("rms_norm", (f32(2, 3, 4), f32(4)), {}))
    positive = np.abs(f32(3)) + np.float32(0.5)
    cases.extend(_scaled())
    cases.extend(_stored())
    cases.append(Case("batch_norm", (f32(2, 3, 4), f32(3), f32(3), f32(3), positive), {}))
    for images in (2, 0):
        cases.append(Case("group_norm", (f32(images, 6, 4, 3), f32(6), f32(6)), {"groups": 3}))
    return cases


def _movements() -> list[Case]:
    x = f32(2, 3, 4)
    index = np.array([[0, -1], [1, 2]], np.int64)
    cases = [
        Case("reshape", (x,), {"shape": (4, 6)}), Case("reshape", (x,), {"shape": (2, 12)}),
        Case("reshape", (x,), {"shape": (6, 1, 4)}), Case("reshape", (x,), {"shape": (1, 24, 1)}),
        Case("reshape", (f32(1, 1),), {"shape": ()}),
        Case("reshape", (f32(0, 3),), {"shape": (3, 0)}),
        Case("assume", (x,), {"shape": x.shape}),
        Case("within", (np.arange(6).reshape(2, 3),), {"size": (6,)}),
        Case("bitcast", (x,), {"to": dtypes.i32}), Case("bitcast", (i32(3),), {"to": dtypes.f32}),
        Case("bitcast", (np.array([True, False]),), {"to": dtypes.u8}),
        Case("bitcast", (f32(),), {"to": dtypes.u32}),
        Case("transpose", (x,), {"perm": (2, 0, 1)}), Case("transpose", (f32(),), {"perm": ()}),
        Case("concat", (x, f32(2, 1, 4), f32(2, 0, 4)), {"axis": 1}),
        Case("concat", (x,), {"axis": -1}),
        Case("slice", (x,), {"starts": (0, 2, 3), "ends": (2, -1, 0), "steps": (1, -1, -2)}),
        Case("slice", (x,), {"starts": (0, 1, 1), "ends": (2, 1, 4), "steps": (1, 1, 2)}),
        Case("expand", (f32(3, 1),), {"shape": (2, 3, 4)}),
        Case("tile", (x,), {"repeats": (2, 1, 3)}),
        Case("trilu", (f32(2, 3, 4),), {"k": 1}), Case("trilu", (i32(4, 3),), {"upper": False}),
        Case("gather", (x, index), {"axis": 1}), Case("gather", (x, np.array(1)), {"axis": 0}),
        Case("sample", (x,), {"axis": -1, "size": (9,), "divide": 2}),
        Case("sample", (x,), {"axis": 1, "size": (7,), "multiply": 6, "add": -5, "divide": 4}),
        Case("gather_elements", (x, np.array([[[1, -1, 0]]])), {"axis": 1}),
        Case("gather_nd", (x, index), {}), Case("gather_nd", (x, index[:, :1]), {"batch_dims": 1}),
        Case("scatter_elements", (x, np.array([[[1, -1, 0]]]), f32(1, 1, 3)), {"axis": 1}),
        Case("scatter_nd", (x, np.array([[1], [-2]]), f32(2, 3, 4)), {"reduction": "add"}),
        Case("top_k", (x,), {"k": (2,)}),
        Case("top_k", (x,), {"k": (3,), "axis": 1, "largest": False}),
        Case("top_k", (SPECIAL.astype(np.float32),), {"k": (13,)}),
        Case("top_k", (SPECIAL.astype(np.float32),), {"k": (13,), "largest": False}),
        Case("top_k", (np.resize(SPECIAL, 71).astype(np.float32),), {"k": (50,)}),
        Case("top_k", (np.resize(SPECIAL, (5, 40)).astype(np.float64),), {"k": (40,)}),
        Case("top_k", (i32(2, 9),), {"k": (0,)}), Case("top_k", (i32(2, 9),), {"k": (5,)}),
        Case("true_places", (np.array([True, False, True, True]),), {"size": (3,)}),
        Case("unique", (i32(4, 5),), {"binds": COUNT}),
        Case("unique", (i32(9, 1),), {"binds": COUNT, "axis": 0, "sorted": False}),
        Case("non_max_suppression", (f32(1, 9, 4), f32(1, 2, 9), np.array([3])), {"binds": COUNT}),
        Case("non_max_suppression",
             (abs(f32(2, 9, 4)), f32(2, 2, 9), np.array([9]), np.array([0.3], np.float32)),
             {"binds": COUNT, "centred": True}),
        Case("true_places", (np.zeros(3, bool),), {"size": (0,)}),
        *(
            Case("scatter_elements", (x, np.array([[[1, -1, 1, 0]]]), f32(1, 1, 4)),
                 {"axis": 1, "reduction": r})
            for r in ("none", "add", "mul", "max", "min")
        ),
        Case("scatter_nd", (i32(3), np.array([[1], [1]]), i32(2)), {"reduction": "max"}),
        Case("one_hot", (np.array([[0, -1, 7]]),), {"depth": (4,), "axis": 1}),
        Case("iota", (), {"shape": (5,)}), Case("sizes", (), {"values": (3, 0, 5)}),
        Case("sizes", (), {"values": ()}),
        *_short_products(),
        Case("matmul", (f32(3, 4), f32(4, 5))), Case("matmul", (f32(4), f32(4))),
        Case("matmul", (f32(2, 1, 3, 4), f32(5, 4, 2))), Case("matmul", (f32(4), f32(2, 4, 3))),
        Case("matmul", (f32(2, 3, 4), f32(4))), Case("matmul", (i32(3, 0), i32(0, 2))),
        Case("matmul", (f32(3, 4).astype(np.float16), f32(4, 5).astype(np.float16))),
        Case("where", (np.array([[True], [False]]), f32(2, 3), f32(3))),
        Case("clip", (f32(9),), {"min": -0.5, "max": 0.25}), Case("clip", (i32(9),), {"max": 3.0}),
        Case("isinf", (SPECIAL,), {"negative": False}),
        Case("gelu", (f32(5),), {"approximate": "tanh"}),
    ]  # fmt: skip
    for mode in ("constant", "edge", "reflect", "wrap"):
        most = 3 if mode == "reflect" else 5
        cases.append(Case("pad", (x,), {"pads": (0, 2, 1, 0, 1, most), "mode": mode}))
        cases.append(Case("pad", (x,), {"pads": (0, -1, 1, 0, 1, -2), "mode": mode}))
    cases.append(Case("pad", (x, np.float32(7)), {"pads": (1, 0, 0, 0, 0, 0)}))
    for to in (dtypes.i32, dtypes.f16, dtypes.boolean, dtypes.f64):
        cases.append(Case("cast", (f32(3, 3) * 100,), {"to": to}))
    cases.append(Case("cast", (i32(5),), {"to": dtypes.u8}))
    return cases


def formula(dtype: DType, combiner: str) -> str:
    """A product of matrices under a combiner, or without one every factor of it."""
    n, m, k = symbol("n"), symbol("m"), symbol("k")
    a, b = buffer("a", dtype, (n, k), "input"), buffer("b", dtype, (k, m), "input")
    c = buffer("c", dtype, (n, m) if combiner else (m, k, n), "output")
    cb = ComputeBuilder()
    if combiner:
        product = lambda i, r: Load(a, (i[0], r[0])) * Load(b, (r[0], i[1]))  # noqa: E731
        cb.reduce(c, (k,), combiner, product, "formula")
    else:
        cb.map(c, lambda h, j, i: Load(a, (i, j)) * Load(b, (j, h)), "formula")
    return print_ir(cb.func("formula", (a, b, c), (Var("k"), Var("m"), Var("n"))))


def _formulas() -> list[Case]:
    cases = []
    for combiner in ("", "sum", "max", "min", "prod"):
        body = {"body": formula(dtypes.f32, combiner)}
        cases.append(Case("index", (f32(3, 4), f32(4, 5)), body))
        cases.append(Case("index", (f32(0, 4), f32(4, 5)), body))
        cases.append(Case("index", (f32(17, 33), f32(33, 65)), body))
        whole = {"body": formula(dtypes.i32, combiner)}
        cases.append(Case("index", (i32(3, 4), i32(4, 5)), whole))
    cases.append(Case("index", (f32(3, 0), f32(0, 5)), {"body": formula(dtypes.f32, "sum")}))
    return cases


CASES: tuple[Case, ...] = (
    *_maps(), *_windows(), *_reductions(), *_movements(), *_formulas(),
)  # fmt: skip

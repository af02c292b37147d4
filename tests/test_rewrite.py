"""Graph rules and passes: each rule fires on its own example and keeps the meaning; tables that do
not settle are reported with the rules that cycle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from cpu_machines import CPU

from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError, InternalError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.rewrite.driver import rewrite
from aisc.ir.rewrite.rules import Match, rule
from aisc.ir.types import TensorType
from aisc.passes.analysis.host import require_native
from aisc.passes.graph import (
    affine,
    borders,
    identities,
    images,
    layout,
    masks,
    norms,
    precision,
    quantized,
    rows,
    short_products,
    stored,
)
from aisc.passes.graph import pooling as pools
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.cse import CommonSubexpressions, _key
from aisc.passes.graph.dce import DeadCode
from aisc.passes.graph.fold import Fold
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Decompose, Legalize
from aisc.passes.graph.partition import MAX_GROUP
from aisc.passes.policy import PlainPolicy

rng = np.random.default_rng(0)
SHAPE = (2, 3, 4, 5)
Make = Callable[[GraphBuilder, Value], Value]


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def model(make: Make, shape: Sequence[int] = SHAPE, dtype: dtypes.DType = dtypes.f32) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType(tuple(shape), dtype))
    return b.finish([make(b, x)])


def conv(b: GraphBuilder, x: Value, layout_: str = "NCHW") -> Value:
    w = random(6, 3, 2, 2) if layout_ == "NCHW" else random(2, 2, 5, 6)
    return b.add("conv", (x, b.constant(w), b.constant(random(6))), {"data_layout": layout_})


def transposed(b: GraphBuilder, x: Value, *perm: int) -> Value:
    return b.add("transpose", (x,), {"perm": perm})


def last_to_first(b: GraphBuilder, x: Value) -> Value:
    return transposed(b, x, 0, 3, 1, 2)


def flat_product(b: GraphBuilder, x: Value) -> Value:
    """A product over one matrix of rows, in the shape of `x` again."""
    flat = b.add("reshape", (x,), {"shape": (24, 5)})
    return b.add("reshape", (b.add("neg", (flat,)),), {"shape": SHAPE})


def two_rows(b: GraphBuilder, x: Value) -> Value:
    return b.add("slice", (x,), {"starts": (0,) * 4, "ends": (2, 3, 2, 5), "steps": (1,) * 4})


def total(b: GraphBuilder, x: Value, op: str = "reduce_sum") -> Value:
    return b.add(op, (x,), {"axes": (3,), "keepdims": True})


def below_top(b: GraphBuilder, x: Value) -> Value:
    """One value, however often it is asked for."""
    known = next((n.output for n in b.nodes if n.op == "sub"), None)
    return known or b.add("sub", (x, total(b, x, "reduce_max")))


def powers(b: GraphBuilder, x: Value) -> Value:
    known = next((n.output for n in b.nodes if n.op == "exp"), None)
    return known or b.add("exp", (below_top(b, x),))


def root(b: GraphBuilder, squares: Value) -> Value:
    mean = total(b, squares, "reduce_mean")
    return b.add("sqrt", (b.add("add", (mean, b.constant(np.float32(1e-5)))),))


EXAMPLES: dict[str, Make] = {
    "scale_by_reciprocal": lambda b, x: b.add("quantize", (x, *parameters(b)), {"to": dtypes.u8}),
    "relu_of_lowest": lambda b, x: b.add(
        "quantize", (b.add("relu", (x,)), b.constant(np.float32(0.25))), {"to": dtypes.u8}
    ),
    "scales_joined": lambda b, x: b.add(
        "quantize",
        (
            b.add(
                "mul",
                (
                    b.add(
                        "mul",
                        (
                            b.add(
                                "cast",
                                (b.add("cast", (x,), {"to": dtypes.i32}),),
                                {"to": dtypes.f32},
                            ),
                            b.constant(np.full((1, 3, 1, 1), 0.5, np.float32)),
                        ),
                    ),
                    b.constant(np.float32(4)),
                ),
            ),
            b.constant(np.float32(1)),
            b.constant(np.uint8(9)),
        ),
        {"to": dtypes.u8},
    ),
    "transpose_identity": lambda b, x: transposed(b, x, 0, 1, 2, 3),
    "transpose_twice": lambda b, x: transposed(b, transposed(b, x, 0, 2, 3, 1), 0, 3, 1, 2),
    "transpose_is_reshape": lambda b, x: transposed(
        b, b.add("reshape", (x,), {"shape": (1, 24, 1, 5)}), 2, 1, 0, 3
    ),
    "reshape_identity": lambda b, x: b.add("reshape", (x,), {"shape": SHAPE}),
    "reshape_twice": lambda b, x: b.add(
        "reshape", (b.add("reshape", (x,), {"shape": (6, 20)}),), {"shape": (120,)}
    ),
    "same_type_movement": lambda b, x: b.add("expand", (x,), {"shape": SHAPE}),
    "relu_twice": lambda b, x: b.add("relu", (b.add("relu", (x,)),)),
    "times_one": lambda b, x: b.add("mul", (x, b.constant(np.ones((1, 3, 1, 1), np.float32)))),
    "small_power": lambda b, x: b.add("pow", (x, b.constant(np.float32(3)))),
    "scale_into_conv": lambda b, x: b.add("mul", (conv(b, x), b.constant(random(1, 6, 1, 1)))),
    "shift_into_conv": lambda b, x: b.add("add", (b.constant(random(6, 1, 1)), conv(b, x))),
    "_sink_map": lambda b, x: b.add("add", (last_to_first(b, x), b.constant(random(5, 1, 1)))),
    "sink_concat": lambda b, x: b.add(
        "concat", (last_to_first(b, x), last_to_first(b, b.add("neg", (x,)))), {"axis": 1}
    ),
    "sink_axis": lambda b, x: b.add("softmax", (last_to_first(b, x),), {"axis": 1}),
    "sink_gather": lambda b, x: b.add(
        "gather", (last_to_first(b, x), b.constant(np.array([2, -1, 0]))), {"axis": -3}
    ),
    "sink_slice": lambda b, x: b.add(
        "slice",
        (last_to_first(b, x),),
        {"starts": (0, 1, 0, 3), "ends": (2, 5, 2, 1), "steps": (1, 2, 1, -1)},
    ),
    "sink_reshape": lambda b, x: b.add("reshape", (last_to_first(b, x),), {"shape": (2, 5, 12)}),
    "sink_pad": lambda b, x: b.add(
        "pad",
        (last_to_first(b, x), b.constant(np.float32(2))),
        {"pads": (0, 1, 0, 2, 1, 0, 3, 0), "mode": "constant"},
    ),
    "drop_taps": lambda b, x: b.add(
        "conv",
        (x, b.constant(random(2, 3, 3, 3))),
        {"dilations": (6, 1), "pads": (6, 1, 6, 1), "strides": (2, 1)},
    ),
    "split_taps": lambda b, x: b.add(
        "conv",
        (b.add("concat", (x,) * 11, {"axis": 1}), b.constant(random(2, 33, 3, 3))),
        {"dilations": (1, 4), "pads": (1, 4, 1, 4)},
    ),
    "thin_places": lambda b, x: b.add(
        "conv", (x, b.constant(random(2, 3, 2, 1))), {"strides": (1, 2)}
    ),
    "join_pixels": lambda b, x: b.add(
        "conv",
        (x, b.constant(random(1, 1, x.type.shape[-1], 3)), b.constant(random(3))),
        {"data_layout": "NHWC"},
    ),
    "first_of_row": lambda b, x: b.add_multi("top_k", (x,), {"k": (1,), "axis": 1})[0],
    "join_places": lambda b, x: b.add("conv", (x, b.constant(random(2, 3, 2, 1)))),
    "pool_is_reduction": lambda b, x: b.add(
        "avg_pool", (x,), {"kernel_shape": (9, 5), "pads": (0, 0, 5, 0)}
    ),
    "separate_windows": lambda b, x: b.add(
        "max_pool", (x,), {"kernel_shape": (5, 6), "pads": (2, 3, 4, 5), "dilations": (1, 2)}
    ),
    "where_known": lambda b, x: b.add(
        "where", (b.constant(np.zeros((3, 1, 1), bool)), b.constant(np.float32(7)), x)
    ),
    "drop_rows_after": lambda b, x: b.add(
        "matmul",
        (
            b.add("where", (b.constant(rng.random((3, 4, 1)) < 0.5), b.constant(np.float32(0)), x)),
            b.constant(random(3, 5, 7)),
        ),
    ),
    "no_mask": lambda b, x: b.add(
        "softmax", (b.add("add", (b.constant(-np.zeros((4, 5), np.float32)), x)),), {"axis": -1}
    ),
    "join_factors": lambda b, x: b.add(
        "matmul",
        (
            b.add("mul", (x, b.constant(np.float32(0.25)))),
            transposed(b, b.add("mul", (b.constant(np.float32(3)), x)), 0, 1, 3, 2),
        ),
    ),
    "flatten_rows": lambda b, x: b.add("matmul", (x, b.constant(random(5, 7)))),
    "join_reduced": lambda b, x: b.add("reduce_mean", (x,), {"axes": (-1, 2), "keepdims": True}),
    "reduce_twice": lambda b, x: b.add("reduce_max", (x,), {"axes": (1, 3), "keepdims": True}),
    "turn_reduced": lambda b, x: b.add(
        "reduce_mean",
        (b.add("reshape", (b.add("concat", (x,) * 2, {"axis": 0}),), {"shape": (80, 3)}),),
        {"axes": (1,), "keepdims": True},
    ),
    "join_kept": lambda b, x: b.add("reduce_max", (x,), {"axes": (-3,), "keepdims": False}),
    "join_normed": lambda b, x: b.add("layer_norm", (x,), {"axis": 2}),
    "move_axis": lambda b, x: b.add(
        "softmax", (b.add("reshape", (x,), {"shape": (4, 10, 3)}),), {"axis": 1}
    ),
    "join_behind": lambda b, x: b.add("log_softmax", (x,), {"axis": 1}),
    "few_columns": lambda b, x: b.add("matmul", (x, transposed(b, two_rows(b, x), 0, 1, 3, 2))),
    "widen_rows": lambda b, x: b.add(
        "reduce_max",
        (b.add("reshape", (b.add("concat", (x,) * 2, {"axis": 0}),), {"shape": (2, 24, 5)}),),
        {"axes": (1,), "keepdims": True},
    ),
    "turn_product": lambda b, x: b.add(
        "matmul",
        (transposed(b, b.add("reshape", (x,), {"shape": (6, 20)}), 1, 0), b.constant(random(6, 2))),
    ),
    "sum_is_mean": lambda b, x: b.add("div", (total(b, x), b.constant(np.float32(5)))),
    "softmax_spelled_out": lambda b, x: b.add("div", (powers(b, x), total(b, powers(b, x)))),
    "log_softmax_spelled_out": lambda b, x: b.add(
        "sub", (below_top(b, x), b.add("log", (total(b, b.add("exp", (below_top(b, x),))),)))
    ),
    "norm_spelled_out": lambda b, x: b.add("div", (x, root(b, b.add("mul", (x, x))))),
    "norm_takes_scale": lambda b, x: b.add(
        "mul", (b.constant(random(1, 1, 5)), b.add("rms_norm", (x,), {"axis": 3}))
    ),
    "sink_rows": lambda b, x: b.add(
        "add",
        (flat_product(b, x), b.add("mul", (x, b.constant(random(1, 1, 5))))),
    ),
    "short_factors": lambda b, x: b.add(
        "matmul", (b.add("round", (x,)), b.constant(np.round(random(5, 6) * 4)))
    ),
    "shorter_weights": lambda b, x: b.add("matmul", (x, b.constant(np.round(random(5, 6) * 4)))),
    "shorter_tables": lambda b, x: b.add(
        "add", (x, b.add("gather", (whole_numbers(b), b.constant(np.array([3, 0, 8, 3])))))
    ),
    "sink_reduction": lambda b, x: b.add(
        "reduce_mean", (last_to_first(b, x),), {"axes": (2, 3), "keepdims": True}
    ),
}
INTEGERS: dict[str, Make] = {
    "integer_plus_zero": lambda b, x: b.add("sub", (x, b.constant(np.zeros(5, np.int32)))),
}


def whole_numbers(b: GraphBuilder) -> Value:
    return b.constant(np.round(random(1000, 5) * 4))


def scaled(b: GraphBuilder, x: Value) -> Value:
    """Bytes as floats, of one scale and zero point."""
    known = next((n.output for n in b.nodes if n.op == "dequantize"), None)
    return known or b.add("dequantize", (x, *parameters(b)))


def parameters(b: GraphBuilder) -> tuple[Value, Value]:
    return b.constant(np.float32(0.25)), b.constant(np.uint8(3))


def weights(b: GraphBuilder, t: type = np.int8) -> Value:
    return b.constant(rng.integers(-128, 128, (5, 6)).astype(t))


def known_weights(b: GraphBuilder) -> Value:
    columns = np.linspace(0.5, 2, 6, dtype=np.float32)
    return b.add("dequantize", (weights(b), b.constant(columns)))


def quantized_product(b: GraphBuilder, x: Value) -> Value:
    left = scaled(b, x)
    w = b.add("dequantize", (weights(b), b.constant(np.linspace(0.5, 2, 6, dtype=np.float32))))
    return b.add("matmul", (left, w))


def less_three(b: GraphBuilder, x: Value) -> Value:
    wide = b.add("cast", (x,), {"to": dtypes.i16})
    return b.add("sub", (wide, b.constant(np.int16(3))))


SUMS = {"accumulator": "i32"}
BYTES: dict[str, Make] = {
    "quantize_undone": lambda b, x: b.add(
        "quantize", (scaled(b, x), *parameters(b)), {"to": dtypes.u8}
    ),
    "later_transpose": lambda b, x: transposed(b, scaled(b, x), 0, 3, 1, 2),
    "later_movement": lambda b, x: b.add("reshape", (scaled(b, x),), {"shape": (6, 20)}),
    "later_concat": lambda b, x: b.add("concat", (scaled(b, x), scaled(b, x)), {"axis": 1}),
    "later_max_pool": lambda b, x: b.add(
        "max_pool", (scaled(b, x),), {"kernel_shape": (2, 2), "pads": (1, 0, 1, 1)}
    ),
    "later_relu": lambda b, x: b.add("relu", (scaled(b, x),)),
    "integer_product": quantized_product,
    "stored_weights": lambda b, x: b.add(
        "matmul", (b.add("cast", (x,), {"to": dtypes.f32}), known_weights(b))
    ),
    "zero_point_in_bias": lambda b, x: b.add("matmul", (less_three(b, x), weights(b)), SUMS),
    "short_weights": lambda b, x: b.add("matmul", (x, weights(b, np.int16)), SUMS),
}
RULES = {
    r.name: r
    for r in (
        *identities.RULES,
        *affine.RULES,
        *pools.RULES,
        *images.RULES,
        *borders.RULES,
        *masks.RULES,
        *layout.rules(),
        *rows.rules(),
        *norms.RULES,
        *quantized.RULES,
        *stored.RULES,
        *precision.rules(dtypes.bf16),
        *short_products.rules(dtypes.bf16, (PlainPolicy(factors=(dtypes.bf16,)),)),
    )
}


def test_every_rule_has_an_example() -> None:
    assert set(EXAMPLES) | set(INTEGERS) | set(BYTES) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_rules_fire_and_keep_the_meaning(name: str) -> None:
    if name in INTEGERS:
        graph = model(INTEGERS[name], dtype=dtypes.i32)
        x = rng.integers(-9, 9, SHAPE).astype(np.int32)
    elif name in BYTES:
        graph = model(BYTES[name], dtype=dtypes.u8)
        x = rng.integers(0, 256, SHAPE).astype(np.uint8)
        x.flat[:2] = 0, 255
    else:
        graph, x = model(EXAMPLES[name]), random(*SHAPE)
        x.flat[:4] = [-0.0, np.inf, -np.inf, 1e-42]
    counts: Counter[str] = Counter()
    after = rewrite(graph, [RULES[name]], counts)
    assert counts[name] > 0
    verify(after)
    assert after.outputs[0].type == graph.outputs[0].type
    for a, b in zip(interpret(graph, [x]), interpret(after, [x]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RULES)
def test_rules_know_where_they_are_written(name: str) -> None:
    assert RULES[name].where.line > 0
    assert RULES[name].where.file.endswith(".py")
    assert RULES[name].apply.__doc__


@pytest.mark.parametrize(
    ("perm", "shape", "moves"),
    [
        ((0, 3, 1, 2), (2, 5, 3, 4), True),
        ((0, 3, 1, 2), (10, 12), False),  # 2 and 5 do not lie together
        ((0, 3, 1, 2), (2, 5, 2, 6), False),  # 3 and 4 become 2 and 6
        ((1, 2, 0, 3), (12, 2, 5), True),
        ((1, 2, 0, 3), (12, 2, 5, 1), True),
        ((0, 2, 1, 3), (2, 2, 2, 3, 5), True),
        ((3, 0, 1, 2), (5, 24), True),
        ((3, 0, 1, 2), (5, 2, 3, 2, 2), True),
        ((2, 1, 0, 3), (12, 10), False),
    ],
)
def test_a_reshape_passes_a_transpose_where_its_axes_stay_together(
    perm: tuple[int, ...], shape: tuple[int, ...], moves: bool
) -> None:
    graph = model(lambda b, x: b.add("reshape", (transposed(b, x, *perm),), {"shape": shape}))
    after = rewrite(graph, [layout.sink_reshape])
    assert (after is not graph) == moves
    x = random(*SHAPE)
    assert np.array_equal(interpret(after, [x])[0], interpret(graph, [x])[0])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.i32])
@pytest.mark.parametrize(("shape", "axis"), [((2, 7, 5), 1), ((9, 33), 0), ((3, 8), -1)])
def test_the_first_of_a_row_is_found_as_by_sorting(
    shape: tuple[int, ...], axis: int, dtype: dtypes.DType, largest: bool
) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(shape, dtype))
    attrs = {"k": (1,), "axis": axis, "largest": largest}
    graph = b.finish(b.add_multi("top_k", (x,), attrs))
    after = rewrite(graph, [rows.first_of_row])
    assert (after is graph) == (axis == -1 or (dtype.is_float and not largest))
    data = rng.integers(-2, 3, shape).astype(dtype.numpy)  # most are equal to others
    if dtype.is_float:
        data.flat[::4], data.flat[::5] = np.nan, -0.0
    for old, new in zip(interpret(graph, [data]), interpret(after, [data]), strict=True):
        assert old.tobytes() == new.tobytes()


def test_nothing_fires_on_other_graphs() -> None:
    graph = model(lambda b, x: b.add("add", (x, b.add("exp", (x,)))))
    assert rewrite(graph, list(RULES.values())) is graph


def test_cycling_rules_are_named() -> None:
    @rule("exp")
    def to_log(m: Match) -> Sequence[Value]:
        """exp -> log"""
        return (m.add("log", m.node.inputs),)

    @rule("log")
    def to_exp(m: Match) -> Sequence[Value]:
        """log -> exp"""
        return (m.add("exp", m.node.inputs),)

    with pytest.raises(InternalError) as caught:
        rewrite(model(lambda b, x: b.add("exp", (x,))), [to_log, to_exp])
    assert "to_log" in str(caught.value) or "to_exp" in str(caught.value)
    assert "test_rewrite.py" in str(caught.value)


def test_fold_evaluates_constants_within_its_limit() -> None:
    def make(b: GraphBuilder, x: Value) -> Value:
        c = b.add("add", (b.constant(random(4, 5)), b.constant(random(5))))
        return b.add("mul", (x, b.add("expand", (c,), {"shape": SHAPE})))

    graph = model(make)
    folded = Fold().run(graph)
    assert [n.op for n in folded.nodes] == ["constant", "mul"]
    kept = Fold(limit=100).run(graph)
    assert "expand" in [n.op for n in kept.nodes]
    x = random(*SHAPE)
    assert np.array_equal(interpret(graph, [x])[0], interpret(folded, [x])[0])


def test_cse_and_dce() -> None:
    def make(b: GraphBuilder, x: Value) -> Value:
        b.add("exp", (x,))
        two = [b.add("mul", (x, b.constant(np.float32(2)))) for _ in range(2)]
        return b.add("add", two)

    graph = model(make)
    assert [n.op for n in DeadCode().run(graph).nodes].count("exp") == 0
    merged = CommonSubexpressions().run(graph)
    assert [n.op for n in merged.nodes] == ["exp", "constant", "mul", "add"]
    assert CommonSubexpressions().run(merged) is merged


def test_cse_tells_numbers_apart_that_compare_equal() -> None:
    """Zeros of both signs, 1 and 1.0, and NaN, alone or in tuples."""
    values = (0.0, -0.0, 1, 1.0, (0.0,), (-0.0,), ((0.0,),), ((-0.0,),))
    x = Value("x", TensorType(SHAPE, dtypes.f32))
    keys = {_key(GraphNode("neg", (x,), (Value("y", x.type),), (("alpha", v),))) for v in values}
    assert len(keys) == len(values)
    nan = [_key(GraphNode("neg", (x,), (), (("alpha", (float("nan"),)),))) for _ in range(2)]
    assert nan[0] == nan[1]


def test_batch_norm_disappears_into_the_convolution() -> None:
    def make(b: GraphBuilder, x: Value) -> Value:
        operands = [b.constant(np.abs(random(6)) + 0.1) for _ in range(4)]
        return b.add("relu", (b.add("batch_norm", (conv(b, x), *operands)),))

    graph = model(make)
    after = Legalize(machines=CPU).run(Canonicalize().run(graph))
    kinds = [n.op for n in after.nodes if n.op != "constant"]
    assert kinds == ["transpose", "conv", "relu", "transpose"]
    x = random(*SHAPE)
    a, b = interpret(graph, [x])[0], interpret(after, [x])[0]
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_canonical_forms_are_fixpoints() -> None:
    graph = Canonicalize().run(model(EXAMPLES["scale_into_conv"]))
    assert same(Canonicalize().run(graph), graph)
    assert Decompose().run(graph) is graph


def test_operators_without_native_code_are_one_report() -> None:
    def make(b: GraphBuilder, x: Value) -> Value:
        once = b.add_multi("unique", (x,), {"binds": (symbol("a", kind="data"),)})
        return b.add_multi("unique", (once[0],), {"binds": (symbol("b", kind="data"),)})[0]

    with pytest.raises(CompileError) as caught:
        require_native(model(make))
    assert set(caught.value.codes) == {"E102"}
    assert caught.value.exit_code == 3


def residual(b: GraphBuilder, x: Value) -> Value:
    """Two convolutions that meet in an addition, with maps around."""
    left = b.add("relu", (conv(b, b.add("neg", (x,)), "NHWC"),))
    right = conv(b, x, "NHWC")
    return b.add("relu", (b.add("add", (left, right)),))


def test_fusion_keeps_values_inside_their_group() -> None:
    graph = model(residual)
    fused = Fuse(machines=CPU).run(graph)
    verify(fused)
    groups = [n for n in fused.nodes if n.op == "fused"]
    assert [[m.op for m in g.regions[0].nodes if m.op != "constant"] for g in groups] == [
        ["neg"], ["conv", "relu"], ["conv", "add", "relu"],
    ]  # fmt: skip
    x = random(*SHAPE)
    assert np.array_equal(interpret(graph, [x])[0], interpret(fused, [x])[0])
    apart = Fuse(join=False, machines=CPU).run(graph)
    assert all(len(n.regions[0].nodes) == 1 for n in apart.nodes if n.op == "fused")


def test_groups_are_bounded() -> None:
    def chain(b: GraphBuilder, x: Value) -> Value:
        for _ in range(3 * MAX_GROUP):
            x = b.add("neg", (x,))
        return x

    fused = Fuse(machines=CPU).run(model(chain))
    assert all(len(n.regions[0].nodes) <= MAX_GROUP for n in fused.nodes)


def test_a_group_waits_for_no_reader_of_another_result() -> None:
    """A reader of a node's other result may stand before what its group could take next."""
    b = GraphBuilder()
    x = b.input("x", TensorType((4, 6), dtypes.f32))
    y = b.input("y", TensorType((3,), dtypes.f32))
    values, places = b.add_multi("top_k", (x,), {"k": (3,), "axis": 1, "largest": True})
    moved = b.add("reshape", (places,), {"shape": (3, 4)})
    first = b.add("gather", (x, moved), {"axis": 1})
    graph = b.finish([first, b.add("add", (values, y))])
    feed = {"x": random(4, 6), "y": random(3)}
    fused = Fuse(machines=CPU).run(graph)
    verify(fused)
    for got, want in zip(interpret(fused, feed), interpret(graph, feed), strict=True):
        np.testing.assert_array_equal(got, want)


def test_integers_wrap_when_they_move_into_a_convolution() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((1, 1, 3, 3), dtypes.i32))
    w = b.constant(np.ones((2, 1, 2, 2), np.int32))
    bias = b.constant(np.array([-7, -(2**31)], np.int32))
    y = b.add("conv", (x, w, bias), {})
    y = b.add("mul", (y, b.constant(np.array([[[7]], [[2]]], np.int32))))
    y = b.add("add", (y, b.constant(np.array([[[2**31 - 1]], [[5]]], np.int32))))
    before = b.finish([y])
    after = Canonicalize().run(before)
    assert [n.op for n in after.nodes if n.op != "constant"] == ["conv"]
    feed = [np.full((1, 1, 3, 3), 2**30, np.int32)]
    np.testing.assert_array_equal(interpret(after, feed)[0], interpret(before, feed)[0])


@pytest.mark.parametrize("number", [np.inf, 3e38])
def test_a_scale_that_makes_weights_infinite_stays(number: float) -> None:
    def scaled(b: GraphBuilder, x: Value) -> Value:
        return b.add("mul", (conv(b, x), b.constant(np.full((6, 1, 1), number, np.float32))))

    after = Canonicalize().run(model(scaled))
    assert [n.op for n in after.nodes if n.op != "constant"] == ["conv", "mul"]

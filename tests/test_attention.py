"""Attention in one kernel: what it takes and what it leaves, its results, its error bound."""

from __future__ import annotations

import agreement
import numpy as np
import pytest
from attention_models import Form, graph_of, inputs_of
from cpu_machines import CPU
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import aisc
from aisc.driver.api import products, resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.attention import find_attention
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.schedule.rules.inlining import inline_maps
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

Array = np.ndarray
N, M = symbol("n"), symbol("m")

FORMS = {
    "plain": Form(),
    "width of few divisors": Form(queries=64, keys=40, width=55),
    "odd sizes": Form(queries=45, keys=50, depth=7, width=5),
    "several blocks": Form(queries=40, keys=300, depth=64, width=64),
    "one more than a block": Form(queries=40, keys=129, depth=32, width=48),
    "heads apart": Form(batch=2, heads=3, queries=48, keys=64, apart=True),
    "mask of keys": Form(batch=2, queries=28, keys=70, mask=(2, 1, 1, 70)),
    "mask of heads": Form(queries=28, keys=70, mask=(1, 2, 1, 1)),
    "mask of queries": Form(queries=28, keys=70, mask=(1, 1, 28, 1)),
    "mask of all": Form(queries=37, keys=140, mask=(1, 2, 37, 140)),
    "mask of few axes": Form(queries=32, keys=128, mask=(32, 128)),
    "mask of more batches": Form(batch=1, queries=32, keys=16, mask=(3, 1, 32, 16)),
    "boolean mask": Form(queries=64, keys=64, where=(1, 1, 64, 64)),
    "boolean mask, odd": Form(queries=37, keys=45, where=(37, 45)),
    "masks with infinities": Form(queries=64, keys=200, where=(1, 1, 64, 200), masked=-np.inf),
    "shared keys": Form(batch=2, heads=4, queries=20, keys=24, shared=True),
    "one query": Form(queries=1, keys=129, depth=32, width=48, mask=(1, 1, 1, 129)),
    "one query, many keys": Form(queries=1, keys=5000, depth=16, width=16),
    "one query, one key": Form(queries=1, keys=1),
    "few queries": Form(batch=2, queries=3, keys=50, mask=(3, 50), where=(2, 1, 1, 50)),
    "few queries apart": Form(queries=4, keys=64, apart=True, shared=True),
    "one query, double precision": Form(queries=1, keys=70, mask=(1, 70), dtype=dtypes.f64),
    "double precision": Form(queries=40, keys=150, mask=(40, 150), dtype=dtypes.f64),
}
SYMBOLIC = {
    "a sequence": (Form(queries=N, keys=N, depth=64, width=64, apart=True), (1, 7, 128, 300)),
    "a mask": (Form(batch=M, queries=N, keys=N, where=(1, 1, N, N)), (1, 33, 64, 150)),
}


def kernels(graph: Graph) -> tuple[Func, ...]:
    return lower_graph(Fuse(machines=CPU).run(graph)).kernels


def streams(func: Func) -> bool:
    """Whether the default schedule takes a kernel for one attention."""
    trace = default_schedule(func, Chooser(resolve_target("cpu"))).trace
    return any(s.primitive == "variant" and s.args[1].startswith("streaming") for s in trace)


def assert_computes(graph: Graph, inputs: list[Array]) -> Array:
    """The result agrees with the reference, and is the same for two threads."""
    (exact,) = agreement.reference(graph, inputs)
    got = aisc.compile(graph, threads=1, cache=False)(*inputs)
    assert np.array_equal(got, aisc.compile(graph, threads=2, cache=False)(*inputs), equal_nan=True)
    (peer,) = interpret(graph, inputs)  # plain single precision
    agreement.assert_agrees([got], [peer], [exact])
    return got


@pytest.mark.parametrize("name", FORMS)
def test_one_kernel_computes_it(name: str) -> None:
    graph = graph_of(FORMS[name])
    (kernel,) = kernels(graph)
    assert streams(kernel)
    assert_computes(graph, inputs_of(graph))


@pytest.mark.parametrize("name", SYMBOLIC)
def test_sizes_of_a_call(name: str) -> None:
    form, sizes = SYMBOLIC[name]
    graph = graph_of(form)
    assert all(map(streams, kernels(graph)))
    exe = aisc.compile(graph, threads=2, cache=False)
    for n in sizes:
        inputs = inputs_of(graph, {"n": n, "m": 2})
        (exact,) = agreement.reference(graph, inputs)
        agreement.assert_agrees([exe(*inputs)], interpret(graph, inputs), [exact])


def test_nothing_to_attend_to() -> None:
    """No queries, no batch, no keys: sums over nothing are 0."""
    graph = graph_of(Form(batch=M, queries=N, keys=symbol("k")))
    exe = aisc.compile(graph, threads=1, cache=False)
    for n, m, k in ((0, 1, 4), (4, 0, 4), (20, 2, 0), (0, 0, 0)):
        inputs = inputs_of(graph, {"n": n, "m": m, "k": k})
        (expected,) = interpret(graph, inputs)
        assert np.array_equal(exe(*inputs), expected)


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16])
def test_half_precision_is_summed_in_single(dtype: dtypes.DType) -> None:
    graph = graph_of(Form(queries=40, keys=150, mask=(40, 150), dtype=dtype))
    inputs = inputs_of(graph)
    (expected,) = interpret(graph, inputs)
    got = aisc.compile(graph, threads=1, cache=False)(*inputs).astype(np.float64)
    eps = 2.0 ** -(10 if dtype is dtypes.f16 else 7)
    assert np.abs(got - expected.astype(np.float64)).max() <= 4 * eps


def repeated(g: GraphBuilder, name: str, size: Dim, width: int) -> Value:
    """Two heads of keys or values, for eight heads of queries, as exporters write it."""
    x = g.input(name, TensorType((1, 2, size, width), dtypes.f32))
    x = g.add("reshape", (x,), {"shape": (1, 2, 1, size, width)})
    x = g.add("expand", (x,), {"shape": (1, 2, 4, size, width)})
    return g.add("reshape", (x,), {"shape": (1, 8, size, width)})


@pytest.mark.parametrize("sizes", [(28, 36), (N, N)])
def test_repeated_heads_are_read_where_they_are(sizes: tuple[Dim, Dim]) -> None:
    g = GraphBuilder()
    q = g.input("q", TensorType((1, 8, sizes[0], 16), dtypes.f32))
    k, v = (repeated(g, name, sizes[1], 16) for name in "kv")
    k = g.add("transpose", (k,), {"perm": (0, 1, 3, 2)})
    graph = g.finish([chain(g, q, k, v)[2]])
    (kernel,) = kernels(graph)
    assert streams(kernel)
    inputs = inputs_of(graph, {"n": 21})
    (exact,) = agreement.reference(graph, inputs)
    got = aisc.compile(graph, threads=1, cache=False)(*inputs)
    agreement.assert_agrees([got], interpret(graph, inputs), [exact])


def test_softmax_in_parts() -> None:
    g = GraphBuilder()
    q, k, v = operands(g)
    s = g.add("matmul", (q, k))
    kept = {"axes": (1,), "keepdims": True}
    e = g.add("exp", (g.add("sub", (s, g.add("reduce_max", (s,), kept))),))
    p = g.add("div", (e, g.add("reduce_sum", (e,), kept)))
    graph = g.finish([g.add("matmul", (p, v))])
    (kernel,) = kernels(graph)
    assert streams(kernel)
    assert_computes(graph, inputs_of(graph))


def test_past_keys_and_values_are_read_where_they_are_kept() -> None:
    """Concatenations that are results as well are made, and read by the kernel."""
    g = GraphBuilder()
    q = g.input("q", TensorType((1, 2, 28, 16), dtypes.f32))
    whole = []
    for name in "kv":
        parts = [
            g.input(f"{name}{n}", TensorType((1, 2, n, 16), dtypes.f32)) for n in (13, 20)
        ]  # fmt: skip
        whole.append(g.add("concat", parts, {"axis": 2}))
    k = g.add("transpose", (whole[0],), {"perm": (0, 1, 3, 2)})
    graph = g.finish([chain(g, q, k, whole[1])[2], *whole])
    assert sum(map(streams, kernels(graph))) == 1
    inputs = inputs_of(graph)
    exact = agreement.reference(graph, inputs)
    got = aisc.compile(graph, threads=2, cache=False)(*inputs)
    agreement.assert_agrees(got, interpret(graph, inputs), exact)


# -- data that are not finite ------------------------------------------------------------------


@pytest.mark.parametrize("keys", [20, 300, 5000])
@pytest.mark.parametrize("queries", [40, 4])
def test_rows_masked_wholly_are_as_without_blocks(keys: int, queries: int) -> None:
    """-inf everywhere in a row gives NaN; a finite mask gives the average of the values."""
    graph = graph_of(Form(queries=queries, keys=keys, mask=(1, 1, queries, keys)))
    q, k, v, mask = inputs_of(graph)
    mask[...] = 0
    mask[0, 0, 0] = -np.inf
    mask[0, 0, 1, : keys - 1] = -np.inf
    mask[0, 0, 2, 1:] = -np.inf
    mask[0, 0, 3] = -1e30
    got = assert_computes(graph, [q, k, v, mask])
    assert np.isnan(got[:, :, 0]).all() and np.isfinite(got[:, :, 1:]).all()
    np.testing.assert_allclose(got[0, :, 1], v[0, :, -1], rtol=1e-6)
    np.testing.assert_allclose(got[0, :, 2], v[0, :, 0], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["q", "k", "v", "mask"])
@pytest.mark.parametrize(("queries", "keys"), [(28, 33), (28, 260), (2, 33), (2, 3000)])
def test_infinities_and_nan_reach_what_they_reach_without_blocks(
    queries: int, keys: int, where: str, value: float
) -> None:
    graph = graph_of(Form(queries=queries, keys=keys, mask=(queries, keys)))
    inputs = inputs_of(graph)
    mask = inputs[3]
    mask[:, -3:] = -np.inf  # weights of 0, which infinite values turn into NaN
    place = {"q": (0, 0, 1, 2), "k": (0, 1, keys - 1, 3), "v": (0, 0, keys - 2, 1)}
    at = ["q", "k", "v", "mask"].index(where)
    inputs[at][place.get(where, (1, keys // 2))] = value
    with np.errstate(all="ignore"):
        assert_computes(graph, inputs)


@pytest.mark.parametrize("keys", [64, 1000, 4000])
def test_machine_code_keeps_the_stated_bound(keys: int) -> None:
    """Rescaling adds a few roundings per block of keys to those of the sums themselves."""
    graph = graph_of(Form(queries=32, keys=keys))
    inputs = inputs_of(graph)
    (exact,) = agreement.reference(graph, inputs)
    (plain,) = interpret(graph, inputs)
    got = aisc.compile(graph, threads=1, cache=False)(*inputs)
    blocks = -(-keys // 128)
    eps = float(np.finfo(np.float32).eps) * float(np.abs(inputs[2]).max())
    most = 4 * np.abs(plain - exact).max() + 4 * (blocks + 1) * eps
    assert np.abs(got - exact).max() <= most


# -- levels ------------------------------------------------------------------------------------


def on_interpreter(func: Func, graph: Graph, inputs: list[Array]) -> Array:
    given = {v.name: x for v, x in zip(graph.inputs, inputs, strict=True)}
    out = np.full(graph.outputs[0].type.static_shape, np.nan, np.float32)
    run_func(func, [out if p.role == "output" else given[p.name] for p in func.params])
    return out


@pytest.mark.parametrize(("queries", "name"), [(20, "streaming_attention"), (3, "streaming_rows")])
def test_levels_agree_and_traces_replay(queries: int, name: str) -> None:
    graph = graph_of(Form(queries=queries, keys=24, depth=16, width=16, where=(queries, 24)))
    (kernel,) = kernels(graph)
    found = find_attention(inline_maps(Schedule.of(kernel), Chooser(resolve_target("cpu"))))
    assert found is not None
    start, block, _ = found
    target = resolve_target("cpu")
    inputs = inputs_of(graph)
    (expected,) = interpret(graph, inputs)
    sizes = (16, 8, 4) if queries == 20 else (3, 8, 8)
    chosen = start.variant(block, name, *sizes)
    scheduled = default_schedule(kernel, Chooser(target))
    for s in (chosen, scheduled):
        assert Schedule.of(kernel).replay(trace_from_json(trace_to_json(s.trace))) == s
        assert parse_func(print_ir(s.func)) == s.func
        for func in (s.func, optimize(s.func)):
            got = on_interpreter(func, graph, inputs)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_any_sizes_of_blocks_of_few_queries_compute_it() -> None:
    graph = graph_of(Form(heads=1, queries=4, keys=11, depth=16, width=16, mask=(4, 11)))
    (kernel,) = kernels(graph)
    inputs = inputs_of(graph)
    (expected,) = interpret(graph, inputs)
    found = find_attention(inline_maps(Schedule.of(kernel), Chooser(resolve_target("cpu"))))
    assert found is not None
    for sizes in ((1, 1, 1), (2, 4, 2), (4, 16, 16), (4, 8, 4)):
        s = found[0].variant(found[1], "streaming_rows", *sizes)
        got = on_interpreter(s.func, graph, inputs)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    for sizes in ((3, 8, 4), (4, 8, 3), (4, 8, 0), (4, 9, 3)):
        with pytest.raises(CompileError) as caught:
            found[0].variant(found[1], "streaming_rows", *sizes)
        assert caught.value.codes == ("E302",)


def test_any_sizes_of_blocks_compute_it() -> None:
    graph = graph_of(Form(heads=1, queries=11, keys=11, depth=3, width=2, mask=(11, 11)))
    (kernel,) = kernels(graph)
    inputs = inputs_of(graph)
    (expected,) = interpret(graph, inputs)
    for sizes in ((1, 1, 1), (2, 4, 2), (11, 11, 11), (8, 16, 4), (3, 6, 1)):
        found = find_attention(inline_maps(Schedule.of(kernel), Chooser(resolve_target("cpu"))))
        assert found is not None
        s = found[0].variant(found[1], "streaming_attention", *sizes)
        got = on_interpreter(s.func, graph, inputs)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(), (16, 8), (16, 8, 3), (0, 8, 4), (16, 8, 4, 2), ("16", 8, 4)])
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...]) -> None:
    (kernel,) = kernels(graph_of(Form()))
    found = find_attention(inline_maps(Schedule.of(kernel), Chooser(resolve_target("cpu"))))
    assert found is not None
    with pytest.raises(CompileError) as caught:
        found[0].variant(found[1], "streaming_attention", *sizes)
    assert caught.value.codes == ("E302",)


# -- what is left as it is ---------------------------------------------------------------------


def chain(g: GraphBuilder, q: Value, k: Value, v: Value, axis: int = -1) -> tuple[Value, ...]:
    s = g.add("matmul", (q, k))
    p = g.add("softmax", (s,), {"axis": axis})
    return s, p, g.add("matmul", (p, v))


def operands(g: GraphBuilder, n: int = 32) -> list[Value]:
    types = ((n, 16), (16, 24), (24, 16))
    return [g.input(x, TensorType(t, dtypes.f32)) for x, t in zip("qkv", types, strict=True)]


def test_scores_and_weights_that_are_needed_elsewhere_stay() -> None:
    for kept in (0, 1):
        g = GraphBuilder()
        found = chain(g, *operands(g))
        graph = g.finish([found[kept], found[2]])
        assert not any(map(streams, kernels(graph)))
        assert len(kernels(graph)) > 1


def test_softmax_along_queries_stays() -> None:
    g = GraphBuilder()
    graph = g.finish([chain(g, *operands(g), axis=0)[2]])
    assert not any(map(streams, kernels(graph)))


def test_queries_that_fill_neither_lanes_nor_rows_stay() -> None:
    for form in (
        Form(queries=5, keys=200), Form(queries=17, keys=200), Form(queries=1, depth=20),
        Form(queries=1, width=20), Form(depth=N), Form(width=M), Form(width=10000),
        Form(width=67),
    ):  # fmt: skip
        graph = graph_of(form)
        assert len(kernels(graph)) > 1
        assert not any(map(streams, kernels(graph)))


def test_products_without_softmax_stay() -> None:
    g = GraphBuilder()
    q, k, v = operands(g)
    graph = g.finish([g.add("matmul", (g.add("relu", (g.add("matmul", (q, k)),)), v))])
    assert not any(map(streams, kernels(graph)))


# -- what it is for ----------------------------------------------------------------------------


def test_memory_does_not_grow_with_queries_times_keys() -> None:
    for n in (256, 1024):
        graph = graph_of(Form(heads=4, queries=n, keys=n, depth=16, width=16))
        plan = products(graph, threads=1)[0].plan
        assert plan is not None
        assert not plan.arena


@pytest.mark.parametrize(
    ("heads", "queries", "keys", "masked", "attributes"),
    [
        (2, 32, 32, False, {}),
        (2, 40, 40, False, {"is_causal": 1}),
        (2, 48, 50, True, {}),
        (1, 16, 48, False, {"scale": 0.5}),
        (1, 1, 300, True, {}),
    ],
)
def test_the_operator_of_onnx_is_one_kernel(
    heads: int, queries: int, keys: int, masked: bool, attributes: dict[str, float]
) -> None:
    """Its definition in terms of other operators scales both operands, adds a mask, and drops rows
    for which the mask leaves nothing."""
    rng = np.random.default_rng(1)
    shapes = {"q": (1, 2, queries, 16), "k": (1, heads, keys, 16), "v": (1, heads, keys, 16)}
    feeds: dict[str, Array] = {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    if masked:
        feeds["m"] = rng.random((queries, keys)) < 0.7
        feeds["m"][-1] = queries == 1
        infos.append(helper.make_tensor_value_info("m", TensorProto.BOOL, (queries, keys)))
    node = helper.make_node("Attention", list(feeds), ["y"], **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "attention", infos, [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    compiled, _ = products(model, threads=1)
    made = [k for k in compiled.product.kernels if "streaming" in str(k.attr("algorithm", ""))]
    assert len(made) == 1
    assert not any("softmax" in k.name for k in compiled.product.kernels if k not in made)
    (expected,) = ReferenceEvaluator(model).run(None, feeds)
    (got,) = aisc.compile(model, threads=1, cache=False).run(None, feeds)
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)

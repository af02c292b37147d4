"""``aisc quantize``: accuracy, agreement with others, ranges, what is quantized, faults."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import zoo
from onnx import ModelProto, TensorProto, helper, numpy_helper
from rich.console import Console

import aisc
from aisc.cli.layer_table import layer_table
from aisc.cli.main import main
from aisc.ir.diagnostics import CompileError
from aisc.ir.target import resolve
from aisc.quantization.affine import dequantized, of_range, quantize_weights
from aisc.quantization.costs import Cost, integer_gain, reason
from aisc.quantization.data import make_data
from aisc.quantization.layers import find_layers
from aisc.quantization.prepare import prepare
from aisc.quantization.quantize import quantize
from aisc.quantization.ranges import CELLS, Histogram, find_range
from aisc.quantization.report import LayerReport, Report, as_html
from aisc.quantization.rounding import in_memory, nearest, with_least_error
from aisc.quantization.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "digits"
DIGITS = FOLDER / "digits.onnx"
rng = np.random.default_rng(3)


def plainly(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime computes of the operators one by one: what it makes of quantizers with
    instructions that saturate is another thing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(made.run(None, feeds))


def network(
    nodes: list[onnx.NodeProto], shape: list[int | str], **weights: np.ndarray
) -> ModelProto:
    """A model from `x` to the last node's result, which has as many axes as `x` or, for images,
    two."""
    rank = 2 if len(shape) == 4 else len(shape)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, [None] * rank)
    stored = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def residual() -> ModelProto:
    """A block as of a residual network, with norms, a branch, pools and a head."""
    make = helper.make_node
    norm = rng.uniform(0.5, 1.5, 8), rng.normal(size=8), rng.normal(size=8), rng.uniform(1, 2, 8)
    nodes = [
        make("Conv", ["x", "w0"], ["a"], "first", pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["a", "n0", "n1", "n2", "n3"], ["b"], "norm"),
        make("Relu", ["b"], ["c"]),
        make("MaxPool", ["c"], ["d"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["d", "w1", "b1"], ["e"], "second", pads=[1, 1, 1, 1]),
        make("Add", ["e", "d"], ["f"], "sum"),
        make("Relu", ["f"], ["g"]),
        make("Conv", ["g", "w2"], ["h"], "depthwise", group=8),
        make("Concat", ["g", "h"], ["i"], "both", axis=1),
        make("GlobalAveragePool", ["i"], ["j"], "mean"),
        make("Flatten", ["j"], ["k"], "flat"),
        make("Gemm", ["k", "w3", "b3"], ["l"], "head", transB=1),
    ]
    return network(
        nodes, ["n", 3, 12, 12], w0=rng.normal(size=(8, 3, 3, 3)) / 4, n0=norm[0], n1=norm[1],
        n2=norm[2], n3=norm[3], w1=rng.normal(size=(8, 8, 3, 3)) / 8, b1=rng.normal(size=8),
        w2=rng.normal(size=(8, 1, 1, 1)), w3=rng.normal(size=(5, 16)), b3=rng.normal(size=5),
    )  # fmt: skip


def images(count: int) -> np.ndarray:
    return rng.normal(size=(count, 3, 12, 12)).astype(np.float32)


def kinds(model: ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


def error_of(got: np.ndarray, right: np.ndarray) -> float:
    return float(np.linalg.norm(got - right) / np.linalg.norm(right))


def test_digits_keep_their_accuracy(tmp_path: Path) -> None:
    with np.load(FOLDER / "images.npz", allow_pickle=False) as file:
        x, labels = file["images"], file["labels"]
    place = tmp_path / "q.onnx"
    made = quantize(DIGITS, {"image": x[:100]}, place)
    assert len(made.layers) == 5 and place.stat().st_size < DIGITS.stat().st_size / 2
    plain, exe = aisc.compile(DIGITS), aisc.compile(place)
    right, got = plain(x), exe(x)
    score = [float(np.mean(v.argmax(1) == labels)) for v in (right, got)]
    assert score[1] >= score[0] - 0.005
    assert error_of(got, right) < 0.02
    np.testing.assert_allclose(got, plainly(made.model, {"image": x})[0], atol=1e-4)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize("activations", ["u8", "i8"])
def test_a_residual_block_stays_in_integers(method: str, activations: str) -> None:
    model = residual()
    settings = Settings(method=method, activations=activations)  # type: ignore[arg-type]
    made = quantize(model, {"x": images(20)}, settings=settings)
    onnx.checker.check_model(made.model, full_check=True)
    assert "BatchNormalization" not in kinds(made.model)
    assert made.layers == ("first", "second", "depthwise", "head")
    x = images(5)
    right, got = aisc.compile(model)(x), aisc.compile(made.model)(x)
    assert error_of(got, right) < (0.2 if method == "entropy" else 0.06)
    assert error_of(plainly(made.model, {"x": x})[0], got) < 0.01
    # The two reads of the pool, what the sum and the concat read: all through quantizers.
    read = {n.name: set(n.input) for n in made.model.graph.node}
    assert all(name.startswith(("d_", "e_")) for name in read["sum"])
    assert all(name.startswith(("g_", "h_")) for name in read["both"])


def test_values_that_only_move_share_a_scale() -> None:
    made = quantize(residual(), {"x": images(4)})
    scales = {
        n.input[0]: n.input[1] for n in made.model.graph.node if n.op_type == "QuantizeLinear"
    }
    assert scales["c"] == scales["d"], "a pool"
    assert scales["g"] == scales["h"] == scales["i"], "a concat"
    assert scales["j"] == scales["k"], "a reshape"
    assert len(set(scales.values())) == 5


def test_what_nobody_reads_in_8_bits_is_not_rounded() -> None:
    """A sum before a norm, and the last result."""
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w"], ["a"], "product"),
        make("Add", ["a", "b"], ["c"], "bias"),
        make("Add", ["c", "x"], ["d"], "sum"),
        make("LayerNormalization", ["d", "s"], ["e"], "norm"),
        make("MatMul", ["e", "v"], ["f"], "last"),
    ]
    model = network(nodes, ["n", 7, 16], w=rng.normal(size=(16, 16)), b=rng.normal(size=16),
                    s=np.ones(16), v=rng.normal(size=(16, 9)))  # fmt: skip
    x = rng.normal(size=(6, 7, 16)).astype(np.float32)
    made = quantize(model, {"x": x})
    quantized = [n.input[0] for n in made.model.graph.node if n.op_type == "QuantizeLinear"]
    assert quantized == ["x", "e"]
    assert error_of(aisc.compile(made.model)(x), aisc.compile(model)(x)) < 0.02


def test_products_of_activations_on_request() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "t"], ["y"], "product"),
    ]
    model = network(nodes, ["n", 9, 16])
    with pytest.raises(CompileError) as fault:
        quantize(model, {"x": np.ones((1, 9, 16), np.float32)})
    assert fault.value.codes == ("E602",)
    x = rng.normal(size=(3, 9, 16)).astype(np.float32)
    made = quantize(model, {"x": x}, settings=Settings(products=True))
    assert error_of(aisc.compile(made.model)(x), aisc.compile(model)(x)) < 0.02


def test_options_leave_out_operators_and_nodes() -> None:
    some = Settings(operators=("Conv",), keep=("second",), weights="i7", per_channel=False)
    made = quantize(residual(), {"x": images(4)}, settings=some)
    assert made.layers == ("first", "depthwise")
    weights = [numpy_helper.to_array(t) for t in made.model.graph.initializer if "w" in t.name]
    assert all(np.abs(w).max() <= 63 for w in weights if w.dtype == np.int8 and w.ndim > 1)


def test_a_bias_takes_what_rounding_moves() -> None:
    """Inputs far from 0, few of them: each output is moved by the error of its weights."""
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "only")]
    w = rng.normal(size=(32, 16)) ** 3
    model = network(nodes, ["n", 32], w=w)
    x = (5 + rng.normal(size=(64, 32)) / 4).astype(np.float32)
    right = aisc.compile(model)(x)
    moved = []
    for correct in (True, False):
        made = quantize(model, {"x": x}, settings=Settings(bias_correction=correct))
        moved.append(np.abs((aisc.compile(made.model)(x) - right).mean(axis=0)).mean())
    assert moved[0] < moved[1] / 2


def test_histograms_grow_and_merge() -> None:
    parts = [rng.normal(size=1000) * 10.0**k for k in (-2, 0, 1)]
    one, two = Histogram(), Histogram()
    for part in parts:
        one.add(part)
        other = Histogram()
        other.add(part)
        two.merge(other)
    assert one.counts.sum() == 3000 and (one.counts == two.counts).all()
    assert one.low == two.low == np.float32(min(map(np.min, parts)))
    whole = Histogram()
    whole.add(np.concatenate(parts))
    assert whole.reach == one.reach and np.abs(np.cumsum(whole.counts - one.counts)).max() <= 3
    one.add(np.array([np.nan, np.inf, -np.inf]))
    assert one.skipped == 3 and one.counts.sum() == 3000
    one.add(np.zeros((0, 4)))
    assert len(one.counts) == CELLS


def test_ranges_leave_out_what_is_rare() -> None:
    seen = Histogram()
    seen.add(rng.normal(size=100_000))
    seen.add(np.array([100.0]))
    assert find_range(seen, Settings(method="minmax"))[1] == 100
    for method in ("percentile", "entropy"):
        low, high = find_range(seen, Settings(method=method))  # type: ignore[arg-type]
        assert 2 < high < 8 and -8 < low < -2
    low, high = find_range(seen, Settings(method="mse"))
    assert -6 < low < -3 and high < 100
    assert find_range(Histogram(), Settings()) == (0, 0)


def test_zero_is_exact() -> None:
    for low, high in ((-1.3, 7.1), (0.0, 3.0), (-2.0, 0.0), (0.0, 0.0)):
        by = of_range(low, high, "u8")
        assert by.zero.dtype == np.uint8 and float(by.scale) > 0
        assert by.scale * (0 - float(by.zero)) <= low + by.scale


def test_weights_are_within_half_a_step() -> None:
    w = rng.normal(size=(5, 7, 3)).astype(np.float32)
    w[:, 2] = 0
    for axis in (None, 0, 1, 2):
        q, by = quantize_weights(w, axis, 127)
        shape = [-1 if k == axis else 1 for k in range(3)] if axis is not None else []
        assert (np.abs(dequantized(q, by, axis) - w) <= by.scale.reshape(shape) * 0.501).all()


def codes_of(arrays: dict[str, np.ndarray], batch: int = 4) -> tuple[str, ...]:
    try:
        make_data(residual(), arrays, batch)
    except CompileError as fault:
        return fault.codes
    return ()


def test_data_are_checked_before_anything_runs() -> None:
    good = images(6)
    assert codes_of({"x": good, "labels": np.arange(6)}) == ()
    assert codes_of({"y": good}) == ("E601",)
    assert codes_of({"x": good.astype(np.float64)}) == ("E601",)
    assert codes_of({"x": good[:, :2]}) == ("E601",)
    assert codes_of({"x": good[0]}) == ("E601",)
    assert codes_of({"x": good[:0]}) == ("E601",)
    bad = good.copy()
    bad[3, 1, 4, 5] = np.nan
    assert codes_of({"x": bad}) == ("E601",)


def test_data_are_cut_into_runs() -> None:
    model, x = residual(), images(7)
    runs = list(make_data(model, {"x": x}, 3))
    assert [len(r["x"]) for r in runs] == [3, 3, 1]
    stacked = list(make_data(model, {"x": x[:6].reshape(2, 3, 3, 12, 12)}, 4))
    assert [r["x"].shape for r in stacked] == [(3, 3, 12, 12)] * 2
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    assert [len(r["x"]) for r in make_data(model, {"x": x[:6]}, 5)] == [2, 2, 2]


def test_a_quantized_model_is_refused() -> None:
    made = quantize(residual(), {"x": images(2)})
    with pytest.raises(CompileError) as fault:
        quantize(made.model, {"x": images(2)})
    assert fault.value.codes == ("E602",)


def test_weights_go_where_those_of_the_model_are(tmp_path: Path) -> None:
    source, place = tmp_path / "m.onnx", tmp_path / "q.onnx"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "only")]
    model = network(nodes, ["n", 64], w=rng.normal(size=(64, 64)))
    x = rng.normal(size=(8, 64)).astype(np.float32)
    onnx.save_model(model, source, save_as_external_data=True, location="m.data")
    made = quantize(source, {"x": x}, place)
    assert (tmp_path / "q.onnx.data").stat().st_size == 64 * 64
    got = aisc.compile(place)(x)
    np.testing.assert_array_equal(got, aisc.compile(made.model)(x))
    session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
    assert error_of(session.run(None, {"x": x})[0], got) < 0.2
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".tmp"]


def test_the_same_bytes_again() -> None:
    x = images(5)
    model = residual()
    first, second = (quantize(model, {"x": x}, threads=n).model for n in (1, 2))
    assert first.SerializeToString() == second.SerializeToString()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(FOLDER / "images.npz", allow_pickle=False) as file:
        np.savez(tmp_path / "calib.npz", image=file["images"][:50])
    place = tmp_path / "q.onnx"
    words = ["quantize", str(DIGITS), "-o", str(place), "--data", str(tmp_path / "calib.npz")]
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--method", "percentile", "--ops", "Conv"])
    assert leaving.value.code in (0, None)
    assert "3 layers" in capsys.readouterr().out
    assert kinds(onnx.load(place)).count("QuantizeLinear") == 3


def test_a_budget_keeps_what_costs_most() -> None:
    """A layer whose weights of one channel are of all sizes is the one that stays."""
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w0"], ["a"], "good"),
        make("Relu", ["a"], ["b"]),
        make("MatMul", ["b", "w1"], ["c"], "bad"),
    ]
    w1 = rng.normal(size=(32, 8))
    w1[0] *= 300  # one row of a channel whose scale then fits nothing else
    w0 = rng.normal(size=(24, 32))
    w0[:, 0] = 0
    model = network(nodes, ["n", 24], w0=w0, w1=w1)
    x = rng.normal(size=(32, 24)).astype(np.float32)
    free = quantize(model, {"x": x}, measure=True)
    assert free.report is not None and free.layers == ("good", "bad")
    good, bad = free.report.layers
    assert bad.error > 5 * good.error and not bad.kept
    made = quantize(model, {"x": x}, settings=Settings(budget=0.03))
    assert made.layers == ("good",) and made.report is not None
    assert made.report.error <= 0.03 and made.report.layers[1].kept
    got, right = aisc.compile(made.model)(x), aisc.compile(model)(x)
    assert error_of(got, right) == pytest.approx(made.report.error, rel=0.01)
    with pytest.raises(CompileError) as fault:
        quantize(model, {"x": x}, settings=Settings(budget=1e-9))
    assert fault.value.codes == ("E602",)


def report() -> Report:
    rows = [
        LayerReport(f"<{k}>", "Conv", 0.01 * k, 1e-4, 9e-5, s, 5e-5, 400, 104, k == 2, "small" * k)
        for k, s in enumerate((5e-5, 8e-5, 2e-4))
    ]
    return Report(tuple(rows), 0.011, 0.02, 4e-4, 4.5e-4, 3e-4, 1e-4, 9e-5, 0.015)


def test_a_report_is_a_table_and_a_page() -> None:
    page = as_html("m<odel", report())
    assert "m&lt;odel" in page and "&lt;1&gt;" in page and "http" not in page
    assert page.count("<circle") == 5 and "1.50%" in page
    out = Console(width=80, file=io.StringIO())
    out.print(layer_table(report(), 80, "model"))
    lines = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert any("<2>" in line and "float:" in line for line in lines)


def test_reasons_for_what_is_no_faster() -> None:
    target = resolve("x86-64-v3")
    plain = Cost(1e-4, integers=False)
    assert reason(plain, Cost(5e-5, integers=True), target) == ""
    assert "quantizing" in reason(plain, Cost(1.2e-4, quantizers=5e-5, integers=True), target)
    assert reason(plain, Cost(1.2e-4), target) == "computed in float"
    slow = Cost(1.2e-4, predicted=2e-4, integers=True)
    assert "this form" in reason(replace(plain, predicted=1e-4), slow, target)
    bare = replace(target, features=())
    assert "no instruction" in reason(plain, Cost(1.2e-4, integers=True), bare)
    assert integer_gain(bare) == 0


def test_options_are_checked() -> None:
    for wrong in ({"method": "x"}, {"weights": "i3"}, {"operators": ("Relu",)}, {"budget": 2.0},
                  {"group": 48}, {"batch": 0}, {"percentile": 12}):  # fmt: skip
        with pytest.raises(CompileError) as fault:
            Settings(**wrong)  # type: ignore[arg-type]
        assert fault.value.codes == ("E401",)
    with pytest.raises(CompileError) as fault:
        quantize(residual(), {"x": images(2)}, settings=Settings(keep=("secnd",)))
    assert fault.value.codes == ("E401",) and "second" in str(fault.value)


def encoder(outliers: float, shared: bool) -> ModelProto:
    """A norm with a few channels that are larger than the others, and three layers behind it."""
    make = helper.make_node
    nodes = [
        make("LayerNormalization", ["x", "g", "b"], ["n"], "norm", axis=-1),
        make("MatMul", ["n", "w0"], ["q"], "query"),
        make("MatMul", ["n", "w1"], ["k"], "key"),
        make("Add", ["q", "k"], ["s"], "both"),
        *([make("Concat", ["s", "n"], ["y"], "more", axis=-1)] if shared else []),
    ]
    g, b = np.ones(32), rng.normal(size=32) / 10
    g[[3, 17]] = outliers
    return network(nodes, ["n", 5, 32], g=g, b=b, w0=rng.normal(size=(32, 24)) / 5,
                   w1=rng.normal(size=(32, 24)) / 5)  # fmt: skip


@pytest.mark.parametrize("shared", [False, True])
def test_outliers_move_into_weights(shared: bool) -> None:
    model = encoder(60.0, shared)
    data = rng.normal(size=(40, 5, 32)).astype(np.float32)
    x = data[5:15]
    right = aisc.compile(model)(x)
    errors = []
    for alpha in (0.0, 0.5):
        some = Settings(smooth=alpha, operators=("MatMul",), method="minmax")
        made = quantize(model, {"x": data}, settings=some)
        got = aisc.compile(made.model)(x)
        errors.append(np.linalg.norm((got - right)[..., :24]))
        assert error_of(plainly(made.model, {"x": x})[0], got) < 1e-3
    assert errors[1] < errors[0] / 2
    assert kinds(made.model).count("Mul") == shared


def test_least_error_is_less_than_that_of_the_nearest() -> None:
    """On inputs that hang together, with an odd number of them and some that are never seen."""
    base = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 77))
    x = base + rng.normal(size=(200, 77)) / 10
    x[:, [5, 60]] = 0
    w = rng.normal(size=(77, 40)).astype(np.float32)
    for group in (16, 32, 128):
        plain, good = nearest(w, group), with_least_error(w, x.T @ x, group)
        for few in (plain, good):
            assert few.q.dtype == np.int8 and few.q.min() >= -8 and few.q.max() <= 7
            assert few.scale.shape == (-(-77 // group), 40)
        lost = [np.square(x @ (f.widened() - w)).sum() for f in (plain, good)]
        assert lost[1] < lost[0] / 2
        assert (np.abs(plain.widened() - w) <= plain.scale.max() / 2 + 1e-6).all()


def test_values_go_through_memory_in_parts() -> None:
    sizes = [(str(k), 100) for k in range(7)]
    assert list(in_memory(sizes, 200_000)) == [["0", "1"], ["2", "3"], ["4", "5"], ["6"]]
    assert list(in_memory([("a", 1000)], 10)) == [["a"]]
    assert list(in_memory([])) == []


@pytest.mark.parametrize("name", ["bert", "gpt2_prefill"])
def test_a_transformer_with_weights_of_4_bits(name: str) -> None:
    """Rounding for the outputs halves the squared error of plain rounding, and more."""
    model = zoo.ZOO[name].build(layers=2, hidden=64, heads=4, vocab=61, positions=64)
    dims = dict.fromkeys(zoo.ZOO[name].dims, 16) | {"batch": 1}
    runs = [zoo.feeds(model, dims, seed) for seed in range(40)]
    data = {n: np.stack([feeds[n] for feeds in runs[:32]]) for n in runs[0]}
    exe = aisc.compile(model)
    right = [exe.run(None, feeds)[0] for feeds in runs[32:]]
    errors = []
    for rounding in ("nearest", "gptq"):
        made = quantize(model, data, settings=Settings(weights="i4", rounding=rounding))  # type: ignore[arg-type]
        onnx.checker.check_model(made.model)
        few = aisc.compile(made.model)
        got = [few.run(None, feeds)[0] for feeds in runs[32:]]
        errors.append(sum(float(np.square(a - b).sum()) for a, b in zip(got, right, strict=True)))
        other = plainly(made.model, runs[32])[0]
        np.testing.assert_allclose(got[0], other, rtol=1e-4, atol=1e-4)
    assert errors[1] < 0.7 * errors[0]
    stored = [t for t in made.model.graph.initializer if t.data_type == TensorProto.INT4]
    assert len(stored) == len(made.layers)
    assert all(len(t.raw_data) == np.prod(t.dims) // 2 for t in stored)


def test_weights_of_4_bits_have_a_report() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["a"], "first", transB=1),
        helper.make_node("MatMul", ["a", "w1"], ["y"], "second"),
    ]
    model = network(nodes, ["n", 64], w0=rng.normal(size=(48, 64)), b0=rng.normal(size=48),
                    w1=rng.normal(size=(48, 32)))  # fmt: skip
    x = rng.normal(size=(64, 64)).astype(np.float32)
    made = quantize(model, {"x": x}, settings=Settings(weights="i4", group=16), measure=True)
    assert made.report is not None and made.layers == ("first", "second")
    first = made.report.layers[0]
    assert (first.bytes_float, first.bytes_quantized) == (12288, 1536 + 768)
    assert 0 < first.error < 0.2
    assert error_of(aisc.compile(made.model)(x), aisc.compile(model)(x)) < 0.2


def test_weights_that_are_not_finite_stay() -> None:
    w = rng.normal(size=(8, 8))
    w[3, 4] = np.nan
    nodes = [
        helper.make_node("Constant", [], ["c"], value_strings=["a", "b"]),
        helper.make_node("MatMul", ["x", "w"], ["a"], "bad"),
        helper.make_node("MatMul", ["a", "v"], ["y"], "good"),
    ]
    model = network(nodes, ["n", 8], w=w, v=rng.normal(size=(8, 8)))
    assert [x.name for x in find_layers(prepare(model, 13), Settings())] == ["good"]

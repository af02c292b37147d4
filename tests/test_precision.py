"""Models in float whose weights are stored in 16 bits: which are, and what that changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import aisc
from aisc.cli.main import main
from aisc.cli.precision_table import errors
from aisc.driver.api import build, resolve_target
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import Precision
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir

rng = np.random.default_rng(23)
TYPES: tuple[Precision, ...] = ("bf16", "f16")
ROUNDED = {"bf16": 2.0**-8, "f16": 2.0**-11}  # what a weight may be off, of its own size


def weights(name: str, *shape: int) -> TensorProto:
    values = rng.normal(size=shape).astype(np.float32) / np.sqrt(shape[-2])
    return numpy_helper.from_array(values.astype(np.float32), name)


def model(large: float = 0.0) -> ModelProto:
    """Rows of a table, a convolution, two products and a softmax; sizes that fill no vector."""
    stored = [
        weights("table", 700, 12), weights("kernel", 19, 12, 1, 1), weights("w1", 19, 37),
        weights("w2", 37, 11), numpy_helper.from_array(rng.normal(size=37).astype("f4"), "b1"),
    ]  # fmt: skip
    if large:
        values = numpy_helper.to_array(stored[2]).copy()
        values[0, 0] = large
        stored[2] = numpy_helper.from_array(values, "w1")
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["rows"], "embed"),
        helper.make_node("Transpose", ["rows"], ["turned"], "turn", perm=[0, 2, 1]),
        helper.make_node("Unsqueeze", ["turned", "axis"], ["image"], "widen"),
        helper.make_node("Conv", ["image", "kernel"], ["mixed"], "mix"),
        helper.make_node("Squeeze", ["mixed", "axis"], ["flat"], "flatten"),
        helper.make_node("Transpose", ["flat"], ["back"], "turn_back", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["back", "w1"], ["h"], "first"),
        helper.make_node("Add", ["h", "b1"], ["hb"], "bias"),
        helper.make_node("Relu", ["hb"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["logits"], "second"),
        helper.make_node("Softmax", ["logits"], ["y"], "softmax"),
    ]
    stored.append(numpy_helper.from_array(np.array([3]), "axis"))
    i = helper.make_tensor_value_info("i", TensorProto.INT64, [2, 9])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 9, 11])
    z = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 9, 11])
    graph = helper.make_graph(nodes, "g", [i], [y, z], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def legalized(m: ModelProto, precision: Precision, keep: tuple[str, ...] = ()) -> Graph:
    options = from_environment(precision=precision, keep_float=keep, stop_after="legalize")
    graph = build(m, resolve_target("cpu"), options).product
    assert isinstance(graph, Graph)
    return graph


def places() -> np.ndarray:
    return rng.integers(0, 700, (2, 9))


def short(graph: Graph) -> int:
    """Constants of 16 bits."""
    return sum(b.dtype in (dtypes.bf16, dtypes.f16) for b in graph.constants().values())


@pytest.mark.parametrize("precision", TYPES)
def test_weights_and_tables_are_rounded_once(precision: Precision) -> None:
    m, i = model(), places()
    graph = legalized(m, precision)
    verify(graph)
    assert short(graph) == 4
    got = aisc.compile(m, precision=precision, cache=False).run(None, {"i": i})
    for a, b in zip(got, interpret(graph, [i]), strict=True):
        assert errors(a, b)[0] < 1e-5
    for a, b in zip(got, aisc.compile(m, cache=False).run(None, {"i": i}), strict=True):
        assert 0 < errors(a, b)[0] < 4 * ROUNDED[precision]


@pytest.mark.parametrize("precision", TYPES)
def test_the_text_form_parses_back(precision: Precision) -> None:
    graph = legalized(model(), precision)
    back = parse(print_ir(graph), blobs_of(graph))
    assert isinstance(back, Graph) and same(back, graph)


def test_threads_do_not_change_bits() -> None:
    m, i = model(), places()
    one, three = (
        aisc.compile(m, precision="bf16", threads=n, cache=False).run(None, {"i": i})
        for n in (1, 3)
    )
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nodes_that_are_kept_stay_in_float() -> None:
    m, i = model(), places()
    assert short(legalized(m, "bf16", ("first", "embed"))) == 2
    every = ("embed", "mix", "first", "second")
    assert short(legalized(m, "bf16", every)) == 0
    got = aisc.compile(m, precision="bf16", keep_float=every, cache=False).run(None, {"i": i})
    for a, b in zip(got, aisc.compile(m, cache=False).run(None, {"i": i}), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_a_type_cannot_hold_stays_in_float() -> None:
    m = model(large=1e6)
    assert short(legalized(m, "f16")) == 3
    assert short(legalized(m, "bf16")) == 4


def test_unknown_names_are_refused() -> None:
    with pytest.raises(CompileError) as fault:
        aisc.compile(model(), precision="bf16", keep_float=("frist",), cache=False)
    assert fault.value.codes == ("E401",)
    assert "has first" in str(fault.value)
    with pytest.raises(CompileError) as fault:
        from_environment(precision="bf8")
    assert fault.value.codes == ("E401",)


def test_both_are_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    place, i = tmp_path / "m.onnx", places()
    onnx.save(model(), place)
    first = [aisc.compile(place, precision=p).run(None, {"i": i})[0] for p in ("f32", "bf16")]
    again = [aisc.compile(place, precision=p).run(None, {"i": i})[0] for p in ("f32", "bf16")]
    assert (first[0] != first[1]).any()
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_check_shows_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    onnx.save(model(), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", i=places())
    with pytest.raises(SystemExit) as end:
        main(["check", str(tmp_path / "m.onnx"), "--precision", "bf16", "--keep-float",
              "embed,mix", "--data", str(tmp_path / "x.npz")])  # fmt: skip
    assert not end.value.code
    shown = capsys.readouterr().out
    assert "relative error" in shown and "logits" in shown

"""Weights in few bits: they stay so in what is compiled, and kernels compute floats as they go."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.driver.api import build, resolve_target
from aisc.driver.options import from_environment
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.ops.widening import packed, unpacked
from aisc.ir.graph.same import same
from aisc.ir.tensor.func import Program
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

rng = np.random.default_rng(11)


def operands(bits: int, rows: int, columns: int, block: int, zeros: bool) -> list[np.ndarray]:
    """Random codes, scales and zero points."""
    if not bits:
        return [rng.normal(size=(rows, columns)).astype(ml_dtypes.bfloat16)]
    half = 1 << (bits - 1)
    blocks = -(-rows // block) if block else 1
    codes = rng.integers(-half, half, (rows, columns)).astype(np.int8)
    parts = [packed(codes, bits), rng.uniform(0.1, 1, (blocks, columns)).astype(np.float32)]
    if zeros:
        parts.append(rng.integers(-half, half, (blocks, columns)).astype(np.int8))
    return parts


def product(
    height: Dim, rows: int, columns: int, bits: int, block: int = 0, zeros: bool = False
) -> Graph:
    """``relu(x @ widen(w) + b)``."""
    b = GraphBuilder()
    x = b.input("x", TensorType((height, rows), dtypes.f32))
    attrs = {"bits": bits, "block": block, "rows": rows if bits else 0}
    parts = [b.constant(a) for a in operands(bits, rows, columns, block, zeros)]
    y = b.add("matmul", (x, b.add("widen", parts, attrs)))
    bias = b.constant(rng.normal(size=columns).astype(np.float32))
    return b.finish([b.add("relu", (b.add("add", (y, bias)),))])


def error(got: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(got - right).max(initial=0) / max(np.abs(right).max(initial=0), 1e-30))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_codes_are_packed_and_read_back(bits: int, rows: int) -> None:
    codes = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (rows, 3)).astype(np.int8)
    np.testing.assert_array_equal(unpacked(packed(codes, bits), bits, rows), codes)


FORMS = [
    (4, 64, 48, 32, False), (4, 64, 48, 32, True), (4, 77, 35, 16, True), (4, 80, 19, 32, False),
    (4, 7, 5, 0, False), (2, 48, 33, 16, True), (8, 65, 40, 0, False), (8, 64, 50, 16, True),
    (0, 65, 40, 0, False), (4, 1, 9, 0, True),
]  # fmt: skip


@pytest.mark.parametrize(("bits", "rows", "columns", "block", "zeros"), FORMS)
@pytest.mark.parametrize("height", [0, 1, 3, 6, 33])
def test_products_at_every_level(
    bits: int, rows: int, columns: int, block: int, zeros: bool, height: int
) -> None:
    graph = product(height, rows, columns, bits, block, zeros)
    x = rng.normal(size=(height, rows)).astype(np.float32)
    (right,) = interpret(graph, [x])
    got = aisc.compile(graph, cache=False)(x)
    assert error(got, right) < 1e-5
    for level in (0, 1):
        assert error(aisc.compile(graph, cache=False, level=level)(x), right) < 1e-5


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_any_number_of_rows_and_threads(bits: int) -> None:
    graph = product(symbol("m", 0, 512), 64, 72, bits, 16 if bits == 4 else 0)
    one, two = (aisc.compile(graph, cache=False, threads=n) for n in (1, 2))
    for height in (0, 1, 2, 5, 40):
        x = rng.normal(size=(height, 64)).astype(np.float32)
        got = one(x)
        assert error(got, interpret(graph, [x])[0]) < 1e-5
        np.testing.assert_array_equal(two(x), got)


@pytest.mark.parametrize("height", [1, 40])
def test_bits_do_not_depend_on_threads(height: int) -> None:
    graph = product(height, 512, 1024, 4, 32)
    x = rng.normal(size=(height, 512)).astype(np.float32)
    results = [aisc.compile(graph, cache=False, threads=n)(x) for n in (1, 2, 3)]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_the_text_form_parses_back() -> None:
    graph = product(3, 64, 24, 4, 16, True)
    back = parse(print_ir(graph), blobs_of(graph))
    assert isinstance(back, Graph) and same(back, graph)


@pytest.mark.parametrize("height", [1, 40])
def test_kernels_read_codes(height: int) -> None:
    """One kernel computes product and floats; nothing of the size of these is stored or kept."""
    graph = product(height, 256, 192, 4, 32)
    options = from_environment(stop_after="plan")
    program = build(graph, resolve_target("cpu"), options).product
    assert isinstance(program, Program)
    kernel, *packers = program.kernels
    assert all("_pack" in p.name for p in packers)
    kept = sum(np.prod(p.shape) * p.dtype.bytes for p in kernel.params if p.role == "weight")
    assert kept < 256 * 192 * 0.7
    assert all(p.role != "scratch" for p in kernel.params)


@pytest.mark.parametrize(("bits", "part"), [(4, 6), (8, 3.5), (0, 1.9)])
def test_bundles_are_small(bits: int, part: float, tmp_path: Path) -> None:
    graph = product(1, 1024, 2048, bits, 64 if bits == 4 else 0)
    aisc.compile(graph, cache=False).save(tmp_path / "m.aisc")
    assert (tmp_path / "m.aisc").stat().st_size < 4 * 1024 * 2048 / part + (1 << 17)
    x = rng.normal(size=(1, 1024)).astype(np.float32)
    assert error(aisc.load(tmp_path / "m.aisc")(x), interpret(graph, [x])[0]) < 1e-5


def test_panels_larger_than_a_cache() -> None:
    graph = product(9, 1 << 15, 24, 4, 32)
    x = rng.normal(size=(9, 1 << 15)).astype(np.float32)
    right = interpret(graph, [x])[0]
    for threads in (1, 2):
        assert error(aisc.compile(graph, cache=False, threads=threads)(x), right) < 1e-5


def test_codes_of_a_table_that_is_gathered_are_floats_before() -> None:
    b = GraphBuilder()
    parts = [b.constant(a) for a in operands(4, 20, 8, 4, False)]
    table = b.add("widen", parts, {"bits": 4, "block": 4, "rows": 20})
    places = b.input("i", TensorType((3,), dtypes.i64))
    graph = b.finish([b.add("gather", (table, places), {"axis": 0})])
    at = np.array([19, 0, 7])
    np.testing.assert_array_equal(aisc.compile(graph, cache=False)(at), interpret(graph, [at])[0])


def test_two_products_share_what_is_stored() -> None:
    b = GraphBuilder()
    names = ("x", "y")
    xs = [b.input(n, TensorType((2, 64), dtypes.f32)) for n in names]
    parts = [b.constant(a) for a in operands(4, 64, 32, 16, True)]
    w = b.add("widen", parts, {"bits": 4, "block": 16, "rows": 64})
    graph = b.finish([b.add("matmul", (x, w)) for x in xs])
    data = [rng.normal(size=(2, 64)).astype(np.float32) for _ in xs]
    results = aisc.compile(graph, cache=False).run(None, dict(zip(names, data, strict=True)))
    for got, right in zip(results, interpret(graph, data), strict=True):
        assert error(got, right) < 1e-5


@pytest.mark.parametrize("kind", ["INT4", "UINT4", "INT8", "UINT8"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("block", [0, 16])
def test_models_keep_their_codes(kind: str, turned: bool, block: int) -> None:
    """DequantizeLinear before MatMul and before Gemm, which transposes; scales of columns, or of
    blocks along what is summed up."""
    bits, low = int(kind[-1]), 0 if kind[0] == "U" else -(1 << int(kind[-1]) >> 1)
    values = rng.integers(low, low + (1 << bits), (48, 24))
    blocks = rng.integers(low, low + (1 << bits), (3, 24) if block else 24)
    scale = rng.uniform(0.1, 1, blocks.shape).astype(np.float32)
    carried = {"INT8": np.int8, "UINT8": np.uint8}.get(kind) or getattr(ml_dtypes, kind.lower())
    axis = (0 if block else 1) ^ turned
    stored = [
        numpy_helper.from_array((a.T if turned else a).astype(t), n)
        for n, a, t in (("w", values, carried), ("s", scale, np.float32), ("z", blocks, carried))
    ]
    attrs = {"block_size": block} if block else {}
    name, more = ("Gemm", {"transB": 1}) if turned else ("MatMul", {})
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis, **attrs),
        helper.make_node(name, ["x", "d"], ["y"], **more),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 48])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 24])
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data = rng.normal(size=(5, 48)).astype(np.float32)
    wide = np.repeat(blocks, block, 0) if block else blocks
    factors = np.repeat(scale, block, 0) if block else scale
    right = data.astype(np.float64) @ ((values - wide) * factors.astype(np.float64))
    assert error(aisc.compile(model, cache=False)(data), right) < 1e-5
    assert error(interpret(import_model(model), [data])[0], right) < 1e-5
    program = build(model, resolve_target("cpu"), from_environment(stop_after="plan")).product
    assert isinstance(program, Program)
    kept = [b for b in program.entry.params if b.role == "weight"]
    assert sorted(b.dtype.bytes for b in kept) == [1, 1, 4]

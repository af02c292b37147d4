"""Quantized models are computed in integers: exactly, for any sizes and threads, by instructions of
each machine, with weights of one byte."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cpu_machines import CPU
from onnx import ModelProto, TensorProto, helper, numpy_helper

import aisc
from aisc.codegen.llvm import link
from aisc.codegen.llvm.assembly import hot_loop, spills
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.target import host, resolve
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.stmt import Invoke
from aisc.ir.tensor.tree import statements
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.ir.types import TensorType
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.bind import bind_kernels
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule, packer_schedule
from aisc.passes.tensor.optimize import optimize_schedule

rng = np.random.default_rng(11)
INT32 = {"accumulator": "i32"}


def integers(t: str, *shape: int) -> np.ndarray:
    """Random values of a type, the extremes among them."""
    kind = np.iinfo(t)
    x = rng.integers(kind.min, kind.max + 1, shape).astype(t)
    x.reshape(-1)[:3] = (kind.min, kind.max, kind.max)[: x.size]
    return x


def product(t: str, rows: int, inner: int, columns: int, w: str = "i1") -> Graph:
    gb = GraphBuilder()
    x = gb.input("x", TensorType((rows, inner), dtypes.from_numpy(np.dtype(t))))
    return gb.finish([gb.add("matmul", (x, gb.constant(integers(w, inner, columns))), INT32)])


def image(t: str, channels: int, outputs: int, taps: int, **attrs: object) -> Graph:
    gb = GraphBuilder()
    x = gb.input("x", TensorType((1, channels, 9, 7), dtypes.from_numpy(np.dtype(t))))
    group = attrs.get("group", 1)
    assert isinstance(group, int)
    w = gb.constant(integers("i1", outputs, channels // group, taps, taps))
    pads = {"pads": (taps // 2,) * 4, "fill": 5}
    bias = gb.constant(rng.integers(-999, 999, outputs).astype(np.int32))
    return gb.finish([gb.add("conv", (x, w, bias), {**INT32, **pads, **attrs})])  # type: ignore[dict-item]


def same(graph: Graph, x: np.ndarray, **options: object) -> None:
    (wanted,) = interpret(graph, [x])
    for threads in (1, 2):
        exe = aisc.compile(graph, threads=threads, cache=False, **options)  # type: ignore[arg-type]
        (got,) = exe.run(None, {exe.input_names[0]: x})
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("sizes", [(1, 64, 64), (5, 37, 19), (33, 130, 65), (0, 8, 16), (40, 1, 8)])
@pytest.mark.parametrize("t", ["u1", "i1", "i2"])
def test_products_are_exact(t: str, sizes: tuple[int, int, int]) -> None:
    graph = product(t, *sizes)
    same(graph, integers(t, *sizes[:2]))


def test_products_of_two_inputs_are_exact() -> None:
    gb = GraphBuilder()
    a = gb.input("a", TensorType((40, 48), dtypes.i16))
    b = gb.input("b", TensorType((48, 40), dtypes.i16))
    graph = gb.finish([gb.add("matmul", (a, b), INT32)])
    feeds = [rng.integers(-255, 256, (40, 48)).astype("i2"), rng.integers(-255, 256, (48, 40))]
    feeds[1] = feeds[1].astype("i2")
    (wanted,) = interpret(graph, feeds)
    np.testing.assert_array_equal(aisc.compile(graph, cache=False)(*feeds), wanted)


@pytest.mark.parametrize("t", ["u1", "i1"])
@pytest.mark.parametrize(
    "attrs", [{}, {"strides": (2, 2)}, {"group": 2}, {"dilations": (2, 2)}], ids=str
)
@pytest.mark.parametrize("sizes", [(6, 34, 3), (16, 32, 1), (32, 16, 3)])
def test_convolutions_are_exact(
    t: str, attrs: dict[str, object], sizes: tuple[int, int, int]
) -> None:
    graph = image(t, *sizes, **attrs)
    same(graph, integers(t, 1, sizes[0], 9, 7))


# --- instructions ---------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["sapphire-rapids", "x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("make", [lambda: product("u1", 5, 37, 40), lambda: image("u1", 3, 32, 3)])
def test_instructions_of_each_machine_are_interpreted(name: str, make) -> None:  # type: ignore[no-untyped-def]
    """What a machine's instructions mean is executed, whether this machine has them or not."""
    graph, target = make(), resolve(name)
    x = integers("u1", *graph.inputs[0].type.static_shape)
    (wanted,) = interpret(graph, [x])
    legal = Legalize(machines=CPU).run(Canonicalize().run(graph))
    program, kernels = lower_graph(Fuse(machines=CPU).run(legal)), {}
    for k in program.kernels:
        s = default_schedule(k, Chooser(target))
        packers = tuple(packer_schedule(p, target).func for p in s.packers)
        kernels[k.name] = optimize_schedule(k, s, packers)
    bound = bind_kernels(program, kernels)
    used = {n.intrinsic for f in bound.kernels for n in statements(f.body) if isinstance(n, Invoke)}
    assert used == {
        {"sapphire-rapids": "busd_512", "x86-64-v4": "madd_i8_512"}.get(name, "madd_i8_256")
    }
    known = {i.name: i.semantics for i in target.available}
    (got,) = run_program(bound, [x], intrinsics=known)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("sapphire-rapids", "vpdpbusd.*zmm"),
        ("x86-64-v4", "vpmaddwd.*zmm"),
        ("x86-64-v3", "vpmaddwd.*ymm"),
    ],
)
def test_code_has_the_instructions_of_its_machine(name: str, code: str) -> None:
    text = str(aisc.lower(product("u1", 64, 64, 64), "asm", target=name))
    assert re.search(code, text)


@pytest.mark.parametrize("make", [lambda: image("u1", 256, 64, 1), lambda: image("u1", 64, 64, 3)])
def test_the_hot_loop_adds_products_of_bytes_as_they_are(make) -> None:  # type: ignore[no-untyped-def]
    """Where the machine has an instruction for bytes, data and weights are not widened, each vector
    of weights is loaded once for all rows, and nothing lies on the stack."""
    text = str(aisc.lower(make(), "asm", target="sapphire-rapids"))
    loop = hot_loop(text)
    products = [x for x in loop if "vpdpbusd" in x]
    assert len(products) >= 12
    assert 2 * len(products) >= len(loop)
    assert not any(re.search("vpmovsx|vpmovzx|vpmadd|vcvt", x) for x in loop)
    assert spills(text) == 0


def test_only_present_instructions_are_available() -> None:
    target = link.complete(host())
    assert all(set(i.needs) <= set(target.features) for i in target.available)
    assert resolve("x86-64-v2").available == ()
    assert resolve("riscv64-v").available == ()


@pytest.mark.parametrize("zero", [0, 3, -3])
@pytest.mark.parametrize("to", [dtypes.u8, dtypes.i8, dtypes.i16, dtypes.u16], ids=str)
@pytest.mark.parametrize("size", [1, 3, 37])
def test_quantizing_rounds_and_saturates(to: dtypes.DType, zero: int, size: int) -> None:
    gb = GraphBuilder()
    x = gb.input("x", TensorType((size,), dtypes.f32))
    scale, point = np.float32(1), np.asarray(zero % 256 if to.min_value == 0 else zero, to.numpy)
    parameters = gb.constant(scale), gb.constant(point)
    graph = gb.finish([gb.add("quantize", (x, *parameters), {"to": to})])
    values = (rng.integers(-600, 600, size) / 2).astype(np.float32)
    special = [np.nan, np.inf, -np.inf, 1e9, -1e9, 2.5, -0.0, 254.5, 255.5, -128.5, 32767.5, 3e38]
    for start in range(0, len(special), size):
        some = special[start : start + size]
        values[: len(some)] = some
        same(graph, values)


def small(rows: int, inner: int, columns: int) -> Graph:
    """A product of unsigned bytes with weights of half the range of theirs, mostly its ends."""
    gb = GraphBuilder()
    x = gb.input("x", TensorType((rows, inner), dtypes.u8))
    w = rng.choice(np.array([-64, 64, 3], np.int8), (inner, columns))
    return gb.finish([gb.add("matmul", (x, gb.constant(w)), INT32)])


@pytest.mark.parametrize("sizes", [(5, 37, 19), (33, 130, 65), (1, 64, 64), (0, 8, 16)])
def test_sums_of_two_products_in_16_bits_are_exact(sizes: tuple[int, int, int]) -> None:
    x = rng.choice(np.array([0, 254, 255], np.uint8), sizes[:2])
    same(small(*sizes), x)


@pytest.mark.parametrize(
    ("name", "code"), [("x86-64-v4", "vpmaddubsw.*zmm"), ("x86-64-v3", "vpmaddubsw.*ymm")]
)
def test_small_weights_are_added_in_pairs(name: str, code: str) -> None:
    assert re.search(code, str(aisc.lower(small(64, 64, 64), "asm", target=name)))
    assert not re.search(code, str(aisc.lower(product("u1", 64, 64, 64), "asm", target=name)))


def test_what_no_weight_exceeds_is_text() -> None:
    legal = Legalize(machines=CPU).run(Canonicalize().run(small(8, 8, 8)))
    (kernel,) = lower_graph(Fuse(machines=CPU).run(legal)).kernels
    text = print_func(kernel)
    assert "i8[8, 8] weight most 64" in text
    assert print_func(parse_func(text)) == text
    with pytest.raises(CompileError, match="exceed 64"):
        aisc.build(kernel, weights={kernel.params[1].name: np.full((8, 8), 65, np.int8)})


# --- models ---------------------------------------------------------------------------------------
@dataclass
class Net:
    """A model under construction: nodes and constants."""

    nodes: list[object]
    constants: dict[str, np.ndarray]

    def node(self, op: str, inputs: list[str], output: str, **attrs: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attrs))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = np.asarray(value)
        return name

    def through(self, x: str, scale: np.ndarray, zero: np.ndarray) -> str:
        """A value that is quantized and made a float again."""
        s, z = self.constant(f"{x}_s", scale), self.constant(f"{x}_z", zero)
        q = self.node("QuantizeLinear", [x, s, z], f"{x}_q")
        return self.node("DequantizeLinear", [q, s, z], f"{x}_d")

    def model(self, shape: list[int]) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in self.constants.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


STEP = np.float32(0.05)


def convolution(kind: str, channels: int, outputs: int) -> ModelProto:
    """Quantized: convolution with a bias, Relu, pool, sum with itself, all of which stay bytes."""
    net, t = Net([], {}), np.dtype(kind)
    zero, low = np.asarray(7, t), np.asarray(np.iinfo(t).min, t)
    scales = (rng.random(outputs) * 0.01 + 0.001).astype(np.float32)
    x = net.through("x", np.float32(0.03), zero)
    w = net.constant("w", integers("i1", outputs, channels, 3, 3))
    wd = net.node("DequantizeLinear", [w, net.constant("ws", scales)], "wd", axis=0)
    b = net.constant("b", rng.integers(-2000, 2000, outputs).astype(np.int32))
    both = net.constant("bs", np.float32(0.03) * scales)
    bd = net.node("DequantizeLinear", [b, both], "bd", axis=0)
    y = net.node("Relu", [net.node("Conv", [x, wd, bd], "c", pads=[1] * 4)], "r")
    y = net.through(y, STEP, low)
    y = net.through(net.node("MaxPool", [y], "p", kernel_shape=[2, 2], pads=[1] * 4), STEP, low)
    y = net.node("Add", [y, y], "t")
    net.through(y, STEP, low)
    net.node("Identity", ["t_d"], "y")
    return net.model([1, channels, 9, 7])


def steps_apart(model: ModelProto, x: np.ndarray, **options: object) -> np.ndarray:
    """How many steps of the last quantizer what is computed lies from the float definition."""
    (wanted,) = interpret(import_model(model), [x.astype(np.float32)])
    got = aisc.compile(model, cache=False, **options)(x)  # type: ignore[arg-type]
    return np.abs(got - wanted) / STEP


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1"])
@pytest.mark.parametrize("sizes", [(3, 17), (8, 16), (16, 40)])
def test_models_agree_with_their_definition(kind: str, sizes: tuple[int, int], exact: bool) -> None:
    model = convolution(kind, *sizes)
    x = (rng.standard_normal((1, sizes[0], 9, 7)) * 3).astype(np.float32)
    x.flat[:4] = [1e9, -1e9, np.inf, -np.inf]  # which saturate
    apart = steps_apart(model, x, exact_quantization=exact)
    assert apart.max() < 2.5  # one step of the convolution is two of its double
    assert (apart > 0.5).mean() < 0.02


def test_a_convolution_stays_in_bytes() -> None:
    graph = Canonicalize().run(import_model(convolution("u1", 8, 16)))
    (conv,) = (n for n in graph.nodes if n.op == "conv")
    assert [v.type.dtype for v in conv.input_values] == [dtypes.u8, dtypes.i8, dtypes.i32]
    (pool,) = (n for n in graph.nodes if n.op == "max_pool")
    assert pool.output.type.dtype is dtypes.u8


def test_reciprocals_are_left_out_where_it_is_asked() -> None:
    model = import_model(convolution("u1", 8, 16))
    found = [n for n in Canonicalize.exactly().run(model).nodes if n.op == "quantize"]
    assert all(graph_constant(model, n.input_values[1].name) != 1 for n in found)


def graph_constant(graph: Graph, name: str) -> float:
    return next((float(b.array) for v, b in graph.constants().items() if v.name == name), 0.0)


def test_weights_keep_their_bytes(tmp_path: Path) -> None:
    net = Net([], {})
    x = net.through("x", np.float32(0.03), np.uint8(9))
    w = net.constant("w", integers("i1", 512, 1024))
    scales = net.constant("ws", (rng.random(512) * 0.01).astype(np.float32))
    wd = net.node("DequantizeLinear", [w, scales], "wd", axis=0)
    net.node("Gemm", [x, wd], "y", transB=1)
    exe = aisc.compile(net.model([4, 1024]), cache=False)
    exe.save(tmp_path / "net.aisc")
    assert (tmp_path / "net.aisc").stat().st_size < 1.2 * 512 * 1024

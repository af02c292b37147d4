"""Bad models give a CompileError, quickly and in little memory; never a traceback."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from aisc.frontend.onnx.importer import import_model
from aisc.frontend.registry import importer_for
from aisc.ir.diagnostics import CompileError

F = TensorProto.FLOAT


def value(name: str, shape: object, t: int = F) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, t, shape)


def model(nodes, inputs=None, outputs=None, initializers=(), opset=17, **kw) -> ModelProto:  # type: ignore[no-untyped-def]
    graph = helper.make_graph(
        nodes,
        "g",
        inputs if inputs is not None else [value("x", [2, 3])],
        outputs if outputs is not None else [value("y", None)],
        list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **kw)


def node(op: str, *inputs: str, out: str = "y", **attrs: object) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], **attrs)


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def small_net() -> ModelProto:
    w = numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w")
    f = numpy_helper.from_array(np.ones((10, 36), np.float32), "f")
    return model(
        [
            node("Conv", "x", "w", out="c", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
            node("Relu", "c", out="r"),
            node("MaxPool", "r", out="p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", "p", out="s"),
            node("Gather", "s", "i0", out="n", axis=0),
            node("Unsqueeze", "n", "i0v", out="nv"),
            node("Concat", "nv", "m1", out="t", axis=0),
            node("Reshape", "p", "t", out="flat"),
            node("Gemm", "flat", "f", out="g", transB=1),
            node("Softmax", "g", axis=-1),
        ],
        [value("x", ["batch", 1, 6, 6])],
        initializers=[w, f, numpy_helper.from_array(np.array(0), "i0"), ints("i0v", 0),
                      ints("m1", -1)],
    )  # fmt: skip


def codes(build: Callable[[], object] | object, **kw: object) -> tuple[str, ...]:
    start = time.process_time()
    with pytest.raises(CompileError) as caught:
        import_model(build() if callable(build) else build, **kw)  # type: ignore[arg-type]
    assert time.process_time() - start < 10
    return caught.value.codes


def test_small_net_is_fine() -> None:
    graph = import_model(small_net())
    assert str(graph.outputs[0].type) == "f32[batch, 10]"


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"not a model", b"\xff" * 64, b"\x0a\x05ab"])
def test_unreadable_bytes(data: bytes) -> None:
    assert codes(data) == ("E101",)


def test_unreadable_paths(tmp_path: Path) -> None:
    assert codes(tmp_path / "none.onnx") == ("E101",)
    assert codes(tmp_path) == ("E101",)
    assert codes("a\0b.onnx") == ("E101",)
    with pytest.raises(CompileError):
        importer_for(Path("model.bin"))


def survives(source: bytes | ModelProto) -> None:
    """Import succeeds or fails with a CompileError."""
    with contextlib.suppress(CompileError):
        import_model(source)


def test_truncations() -> None:
    data = small_net().SerializeToString()
    for cut in range(0, len(data), 7):
        survives(data[:cut])


def test_bit_flips() -> None:
    data = small_net().SerializeToString()
    rng = random.Random(5)
    for _ in range(600):
        bad = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        survives(bytes(bad))


def _mutate(m: ModelProto, rng: random.Random) -> None:
    """One random structural fault."""
    n = rng.choice(m.graph.node)
    names = [i for k in m.graph.node for i in (*k.input, *k.output)] + ["", "nowhere"]
    match rng.randrange(8):
        case 0 if n.input:
            n.input[rng.randrange(len(n.input))] = rng.choice(names)
        case 1 if n.input:
            del n.input[rng.randrange(len(n.input)) :]
        case 2:
            n.op_type = rng.choice(m.graph.node).op_type
        case 3 if n.attribute:
            a = rng.choice(n.attribute)
            a.i = rng.choice([-(2**63), -7, -1, 0, 5, 2**40, 2**63 - 1])
            if a.ints:
                a.ints[0] = a.i
                if rng.random() < 0.5:
                    del a.ints[1:]
        case 4:
            t = rng.choice(m.graph.initializer)
            t.data_type = rng.randrange(24)
        case 5:
            t = rng.choice(m.graph.initializer)
            if t.dims and rng.random() < 0.7:
                t.dims[rng.randrange(len(t.dims))] = rng.choice([-1, 0, 1, 7, 2**31, 2**62])
            elif t.data_type == TensorProto.INT64:
                count = len(t.raw_data) // 8
                t.raw_data = np.array([rng.choice([-5, 7, 2**40])] * count, np.int64).tobytes()
        case 6:
            n.input.append(rng.choice(names))
        case _:
            d = m.graph.input[0].type.tensor_type.shape.dim
            d[rng.randrange(len(d))].dim_value = rng.choice([-1, 0, 1, 2, 2**40])


def test_structural_faults() -> None:
    rng = random.Random(11)
    for _ in range(1500):
        m = small_net()
        for _ in range(rng.randint(1, 3)):
            _mutate(m, rng)
        survives(m)


def test_names_that_are_not_utf8() -> None:
    data = small_net().SerializeToString().replace(b"MaxPool", b"Max\xff\xfeol")
    assert set(codes(data)) <= {"E101", "E102"}


def test_everything_wrong_is_reported_at_once() -> None:
    m = model([node("NoSuchOp", "x", out="a"), node("Relu", "a", out="b"),
               node("AlsoNot", "b", out="c"), node("Sin", "nothing")])  # fmt: skip
    assert codes(m) == ("E102", "E102", "E103")


def test_opsets() -> None:
    assert codes(model([node("Relu", "x")], opset=900)) == ("E102",)
    none = model([node("Relu", "x")])
    del none.opset_import[:]
    assert codes(none) == ("E103",)
    other = model([node("Relu", "x", domain="my.domain")])
    assert codes(other) == ("E103",)


HUGE = 1 << 40
BAD = {
    "duplicate results": (model([node("Relu", "x"), node("Neg", "x")]), "E103"),
    "result named as input": (model([node("Relu", "x", out="x"), node("Neg", "x")]), "E103"),
    "cycle": (model([node("Relu", "b", out="a"), node("Relu", "a", out="b"), node("Neg", "b")]),
              "E103"),
    "missing output": (model([node("Relu", "x", out="z")]), "E103"),
    "no outputs": (model([node("Relu", "x", out="z")], outputs=[]), "E103"),
    "missing operand": (model([node("Add", "x")]), "E103"),
    "wrong types": (model([node("Add", "x", "k")], initializers=[ints("k", 1, 2, 3)]), "E201"),
    "shapes differ": (model([node("Add", "x", "z")], [value("x", [2]), value("z", [3])]), "E201"),
    "attribute type": (model([node("Softmax", "x", axis=1.5)]), "E103"),
    "unknown attribute": (model([node("Relu", "x", beta=3)]), "E102"),
    "axis out of range": (model([node("Softmax", "x", axis=7)]), "E203"),
    "negative input size": (model([node("Relu", "x")], [value("x", [-2])]), "E103"),
    "huge input": (model([node("Relu", "x")], [value("x", [HUGE])]), "E105"),
    "input of strings": (model([node("Relu", "x")], [value("x", [2], TensorProto.STRING)]), "E102"),
    "input twice": (model([node("Relu", "x")], [value("x", [2]), value("x", [2])]), "E103"),
    "input without rank": (model([node("Relu", "x")], [value("x", None)]), "E102"),
    "huge constant of shape": (model([node("ConstantOfShape", "s")],
                                     initializers=[ints("s", HUGE, 8)]), "E105"),
    "negative constant of shape": (model([node("ConstantOfShape", "s")],
                                         initializers=[ints("s", -8)]), "E103"),
    "huge and empty": (model([node("ConstantOfShape", "s")],
                             initializers=[ints("s", HUGE, 0, HUGE)]), "E105"),
    "huge and empty input": (model([node("Relu", "x")], [value("x", [1 << 30, 0, 1 << 30])]),
                             "E105"),
    "huge expand": (model([node("Expand", "x", "s")], [value("x", [1])],
                          initializers=[ints("s", HUGE)]), "E105"),
    "huge tile": (model([node("Tile", "x", "s")], initializers=[ints("s", HUGE, HUGE)]), "E105"),
    "huge pad": (model([node("Pad", "x", "s")], initializers=[ints("s", HUGE, 0, 0, 0)]), "E105"),
    "huge range": (model([node("Range", "a", "b", "c")], initializers=[
        numpy_helper.from_array(np.array(v, np.int64), k) for k, v in
        (("a", 0), ("b", HUGE), ("c", 1))]), "E105"),
    "huge range of floats": (model([node("Range", "a", "b", "c")], initializers=[
        numpy_helper.from_array(np.array(v, np.float32), k) for k, v in
        (("a", 0), ("b", 1e15), ("c", 1))]), "E105"),
    "huge one-hot": (model([node("OneHot", "i", "d", "v", axis=0)],
                           [value("i", [9], TensorProto.INT64)], initializers=[
        numpy_helper.from_array(np.array(HUGE), "d"), ints("v", 0, 1)]), "E105"),
    "bad reshape": (model([node("Reshape", "x", "s")], initializers=[ints("s", 4, -1)]), "E103"),
    "two open sizes": (model([node("Reshape", "x", "s")], initializers=[ints("s", -1, -1)]),
                       "E103"),
    "zero step": (model([node("Slice", "x", "a", "b", "c", "d")], initializers=[
        ints("a", 0), ints("b", 1), ints("c", 0), ints("d", 0)]), "E103"),
    "run-time frames": (model([node("STFT", "x", "s", "", "n")],
                              [value("x", [1, 16, 1]), value("s", [], TensorProto.INT64),
                               value("n", [], TensorProto.INT64)]), "E204"),
    "run-time rank": (model([node("Reshape", "x", "s")],
                            [value("x", [4]), value("s", ["k"], TensorProto.INT64)]), "E204"),
    "loop": (model([node("Loop", "", "", body=helper.make_graph([], "b", [], []))]), "E103"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_model(name: str) -> None:
    m, code = BAD[name]
    assert code in codes(m)


def _tensor(**fields: object) -> TensorProto:
    t = TensorProto(name="w", data_type=F)
    for key, v in fields.items():
        if isinstance(v, list):
            getattr(t, key).extend(v)
        else:
            setattr(t, key, v)
    return t


@pytest.mark.parametrize(
    ("tensor", "code"),
    [
        (_tensor(dims=[HUGE, HUGE], raw_data=b"1234"), "E105"),
        (_tensor(dims=[1 << 20], raw_data=b"1234"), "E103"),
        (_tensor(dims=[-1], raw_data=b"1234"), "E103"),
        (_tensor(dims=[2], raw_data=b"12345"), "E103"),
        (_tensor(dims=[3], float_data=[1.0]), "E103"),
        (_tensor(dims=[1] * 40, float_data=[1.0]), "E105"),
        (_tensor(dims=[1], data_type=0), "E102"),
        (_tensor(dims=[1], data_type=8, string_data=[b"a"]), "E102"),
        (_tensor(dims=[1], data_type=77, raw_data=b"a"), "E102"),
        (_tensor(dims=[1], data_location=1), "E104"),
    ],
)
def test_bad_initializer(tensor: TensorProto, code: str) -> None:
    m = model([node("Add", "x", "w")], initializers=[tensor])
    assert codes(m) == (code,)


def test_resizing_to_nothing() -> None:
    scales = numpy_helper.from_array(np.float32([1, 0.1]), "s")
    m = model([node("Resize", "x", "", "s", mode="linear")], initializers=[scales])
    assert import_model(m).outputs[0].type.static_shape == (2, 0)


def test_initializer_twice() -> None:
    assert codes(model([node("Add", "x", "w")], initializers=[ints("w", 1), ints("w", 1)]))


def external(location: str, **more: str) -> ModelProto:
    t = TensorProto(name="w", data_type=F, dims=[2, 3], data_location=1)
    for k, v in {"location": location, **more}.items():
        t.external_data.add(key=k, value=v)
    return model([node("Add", "x", "w")], initializers=[t])


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    data = np.arange(8, dtype=np.float32)
    data.tofile(folder / "w.bin")
    data.tofile(tmp_path / "secret.bin")
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = folder / "m.onnx"

    def save(m: ModelProto) -> Path:
        path.write_bytes(m.SerializeToString())
        return path

    graph = import_model(save(external("w.bin", offset="8", length="24")))
    (blob,) = graph.constants().values()
    np.testing.assert_array_equal(blob.array, data[2:].reshape(2, 3))
    for bad in (
        external("../secret.bin"), external("link.bin"), external(str(tmp_path / "secret.bin")),
        external("none.bin"), external("."), external(""), external("w\0.bin"),
        external("w.bin", offset="16"), external("w.bin", offset="-4"),
        external("w.bin", length="23"), external("w.bin", offset="x"),
        external("w.bin", offset=str(2**70)),
    ):  # fmt: skip
        assert codes(save(bad)) == ("E104",)
    assert codes(external("w.bin")) == ("E104",)  # no file, so no folder


def function(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    return helper.make_function("f", name, ["x"], ["y"], nodes, imports)


def with_functions(functions: list[onnx.FunctionProto], first: str) -> ModelProto:
    m = model([node(first, "x", domain="f")], functions=functions)
    m.opset_import.add(domain="f", version=1)
    return m


def test_functions_are_inlined_within_bounds() -> None:
    m = with_functions([function("a", [node("Relu", "x")])], "a")
    assert [n.op for n in import_model(m).nodes] == ["relu"]
    assert codes(with_functions([function("a", [node("a", "x", domain="f")])], "a")) == ("E105",)
    chain = [
        function(f"f{i}", [node(f"f{i + 1}", "x", out="t", domain="f"),
                           node(f"f{i + 1}", "t", domain="f")]) for i in range(31)
    ]  # fmt: skip
    chain.append(function("f31", [node("Neg", "x")]))
    assert "E105" in codes(with_functions(chain, "f0"))


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def test_deep_nesting() -> None:
    # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6, ModelProto.graph = 7
    data = b""
    for _ in range(3000):
        for field in (6, 5, 1):
            data = bytes([field << 3 | 2]) + _varint(len(data)) + data
    data = bytes([7 << 3 | 2]) + _varint(len(data)) + data
    assert set(codes(data)) <= {"E101", "E102", "E103"}


def test_shape_options() -> None:
    assert codes(small_net(), shapes={"nope": 3}) == ("E106",)
    assert "E106" in codes(small_net(), shapes={"batch": -3})
    graph = import_model(small_net(), {"batch": 5})
    assert graph.outputs[0].type.static_shape == (5, 10)

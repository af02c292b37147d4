"""Weights lifted out of serialized models: same graph as through the parser, faults left to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from aisc.frontend.onnx.importer import import_model
from aisc.frontend.onnx.wire import LIFTED_BYTES, lift_weights
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.same import same

LONG = LIFTED_BYTES // 4


def model() -> ModelProto:
    """Long, short, typed and boolean initializers."""
    rng = np.random.default_rng(0)
    flags = np.arange(LIFTED_BYTES, dtype=np.uint8) % 3  # any byte but 0 is true
    weights = [
        numpy_helper.from_array(rng.standard_normal(LONG).astype(np.float32), "long"),
        numpy_helper.from_array(np.float32(2), "short"),
        helper.make_tensor("typed", TensorProto.FLOAT, [LONG], rng.standard_normal(LONG)),
        numpy_helper.from_array(rng.standard_normal(LONG).astype(np.float32), "last"),
        helper.make_tensor("flags", TensorProto.BOOL, [LIFTED_BYTES], flags.tobytes(), raw=True),
    ]
    nodes = [
        helper.make_node("Add", ["x", "long"], ["a"]),
        helper.make_node("Mul", ["a", "short"], ["b"]),
        helper.make_node("Add", ["b", "typed"], ["c"]),
        helper.make_node("Sub", ["c", "last"], ["y"]),
        helper.make_node("Not", ["flags"], ["z"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [LONG])
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [LONG]),
        helper.make_tensor_value_info("z", TensorProto.BOOL, [LIFTED_BYTES]),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", [x], outputs, weights))


def contents(m: ModelProto) -> np.ndarray:
    return np.frombuffer(m.SerializeToString(), np.uint8)


def test_long_data_are_lifted() -> None:
    light, lifted = lift_weights(contents(model()))
    assert sorted(lifted) == [0, 3, 4]
    rest = ModelProto()
    rest.ParseFromString(light)
    again = model()
    for k, data in lifted.items():
        assert not rest.graph.initializer[k].raw_data
        assert data.tobytes() == again.graph.initializer[k].raw_data
        again.graph.initializer[k].ClearField("raw_data")
    assert rest == again


def test_files_and_bytes_give_the_same_graph(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(), path)
    from_file, from_bytes = import_model(path), import_model(model().SerializeToString())
    assert same(from_file, from_bytes)
    path.write_bytes(b"")  # the graph keeps its own copies
    assert same(from_file, from_bytes)


@pytest.mark.parametrize("cut", [1, 5, 100, 4000])
def test_damaged_files_are_left_to_the_parser(tmp_path: Path, cut: int) -> None:
    data = contents(model())[:-cut]
    light, lifted = lift_weights(data)
    assert (light, lifted) == (data.tobytes(), {})
    path = tmp_path / "m.onnx"
    path.write_bytes(light)
    with pytest.raises(CompileError) as caught:
        import_model(path)
    assert caught.value.codes == ("E101",)


def test_random_bytes_never_fail_here() -> None:
    rng, good = np.random.default_rng(3), contents(model())
    for _ in range(300):
        bad = good.copy()
        bad[rng.integers(0, len(bad), 3)] = rng.integers(0, 256, 3)
        light, lifted = lift_weights(bad)
        assert len(light) + sum(map(len, lifted.values())) <= len(bad) + 16


def test_merged_graphs_are_left_as_they_are() -> None:
    twice = np.concatenate([contents(model()), contents(model())])
    assert lift_weights(twice) == (twice.tobytes(), {})

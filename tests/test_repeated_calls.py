"""Calls like the one before, and bound ones: the same results and refusals as of any call."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

import aisc


def _model(size: int | str = 6) -> bytes:
    """y = x + w, z = x > w."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, size]) for n in "xw"]
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("Less", ["x", "w"], ["z"]),
    ]
    results = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, size]),
        helper.make_tensor_value_info("z", TensorProto.BOOL, [4, size]),
    ]
    graph = helper.make_graph(nodes, "g", ports, results)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def _arrays(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((4, size), np.float32), rng.random((4, size), np.float32)


def _check(results: object, x: np.ndarray, w: np.ndarray) -> None:
    y, z = results  # type: ignore[misc]
    np.testing.assert_array_equal(y, x + w)
    np.testing.assert_array_equal(z, x < w)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_calls_with_sizes_that_change(threads: int) -> None:
    exe = aisc.compile(_model("n"), threads=threads)
    for k, size in enumerate((6, 6, 6, 9, 9, 6, 0, 0, 6, 5000, 5000, 6)):
        x, w = _arrays(size, k)
        _check(exe(x, w), x, w)
        _check(exe.run(None, {"w": w, "x": x}), x, w)


def test_results_of_calls_are_arrays_of_their_own() -> None:
    exe = aisc.compile(_model(), threads=1)
    x, w = _arrays(6, 0)
    calls = [exe(x * k, w) for k in range(5)]
    for k, results in enumerate(calls):
        _check(results, x * np.float32(k), w)


def test_what_does_not_fit_is_refused_after_calls_that_did() -> None:
    exe = aisc.compile(_model(), threads=1)
    x, w = _arrays(6, 1)
    for _ in range(3):
        exe(x, w)
    for bad in (x.astype(np.float64), x[:3], x.reshape(6, 4), x.reshape(-1)):
        with pytest.raises(aisc.ExecutionError, match="E501"):
            exe(bad, w)
    with pytest.raises(aisc.ExecutionError, match="E501"):
        exe(x)
    with pytest.raises(aisc.ExecutionError, match="E501"):
        exe.run(None, {"x": x, "v": w})
    with pytest.raises(aisc.ExecutionError, match="E501"):
        exe.run(None, {"x": x, "w": w, "v": w})
    _check(exe(x, w), x, w)


def test_inputs_that_are_copied_or_converted() -> None:
    exe = aisc.compile(_model(), threads=1)
    x, w = _arrays(6, 2)
    odd = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    for other in (np.asfortranarray(x), odd, x.tolist(), np.repeat(x, 2, 1)[:, ::2]):
        exe(x, w)
        _check(exe(other, w), x, w)


def test_bound_calls_read_and_write_the_same_arrays() -> None:
    exe = aisc.compile(_model(), threads=2)
    x, w = _arrays(6, 3)
    out = [np.empty((4, 6), np.float32), np.empty((4, 6), bool)]
    bound = exe.bind(x, w, out=out)
    for k in range(4):
        x += k
        results = bound()
        assert results[0] is out[0]
        _check(results, x, w)
    fresh = exe.bind(x, w)
    _check(fresh(), x, w)
    assert fresh.outputs[0] is fresh()[0]


def test_bind_refuses_what_it_would_have_to_copy() -> None:
    exe = aisc.compile(_model(), threads=1)
    x, w = _arrays(6, 4)
    with pytest.raises(aisc.ExecutionError, match="'x' cannot be bound"):
        exe.bind(np.asfortranarray(x), w)
    with pytest.raises(aisc.ExecutionError, match="2 inputs are needed"):
        exe.bind(x)


def test_threads_share_an_executable() -> None:
    exe = aisc.compile(_model(), threads=1)
    faults: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            x, w = _arrays(6, seed)
            bound = exe.bind(x, w)
            for _ in range(200):
                _check(exe(x, w), x, w)
                _check(bound(), x, w)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults

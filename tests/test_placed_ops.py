"""Operators composed of gathers, tables and scatters, with sizes that only run time knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import I64, F, check_everywhere, close, const, model, node, value

import aisc
from aisc.ir.diagnostics import CompileError, ExecutionError

rng = np.random.default_rng(11)


def f32(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def ints(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode: str, padding: str, corners: int) -> None:
    """Places inside, at borders and far beyond them, in images of any size."""
    attrs = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    inputs = [value("x", F, ["n", 2, "h", "w"]), value("g", F, ["n", "p", 3, 2])]
    made = onnx.helper.make_model(
        model([node("GridSample", "x g", "y", **attrs)], inputs, [value("y")]).graph,
        opset_imports=[onnx.helper.make_opsetid("", 16)],
    )
    made.ir_version = 8
    feeds = [
        {"x": f32(n, 2, h, w), "g": f32(n, 4, 3, 2) * 1.4} for n, h, w in ((2, 5, 4), (1, 3, 7))
    ]
    check_everywhere(made, feeds)


@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(onesided: int) -> None:
    inputs, weights = [value("x", F, ["n", 40, 1])], [const("hop", np.array(6))]
    weights.append(const("w", np.hanning(16).astype(np.float32)))
    m = model([node("STFT", "x hop w", "y", onesided=onesided)], inputs, [value("y")], *weights)
    check_everywhere(m, [{"x": f32(2, 40, 1)}])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("axis", [1, 2])
def test_dft(parts: int, axis: int) -> None:
    """Of a batch of any size, longer and shorter than the axis."""
    for length in (5, 9, None):
        names, weights = (
            ("x", []) if length is None else ("x len", [const("len", np.array(length))])
        )
        m = model([node("DFT", names, "y", axis=axis)], [value("x", F, ["n", 7, 6, parts])],
                  [value("y")], *weights)  # fmt: skip
        x = f32(2, 7, 6, parts)
        z = x[..., 0] + (1j * x[..., 1] if parts == 2 else 0)
        want = np.fft.fft(z, n=length, axis=axis)
        y = aisc.compile(m, cache=False, host=False)(x)
        np.testing.assert_allclose(y, np.stack([want.real, want.imag], -1), atol=2e-5)


def test_inverse_of_one_side() -> None:
    """What one side stands for: the real signal, of even and odd length."""
    for length in (8, 9):
        x = rng.standard_normal((2, length))
        side = np.fft.rfft(x, axis=1)
        given = np.stack([side.real, side.imag], -1).astype(np.float32)
        attrs = {"axis": 1, "inverse": 1, "onesided": 1}
        m = model([node("DFT", "x len", "y", **attrs)], [value("x", F, ["n", *given.shape[1:]])],
                  [value("y")], const("len", np.array(length)))  # fmt: skip
        y = aisc.compile(m, cache=False, host=False)(given)
        np.testing.assert_allclose(y[..., 0], x, atol=1e-6)


@pytest.mark.parametrize("time", [0, 1])
def test_reverse_sequence(time: int) -> None:
    shape: list[Any] = ["t", "k", 2] if time == 0 else ["k", "t", 2]
    m = model([node("ReverseSequence", "x l", "y", time_axis=time, batch_axis=1 - time)],
              [value("x", F, shape), value("l", I64, ["k"])], [value("y")])  # fmt: skip
    feeds = [{"x": f32(*((t, 3) if time == 0 else (3, t)), 2), "l": ints(*lengths)}
             for t, lengths in ((4, (4, 1, 3)), (2, (2, 2, 1)))]  # fmt: skip
    check_everywhere(m, feeds)


def test_places_of_maxima() -> None:
    attrs = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    m = model([node("MaxPool", "x", "y i", **attrs)], [value("x", F, ["n", 3, 7, 6])],
              [value("y"), value("i", I64)])  # fmt: skip
    ties = rng.integers(-2, 3, (2, 3, 7, 6)).astype(np.float32)
    check_everywhere(m, [{"x": f32(2, 3, 7, 6)}, {"x": ties}])


def test_unpool() -> None:
    nodes = [
        node("MaxPool", "x", "p i", kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", "p i", "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    m = model(nodes, [value("x", F, ["n", 3, 6, 4])], [value("y")])
    check_everywhere(m, [{"x": f32(2, 3, 6, 4)}])


def test_unpool_to_a_place_that_is_not_there() -> None:
    inputs = [value("x", F, [1, 1, 2, 2]), value("i", I64, [1, 1, 2, 2])]
    unpool = node("MaxUnpool", "x i", "y", kernel_shape=[2, 2], strides=[2, 2])
    m = model([unpool], inputs, [value("y")])
    exe = aisc.compile(m, cache=False)
    with pytest.raises(ExecutionError):
        exe(f32(1, 1, 2, 2), ints(0, 1, 2, 16).reshape(1, 1, 2, 2))


def test_col2im() -> None:
    attrs = {"strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    weights = [const("s", ints(6, 5)), const("k", ints(2, 2))]
    fold = node("Col2Im", "x s k", "y", **attrs)
    m = model([fold], [value("x", F, ["n", 12, 12])], [value("y")], *weights)
    check_everywhere(m, [{"x": f32(2, 12, 12)}])


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(mode: str) -> None:
    attrs = {"output_height": 2, "output_width": 3, "sampling_ratio": 2, "spatial_scale": 0.5}
    inputs = [value("x", F, ["n", 2, "h", "w"]), value("r", F, ["k", 4]), value("b", I64, ["k"])]
    m = model([node("RoiAlign", "x r b", "y", mode=mode, **attrs)], inputs, [value("y")])
    rois = np.array([[0, 0, 9, 7], [3, 2, 5, 12], [-4, 1, 20, 6]], np.float32)
    check_everywhere(m, [{"x": abs(f32(2, 2, 6, 5)), "r": rois, "b": ints(1, 0, 1)}])
    with pytest.raises(CompileError) as caught:
        aisc.compile(model([node("RoiAlign", "x r b", "y")], inputs, [value("y")]))
    assert caught.value.codes == ("E102",)


def test_batch_norm_in_training() -> None:
    names = ["s", "b", "m", "v"]
    weights = [const(n, abs(f32(3))) for n in names]
    cell = node("BatchNormalization", "x s b m v", "y m2 v2", training_mode=1, momentum=0.8)
    m = model([cell], [value("x", F, ["n", 3, 4])], [value(n) for n in ("y", "m2", "v2")], *weights)
    x = f32(5, 3, 4)
    got = aisc.compile(m, cache=False, host=False)(x)
    s, b, mean, variance = (onnx.numpy_helper.to_array(w) for w in weights)
    own = x.mean((0, 2)), x.var((0, 2))
    y = (x - own[0][:, None]) / np.sqrt(own[1] + 1e-5)[:, None] * s[:, None] + b[:, None]
    want = [y, mean * 0.8 + own[0] * 0.2, variance * 0.8 + own[1] * 0.2]
    close(got, [w.astype(np.float32) for w in want], "in training")


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    """New rows in a cache, at places that data give."""
    made = onnx.helper.make_model(
        model([node("TensorScatter", "p u i", "q", mode=mode), node("Neg", "q", "y")],
              [value("p", F, ["n", 2, 5, 3]), value("u", F, ["n", 2, "t", 3]),
               value("i", I64, ["n"])], [value("y")]).graph,
        opset_imports=[onnx.helper.make_opsetid("", 24)],
    )  # fmt: skip
    exe = aisc.compile(made, cache=False, host=False)
    for count, places in ((2, (0, 3)), (1, (4, 2)), (2, (4, 4) if mode == "circular" else (3, 1))):
        past, update, want = f32(2, 2, 5, 3), f32(2, 2, count, 3), None
        want = past.copy()
        for n, first in enumerate(places):
            for k in range(count):
                want[n, :, (first + k) % 5] = update[n, :, k]
        np.testing.assert_array_equal(exe(past, update, ints(*places)), -want)

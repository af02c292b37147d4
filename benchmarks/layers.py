"""Single layers as models, to see which kinds of kernels lose against another runtime::

    python benchmarks/layers.py FOLDER [PATTERN …]
    python benchmarks/peers.py FOLDER/*.onnx --threads 1

writes one ONNX file per layer whose name holds one of the patterns. Sizes are those of well-known
models; inputs and outputs are as ONNX has them (NCHW), so that what a layer needs in another order
is part of its time.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int]
LAYERS: dict[str, Callable[[], ModelProto]] = {}


def random(*shape: int) -> NDArray[np.float32]:
    """Seeded numbers around 0."""
    rng = np.random.default_rng(sum(shape))
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)


def layer(
    name: str, x: Shape, nodes: Sequence[NodeProto], *weights: Shape | NDArray, y: int = 1
) -> None:
    """Register a layer from ``x`` to ``y``, an element type of ONNX; `weights`, arrays or shapes of
    random ones, are called ``w0``, ``w1``, …"""

    def build() -> ModelProto:
        arrays = [w if isinstance(w, np.ndarray) else random(*w) for w in weights]
        graph = helper.make_graph(
            list(nodes), name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))],
            [helper.make_tensor_value_info("y", y, None)],
            [numpy_helper.from_array(a, f"w{k}") for k, a in enumerate(arrays)],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", 20)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        return onnx.shape_inference.infer_shapes(model)

    assert name not in LAYERS, f"two layers are called {name}"
    LAYERS[name] = build


def op(kind: str, inputs: str, output: str = "y", **attributes: object) -> NodeProto:
    """One node."""
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def conv(name: str, x: Shape, w: Shape, **attributes: object) -> None:
    """A convolution with bias and relu that keeps the size, up to strides."""
    kernel = w[2:]
    spread = attributes.get("dilations", [1] * len(kernel))
    pads = [(k - 1) // 2 * d for k, d in zip(kernel, spread, strict=True)] * 2  # type: ignore[call-overload]
    node = op("Conv", "x w0 w1", "c", kernel_shape=kernel, **{"pads": pads, **attributes})
    layer(name, x, [node, op("Relu", "c")], w, (w[0],))


def recurrent(name: str, kind: str, steps: int, batch: int, inputs: int, hidden: int) -> None:
    """A recurrent layer over a sequence."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    node = op(kind, "x w0 w1 w2", hidden_size=hidden)
    layer(
        name, (steps, batch, inputs), [node], (1, gates, inputs), (1, gates, hidden), (1, 2 * gates)
    )


conv("conv3x3_64x56", (1, 64, 56, 56), (64, 64, 3, 3))
conv("conv3x3_64x224", (1, 64, 224, 224), (64, 64, 3, 3))
conv("conv3x3_256x14", (1, 256, 14, 14), (256, 256, 3, 3))
conv("conv3x3_stride2", (1, 128, 56, 56), (256, 128, 3, 3), strides=[2, 2])
conv("conv3x3_dilated", (1, 64, 56, 56), (64, 64, 3, 3), dilations=[2, 2])
conv("conv3x3_grouped32", (1, 128, 56, 56), (128, 4, 3, 3), group=32)
conv("conv3x3_odd_channels", (1, 24, 112, 112), (20, 24, 3, 3))
conv("conv5x5", (1, 64, 28, 28), (64, 64, 5, 5))
conv("conv1x7", (1, 128, 17, 17), (128, 128, 1, 7))
conv("conv1d", (1, 256, 1000), (256, 256, 3))
conv("conv3d", (1, 32, 16, 28, 28), (32, 32, 3, 3, 3))
conv("patches16", (1, 3, 224, 224), (768, 3, 16, 16), strides=[16, 16], pads=[0] * 4)
conv("conv1d_positions", (1, 768, 49), (768, 48, 128), group=16, pads=[64, 64])
conv("depthwise3x3", (1, 144, 56, 56), (144, 1, 3, 3), group=144)
conv("depthwise5x5_stride2", (1, 120, 28, 28), (120, 1, 5, 5), group=120, strides=[2, 2])
conv("depthwise7x7", (1, 96, 56, 56), (96, 1, 7, 7), group=96)
for kernel, pad in ((4, 1), (2, 0)):
    layer(
        f"transposed{kernel}x{kernel}_stride2", (1, 64, 28, 28),
        [op("ConvTranspose", "x w0", kernel_shape=[kernel] * 2, strides=[2, 2], pads=[pad] * 4)],
        (64, 32, kernel, kernel),
    )  # fmt: skip
layer("max_pool3x3", (1, 64, 112, 112),
      [op("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)])  # fmt: skip
layer("max_pool5x5", (1, 128, 20, 20),
      [op("MaxPool", "x", kernel_shape=[5, 5], pads=[2] * 4)])  # fmt: skip
layer("global_average", (1, 512, 14, 14), [op("GlobalAveragePool", "x")])
DOUBLE = np.array([1, 1, 2, 2], np.float32)
layer("resize_linear", (1, 64, 28, 28),
      [helper.make_node("Resize", ["x", "", "w0"], ["y"], mode="linear")], DOUBLE)  # fmt: skip
layer("layer_norm", (1, 197, 768),
      [op("LayerNormalization", "x w0 w1")], (768,), (768,))  # fmt: skip
layer("group_norm", (1, 320, 32, 32),
      [op("GroupNormalization", "x w0 w1", num_groups=32)], (32,), (32,))  # fmt: skip
layer("softmax_rows", (1, 12, 197, 197), [op("Softmax", "x", axis=-1)])
layer("softmax_channels", (1, 21, 65, 65), [op("Softmax", "x", axis=1)])
layer("reduce_max_rows", (512, 1024),
      [op("ReduceMax", "x w0", keepdims=0)], np.array([1]))  # fmt: skip
layer("reduce_mean_image", (1, 256, 28, 28),
      [op("ReduceMean", "x w0", keepdims=0)], np.array([2, 3]))  # fmt: skip
layer("argmax_rows", (64, 32000), [op("ArgMax", "x", axis=-1)], y=TensorProto.INT64)
layer("argmax_channels", (1, 21, 129, 129), [op("ArgMax", "x", axis=1)], y=TensorProto.INT64)
layer("top5", (64, 1000),
      [helper.make_node("TopK", ["x", "w0"], ["y", "places"])], np.array([5]))  # fmt: skip
layer("running_sum", (64, 1024), [op("CumSum", "x w0")], np.array(1))
layer("gelu", (1, 197, 3072), [op("Gelu", "x")])
layer("silu", (1, 320, 32, 32), [op("Sigmoid", "x", "s"), op("Mul", "x s")])
layer("tanh", (64, 4096), [op("Tanh", "x")])
layer("scale_channels", (1, 64, 56, 56), [op("Mul", "x w0")], (64, 1, 1))
layer("transpose_heads", (1, 197, 12, 64), [op("Transpose", "x", perm=[0, 2, 1, 3])])
layer("transpose_matrix", (1024, 768), [op("Transpose", "x", perm=[1, 0])])
for rows, depth, columns in ((197, 768, 768), (1, 4096, 4096), (4, 1024, 1024), (17, 300, 50)):
    layer(f"matmul_{rows}x{depth}x{columns}", (rows, depth),
          [op("MatMul", "x w0")], (depth, columns))  # fmt: skip
recurrent("lstm512", "LSTM", 30, 1, 256, 512)
recurrent("lstm128_batch16", "LSTM", 50, 16, 64, 128)
recurrent("gru256", "GRU", 50, 1, 128, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write models of single layers.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("patterns", nargs="*", default=[""])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, build in LAYERS.items():
        if any(p in name for p in options.patterns):
            onnx.save(build(), options.folder / f"{name}.onnx")


if __name__ == "__main__":
    main()

"""Convolutional networks: ResNet-50, MobileNetV2, a U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import ModelProto

from zoo.net import Net


def _conv(
    net: Net, x: str, channels: tuple[int, int], kernel: int, stride: int = 1, group: int = 1,
    gain: float = 2.0,
) -> str:  # fmt: skip
    """A convolution without bias and the batch norm behind it."""
    inputs, outputs = channels
    fan_in = inputs // group * kernel * kernel
    w = net.normal((outputs, inputs // group, kernel, kernel), np.sqrt(gain / fan_in))
    pad = kernel // 2
    y = net.op(
        "Conv", x, w, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=group
    )
    return _batch_norm(net, y, outputs)


def _batch_norm(net: Net, x: str, channels: int) -> str:
    scale = net.uniform((channels,), 0.6, 1.0, "scale")
    shift = net.uniform((channels,), -0.1, 0.1, "shift")
    mean = net.uniform((channels,), -0.1, 0.1, "mean")
    variance = net.uniform((channels,), 0.8, 1.2, "variance")
    return net.op("BatchNormalization", x, scale, shift, mean, variance, epsilon=1e-5)


def _classifier(net: Net, x: str, channels: int, classes: int) -> None:
    pooled = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    w = net.normal((classes, channels), 1 / np.sqrt(channels))
    b = net.uniform((classes,), -0.1, 0.1, "b")
    net.output(net.op("Gemm", pooled, w, b, transB=1), "logits", ("batch", classes))


def resnet50(
    seed: int = 0, size: int = 224, width: int = 64, blocks: Sequence[int] = (3, 4, 6, 3),
    classes: int = 1000,
) -> ModelProto:  # fmt: skip
    """ResNet-50 v1.5 with batch norms, as exported from training code."""
    net = Net("resnet50", seed)
    x = net.input("pixels", ("batch", 3, size, size))
    x = net.op("Relu", _conv(net, x, (3, width), 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = width
    for stage, count in enumerate(blocks):
        inner = width << stage
        for k in range(count):
            stride = 2 if k == 0 and stage > 0 else 1
            x = _bottleneck(net, x, channels, inner, stride)
            channels = 4 * inner
    _classifier(net, x, channels, classes)
    return net.model()


def _bottleneck(net: Net, x: str, channels: int, inner: int, stride: int) -> str:
    y = net.op("Relu", _conv(net, x, (channels, inner), 1))
    y = net.op("Relu", _conv(net, y, (inner, inner), 3, stride))
    y = _conv(net, y, (inner, 4 * inner), 1, gain=0.5)
    if channels != 4 * inner or stride > 1:
        x = _conv(net, x, (channels, 4 * inner), 1, stride, gain=1.0)
    return net.op("Relu", net.op("Add", y, x))


# expansion, output channels, repeats, stride
MOBILENET_STAGES: tuple[tuple[int, int, int, int], ...] = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def mobilenet_v2(
    seed: int = 0, size: int = 224, stem: int = 32, last: int = 1280, classes: int = 1000,
    stages: Sequence[tuple[int, int, int, int]] = MOBILENET_STAGES,
) -> ModelProto:  # fmt: skip
    """MobileNetV2: inverted residuals with depthwise convolutions and ReLU6."""
    net = Net("mobilenet_v2", seed)
    zero, six = net.number(0.0), net.number(6.0)

    def relu6(x: str) -> str:
        return net.op("Clip", x, zero, six)

    x = relu6(_conv(net, net.input("pixels", ("batch", 3, size, size)), (3, stem), 3, 2))
    channels = stem
    for expansion, outputs, repeats, first in stages:
        for k in range(repeats):
            stride, inner = first if k == 0 else 1, channels * expansion
            y = relu6(_conv(net, x, (channels, inner), 1)) if expansion > 1 else x
            y = relu6(_conv(net, y, (inner, inner), 3, stride, group=inner))
            y = _conv(net, y, (inner, outputs), 1, gain=1.0)
            same = stride == 1 and channels == outputs
            x, channels = net.op("Add", x, y) if same else y, outputs
    x = relu6(_conv(net, x, (channels, last), 1))
    _classifier(net, x, last, classes)
    return net.model()


def unet(
    seed: int = 0, width: int = 32, depth: int = 3, inputs: int = 3, classes: int = 2
) -> ModelProto:
    """A U-Net for images of any size: max pools down, transposed convolutions up, and the skipped
    features cropped to the size that comes back up."""
    net = Net("unet", seed)
    x = net.input("image", ("batch", inputs, "height", "width"))
    channels, skips = inputs, []
    for level in range(depth):
        x = _double(net, x, channels, width << level)
        channels = width << level
        skips.append(x)
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = _double(net, x, channels, width << depth)
    channels = width << depth
    for level in reversed(range(depth)):
        outputs = width << level
        w = net.normal((channels, outputs, 2, 2), 1 / np.sqrt(channels))
        b = net.uniform((outputs,), -0.1, 0.1, "b")
        x = net.op("ConvTranspose", x, w, b, kernel_shape=[2, 2], strides=[2, 2])
        x = net.op("Concat", _cropped(net, skips[level], x), x, axis=1)
        x = _double(net, x, 2 * outputs, outputs)
        channels = outputs
    w = net.normal((classes, channels, 1, 1), 1 / np.sqrt(channels))
    b = net.uniform((classes,), -0.1, 0.1, "b")
    mask = net.op("Sigmoid", net.op("Conv", x, w, b, kernel_shape=[1, 1]))
    net.output(mask, "mask", ("batch", classes, None, None))
    return net.model()


def _double(net: Net, x: str, inputs: int, outputs: int) -> str:
    for channels in ((inputs, outputs), (outputs, outputs)):
        w = net.normal((channels[1], channels[0], 3, 3), np.sqrt(2 / (9 * channels[0])))
        b = net.uniform((channels[1],), -0.1, 0.1, "b")
        x = net.op("Relu", net.op("Conv", x, w, b, kernel_shape=[3, 3], pads=[1] * 4))
    return x


def _cropped(net: Net, skip: str, like: str) -> str:
    ends = net.op("Concat", net.size(like, 2), net.size(like, 3), axis=0)
    return net.op("Slice", skip, net.ints(0, 0), ends, net.ints(2, 3))

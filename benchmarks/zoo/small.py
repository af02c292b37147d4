"""Small networks: an LSTM and a perceptron."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from onnx import ModelProto

from zoo.net import Net


def lstm(
    seed: int = 0, sequence: int | str = 100, inputs: int = 128, hidden: int = 256,
    classes: int = 32,
) -> ModelProto:  # fmt: skip
    """One LSTM over [sequence, batch, inputs] and a linear layer on its last state."""
    net = Net("lstm", seed)
    x = net.input("x", (sequence, "batch", inputs))
    w = net.normal((1, 4 * hidden, inputs), 1 / np.sqrt(inputs))
    r = net.normal((1, 4 * hidden, hidden), 1 / np.sqrt(hidden))
    b = net.uniform((1, 8 * hidden), -0.1, 0.1, "b")
    every, last, cell = net.multi("LSTM", 3, x, w, r, b, hidden_size=hidden)
    states = net.op("Squeeze", every, net.ints(1))
    net.output(states, "states", (sequence, "batch", hidden))
    final = net.op("Squeeze", net.op("Concat", last, cell, axis=2), net.ints(0))
    net.output(net.linear(final, 2 * hidden, classes), "classes", ("batch", classes))
    return net.model()


def mlp(seed: int = 0, sizes: Sequence[int] = (784, 512, 512, 10)) -> ModelProto:
    """A perceptron with ReLU between its layers and a softmax at its end."""
    net = Net("mlp", seed)
    x = net.input("x", ("batch", sizes[0]))
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        w = net.normal((outputs, inputs), np.sqrt(1 / inputs))
        b = net.uniform((outputs,), -0.1, 0.1, "b")
        x = net.op("Gemm", x, w, b, transB=1)
        if k < len(sizes) - 2:
            x = net.op("Relu", x)
    net.output(net.op("Softmax", x, axis=-1), "probabilities", ("batch", sizes[-1]))
    return net.model()

"""The light models of the onnx wheel with real weights instead of constant ones.

In the wheel each weight is ``ConstantOfShape``; here those become seeded random initializers,
scaled so that activations stay finite (He initialization, positive variances).
"""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

NAMES = (
    "bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet",
    "squeezenet", "vgg19", "zfnet512",
)  # fmt: skip


def path(name: str) -> str:
    """Where the wheel keeps a light model."""
    root = os.path.dirname(onnx.__file__)
    return os.path.join(root, "backend", "test", "data", "light", f"light_{name}.onnx")


def load(name: str, seed: int = 0) -> ModelProto:
    """The model `name` with random weights."""
    model = onnx.load(path(name))
    graph = model.graph
    shapes = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    roles = _roles(graph.node)
    rng = np.random.default_rng(seed)
    kept = []
    for node in graph.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None:
            kept.append(node)
            continue
        out = node.output[0]
        data = _weight(roles.get(out, "bias"), tuple(int(d) for d in shape), rng)
        graph.initializer.append(numpy_helper.from_array(data, out))
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _roles(nodes: list[NodeProto]) -> dict[str, str]:
    """What each weight is used as, looking through Unsqueeze."""
    roles: dict[str, str] = {}
    norm = ("", "scale", "bias", "mean", "variance")
    for node in reversed(list(nodes)):
        for place, name in enumerate(node.input):
            if node.op_type == "BatchNormalization" and place:
                roles[name] = norm[place]
            elif node.op_type in ("Conv", "Gemm", "MatMul"):
                roles[name] = "weight" if place == 1 else "bias"
            elif node.op_type == "Mul":
                roles.setdefault(name, "scale")
            elif node.op_type == "Unsqueeze" and node.output[0] in roles:
                roles[name] = roles[node.output[0]]
    return roles


def _weight(role: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if role == "weight":
        fan_in = int(np.prod(shape[1:])) or 1
        spread = np.sqrt(2.0 / fan_in)
        if shape[0] == 1000:  # the classifier: keep softmax from saturating
            spread *= 0.05
        return (rng.standard_normal(shape, np.float32) * np.float32(spread)).astype(np.float32)
    if role == "scale":  # below 1, so that sums of residual branches do not grow without bound
        return rng.uniform(0.5, 0.9, shape).astype(np.float32)
    if role == "variance":
        return rng.uniform(0.8, 1.5, shape).astype(np.float32)
    return rng.uniform(-0.1, 0.1, shape).astype(np.float32)

"""The examples of the model language once more in ONNX, with the same weights.

    python benchmarks/twins.py [NAME …] [--rounds 300] [--threads 1]

compiles both forms of each, compares their results, and times them in turns: the ratio is the
language's time by ONNX's, the median of rounds. Tests hold the results equal to the last bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from rich.console import Console
from rich.table import Table
from zoo.net import Net

import aisc
from aisc.frontend.building.report import Report
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.elaborate import Elaborator
from aisc.frontend.lang.model import graph_of_module
from aisc.frontend.lang.parameters import Parameters
from aisc.frontend.lang.reading import read
from aisc.ir.location import Loc
from aisc.ir.text.source import Source
from aisc.ir.types import TensorType

Array = NDArray[Any]
Weights = Mapping[str, Array]
Twin = Callable[[Weights], ModelProto]
EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "lang"
TWINS: dict[str, Twin] = {}
# Sizes that the examples leave open, in measurements.
SIZES = {"n": 8, "height": 64, "width": 64, "steps": 32}


def twin(build: Twin) -> Twin:
    """Register the twin of the example of the same name."""
    TWINS[build.__name__] = build
    return build


class _Keeping(Parameters):
    """Parameters that remember what they made."""

    made: dict[str, Array]

    def make(self, path: str, t: TensorType, start: Any, at: Loc) -> Array:
        self.made[path] = super().make(path, t, start, at)
        return self.made[path]


def weights_of(path: Path) -> Weights:
    """Every parameter of a model of the language, by its path."""
    made: dict[str, Array] = {}

    def make(module: s.Module, parameters: Parameters, report: Report) -> Elaborator:
        keeping = _Keeping(parameters.seed)
        keeping.made = made
        return Elaborator(module, keeping, report)

    source = Source(path.read_text(encoding="utf-8"), str(path))
    graph_of_module(read(source), source, path.parent, {}, make)
    return made


# -- the twins -------------------------------------------------------------------------------------
@twin
def mlp(w: Weights) -> ModelProto:
    net = Net("mlp", 0)
    x = net.input("image", ["n", 784])
    for i in range(3):
        x = net.op("Relu", dense(net, w, x, f"hidden.{i}"))
    net.output(net.op("Softmax", dense(net, w, x, "head"), axis=-1), "probabilities", ["n", 10])
    return net.model()


def dense(net: Net, w: Weights, x: str, path: str) -> str:
    product = net.op("MatMul", x, net.constant(w[f"{path}.w"]))
    return net.op("Add", product, net.constant(w[f"{path}.b"]))


@twin
def residual(w: Weights) -> ModelProto:
    net = Net("residual", 0)
    image = net.input("image", ["n", 3, "height", "width"])
    x = net.op("Relu", conv3(net, w, image, "stem"))
    for stage in range(3):
        for i in range(2):
            path, stride = f"stages.{stage}.{i}", 2 if stage > 0 and i == 0 else 1
            y = net.op("Relu", conv3(net, w, x, f"{path}.first", stride))
            y = conv3(net, w, y, f"{path}.second")
            if f"{path}.w" in w:
                x = net.op("Conv", x, net.constant(w[f"{path}.w"]), strides=[stride, stride])
            x = net.op("Relu", net.op("Add", x, y))
    features = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    logits = net.op("MatMul", features, net.constant(w["w"]))
    net.output(net.op("Softmax", logits, axis=1), "output0", ["n", 10])
    return net.model()


def conv3(net: Net, w: Weights, x: str, path: str, stride: int = 1) -> str:
    """A convolution whose weights lie as the example keeps them."""
    kernel = net.constant(w[f"{path}.w"].transpose(0, 3, 1, 2))
    bias = net.constant(w[f"{path}.b"])
    return net.op("Conv", x, kernel, bias, strides=[stride, stride], pads=[1, 1, 1, 1])


@twin
def newton(w: Weights) -> ModelProto:
    net = Net("newton", 0)
    x, tolerance = net.input("x", ["n"]), net.input("tolerance", [])
    half, tiny = net.number(0.5), net.number(1e-6)
    guess = net.op("Add", net.op("Mul", x, half), half)
    turns = net.constant(np.array(0, np.int64))

    def goes_on(g: str) -> str:
        error = net.op("Abs", net.op("Sub", net.op("Mul", g, g), x))
        relative = net.op("Div", error, net.op("Add", x, tiny))
        worst = net.op("ReduceMax", relative, axes=[0], keepdims=0)
        return net.op("Greater", worst, tolerance)

    first = goes_on(guess)
    count = net.constant(np.array(1, np.int64))

    def turn(g: str, k: str) -> tuple[str, ...]:
        better = net.op("Mul", net.op("Add", g, net.op("Div", x, g)), half)
        return goes_on(better), better, net.op("Add", k, count)

    found, number = loop(net, first, (guess, turns), turn, [(TensorProto.FLOAT, ["n"]),
                                                            (TensorProto.INT64, [])])  # fmt: skip
    net.output(found, "guess", ["n"])
    net.nodes.append(helper.make_node("Identity", [number], ["turns"]))
    net.outputs.append(helper.make_tensor_value_info("turns", TensorProto.INT64, []))
    return net.model()


def loop(
    net: Net,
    first: str,
    start: Sequence[str],
    turn: Callable[..., tuple[str, ...]],
    types: Sequence[tuple[int, Sequence[int | str]]],
) -> list[str]:
    """What values become while a condition holds: `turn` gives that and the next values."""
    outside, net.nodes = net.nodes, []
    names = [net.fresh("carried") for _ in start]
    results = turn(*names)
    info = helper.make_tensor_value_info
    inputs = [info("number", TensorProto.INT64, []), info("goes_on", TensorProto.BOOL, [])]
    inputs += [info(n, t, d) for n, (t, d) in zip(names, types, strict=True)]
    outputs = [info(results[0], TensorProto.BOOL, [])]
    outputs += [info(n, t, d) for n, (t, d) in zip(results[1:], types, strict=True)]
    body = helper.make_graph(net.nodes, "body", inputs, outputs)
    net.nodes = outside
    return net.multi("Loop", len(start), "", first, *start, body=body)


@twin
def recurrent(w: Weights) -> ModelProto:
    net = Net("recurrent", 0)
    x = net.input("x", ["steps", "n", 16])
    steps = net.op("Squeeze", net.size(x, 0))
    shape = net.op("Concat", net.size(x, 1), net.ints(32), axis=0)
    state = net.op("Expand", net.number(0.0), shape)
    zero, one = (net.constant(np.array(k, np.int64)) for k in (0, 1))

    def gate(name: str, step: str, state: str) -> str:
        a = net.op("MatMul", step, net.constant(w[f"cell.{name}.w"]))
        b = net.op("MatMul", state, net.constant(w[f"cell.{name}.u"]))
        return net.op("Add", net.op("Add", a, b), net.constant(w[f"cell.{name}.b"]))

    def turn(state: str, t: str) -> tuple[str, ...]:
        step = net.op("Gather", x, t, axis=0)
        update = net.op("Sigmoid", gate("update", step, state))
        reset = net.op("Sigmoid", gate("reset", step, state))
        proposal = net.op("Tanh", gate("proposal", step, net.op("Mul", reset, state)))
        kept = net.op("Mul", update, state)
        new = net.op("Mul", net.op("Sub", net.number(1.0), update), proposal)
        following = net.op("Add", t, one)
        return net.op("Less", following, steps), net.op("Add", kept, new), following

    types = [(TensorProto.FLOAT, ["n", 32]), (TensorProto.INT64, [])]
    state, _ = loop(net, net.op("Less", zero, steps), (state, zero), turn, types)
    logits = net.op("MatMul", state, net.constant(w["w"]))
    net.output(net.op("Softmax", logits, axis=1), "output0", ["n", 5])
    return net.model()


@twin
def mobilenet(w: Weights) -> ModelProto:
    net = Net("mobilenet", 0)
    x = net.input("image", ["n", 3, "height", "width"])

    def scaled(x: str, path: str) -> str:
        parts = ("scale", "bias", "mean", "variance")
        y = net.op("BatchNormalization", x, *(net.constant(w[f"{path}.{p}"]) for p in parts))
        return net.op("Clip", y, net.number(0.0), net.number(6.0))

    pads = [1, 1, 1, 1]
    x = scaled(net.op("Conv", x, net.constant(w["stem"]), strides=[2, 2], pads=pads), "stem")
    for i, stride in enumerate((1, 2, 1, 2)):
        depthwise = w[f"blocks.{i}.depthwise"]
        x = net.op("Conv", x, net.constant(depthwise), group=len(depthwise),
                   strides=[stride, stride], pads=pads)  # fmt: skip
        x = scaled(x, f"blocks.{i}.first")
        x = net.op("Conv", x, net.constant(w[f"blocks.{i}.pointwise"]))
        x = scaled(x, f"blocks.{i}.second")
    features = net.op("ReduceMean", x, axes=[2, 3], keepdims=0)
    logits = net.op("Add", net.op("MatMul", features, net.constant(w["w"])), net.constant(w["b"]))
    net.output(net.op("Softmax", logits, axis=1), "output0", ["n", 10])
    return net.model()


@twin
def unet(w: Weights) -> ModelProto:
    net = Net("unet", 0)
    image = net.input("image", ["n", 3, 64, 64])

    def pair(x: str, path: str) -> str:
        for name in ("first", "second"):
            kernel, bias = (net.constant(w[f"{path}.{name}.{p}"]) for p in "wb")
            x = net.op("Relu", net.op("Conv", x, kernel, bias, pads=[1, 1, 1, 1]))
        return x

    def up(x: str, left: str, path: str) -> str:
        y = net.op("ConvTranspose", x, net.constant(w[f"{path}.w"]), strides=[2, 2])
        return pair(net.op("Concat", left, y, axis=1), f"{path}.mixed")

    def pool(x: str) -> str:
        return net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])

    fine = pair(image, "down.0")
    middle = pair(pool(fine), "down.1")
    coarse = pair(pool(middle), "down.2")
    x = up(up(coarse, middle, "up.1"), fine, "up.0")
    mask = net.op("Sigmoid", net.op("Conv", x, net.constant(w["w"])))
    net.output(mask, "mask", ["n", 1, 64, 64])
    return net.model()


@twin
def transformer(w: Weights) -> ModelProto:
    net = Net("transformer", 0)
    tokens = net.input("tokens", ["n"], "i64")
    embedding = net.constant(w["embedding"])
    x = net.op("Gather", embedding, tokens, axis=0)
    count = net.op("Squeeze", net.size(tokens, 0))
    zero, one = (net.constant(np.array(k, np.int64)) for k in (0, 1))
    places = net.op("Range", zero, count, one)
    for i in range(2):
        x = _block(net, w, x, places, f"blocks.{i}")
    x = _rms_norm(net, x, w["rms_norm.scale"])
    logits = net.op("MatMul", x, net.op("Transpose", embedding, perm=[1, 0]))
    net.output(logits, "logits", ["n", 256])
    return net.model()


def _block(net: Net, w: Weights, x: str, places: str, path: str) -> str:
    before = _rms_norm(net, x, w[f"{path}.before.scale"])
    x = net.op("Add", x, _attention(net, w, before, places, f"{path}.attention"))
    y = _rms_norm(net, x, w[f"{path}.after.scale"])
    gate, up = (net.op("MatMul", y, net.constant(w[f"{path}.{p}.w"])) for p in ("gate", "up"))
    silu = net.op("Mul", gate, net.op("Sigmoid", gate))
    down = net.op("MatMul", net.op("Mul", silu, up), net.constant(w[f"{path}.down.w"]))
    return net.op("Add", x, down)


def _rms_norm(net: Net, x: str, scale: Array) -> str:
    power = net.op("ReduceMean", net.op("Mul", x, x), axes=[1], keepdims=1)
    root = net.op("Sqrt", net.op("Add", power, net.number(0.00001)))
    return net.op("Mul", net.op("Div", x, root), net.constant(scale))


def _rotary(net: Net, x: str, places: str, heads: int, half: int) -> str:
    pairs = net.op("Reshape", x, net.ints(-1, heads, half, 2))
    turns = np.exp(np.arange(half).astype(np.float32) * np.float32(-9.21 / half))
    position = net.op("Unsqueeze", net.op("Cast", places, to=TensorProto.FLOAT), net.ints(1))
    angle = net.op("Unsqueeze", net.op("Mul", position, net.constant(turns)), net.ints(1))
    cos, sin = net.op("Cos", angle), net.op("Sin", angle)
    a, b = (net.op("Gather", pairs, net.constant(np.array(k)), axis=3) for k in (0, 1))
    even = net.op("Sub", net.op("Mul", a, cos), net.op("Mul", b, sin))
    odd = net.op("Add", net.op("Mul", a, sin), net.op("Mul", b, cos))
    both = [net.op("Unsqueeze", v, net.ints(3)) for v in (even, odd)]
    return net.op("Reshape", net.op("Concat", *both, axis=3), net.ints(-1, heads, 2 * half))


def _attention(net: Net, w: Weights, x: str, places: str, path: str) -> str:
    heads, groups, size = 4, 2, 16

    def part(name: str, count: int) -> str:
        product = net.op("MatMul", x, net.constant(w[f"{path}.{name}.w"]))
        return net.op("Reshape", product, net.ints(-1, count, size))

    q = _rotary(net, part("q", heads), places, heads, size // 2)
    k = _rotary(net, part("k", groups), places, groups, size // 2)
    q = net.op("Reshape", q, net.ints(-1, groups, heads // groups, size))
    q = net.op("Transpose", q, perm=[1, 2, 0, 3])
    k = net.op("Unsqueeze", net.op("Transpose", k, perm=[1, 2, 0]), net.ints(1))
    v = net.op("Transpose", part("v", groups), perm=[1, 0, 2])
    score = net.op("Div", net.op("MatMul", q, k), net.number(size**0.5))
    later = net.op("Greater", places, net.op("Unsqueeze", places, net.ints(1)))
    seen = net.op("Where", later, net.number(float("-inf")), score)
    weight = net.op("Softmax", seen, axis=-1)
    mixed = net.op("MatMul", weight, net.op("Unsqueeze", v, net.ints(1)))
    mixed = net.op("Transpose", mixed, perm=[2, 0, 1, 3])
    flat = net.op("Reshape", mixed, net.ints(-1, heads * size))
    return net.op("MatMul", flat, net.constant(w[f"{path}.output.w"]))


# -- both ------------------------------------------------------------------------------------------
def inputs_of(exe: aisc.Executable, sizes: Mapping[str, int]) -> list[Array]:
    """Seeded inputs of a model, positive."""
    rng, found = np.random.default_rng(1), []
    for v in exe.inputs:
        shape = tuple(d if isinstance(d, int) else sizes[str(d)] for d in v.shape)
        values = np.abs(rng.standard_normal(shape)) * 2
        found.append(values.astype(v.dtype.numpy))
    return found


def both(name: str, threads: int = 1) -> tuple[aisc.Executable, aisc.Executable]:
    """The example compiled from the language, and from ONNX."""
    path = EXAMPLES / f"{name}.aim"
    model = TWINS[name](weights_of(path))
    return (aisc.compile(path, threads=threads, cache=False),
            aisc.compile(model, threads=threads, cache=False))  # fmt: skip


def results(exe: aisc.Executable, inputs: Sequence[Array]) -> list[Array]:
    """All results of a call."""
    found = exe(*inputs)
    return list(found) if isinstance(found, tuple) else [found]


def difference(name: str, sizes: Mapping[str, int]) -> float:
    """The greatest difference between the results of both forms; 0 where all bits are equal."""
    one, other = both(name)
    inputs = inputs_of(one, sizes)
    pairs = zip(results(one, inputs), results(other, inputs), strict=True)
    return max(float(np.max(np.abs(a - b), initial=0)) for a, b in pairs)


def timed(name: str, rounds: int, threads: int) -> tuple[float, float, float]:
    """Median microseconds of a call of each form, in turns, and the median of the ratios of calls
    that stand beside each other."""
    pair = both(name, threads)
    inputs = inputs_of(pair[0], SIZES)
    taken: tuple[list[float], list[float]] = ([], [])
    for k in range(rounds + 10):
        for side in ((0, 1), (1, 0))[k % 2]:
            start = time.perf_counter()
            pair[side](*inputs)
            if k >= 10:
                taken[side].append((time.perf_counter() - start) * 1e6)
    ratios = [a / b for a, b in zip(*taken, strict=True)]
    return statistics.median(taken[0]), statistics.median(taken[1]), statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description="The model language beside ONNX.")
    parser.add_argument("names", nargs="*", help="examples; all by default")
    parser.add_argument("--rounds", type=int, default=300, help="calls of each side")
    parser.add_argument("--threads", type=int, default=1, help="threads of a call")
    chosen = parser.parse_args()
    table = Table("example", "language µs", "ONNX µs", "ratio", "difference")
    for name in chosen.names or TWINS:
        one, other, ratio = timed(name, chosen.rounds, chosen.threads)
        apart = difference(name, SIZES)
        table.add_row(name, f"{one:.1f}", f"{other:.1f}", f"{ratio:.3f}", f"{apart:.2g}")
    Console().print(table)


if __name__ == "__main__":
    main()

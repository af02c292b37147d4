"""Models whose accesses depend on data and on sizes of the run, and hostile inputs for them.

Every size is symbolic, every parameter that may be computed is an input: indices, lengths, depths,
numbers of elements, pads, axes, steps, scales, shapes. Inputs are drawn so that about half of the
calls are right, and the rest are wrong in one place or another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

F, I64, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]
# Numbers that are too large or too small for anything, beside those near the sizes at hand.
EXTREMES = (-(1 << 63), -(1 << 31) - 1, -(1 << 20), 1 << 20, 1 << 31, (1 << 63) - 1)


@dataclass(frozen=True)
class Hostile:
    """A model of one or two operators. `draw(rng)` gives inputs."""

    name: str
    nodes: list[Any]
    inputs: dict[str, tuple[int, list[str | int]]]
    draw: Callable[[np.random.Generator], Feeds]
    opset: int = 18
    outputs: list[str] = field(default_factory=lambda: ["y"])

    def model(self) -> ModelProto:
        """The model."""
        infos = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in self.inputs.items()]
        results = [helper.make_empty_tensor_value_info(o) for o in self.outputs]
        graph = helper.make_graph(self.nodes, "g", infos, results)
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)


def node(op: str, inputs: str, **attrs: Any) -> Any:
    names = ["" if n == "_" else n for n in inputs.split()]
    outputs = attrs.pop("outputs", ["y"])
    return helper.make_node(op, names, outputs, name=f"the_{op}", **attrs)


def shape(rng: np.random.Generator, rank: int, most: int = 5) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(0 if rng.random() < 0.2 else 1, most + 1, rank))


def floats(rng: np.random.Generator, *sizes: int) -> Array:
    return rng.standard_normal(sizes).astype(np.float32)


def numbers(rng: np.random.Generator, sizes: tuple[int, ...], size: int) -> Array:
    """Integers around ``[-size, size)``: all inside, some just outside, some far outside."""
    kind = rng.random()
    inside = rng.integers(-size, max(size, 1), sizes) if size else np.zeros(sizes, np.int64)
    if kind < 0.5:
        return inside
    near = rng.integers(-size - 2, size + 3, sizes)
    if kind < 0.8:
        return near
    far = rng.choice(np.array(EXTREMES, np.int64), sizes)
    return np.where(rng.random(sizes) < 0.3, far, inside)


def count(rng: np.random.Generator, size: int) -> int:
    """A number of elements of an axis."""
    kind = rng.random()
    if kind < 0.6:
        return int(rng.integers(0, size + 1))
    return int(rng.integers(-2, size + 4)) if kind < 0.9 else int(rng.choice(EXTREMES))


def near_shape(rng: np.random.Generator, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """`wanted`, or with one size off."""
    if rng.random() < 0.5 or not wanted:
        return wanted
    sizes, k = list(wanted), int(rng.integers(len(wanted)))
    sizes[k] = max(0, sizes[k] + int(rng.integers(-1, 3)))
    return tuple(sizes)


def vector(*items: int) -> Array:
    return np.array(items, np.int64)


def _gathers() -> Iterator[Hostile]:
    two = {"x": (F, ["a", "b"]), "i": (I64, ["c", "d"])}
    for axis in (0, 1):

        def elements(rng: np.random.Generator, axis: int = axis) -> Feeds:
            x = shape(rng, 2)
            return {"x": floats(rng, *x), "i": numbers(rng, near_shape(rng, x), x[axis])}

        def slices(rng: np.random.Generator, axis: int = axis) -> Feeds:
            x = shape(rng, 2)
            return {"x": floats(rng, *x), "i": numbers(rng, shape(rng, 2), x[axis])}

        yield Hostile(f"gather_{axis}", [node("Gather", "x i", axis=axis)], two, slices)
        yield Hostile(f"elements_{axis}", [node("GatherElements", "x i", axis=axis)], two, elements)

    def tuples(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 3)
        return {"x": floats(rng, *x), "i": numbers(rng, (*shape(rng, 1), 2), min(x[:2]))}

    three = {"x": (F, ["a", "b", "e"]), "i": (I64, ["c", 2])}
    yield Hostile("gather_nd", [node("GatherND", "x i")], three, tuples)

    def selected(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 2)
        (n,) = near_shape(rng, (x[0],))
        return {"x": floats(rng, *x), "m": rng.random(n) < 0.5}

    masked = {"x": (F, ["a", "b"]), "m": (B, ["c"])}
    yield Hostile("compress", [node("Compress", "x m", axis=0)], masked, selected)


def _scatters() -> Iterator[Hostile]:
    names = {"x": (F, ["a", "b"]), "i": (I64, ["c", "d"]), "u": (F, ["e", "f"])}
    for reduction in ("none", "add"):

        def elements(rng: np.random.Generator) -> Feeds:
            x = shape(rng, 2)
            i = near_shape(rng, x)
            u = near_shape(rng, i) if rng.random() < 0.2 else i
            return {"x": floats(rng, *x), "i": numbers(rng, i, x[0]), "u": floats(rng, *u)}

        scatter = node("ScatterElements", "x i u", axis=0, reduction=reduction)
        yield Hostile(f"scatter_{reduction}", [scatter], names, elements)

        def tuples(rng: np.random.Generator) -> Feeds:
            x, (n,) = shape(rng, 2), shape(rng, 1)
            u = near_shape(rng, (n, x[1])) if rng.random() < 0.3 else (n, x[1])
            return {"x": floats(rng, *x), "i": numbers(rng, (n, 1), x[0]), "u": floats(rng, *u)}

        rows = {"x": (F, ["a", "b"]), "i": (I64, ["c", 1]), "u": (F, ["e", "f"])}
        scatter = node("ScatterND", "x i u", reduction=reduction)
        yield Hostile(f"scatter_nd_{reduction}", [scatter], rows, tuples)

    def cache(rng: np.random.Generator) -> Feeds:
        b, s, d = shape(rng, 3)
        t = int(rng.integers(0, s + 2))
        at = numbers(rng, near_shape(rng, (b,)), s) if rng.random() < 0.5 else (
            rng.integers(0, max(s - t, 0) + 1, b))  # fmt: skip
        return {"x": floats(rng, b, s, d), "u": floats(rng, b, t, d), "i": at}

    parts = {"x": (F, ["b", "s", "d"]), "u": (F, ["b", "t", "d"]), "i": (I64, ["c"])}
    for mode in ("linear", "circular"):
        scatter = node("TensorScatter", "x u i", mode=mode, axis=1)
        yield Hostile(f"cache_{mode}", [scatter], parts, cache, 24)

    def unpool(rng: np.random.Generator) -> Feeds:
        x = (1, *shape(rng, 3, 3))
        i = near_shape(rng, x) if rng.random() < 0.2 else x
        whole = int(np.prod(x[:2])) * 4 * x[2] * x[3]
        return {"x": floats(rng, *x), "i": np.abs(numbers(rng, i, whole)) if rng.random() < 0.5
                else numbers(rng, i, whole)}  # fmt: skip

    images = {"x": (F, [1, "c", "h", "w"]), "i": (I64, [1, "d", "k", "l"])}
    pool = node("MaxUnpool", "x i", kernel_shape=[2, 2], strides=[2, 2])
    yield Hostile("unpool", [pool], images, unpool)


def _sizes() -> Iterator[Hostile]:
    def top(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 2)
        return {"x": floats(rng, *x), "k": vector(count(rng, x[1]))}

    yield Hostile("top_k", [node("TopK", "x k", outputs=["y", "i"])],
                  {"x": (F, ["a", "b"]), "k": (I64, [1])}, top, outputs=["y", "i"])  # fmt: skip

    def cut(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 2)
        axis = numbers(rng, (1,), 2)
        step = numbers(rng, (1,), 3)
        return {"x": floats(rng, *x), "s": numbers(rng, (1,), max(x)), "axis": axis, "step": step,
                "e": numbers(rng, (1,), max(x))}  # fmt: skip

    one = {n: (I64, [1]) for n in ("s", "e", "axis", "step")}
    yield Hostile("slice", [node("Slice", "x s e axis step")], {"x": (F, ["a", "b"]), **one}, cut)

    for mode in ("constant", "reflect", "edge", "wrap"):

        def pad(rng: np.random.Generator) -> Feeds:
            x = shape(rng, 2)
            pads = rng.integers(-3, 5, 4) if rng.random() < 0.8 else numbers(rng, (4,), 9)
            return {"x": floats(rng, *x), "p": pads}

        yield Hostile(f"pad_{mode}", [node("Pad", "x p", mode=mode)],
                      {"x": (F, ["a", "b"]), "p": (I64, [4])}, pad, 19)  # fmt: skip

    def targets(low: int, high: int, rank: int) -> Callable[[np.random.Generator], Feeds]:
        def draw(rng: np.random.Generator) -> Feeds:
            x = shape(rng, 2)
            wanted = list(rng.integers(low, high, rank))
            if rng.random() < 0.1:
                wanted[0] = int(rng.choice(EXTREMES))
            if rng.random() < 0.4 and rank == 2:
                wanted = [int(np.prod(x)), 1] if rng.random() < 0.5 else [x[1], x[0]]
            return {"x": floats(rng, *x), "s": vector(*map(int, wanted))}

        return draw

    sized = {"x": (F, ["a", "b"]), "s": (I64, [2])}
    yield Hostile("reshape", [node("Reshape", "x s")], sized, targets(-1, 5, 2))
    yield Hostile("expand", [node("Expand", "x s")], sized, targets(0, 4, 2))
    yield Hostile("tile", [node("Tile", "x s")], sized, targets(-1, 4, 2))
    yield Hostile("split", [node("Split", "x s", outputs=["y", "z"])], sized,
                  targets(-1, 5, 2), outputs=["y", "z"])  # fmt: skip

    def hot(rng: np.random.Generator) -> Feeds:
        depth = count(rng, 6)
        return {"i": numbers(rng, shape(rng, 1), 6), "d": np.array(depth if depth < 99 else 7),
                "v": floats(rng, 2)}  # fmt: skip

    yield Hostile("one_hot", [node("OneHot", "i d v")],
                  {"i": (I64, ["a"]), "d": (I64, []), "v": (F, [2])}, hot)  # fmt: skip

    def line(rng: np.random.Generator) -> Feeds:
        a, b, c = (int(n) for n in rng.integers(-6, 7, 3))
        return {"a": np.array(a), "b": np.array(b), "c": np.array(c)}

    yield Hostile("range", [node("Range", "a b c")], {n: (I64, []) for n in "abc"}, line)

    def resize(rng: np.random.Generator) -> Feeds:
        x = (1, 1, *shape(rng, 2))
        s = rng.choice(np.array([0.3, 0.5, 1, 1.5, 2, 3, 0, -1, np.inf, np.nan], np.float32), 2)
        good = rng.random() < 0.6
        return {"x": floats(rng, *x), "s": np.array([1, 1, *(np.clip(s, 0.5, 2) if good else s)],
                                                    np.float32)}  # fmt: skip

    scaled = {"x": (F, [1, 1, "h", "w"]), "s": (F, [4])}
    for mode in ("nearest", "linear", "cubic"):
        yield Hostile(f"resize_{mode}", [node("Resize", "x _ s", mode=mode)], scaled, resize)


def _lengths() -> Iterator[Hostile]:
    def reverse(rng: np.random.Generator) -> Feeds:
        t, b, d = shape(rng, 3)
        return {"x": floats(rng, t, b, d), "n": numbers(rng, near_shape(rng, (b,)), t)}

    yield Hostile("reverse", [node("ReverseSequence", "x n")],
                  {"x": (F, ["t", "b", "d"]), "n": (I64, ["c"])}, reverse)  # fmt: skip

    def recurrent(rng: np.random.Generator) -> Feeds:
        t, b = (int(n) for n in rng.integers(1, 4, 2))
        near = near_shape(rng, (b,)) if rng.random() < 0.3 else (b,)
        lens = np.clip(numbers(rng, near, t), -(1 << 31), (1 << 31) - 1)
        return {"x": floats(rng, t, b, 2), "w": floats(rng, 1, 3, 2), "r": floats(rng, 1, 3, 3),
                "n": lens.astype(np.int32)}  # fmt: skip

    cell = node("RNN", "x w r _ n", hidden_size=3)
    yield Hostile("rnn", [cell], {
        "x": (F, ["t", "b", 2]), "w": (F, [1, 3, 2]), "r": (F, [1, 3, "k"]),
        "n": (TensorProto.INT32, ["c"]),
    }, recurrent)  # fmt: skip

    def sums(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 2)
        return {"x": floats(rng, *x), "axis": numbers(rng, (1,), 2)}

    along = {"x": (F, ["a", "b"]), "axis": (I64, [1])}
    yield Hostile("cumsum", [node("CumSum", "x axis")], along, sums)
    yield Hostile("reduce", [node("ReduceMax", "x axis")], along, sums)
    yield Hostile("unsqueeze", [node("Unsqueeze", "x axis")], along, sums)
    yield Hostile("squeeze", [node("Squeeze", "x axis")], along, sums)

    def sums_of_one(rng: np.random.Generator) -> Feeds:
        x = shape(rng, 2)
        return {"x": floats(rng, *x)}

    yield Hostile("argmax", [node("ArgMax", "x", axis=1)], {"x": (F, ["a", "b"])}, sums_of_one)


def _images() -> Iterator[Hostile]:
    def image(rng: np.random.Generator) -> Feeds:
        return {"x": floats(rng, 1, *shape(rng, 3))}

    open_image = {"x": (F, [1, "c", "h", "w"])}
    for op, attrs in (
        ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2]}),
        ("AveragePool", {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 1]}),
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
        ("DepthToSpace", {"blocksize": 2}), ("SpaceToDepth", {"blocksize": 2}),
        ("GlobalMaxPool", {}),
    ):  # fmt: skip
        yield Hostile(f"{op}_{len(attrs)}", [node(op, "x", **attrs)], open_image, image)

    def convolved(rng: np.random.Generator) -> Feeds:
        c = int(rng.integers(1, 4))
        x = (1, c if rng.random() < 0.8 else c + 1, *shape(rng, 2))
        return {"x": floats(rng, *x), "w": floats(rng, 2, c, 3, 2)}

    weighted = {**open_image, "w": (F, [2, "d", 3, 2])}
    yield Hostile("conv", [node("Conv", "x w", strides=[2, 1])], weighted, convolved)

    def sampled(rng: np.random.Generator) -> Feeds:
        g = floats(rng, 1, 2, 3, 2) * 2
        odd = rng.choice(np.array([np.nan, np.inf, -np.inf, 1e30, -1e12], np.float32), g.shape)
        g = np.where(rng.random(g.shape) < 0.2, odd, g).astype(np.float32)
        return {"x": floats(rng, 1, *shape(rng, 3)), "g": g}

    for padding in ("zeros", "border", "reflection"):
        sample = node("GridSample", "x g", padding_mode=padding)
        yield Hostile(f"grid_{padding}", [sample],
                      {**open_image, "g": (F, [1, "a", "b", 2])}, sampled, 20)  # fmt: skip

    def regions(rng: np.random.Generator) -> Feeds:
        r = int(rng.integers(0, 3))
        boxes = floats(rng, r, 4) * rng.choice([1, 5, 1e20])
        return {"x": floats(rng, 1, *shape(rng, 3)), "r": boxes.astype(np.float32),
                "b": numbers(rng, near_shape(rng, (r,)), 1)}  # fmt: skip

    align = node("RoiAlign", "x r b", output_height=2, output_width=2, sampling_ratio=1)
    yield Hostile("roi", [align],
                  {**open_image, "r": (F, ["n", 4]), "b": (I64, ["m"])}, regions)  # fmt: skip

    def columns(rng: np.random.Generator) -> Feeds:
        h, w = (int(n) for n in rng.integers(1, 5, 2))
        blocks = max(h - 1, 0) * max(w - 1, 0)
        x = near_shape(rng, (1, 4, blocks))
        size = vector(h, w) if rng.random() < 0.8 else numbers(rng, (2,), 5)
        return {"x": floats(rng, *x), "s": size}

    block = node("Constant", "", outputs=["k"], value_ints=[2, 2])
    yield Hostile("col2im", [block, node("Col2Im", "x s k")],
                  {"x": (F, ["n", "c", "l"]), "s": (I64, [2])}, columns)  # fmt: skip


def _broadcasts() -> Iterator[Hostile]:
    def pair(rng: np.random.Generator) -> Feeds:
        a = shape(rng, 2)
        b = tuple(1 if rng.random() < 0.3 else n for n in near_shape(rng, a))
        return {"x": floats(rng, *a), "y0": floats(rng, *b)}

    two = {"x": (F, ["a", "b"]), "y0": (F, ["c", "d"])}
    yield Hostile("add", [node("Add", "x y0")], two, pair)
    yield Hostile("concat", [node("Concat", "x y0", axis=0)], two, pair)
    yield Hostile("matmul", [node("MatMul", "x y0")], two, pair)

    def found(rng: np.random.Generator) -> Feeds:
        (n,) = shape(rng, 1)
        x = (rng.random(n) < 0.6).astype(np.float32)
        k = int(x.sum())
        return {"x": x, "y0": rng.integers(0, 9, near_shape(rng, (k,)))}

    places = [node("NonZero", "x", outputs=["n"]), node("Add", "n y0")]
    yield Hostile("found", places, {"x": (F, ["a"]), "y0": (I64, ["c"])}, found)


def all_models() -> tuple[Hostile, ...]:
    """Every model, by name."""
    makers = (_gathers, _scatters, _sizes, _lengths, _images, _broadcasts)
    return tuple(m for make in makers for m in make())

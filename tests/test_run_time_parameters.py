"""Sizes, axes, pads, steps and scales that only the run knows: as if they were constants.

Each model is compiled once with everything open, and for each set of inputs once more with the
parameters as constants and the sizes fixed: both give the same bits, and what onnxruntime gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import aisc

F, I64 = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


@dataclass(frozen=True)
class Open:
    """A node, the types of its inputs, which of them are parameters, and inputs to try."""

    name: str
    op: str
    inputs: dict[str, tuple[int, list[Any]]]
    parameters: tuple[str, ...]
    feeds: list[dict[str, np.ndarray]]
    attrs: dict[str, Any]
    names: str = ""
    opset: int = 18
    exact: bool = True
    peer: bool = True

    def model(self, fixed: dict[str, np.ndarray] | None = None) -> ModelProto:
        """The model, with constants for the parameters where they are given."""
        given = self.names or " ".join(self.inputs)
        names = ["" if n == "_" else n for n in given.split()]
        node = helper.make_node(self.op, names, ["y"], name="the_node", **self.attrs)
        infos = [
            helper.make_tensor_value_info(n, t, s)
            for n, (t, s) in self.inputs.items()
            if not (fixed and n in self.parameters)
        ]
        weights = [numpy_helper.from_array(fixed[n], n) for n in self.parameters] if fixed else []
        graph = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info("y")],
                                  weights)  # fmt: skip
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10)


X = {"x": (F, ["a", "b"])}
IMAGE = {"x": (F, [1, "c", "h", "w"])}


def _reductions() -> list[Open]:
    cases = []
    for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        feeds = [{"x": np.abs(floats(3, 4)) + 1, "axes": ints(axis)} for axis in (0, 1, -1, -2)]
        for keep in (0, 1):
            cases.append(Open(f"{op}_{keep}", f"Reduce{op}", {**X, "axes": (I64, [1])}, ("axes",),
                              feeds, {"keepdims": keep}, exact=False))  # fmt: skip
    feeds = [{"x": floats(2, 3), "axes": ints(0, 1)}, {"x": floats(2, 3), "axes": ints(-1, 0)}]
    cases.append(Open("both", "ReduceSum", {**X, "axes": (I64, [2])}, ("axes",), feeds, {},
                      exact=False))  # fmt: skip
    none = [{"x": floats(2, 3), "axes": ints()}]
    for noop in (0, 1):
        cases.append(Open(f"none_{noop}", "ReduceSum", {**X, "axes": (I64, ["k"])}, ("axes",), none,
                          {"noop_with_empty_axes": noop}, exact=False))  # fmt: skip
    return cases


def _axes() -> list[Open]:
    one = {**X, "axes": (I64, [1])}
    places = [{"x": floats(3, 4), "axes": ints(a)} for a in (0, 1, 2, -1, -3)]
    ones = [{"x": floats(1, 4), "axes": ints(0)}, {"x": floats(4, 1), "axes": ints(-1)}]
    along = [{"x": floats(3, 4), "axes": ints(a)} for a in (0, 1, -1)]
    return [
        Open("unsqueeze", "Unsqueeze", one, ("axes",), places, {}),
        Open("squeeze", "Squeeze", one, ("axes",), ones, {}),
        Open("cumsum", "CumSum", one, ("axes",), along, {}, opset=14),
        Open("dft", "DFT", {"x": (F, ["a", "b", 1]), "axis": (I64, [])}, ("axis",),
             [{"x": floats(3, 4, 1), "axis": np.array(a)} for a in (0, 1, -2)], {},
             "x _ axis", 20, False, False),
        Open("trilu", "Trilu", {**X, "k": (I64, [])}, ("k",),
             [{"x": floats(3, 4), "k": np.array(k)} for k in (-4, -1, 0, 2, 9)], {"upper": 0}),
    ]  # fmt: skip


def _slices() -> list[Open]:
    names = {n: (I64, [1]) for n in ("starts", "ends", "axes", "steps")}
    feeds = [
        {"x": floats(4, 5), "starts": ints(s), "ends": ints(e), "axes": ints(a), "steps": ints(k)}
        for s, e, a, k in (
            (0, 9, 0, 1), (3, -9, 1, -2), (-1, 1, 0, -1), (1, 4, -1, 2), (4, 2, 1, 1),
            (-(1 << 62), 1 << 62, 1, 3), (1 << 62, -(1 << 62), 0, -1),
        )
    ]  # fmt: skip
    pads = [
        {"x": floats(4, 5), "pads": ints(*p), "value": np.array(7, np.float32), "axes": ints(a)}
        for p, a in (((1, 2), 0), ((-1, 3), 1), ((-2, -2), -2), ((0, 0), 1))
    ]
    inputs = {**X, "pads": (I64, [2]), "value": (F, []), "axes": (I64, [1])}
    return [
        Open("slice", "Slice", {**X, **names}, tuple(names), feeds, {}),
        Open("pad", "Pad", inputs, ("pads", "axes"), pads, {}),
    ]


def _resizes() -> list[Open]:
    cases = []
    forms = ("asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel")
    for mode in ("nearest", "linear", "cubic"):
        for form in forms:
            attrs = {"mode": mode, "coordinate_transformation_mode": form}
            by = [{"x": floats(1, 2, 5, 7), "s": np.array([1, 1, a, b], np.float32)}
                  for a, b in ((2, 0.5), (1.5, 3), (1, 1))]  # fmt: skip
            to = [{"x": floats(1, 2, 5, 7), "s": ints(1, 2, a, b)}
                  for a, b in ((9, 4), (5, 7), (1, 1))]  # fmt: skip
            cases.append(Open(f"{mode}_{form}_by", "Resize", {**IMAGE, "s": (F, [4])}, ("s",), by,
                              attrs, "x _ s"))  # fmt: skip
            cases.append(Open(f"{mode}_{form}_to", "Resize", {**IMAGE, "s": (I64, [4])}, ("s",), to,
                              attrs, "x _ _ s"))  # fmt: skip
    return cases


def _windows() -> list[Open]:
    images = [{"x": floats(1, 2, a, b)} for a, b in ((5, 7), (6, 4), (3, 3))]
    cases = [
        Open(f"{op}_{auto}", op, IMAGE, (), images,
             {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": auto}, exact=False)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for auto in ("SAME_UPPER", "SAME_LOWER")
    ]  # fmt: skip
    feeds = [{**f, "w": floats(3, 2, 3, 3)} for f in images]
    weighted = {**IMAGE, "w": (F, [3, 2, 3, 3])}
    cases.append(Open("conv", "Conv", weighted, (), feeds,
                      {"auto_pad": "SAME_UPPER", "strides": [2, 1]}, exact=False))  # fmt: skip
    columns = [{"x": floats(2, 12, (h - 1) * (w - 1)), "size": ints(h, w), "k": ints(2, 2)}
               for h, w in ((3, 4), (2, 2), (5, 3))]  # fmt: skip
    blocks = {"x": (F, ["n", "c", "l"]), "size": (I64, [2]), "k": (I64, [2])}
    cases.append(Open("col2im", "Col2Im", blocks, ("size", "k"), columns, {}))
    deep = [{"x": floats(1, 8, 2, 3)}, {"x": floats(2, 4, 3, 1)}]
    cases.append(Open("depth", "DepthToSpace", {"x": (F, ["n", "c", "h", "w"])}, (), deep,
                      {"blocksize": 2}))  # fmt: skip
    return cases


CASES = [*_reductions(), *_axes(), *_slices(), *_resizes(), *_windows()]


def sizes_of(case: Open, feed: dict[str, np.ndarray]) -> dict[str, int]:
    """Sizes of the symbols of a set of inputs."""
    return {
        d: n
        for name, (_, shape) in case.inputs.items()
        if name not in case.parameters
        for d, n in zip(shape, feed[name].shape, strict=True)
        if isinstance(d, str)
    }


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_as_if_they_were_constants(case: Open) -> None:
    first = case.feeds[0]
    opened = case.model()
    if case.name == "col2im":
        block = numpy_helper.from_array(first["k"], "k")
        opened.graph.initializer.append(block)
        del opened.graph.input[2]
    exe = aisc.compile(opened, threads=1, cache=False)
    for feed in case.feeds:
        given = {n: a for n, a in feed.items() if n in exe.input_names}
        (y,) = exe.run(None, given)
        fixed = {n: feed[n] for n in case.parameters}
        known = aisc.compile(case.model(fixed), threads=1, cache=False, shapes=sizes_of(case, feed))
        rest = {n: a for n, a in feed.items() if n not in case.parameters}
        (same,) = known.run(None, rest)
        assert y.shape == same.shape
        if case.exact:
            assert y.tobytes() == same.tobytes()
        np.testing.assert_allclose(y, same, rtol=1e-5, atol=1e-6)
        if case.peer:
            data = case.model(fixed).SerializeToString()
            peer = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
            np.testing.assert_allclose(y, peer.run(None, rest)[0], rtol=1e-4, atol=1e-5)

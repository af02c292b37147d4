"""The node cases of the onnx standard: what imports must compute the expected results."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx
import pytest

from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret

# The expected data take output sizes that are not whole; the text and onnxruntime take integers.
DISPUTED = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
MIN_PASSED = 1400


def array(x: object) -> np.ndarray:
    if isinstance(x, onnx.TensorProto):
        return onnx.numpy_helper.to_array(x)
    # A sequence or an optional value, which no model that imports takes.
    return np.zeros(0) if isinstance(x, list) or x is None else np.asarray(x)


def load(case, feeds: dict[str, np.ndarray]) -> Graph | None:  # type: ignore[no-untyped-def]
    """The graph; operands that must be known are fixed, fewest first. None when unsupported."""
    names = list(feeds)
    small = [k for k in names if feeds[k].dtype.kind in "iu" and feeds[k].ndim < 2]
    for fixed in ([], small, names[1:]):
        try:
            return import_model(case.model, constants={k: feeds[k] for k in fixed})
        except CompileError as fault:
            if "E204" not in fault.codes:
                return None
    return None


def agrees(a: np.ndarray, b: np.ndarray, case) -> bool:  # type: ignore[no-untyped-def]
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fV":
        return bool(np.array_equal(a, b))
    low = {2: 2e-2 if a.dtype.kind == "V" else 2e-3}.get(a.dtype.itemsize, 1e-5)
    x, y = a.astype(np.float64), b.astype(np.float64)
    rtol, atol = max(case.rtol or 0, 1e-3, low), max(case.atol or 0, low)
    return bool(np.allclose(x, y, rtol=rtol, atol=atol, equal_nan=True))


@pytest.mark.slow
def test_node_cases() -> None:
    np.random.seed(0)  # the cases draw from the global generator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for case in cases:
        inputs, outputs = case.data_sets[0]
        names = [i.name for i in case.model.graph.input]
        feeds = {k: array(v) for k, v in zip(names, inputs, strict=False)}
        graph = load(case, feeds)
        if graph is None:
            counts["unsupported"] += 1
            continue
        got = interpret(graph, {v.name: feeds[v.name] for v in graph.inputs})
        good = all(agrees(a, array(b), case) for a, b in zip(got, outputs, strict=False))
        counts["passed" if good else "wrong"] += 1
        wrong += [] if good else [case.name]
    assert set(wrong) <= DISPUTED, wrong
    assert counts["passed"] >= MIN_PASSED, counts

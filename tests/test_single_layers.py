"""The models of single layers that are measured agree with onnxruntime, for 1 and 2 threads."""

from __future__ import annotations

import layers
import numpy as np
import onnxruntime as ort
import pytest

import aisc


@pytest.mark.parametrize("name", layers.LAYERS)
def test_the_layer_agrees(name: str) -> None:
    model = layers.LAYERS[name]()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(["y"], {"x": x})
    results = [
        aisc.compile(model, threads=threads, cache=False).run(["y"], {"x": x})[0]
        for threads in (1, 2)
    ]
    assert results[0].tobytes() == results[1].tobytes()
    assert results[0].dtype == expected.dtype
    if expected.dtype == np.float32:
        # Winograd's error is at most four times that of direct sums.
        bound = 2e-5 * np.abs(expected).max()
        np.testing.assert_allclose(results[0], expected, rtol=1e-5, atol=bound)
    else:
        np.testing.assert_array_equal(results[0], expected)

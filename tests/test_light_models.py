"""The nine light models with random weights: agreement at one and two threads, step by step."""

from __future__ import annotations

import agreement
import light_models
import numpy as np
import onnxruntime as ort
import pytest
from cpu_machines import make_threads_free

import aisc
from aisc.driver.api import products
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.tensor.func import Program
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir

NAMES = light_models.NAMES


def inputs_of(exe: aisc.Executable) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(b.type.static_shape).astype(b.dtype.numpy) for b in exe.inputs]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_onnxruntime(name: str) -> None:
    model = light_models.load(name, 0)
    compiled, made = products(model, threads=1, stop_after="")
    graph = made["import"]
    assert isinstance(graph, Graph)
    one = compiled.executable
    assert one is not None
    two = aisc.compile(model, threads=2)
    xs = inputs_of(one)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    peer = session.run(None, dict(zip(one.input_names, xs, strict=True)))
    first = one.run(None, dict(zip(one.input_names, xs, strict=True)))
    agreement.assert_agrees(first, peer, agreement.reference(graph, xs))
    for _ in range(3):
        again = two.run(None, dict(zip(two.input_names, xs, strict=True)))
        for a, b in zip(first, again, strict=True):
            assert a.tobytes() == b.tobytes(), "threads change the result"
    for step in ("fuse",):
        level = made[step]
        assert isinstance(level, Graph)
        for a, b in zip(interpret(level, xs), first, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("name", NAMES)
def test_every_product_parses_back(name: str) -> None:
    model = light_models.load(name, 0)
    _, made = products(model, threads=1, stop_after="plan", verify=True)
    for step, product in made.items():
        blobs = blobs_of(product)
        again = parse(print_ir(product), blobs)
        if isinstance(product, Graph):
            assert isinstance(again, Graph)
            assert same(again, product), step
        else:
            assert isinstance(product, Program)
            assert again == product, step


@pytest.mark.parametrize("threads", [4, 5, 9])
def test_more_threads_than_cores_change_nothing(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any work is enough for all of them, and blocks of work are fewer than threads."""
    make_threads_free(monkeypatch)
    model = light_models.load("squeezenet", 0)
    one, many = (aisc.compile(model, threads=n, cache=False) for n in (1, threads))
    feeds = dict(zip(one.input_names, inputs_of(one), strict=True))
    for _ in range(2):
        for a, b in zip(one.run(None, feeds), many.run(None, feeds), strict=True):
            assert a.tobytes() == b.tobytes()

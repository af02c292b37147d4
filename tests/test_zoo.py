"""Small versions of the zoo's models: one object serves every shape, specialized ones agree too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import agreement
import numpy as np
import onnxruntime as ort
import pytest
import zoo
from onnx import ModelProto

import aisc
from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.core import Graph

NAMES = tuple(zoo.ZOO)


@cache
def model(name: str) -> ModelProto:
    entry = zoo.ZOO[name]
    return entry.build(**entry.tiny)


@cache
def graph(name: str) -> Graph:
    return import_model(model(name))


@cache
def peer(name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    data = model(name).SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


@cache
def compiled(name: str, threads: int) -> aisc.Executable:
    return aisc.compile(model(name), threads=threads)


def shapes(name: str, count: int) -> list[dict[str, int]]:
    """Dimensions: all least, one batch of the usual ones, then random."""
    entry, rng = zoo.ZOO[name], np.random.default_rng(5)
    ranges = {**entry.dims, **entry.tiny_dims}
    least = {d: r.low for d, r in ranges.items()}
    usual = {d: 1 if d == "batch" else r.usual for d, r in ranges.items()}
    return [least, usual, *(entry.random_dims(rng, tiny=True) for _ in range(count - 2))]


def check(name: str, got: list[np.ndarray], feeds: Mapping[str, Any]) -> None:
    exact = agreement.reference(graph(name), [feeds[v.name] for v in graph(name).inputs])
    agreement.assert_agrees(got, peer(name).run(None, feeds), exact)


@pytest.mark.parametrize("name", NAMES)
def test_one_object_serves_every_shape(name: str) -> None:
    for seed, dims in enumerate(shapes(name, 5)):
        feeds = zoo.feeds(model(name), dims, seed)
        one, two = (compiled(name, threads).run(None, feeds) for threads in (1, 2))
        for a, b in zip(one, two, strict=True):
            assert a.tobytes() == b.tobytes(), f"threads change the result at {dims}"
        check(name, one, feeds)


@pytest.mark.parametrize("name", NAMES)
def test_specialized_models_agree(name: str) -> None:
    dims = shapes(name, 3)[2]
    feeds = zoo.feeds(model(name), dims)
    exe = aisc.compile(model(name), shapes=dims)
    assert all(b.type.is_static for b in exe.inputs)
    check(name, exe.run(None, feeds), feeds)


@pytest.mark.parametrize("name", NAMES)
def test_models_are_built_from_their_seed_alone(name: str) -> None:
    entry = zoo.ZOO[name]
    again, other = entry.build(**entry.tiny), entry.build(seed=1, **entry.tiny)
    data = model(name).SerializeToString(deterministic=True)
    assert again.SerializeToString(deterministic=True) == data
    assert other.SerializeToString(deterministic=True) != data


def test_bounds_are_checked_at_the_call() -> None:
    exe = aisc.compile(model("mlp"), shapes={"batch": (2, 4)})
    for batch in (2, 4):
        feeds = zoo.feeds(model("mlp"), {"batch": batch})
        check("mlp", exe.run(None, feeds), feeds)
    for batch in (1, 5):
        with pytest.raises(ExecutionError) as caught:
            exe.run(None, zoo.feeds(model("mlp"), {"batch": batch}))
        assert caught.value.codes == ("E501",)


def test_tables_bound_what_they_are_indexed_with() -> None:
    entry = zoo.ZOO["bert"]
    (sequence,) = {s for v in graph("bert").inputs for s in v.type.symbols if s.name == "sequence"}
    assert sequence.upper == entry.tiny["positions"]
    feeds = zoo.feeds(model("bert"), {"batch": 1, "sequence": entry.tiny["positions"] + 1})
    with pytest.raises(ExecutionError) as caught:
        compiled("bert", 1).run(None, feeds)
    assert caught.value.codes == ("E501",)


@pytest.mark.parametrize("bad", [(3, 2), (-1, 4), -1])
def test_impossible_bounds_are_refused(bad: int | tuple[int, int]) -> None:
    with pytest.raises(CompileError) as caught:
        aisc.compile(model("mlp"), shapes={"batch": bad})
    assert caught.value.codes == ("E106",)

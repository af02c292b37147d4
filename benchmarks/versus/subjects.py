"""What is measured: models of the zoo, models with control flow, or any ONNX file, with inputs.

A subject is named ``MODEL[:dim=value,…]``, where MODEL is a name or the path of an ONNX file:
``resnet50``, ``mlp:batch=1``, ``folder/net.onnx:n=8``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import control_models
import numpy as np
import onnx
import zoo
from numpy.typing import NDArray

Array = NDArray[Any]
DEFAULT = ("resnet50", "mobilenet_v2", "bert", "gpt2_prefill", "gpt2_decode", "lstm", "mlp")


@dataclass(frozen=True)
class Subject:
    """A model file with inputs; `inputs` are the files that hold them as arrays, by name."""

    name: str
    model: Path
    dims: Mapping[str, int]
    feeds: Mapping[str, Array]
    inputs: Mapping[str, Path]


class BadSubject(ValueError):
    """A name that stands for nothing; the message says why."""


def names() -> list[str]:
    """The models that have names."""
    return [*zoo.ZOO, *control_models.SAMPLES]


def prepare(text: str, folder: Path) -> Subject:
    """The subject called `text`, its files written to `folder`."""
    name, dims = _parse(text)
    path = Path(name)
    if name in zoo.ZOO:
        entry = zoo.ZOO[name]
        model, dims = entry.build(), _sized(name, entry.usual(), dims)
        path = _written(folder, name, model)
        feeds = zoo.feeds(model, dims)
    elif name in control_models.SAMPLES:
        sample = _sample(name, dims)
        path, feeds = _written(folder, name, sample.model), dict(sample.feeds)
    else:
        inputs = _inputs(path)
        dims = _sized(name, dict.fromkeys(_symbols(inputs), 1), dims)
        feeds = {v.name: _random(v, dims, k) for k, v in enumerate(inputs)}
    shown = text.removeprefix(f"{path.parent}/")  # tables are narrow
    return Subject(shown, path, dims, feeds, _saved(folder, text, feeds))


def _parse(text: str) -> tuple[str, dict[str, int]]:
    found = re.fullmatch(r"(.+?)(?::((?:\w+=\d+)(?:,\w+=\d+)*))?", text)
    if found is None:
        raise BadSubject(f"'{text}': expected MODEL or MODEL:dim=8")
    pairs = (p.split("=") for p in (found[2] or "").split(",") if p)
    return found[1], {name: int(value) for name, value in pairs}


def _sized(name: str, usual: dict[str, int], chosen: Mapping[str, int]) -> dict[str, int]:
    """The usual dimensions with the chosen ones."""
    unknown = [d for d in chosen if d not in usual]
    if unknown:
        known = ", ".join(usual) or "none"
        raise BadSubject(f"{name} has no dimension {', '.join(unknown)}; its dimensions: {known}")
    return {**usual, **chosen}


def _sample(name: str, arguments: Mapping[str, int]) -> control_models.Sample:
    try:
        return control_models.SAMPLES[name](**arguments)
    except TypeError as fault:
        raise BadSubject(f"{name}: {fault}") from None


def _inputs(path: Path) -> list[onnx.ValueInfoProto]:
    """The inputs of a model file, without those that are weights."""
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as fault:  # protobuf has errors of its own
        known = ", ".join(names())
        raise BadSubject(f"{path} is neither an ONNX file nor one of {known}: {fault}") from None
    weights = {w.name for w in graph.initializer}
    return [v for v in graph.input if v.name not in weights]


def _symbols(inputs: Sequence[onnx.ValueInfoProto]) -> list[str]:
    dims = (d.dim_param for v in inputs for d in v.type.tensor_type.shape.dim)
    return list(dict.fromkeys(filter(None, dims)))


def _random(v: onnx.ValueInfoProto, dims: Mapping[str, int], seed: int) -> Array:
    """Numbers near 1 for floats, zeros and ones for the rest: they are valid indices."""
    rng, tensor = np.random.default_rng(seed), v.type.tensor_type
    shape = [dims[d.dim_param] if d.dim_param else d.dim_value or 1 for d in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape, np.float32).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _written(folder: Path, name: str, model: onnx.ModelProto) -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    return path


def _saved(folder: Path, name: str, feeds: Mapping[str, Array]) -> dict[str, Path]:
    stem = re.sub(r"\W", "_", name)
    paths = {n: folder / f"{stem}-{k}.npy" for k, n in enumerate(feeds)}
    for n, path in paths.items():
        np.save(path, feeds[n], allow_pickle=False)
    return paths

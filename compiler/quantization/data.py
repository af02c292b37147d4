"""Calibration data: runs of a model, cut from arrays, checked before anything is computed."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import Diagnostics, error
from aisc.quantization.network import Array

Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Data:
    """Runs: arrays by input, cut along their first axes into pieces of `step` samples, or, where
    an array has an axis more than the input, into runs."""

    arrays: Mapping[str, Array]
    step: int
    runs: int
    stacked: frozenset[str]

    def __len__(self) -> int:
        return self.runs

    def __iter__(self) -> Iterator[Feeds]:
        for k in range(self.runs):
            part = slice(k * self.step, (k + 1) * self.step)
            yield {n: a[k] if n in self.stacked else a[part] for n, a in self.arrays.items()}


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file; E601 where it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise error("E601", f"{path} holds one array without a name", _FORM)
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as fault:
        raise error("E601", f"{path} cannot be read as arrays", str(fault), _FORM) from None


_FORM = "expected a file of numpy.savez, with an array of samples for each input"


def make_data(model: ModelProto, arrays: Mapping[str, Array], batch: int) -> Data:
    """The runs that arrays give; E601 with everything in which they do not fit. What is no input,
    such as labels, is left."""
    defaults = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in defaults]
    found = Diagnostics()
    for v in inputs:
        if v.name not in arrays:
            known = f"the data hold {', '.join(arrays) or 'nothing'}"
            found.add("E601", f"the data lack the input '{v.name}'", known)
        else:
            _check(v, np.asarray(arrays[v.name]), found)
    found.raise_if_errors()
    return _cut(inputs, {v.name: np.asarray(arrays[v.name]) for v in inputs}, batch)


def _check(v: ValueInfoProto, array: Array, found: Diagnostics) -> None:
    """Report what an array has that the input does not take."""
    t, shape = v.type.tensor_type, _shape(v)
    wanted = helper.tensor_dtype_to_np_dtype(t.elem_type)
    if array.dtype != wanted:
        notes = f"expected {wanted}", f"got {array.dtype}"
        found.add("E601", f"the data of input '{v.name}' have another type", *notes)
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).reshape(-1))[0])
        place = ", ".join(map(str, np.unravel_index(bad, array.shape)))
        found.add("E601", f"the data of input '{v.name}' are not finite", f"first at [{place}]")
    if shape is None:
        return
    own = array.shape[1:] if array.ndim == len(shape) + 1 else array.shape
    fits = len(own) == len(shape) and all(
        not isinstance(s, int) or s == d or (k == 0 and len(own) == array.ndim and d % s == 0)
        for k, (s, d) in enumerate(zip(shape, own, strict=True))
    )
    if not fits or not array.size:
        text = ", ".join(map(str, shape))
        notes = f"expected [{text}], its first axis repeated, or runs of it", f"got {array.shape}"
        found.add("E601", f"the data of input '{v.name}' have another shape", *notes)


def _shape(v: ValueInfoProto) -> list[int | str] | None:
    if not v.type.tensor_type.HasField("shape"):
        return None
    dims = v.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in dims]


def _cut(inputs: Sequence[ValueInfoProto], arrays: dict[str, Array], batch: int) -> Data:
    """Runs of as many samples as the model takes, or `batch`."""
    shapes = {v.name: _shape(v) for v in inputs}
    stacked = {n for n, a in arrays.items() if a.ndim == len(shapes[n] or ()) + 1}
    plain = [n for n in arrays if n not in stacked]
    fixed = {s[0] for n in plain if (s := shapes[n]) and isinstance(s[0], int)}
    if len(fixed) > 1:
        message = "the inputs have first axes of several sizes"
        raise error("E601", message, "give each an axis more, that of the runs")
    counts = {n: len(arrays[n]) for n in plain}
    least = min(counts.values(), default=1)
    step = int(fixed.pop()) if fixed else min(batch, least)
    runs = {n: c // step if fixed else -(-c // step) for n, c in counts.items()}
    runs.update((n, len(arrays[n])) for n in stacked)
    if len(set(runs.values())) != 1 or (plain and stacked and step != 1 and not fixed):
        text = ", ".join(f"{n}: {len(arrays[n])}" for n in arrays)
        raise error("E601", "the inputs have different numbers of samples", text)
    return Data(arrays, step, next(iter(runs.values())), frozenset(stacked))

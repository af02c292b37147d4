"""``aisc check --precision bf16 --data FILE``: how far results are from those in f32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from aisc.driver.api import executable
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import error
from aisc.quantization.data import read_arrays

_F32 = {"precision": "f32", "keep_float": ()}


def show_errors(model: str, target: str, data: Path, choices: dict[str, Any]) -> None:
    """Run a model as `choices` say and in f32 on the inputs of a file, print the errors of each
    output."""
    sides = [executable(model, target, from_environment(**{**choices, **c})) for c in ({}, _F32)]
    arrays = read_arrays(data)
    feeds = {name: arrays[name] for name in sides[0].input_names if name in arrays}
    missing = [name for name in sides[0].input_names if name not in arrays]
    if missing:
        raise error("E501", f"{data} has no array '{missing[0]}'", f"it has {', '.join(arrays)}")
    got, wanted = (side.run(None, feeds) for side in sides)
    table = Table("output", "relative error", "greatest difference", "of values up to")
    for name, a, b in zip(sides[0].output_names, got, wanted, strict=True):
        table.add_row(name, *(f"{value:.3g}" for value in errors(a, b)))
    Console().print(table)


def errors(got: NDArray[Any], wanted: NDArray[Any]) -> tuple[float, float, float]:
    """The root of the squared error over that of the squares, the greatest difference, and the
    greatest value; what is not finite in either is left out."""
    a, b = (np.asarray(v, np.float64).reshape(-1) for v in (got, wanted))
    good = np.isfinite(a) & np.isfinite(b)
    a, b = a[good], b[good]
    apart, size = np.abs(a - b), float(np.sqrt(np.square(b).sum()))
    relative = float(np.sqrt(np.square(apart).sum())) / size if size else 0.0
    return relative, float(apart.max(initial=0)), float(np.abs(b).max(initial=0))

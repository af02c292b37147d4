"""What the values of a model are on data: our own executable computes them, run by run, and those
who watch keep only what they need of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Protocol

import numpy as np
from onnx import ModelProto, ValueInfoProto

from aisc.codegen.run.executable import Executable
from aisc.driver.api import Targets, build
from aisc.driver.options import Options
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.quantization.data import Feeds
from aisc.quantization.network import Array
from aisc.quantization.ranges import Histogram

# Told after each run: what is done, and how many runs of how many.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where models are compiled and run."""

    target: Targets
    options: Options

    def options_with(self, **more: object) -> Options:
        """The options, some of them others."""
        return replace(self.options, **more)  # type: ignore[arg-type]

    def executable(self, model: ModelProto) -> Executable:
        """A compiled model."""
        made = build(model, self.target, self.options).executable
        assert made is not None, "nothing stopped the pipeline"
        return made


class Watcher(Protocol):
    """One who watches values, by their names."""

    def see(self, name: str, value: Array) -> None:
        """Take what is needed of a value of one run."""


@dataclass(slots=True)
class Histograms:
    """Histograms of values."""

    of: dict[str, Histogram] = field(default_factory=dict)

    def see(self, name: str, value: Array) -> None:
        """Count a value's elements."""
        if value.dtype.kind != "f":
            message = f"the value '{name}' of type {value.dtype} is no float that can be quantized"
            raise error("E602", message)
        self.of.setdefault(name, Histogram()).add(value)


@dataclass(slots=True)
class Channels:
    """Means and greatest absolute values of channels; `axes`: where those of each value are."""

    axes: Mapping[str, int]
    sums: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    greatest: dict[str, Array] = field(default_factory=dict)

    def see(self, name: str, value: Array) -> None:
        """Add a value's channels."""
        if name not in self.axes or value.ndim == 0 or not value.size:
            return
        rows = np.moveaxis(value, self.axes[name], -1).reshape(-1, value.shape[self.axes[name]])
        self.sums[name] = self.sums.get(name, 0.0) + rows.sum(axis=0, dtype=np.float64)
        self.counts[name] = self.counts.get(name, 0) + len(rows)
        most = np.abs(rows).max(axis=0)
        self.greatest[name] = np.maximum(self.greatest.get(name, most), most)

    def mean(self, name: str) -> Array | None:
        """The mean of each channel of a value."""
        return self.sums[name] / self.counts[name] if name in self.sums else None


def observe(
    model: ModelProto,
    names: Iterable[str],
    data: Iterable[Feeds],
    machine: Machine,
    watchers: Sequence[Watcher],
    progress: Progress,
    title: str,
) -> None:
    """Compute the named values on all data, and show each of every run to the watchers."""
    given = {v.name for v in model.graph.input}
    wanted = dict.fromkeys(names)
    shown = ModelProto()
    shown.CopyFrom(model)
    own = {v.name for v in model.graph.output}
    more = [n for n in wanted if n not in given and n not in own]
    shown.graph.output.extend(ValueInfoProto(name=n) for n in more)
    exe = machine.executable(shown)
    runs = list(data)
    for k, feeds in enumerate(runs):
        made = dict(zip(exe.output_names, exe.run(None, dict(feeds)), strict=True))
        for name in wanted:
            value = np.asarray(feeds[name] if name in given else made[name])
            for watcher in watchers:
                watcher.see(name, value)
        progress(title, k + 1, len(runs))


def outputs(model: ModelProto, data: Iterable[Feeds], machine: Machine) -> list[list[Array]]:
    """The results of every run."""
    exe = machine.executable(model)
    return [[np.array(v) for v in exe.run(None, dict(feeds))] for feeds in data]


def relative_error(got: Sequence[Sequence[Array]], wanted: Sequence[Sequence[Array]]) -> float:
    """The root of the squared error over that of the squares, of the output in which it is
    greatest; what is not a float or not finite is left out."""
    worst = 0.0
    for k in range(len(wanted[0]) if wanted else 0):
        error, size = 0.0, 0.0
        for mine, right in zip(got, wanted, strict=True):
            a, b = np.asarray(mine[k], np.float64), np.asarray(right[k], np.float64)
            if right[k].dtype.kind != "f" or a.shape != b.shape:
                continue
            good = np.isfinite(a) & np.isfinite(b)
            error += float(np.square(a - b, where=good, out=np.zeros_like(a)).sum())
            size += float(np.square(b, where=good, out=np.zeros_like(b)).sum())
        worst = max(worst, (error / size) ** 0.5 if size else 0.0)
    return worst

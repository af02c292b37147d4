"""``aisc.quantize``: calibrate, decide, insert, write."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from onnx import ModelProto

from aisc.driver.api import Targets
from aisc.driver.options import from_environment
from aisc.ir.annotations import checked_arguments
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.quantization.data import Data, make_data, read_arrays
from aisc.quantization.files import open_model, save_model
from aisc.quantization.insert import Known, insert
from aisc.quantization.layers import Layer, find_layers, plan
from aisc.quantization.network import Array, Network
from aisc.quantization.observe import Channels, Histograms, Machine, Progress, observe
from aisc.quantization.prepare import BLOCKED, PER_AXIS, prepare
from aisc.quantization.ranges import find_range
from aisc.quantization.report import Report
from aisc.quantization.rounding import Few, Products, in_memory, nearest, with_least_error
from aisc.quantization.settings import CONTRACTIONS, Settings
from aisc.quantization.smooth import behind_norms, smooth
from aisc.quantization.study import Study


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized model, the names of the layers that are, and what was measured of them, if that
    was asked for."""

    model: ModelProto
    layers: tuple[str, ...]
    report: Report | None = None


@checked_arguments
def quantize(
    model: Any,
    data: Mapping[str, Array] | str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    settings: Settings | None = None,
    measure: bool = False,
    target: Targets = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantize an ONNX model: its layers compute on integers of 8 bits.

    model: path of an ONNX file, its bytes or an ``onnx.ModelProto``, in float.
    data: samples of what the model will see, by input, or an ``.npz`` file of them: arrays whose
    first axis is that of the samples, or which have an axis more than the input.
    output: where to write the result; weights go beside it where those of `model` do.
    settings: methods and types, see :class:`Settings`.
    measure: whether each layer is tried alone and timed, for the report; with a budget it is.
    target, threads: what the model is run on.
    progress: told what is done, as a title, runs that are done, and runs in all.
    Raises ``CompileError``: E601 for data that do not fit, E602 for a model that cannot be
    quantized, and what compiling it raises.
    """
    choices, show = settings or Settings(), progress or (lambda *_: None)
    opened, apart = open_model(model)
    net = prepare(opened, BLOCKED if choices.weights_alone else PER_AXIS)
    layers = _candidates(net, choices)
    runs = make_data(net.model, data if isinstance(data, Mapping) else read_arrays(Path(data)),
                     choices.batch)  # fmt: skip
    machine = Machine(target, from_environment(threads=threads))
    if choices.smooth and not choices.weights_alone:
        _smooth(net, layers, runs, machine, choices, show)
        layers = find_layers(net, choices)
    calibrate = _few_bits if choices.weights_alone else _calibrate
    known = calibrate(net, layers, runs, machine, choices, show)
    study = Study(Maker(net.model, known, choices), runs, machine, show)
    names, report = [layer.name for layer in layers], None
    if measure or choices.budget is not None:
        report = study.report(names, choices)
        names = [r.name for r in report.layers if not r.kept]
    made = study.maker.model(names)
    if output is not None:
        save_model(made, Path(output), apart)
    return Quantized(made, tuple(names), report)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes models of which some layers are quantized, from what the data told of all."""

    plain: ModelProto
    known: Known
    settings: Settings

    def network(self) -> Network:
        """The model in float, to be changed."""
        copy = ModelProto()
        copy.CopyFrom(self.plain)
        return Network(copy)

    def model(self, names: Sequence[str]) -> ModelProto:
        """The model with these layers quantized."""
        net = self.network()
        chosen = [x for x in find_layers(net, self.settings) if x.name in set(names)]
        insert(net, plan(net, chosen, self.settings), self.known, self.settings)
        return net.model


def _candidates(net: Network, settings: Settings) -> tuple[Layer, ...]:
    """The layers that can be quantized; E401 for nodes that are none, E602 where there are none."""
    nodes = [n.name for n in net.graph.node]
    for name in settings.keep:
        if name not in nodes:
            near = difflib.get_close_matches(name, nodes, 3, 0.3)
            notes = [f"has {', '.join(near)}"] if near else []
            raise error("E401", f"the model has no node '{name}'", *notes)
    layers = find_layers(net, settings)
    if not layers:
        kinds = ", ".join(op for op in settings.operators if op in CONTRACTIONS)
        note = f"what can be is {kinds or 'none of the operators'} with constant weights in f32"
        raise error("E602", "the model has nothing to quantize", note)
    return layers


def _smooth(
    net: Network,
    layers: tuple[Layer, ...],
    runs: Data,
    machine: Machine,
    settings: Settings,
    progress: Progress,
) -> None:
    """Move outliers behind norms into weights."""
    groups = behind_norms(net, layers)
    channels = Channels(dict.fromkeys(groups, -1))
    if groups:
        observe(net.model, groups, runs, machine, (channels,), progress, "smoothing")
        smooth(net, groups, channels, settings.smooth)


def _calibrate(
    net: Network,
    layers: tuple[Layer, ...],
    runs: Data,
    machine: Machine,
    settings: Settings,
    progress: Progress,
) -> Known:
    """Run the model on the data: ranges of all that is read in 8 bits, means of the channels that
    weights multiply."""
    names = list(plan(net, layers, settings).reads)
    axes = {}
    for layer in layers:
        if layer.weight is not None:
            axes[layer.node.input[layer.activations[0]]] = layer.channels
    seen, channels = Histograms(), Channels(axes)
    observe(net.model, names, runs, machine, (seen, channels), progress, "calibrating")
    ranges = {name: find_range(seen.of[name], settings) for name in names}
    means = {name: mean for name in axes if (mean := channels.mean(name)) is not None}
    return Known(ranges, means)


def _few_bits(
    net: Network,
    layers: tuple[Layer, ...],
    runs: Data,
    machine: Machine,
    settings: Settings,
    progress: Progress,
) -> Known:
    """Weights in 4 bits, rounded for what they multiply on the data, and means of that."""
    sources = {layer.node.input[0]: layer.weights(net).shape[layer.inner] for layer in layers}
    channels, few = Channels(dict.fromkeys(sources, -1)), dict[str, Few]()
    for some in in_memory(sources.items()):
        products, done = Products(), len(few)
        watchers = (channels, products) if settings.rounding == "gptq" else (channels,)
        observe(net.model, some, runs, machine, watchers, progress, f"calibrating from {done}")
        for layer in (x for x in layers if x.node.input[0] in some):
            w = layer.turned(layer.weights(net))
            h = products.of.get(layer.node.input[0])
            made = (
                nearest(w, settings.group) if h is None else with_least_error(w, h, settings.group)
            )
            few[layer.name] = made
            progress("rounding", len(few), len(layers))
    means = {name: mean for name in sources if (mean := channels.mean(name)) is not None}
    return Known(means=means, few=few)

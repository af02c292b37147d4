"""``aisc.quantize``: calibrate, decide, insert, write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from onnx import ModelProto

from aisc.driver.api import Targets
from aisc.driver.options import from_environment
from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import error
from aisc.quantization.data import Data, make_data, read_arrays
from aisc.quantization.files import open_model, save_model
from aisc.quantization.insert import Known, insert
from aisc.quantization.layers import Layer, find_layers, plan
from aisc.quantization.network import Array, Network
from aisc.quantization.observe import Channels, Histograms, Machine, Progress, observe
from aisc.quantization.prepare import PER_AXIS, prepare
from aisc.quantization.ranges import find_range
from aisc.quantization.settings import CONTRACTIONS, Settings


@dataclass(frozen=True, slots=True)
class Quantized:
    """A quantized model, and the names of the layers that are."""

    model: ModelProto
    layers: tuple[str, ...]


@checked_arguments
def quantize(
    model: Any,
    data: Mapping[str, Array] | str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    settings: Settings | None = None,
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
    target, threads: what the model is run on.
    progress: told what is done, as a title, runs that are done, and runs in all.
    Raises ``CompileError``: E601 for data that do not fit, E602 for a model that cannot be
    quantized, and what compiling it raises.
    """
    choices = settings or Settings()
    opened, apart = open_model(model)
    net = prepare(opened, PER_AXIS)
    layers = find_layers(net, choices)
    if not layers:
        raise error("E602", "the model has nothing to quantize", _nothing(choices))
    arrays = data if isinstance(data, Mapping) else read_arrays(Path(data))
    runs = make_data(net.model, arrays, choices.batch)
    machine = Machine(target, from_environment(threads=threads))
    known = _calibrate(net, layers, runs, machine, choices, progress or (lambda *_: None))
    insert(net, plan(net, layers, choices), known, choices)
    if output is not None:
        save_model(net.model, Path(output), apart)
    return Quantized(net.model, tuple(layer.name for layer in layers))


def _nothing(settings: Settings) -> str:
    kinds = ", ".join(op for op in settings.operators if op in CONTRACTIONS)
    return f"what can be is {kinds or 'none of the operators'} with constant weights in f32"


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
            axes[layer.node.input[layer.activations[0]]] = channel_axis(layer)
    seen, channels = Histograms(), Channels(axes)
    observe(net.model, names, runs, machine, (seen, channels), progress, "calibrating")
    ranges = {name: find_range(seen.of[name], settings) for name in names}
    means = {name: mean for name in axes if (mean := channels.mean(name)) is not None}
    return Known(ranges, means)


def channel_axis(layer: Layer) -> int:
    """The axis of a layer's input that its sums run over, of a convolution that of channels."""
    if layer.node.op_type == "Conv":
        return 1
    return -2 if layer.weight == 0 else -1

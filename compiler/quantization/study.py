"""The study of a model's layers: errors, costs, which of them stay in float, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

from onnx import ModelProto

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.quantization.costs import Costs, host, measure, reason
from aisc.quantization.data import Data
from aisc.quantization.layers import Layer, find_layers, plan
from aisc.quantization.network import Network
from aisc.quantization.observe import Machine, Progress, outputs
from aisc.quantization.report import LayerReport, Report
from aisc.quantization.sensitivity import RUNS, Errors, errors_alone, within
from aisc.quantization.settings import Settings

# Of weights, the part of their bits in float that is left.
_BITS = {"i8": 8, "i7": 8, "i4": 4}


class Maker(Protocol):
    """Makes the models that are compared."""

    @property
    def plain(self) -> ModelProto:
        """The model in float."""

    def network(self) -> Network:
        """The model in float, to be changed."""

    def model(self, names: Sequence[str]) -> ModelProto:
        """The model with these layers quantized."""


@dataclass(frozen=True, slots=True)
class Study:
    """Runs models, of which some layers are quantized, beside that in float."""

    maker: Maker
    runs: Data
    machine: Machine
    progress: Progress

    def report(self, names: Sequence[str], settings: Settings) -> Report:
        """What each layer costs and saves; those that the budget does not allow are kept. E602
        where it allows none."""
        some = list(islice(self.runs, RUNS))
        right = outputs(self.maker.plain, some, self.machine)
        errors = Errors(self.maker.model, some, right, self.machine)
        alone = errors_alone(errors, names, self.progress)
        before, after = self._costs(names, settings)
        error_all = errors.of(names)
        chosen, left = list(names), error_all
        if settings.budget is not None:
            gains = {n: before.layers[n].seconds - after.layers[n].seconds for n in names}
            chosen, left = within(settings.budget, errors, alone, gains, self.progress)
        if not chosen:
            least = min(alone.values())
            message = f"no layer can be quantized with an error of {settings.budget:g}"
            raise error("E602", message, f"the least error of one layer is {least:.3g}")
        now = after.whole if len(chosen) == len(names) else self._whole(chosen, settings)
        rows = self._rows(alone, before, after, set(chosen), settings)
        rest = before.rest.seconds, after.rest.seconds
        whole = before.whole, after.whole, now
        return Report(rows, left, error_all, *whole, *rest, settings.budget)

    def _costs(self, names: Sequence[str], settings: Settings) -> tuple[Costs, Costs]:
        """Costs in float, and with all layers quantized."""
        self.progress("timing", 0, 2)
        feeds = next(iter(self.runs))
        before = measure(self.maker.plain, names, {}, feeds, self.machine)
        self.progress("timing", 1, 2)
        readers = self._readers(names, settings)
        after = measure(self.maker.model(names), names, readers, feeds, self.machine)
        self.progress("timing", 2, 2)
        return before, after

    def _whole(self, chosen: Sequence[str], settings: Settings) -> float:
        readers, feeds = self._readers(chosen, settings), next(iter(self.runs))
        return measure(self.maker.model(chosen), chosen, readers, feeds, self.machine).whole

    def _readers(self, names: Sequence[str], settings: Settings) -> dict[str, list[str]]:
        """Who reads what a quantizer makes, by the name of its node."""
        if settings.weights_alone:
            return {}
        net = self.maker.network()
        layers = [x for x in find_layers(net, settings) if x.name in set(names)]
        found = {}
        for name, reads in plan(net, layers, settings).reads.items():
            nodes = [n.name for n, _ in reads]
            found.update({f"{name}_{k}": nodes for k in ("quantize", "dequantize")})
        return found

    def _rows(
        self,
        alone: Mapping[str, float],
        before: Costs,
        after: Costs,
        chosen: set[str],
        settings: Settings,
    ) -> tuple[LayerReport, ...]:
        net, target = self.maker.network(), host(self.machine)
        rows = []
        for layer in find_layers(net, settings):
            name = layer.name
            if name not in alone:
                continue
            a, b, kept = before.layers[name], after.layers[name], name not in chosen
            saved = (a.seconds - b.seconds) * 1e6
            why = f"error for {saved:.1f} us" if kept else reason(a, b, target)
            stored = _bytes(net, layer, settings)
            rows.append(
                LayerReport(
                    name, layer.node.op_type, alone[name], a.seconds, a.predicted, b.seconds,
                    b.predicted, *stored, kept, why,
                )
            )  # fmt: skip
        return tuple(rows)


def _bytes(net: Network, layer: Layer, settings: Settings) -> tuple[int, int]:
    """Bytes of a layer's weights in float, and quantized with their scales."""
    if layer.weight is None:
        return 0, 0
    w = layer.weights(net)
    scales = w.size // settings.group if settings.weights_alone else 1
    if settings.per_channel and not settings.weights_alone:
        scales = w.shape[layer.axis]
    return w.nbytes, w.size * _BITS[settings.weights] // 8 + 4 * scales

"""Which layers can be quantized within an error: each alone is tried, then those that cost most
error for the time that they save stay in float until what is measured of the whole holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import ModelProto

from aisc.ir.dataclass import dataclass
from aisc.quantization.data import Feeds
from aisc.quantization.network import Array
from aisc.quantization.observe import Machine, Progress, outputs, relative_error

# Runs that errors are measured on.
RUNS = 8
# The part of a layer's time that it saves at least, where it saves none: it is the first to stay.
LEAST_GAIN = 1e-3

# A model with these layers alone quantized.
Make = Callable[[Sequence[str]], ModelProto]


@dataclass(frozen=True, slots=True)
class Errors:
    """Measures errors of models against the results in float."""

    make: Make
    runs: Sequence[Feeds]
    right: Sequence[Sequence[Array]]
    machine: Machine

    def of(self, layers: Sequence[str]) -> float:
        """The relative error with these layers quantized."""
        if not layers:
            return 0.0
        got = outputs(self.make(layers), self.runs, self.machine)
        return relative_error(got, self.right)


def errors_alone(errors: Errors, layers: Sequence[str], progress: Progress) -> dict[str, float]:
    """The error with each layer alone quantized."""
    found = {}
    for k, name in enumerate(layers):
        found[name] = errors.of([name])
        progress("trying each layer alone", k + 1, len(layers))
    return found


def within(
    budget: float,
    errors: Errors,
    alone: Mapping[str, float],
    gains: Mapping[str, float],
    progress: Progress,
) -> tuple[list[str], float]:
    """The layers to quantize, in the order of the model, and the error that is left, which is
    within the budget. `gains`: seconds that each layer saves."""
    ordered = sorted(alone, key=lambda n: alone[n] ** 2 / _gain(gains, n))
    count = len(ordered)
    error = errors.of(_in_order(alone, ordered[:count]))
    rounds = 0
    while error > budget:
        count = _fewer(ordered[:count], alone, error, budget)
        error = errors.of(_in_order(alone, ordered[:count]))
        rounds += 1
        progress("keeping layers in float", rounds, rounds + (error > budget))
    return _in_order(alone, ordered[:count]), error


def _gain(gains: Mapping[str, float], name: str) -> float:
    most = max((abs(g) for g in gains.values()), default=1.0) or 1.0
    return max(gains.get(name, most) / most, LEAST_GAIN)


def _in_order(alone: Mapping[str, float], chosen: Sequence[str]) -> list[str]:
    return [n for n in alone if n in set(chosen)]


def _fewer(chosen: Sequence[str], alone: Mapping[str, float], error: float, budget: float) -> int:
    """How many of the chosen layers, the best first, have an error within the budget, if errors are
    independent: squares add up, and what was measured of all says how much more they are."""
    total = sum(alone[n] ** 2 for n in chosen)
    scale = error**2 / total if total else 1.0
    left, count = error**2, len(chosen)
    while count and (left > budget**2 or count == len(chosen)):
        count -= 1
        left -= scale * alone[chosen[count]] ** 2
    return count

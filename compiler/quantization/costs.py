"""What layers cost in float and in few bits: measured in whole runs, and as the description of the
machine predicts; and why a layer does not become faster."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from math import prod

from onnx import ModelProto

from aisc.codegen.backend import backend_of
from aisc.driver.api import build, resolve_target
from aisc.driver.pipeline import Compiled
from aisc.ir.arith.poly import Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func, Program
from aisc.measure.profile import Profile, Row, profile_runs
from aisc.quantization.data import Feeds
from aisc.quantization.observe import Machine
from aisc.tuning.explain import estimated

WARM, RUNS = 3, 15
# Seconds below which what surrounds a kernel weighs as much as the kernel.
SMALL = 5e-6
# Products of 8 bits that are less than this faster than floats gain nothing for sure.
MUCH = 1.5
# A layer is slower only where its time is more than this over that in float.
NOISE = 1.03


@dataclass(slots=True)
class Cost:
    """Seconds of one run that a layer takes, measured and predicted; of these, seconds of
    quantizers that stand alone; bytes that it moves; whether it computes with integers, and whether
    memory bounds it."""

    seconds: float = 0.0
    predicted: float = 0.0
    quantizers: float = 0.0
    bytes: float = 0.0
    integers: bool = False
    by_memory: bool = False


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs by layer, what belongs to none, and the seconds of a whole call."""

    layers: Mapping[str, Cost]
    rest: Cost
    whole: float


@dataclass(slots=True)
class _Sums:
    """Costs as they add up."""

    readers: Mapping[str, Sequence[str]]
    layers: dict[str, Cost]
    rest: Cost = field(default_factory=Cost)

    def owners(self, row: Row) -> tuple[list[Cost], bool]:
        """Whom a row belongs to: the layers that it computes, or, where it holds nothing but
        quantizers, those that read what these make."""
        own = [self.layers[n] for n in row.nodes if n in self.layers]
        if own:
            return own, False
        if row.nodes and all(n in self.readers for n in row.nodes):
            names = dict.fromkeys(r for n in row.nodes for r in self.readers[n])
            return [self.layers[n] for n in names if n in self.layers] or [self.rest], True
        return [self.rest], False


def measure(
    model: ModelProto,
    layers: Collection[str],
    readers: Mapping[str, Sequence[str]],
    feeds: Feeds,
    machine: Machine,
) -> Costs:
    """Run a model, and divide its time among its layers. `readers`: of quantizers, by the names of
    their nodes."""
    compiled = build(model, machine.target, machine.options_with(profile=True))
    profile = profile_runs(compiled, dict(feeds), WARM, RUNS)
    predicted = _predicted(compiled, profile, machine)
    kernels = _kernels(compiled)
    sums = _Sums(readers, {name: Cost() for name in layers})
    for row in profile.rows:
        if row.kind == "wait":
            continue
        owners, alone = sums.owners(row)
        for cost in owners:
            part = 1 / len(owners)
            cost.seconds += row.seconds * part
            cost.predicted += predicted.get(row.kernel, 0.0) * row.calls * part
            cost.bytes += row.bytes * part
            if alone:
                cost.quantizers += row.seconds * part
            else:
                cost.integers |= row.kernel in kernels and _has_bytes(kernels[row.kernel])
                cost.by_memory |= row.bytes / profile.copy > row.executed / profile.fma
    return Costs(sums.layers, sums.rest, profile.wall)


def _kernels(compiled: Compiled) -> dict[str, Func]:
    assert isinstance(compiled.product, Program), "a whole compilation gives a Program"
    return {k.name: k for k in compiled.product.kernels}


def _predicted(compiled: Compiled, profile: Profile, machine: Machine) -> dict[str, float]:
    """Seconds of each kernel by the description, with the clock that the profile has seen."""
    backend = backend_of(host(machine))
    target = backend.target
    lanes = target.vector_bits // 32
    clock = profile.fma * 1e9 / (2 * lanes * target.costs.fma_units * profile.threads)
    found = {}
    for row in profile.rows:
        if row.kernel in compiled.origins and row.kernel not in found:
            lowered = compiled.origins[row.kernel]
            made = estimated(lowered, backend, {}, profile.threads, row.sizes)
            found[row.kernel] = 0.0 if made is None else made[1].cycles / clock
    return found


def host(machine: Machine) -> Target:
    """The description of the first machine that is named."""
    named = machine.target
    first = named.split(",")[0] if isinstance(named, str) else named
    if isinstance(first, Sequence) and not isinstance(first, str):
        first = first[0]
    return resolve_target(first)


def _has_bytes(func: Func) -> bool:
    """Whether a kernel reads weights of 8 bits."""
    return any(p.dtype.bits <= 8 and p.dtype.is_integer and p.role == "weight" for p in func.params)


def integer_gain(target: Target) -> float:
    """How many products of 8 bits the machine computes in the time of one in float; 0 where it has
    no instruction for them."""
    lanes = target.vector_bits / 32
    best = 0.0
    for i in target.available:
        weights = [p for p in i.semantics.params if p.dtype.bits == 8]
        if not weights:
            continue
        count = max(prod(d for d in p.shape if not isinstance(d, Poly)) for p in weights)
        best = max(best, count / max(i.cycles(), 1) / lanes)
    return best


def reason(plain: Cost, quantized: Cost, target: Target) -> str:
    """Why a layer is no faster in few bits; empty where it is."""
    if quantized.seconds * NOISE < plain.seconds or not plain.seconds:
        return ""
    if quantized.seconds - quantized.quantizers < plain.seconds and quantized.quantizers:
        return f"quantizing takes {quantized.quantizers * 1e6:.0f} us"
    if not quantized.integers:
        return "computed in float"
    gain = integer_gain(target)
    if gain <= 0:
        return "no instruction for 8 bits"
    if max(plain.seconds, quantized.seconds) < SMALL:
        return "too small"
    if quantized.predicted >= plain.predicted > 0:
        return "expected in this form"
    if gain < MUCH:
        return f"8 bits are {gain:.2g} x as fast here"
    return "bound by memory" if plain.by_memory else "slower than predicted"

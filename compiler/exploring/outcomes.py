"""What a model takes on a design: cycles, and proxies of area and energy.

Proxies are no measurements: they add up parts of the chip and what moves, each with a number of
``[proxies]`` of the description. Its defaults are for 45 nm and 8 bits (Horowitz, *Computing's
energy problem*, ISSCC 2014). Energy of the array's operands counts what streams past its rows and
columns while it works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from aisc.codegen.backend import backend_of
from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.exploring.sweeps import Design
from aisc.ir.accelerator import Accelerator
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Program
from aisc.measure.cycles import LayerTime, layer_times, used_share


@dataclass(frozen=True, slots=True)
class Outcome:
    """A design and what came of it. cycles of all layers on the chip; used: of the multiply-adds
    that its array could do; moved: bytes from and to global memory; area in square micrometres and
    energy in microjoules, both proxies; best: no other design is better in both cycles and area;
    refused: why there is nothing of this."""

    values: Mapping[str, int | float]
    cycles: int = 0
    used: float = 0.0
    moved: int = 0
    area: float = 0.0
    energy: float = 0.0
    best: bool = False
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return asdict(self)


def explore(
    model: Any,
    given: Sequence[Design],
    choices: Mapping[str, Any],
    report: Callable[[int, Outcome], None] = lambda number, outcome: None,
) -> list[Outcome]:
    """What a model takes on each design, in their order. `report` hears of each."""
    found = []
    for number, design in enumerate(given):
        outcome = _outcome(model, design, choices)
        report(number, outcome)
        found.append(outcome)
    return _marked(found)


def _outcome(model: Any, design: Design, choices: Mapping[str, Any]) -> Outcome:
    try:
        target = design.target()
        if target.chip is None:
            raise error("E401", f"{design.file} describes no accelerator", "it has no [array]")
        options = from_environment(**{**choices, "stop_after": "plan"})
        program = build(model, target, options).product
        assert isinstance(program, Program), "the product of plan is a Program"
        layers = layer_times(program, [backend_of(target)])
    except AiscError as fault:
        return Outcome(design.values, refused=fault.diagnostics[0].message)
    if not layers:
        return Outcome(design.values, refused="nothing of the model runs on the chip")
    return _measured(design, target, target.chip, layers)


def _measured(
    design: Design, target: Target, chip: Accelerator, layers: Sequence[LayerTime]
) -> Outcome:
    cycles = sum(x.time.cycles for x in layers)
    work = sum(x.time.work for x in layers)
    moved = sum(x.time.loaded + x.time.stored for x in layers)
    array, p = chip.array, chip.proxies
    streamed = array.rows * array.inputs[0].bytes + array.columns * array.accumulator.bytes
    busy = sum(x.time.busy.get("array", 0) for x in layers)
    area = p.area_cell * array.rows * array.columns
    area += p.area_byte * sum(m.bytes for m in target.memories if m.name != "global")
    energy = p.energy_mac * work + p.energy_byte * busy * streamed
    energy += p.energy_global_byte * moved
    return Outcome(design.values, cycles, used_share(layers), moved, area, energy / 1e6)


def _marked(found: Sequence[Outcome]) -> list[Outcome]:
    """With those marked that nothing else beats in cycles and area."""
    real = [x for x in found if not x.refused]

    def is_best(x: Outcome) -> bool:
        return not any(
            y.cycles <= x.cycles and y.area <= x.area and (y.cycles, y.area) != (x.cycles, x.area)
            for y in real
        )

    return [x if x.refused else replace(x, best=is_best(x)) for x in found]

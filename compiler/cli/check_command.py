"""``aisc check``: what a model consists of, where it runs, and what its layers take there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aisc.cli.commands import built
from aisc.cli.dimension_table import dimension_table
from aisc.cli.host_table import HostOperator, host_operators, host_table
from aisc.cli.placement_table import crossing_table, crossings, placement_table
from aisc.cli.usage_table import UsedKernel, usage_table, used_kernels
from aisc.codegen.backend import Measured
from aisc.driver import api
from aisc.driver.instruments import Collector
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Program
from aisc.passes.policy import Machines

_out = Console()


@dataclass(frozen=True, slots=True)
class _Checked:
    """A model as far as kernels. weights: bytes."""

    imported: Graph
    fused: Graph
    program: Program
    host: list[HostOperator]
    usage: list[UsedKernel]

    @property
    def weights(self) -> int:
        return sum(b.array.nbytes for b in self.program.weights.values())

    @property
    def operators(self) -> dict[str, int]:
        """How often each occurs, the most frequent first."""
        counts = Counter(_operators(self.imported))
        return dict(sorted(counts.items(), key=lambda kv: (-kv[1], kv[0])))


def check_model(
    model: str,
    target: str,
    choices: dict[str, Any],
    cycles: bool = False,
    as_json: bool = False,
    trace: Path | None = None,
    faults: bool = False,
) -> None:
    """Raises the importer's full report, or prints a summary, as text or as JSON; `cycles`: what
    layers take on machines that are described cycle by cycle; `trace`: a file for what their units
    do meanwhile; `faults`: run these instruction by instruction, and say what goes wrong."""
    if faults:
        _print_faults(model, target, choices)
        return
    if cycles or trace is not None:
        _print_cycles(model, target, choices, trace)
        return
    found = _checked(model, target, choices)
    if as_json:
        print(json.dumps(_facts(model, found), indent=2))
    else:
        _print(model, found, target)


def _checked(model: str, target: str, choices: dict[str, Any]) -> _Checked:
    collector = Collector()
    measured = any(isinstance(d, Measured) for d in api.backends_of(target)[1])
    step = "optimize" if measured else "lower"  # what kernels take shows when they are scheduled
    program = built(model, target, {**choices, "stop_after": step}, collector).product
    assert isinstance(program, Program), f"the product of {step} is a Program"
    graphs = [collector.products[name] for name in ("import", "legalize", "fuse")]
    imported, legal, fused = (g for g in graphs if isinstance(g, Graph))
    usage = used_kernels(program, api.backends_of(target)[1])
    return _Checked(imported, fused, program, host_operators(legal), usage)


def _facts(model: str, found: _Checked) -> dict[str, Any]:
    """The summary as JSON."""
    results = zip(found.imported.result_names, found.imported.outputs, strict=True)
    return {
        "model": Path(model).name,
        "inputs": {v.name: str(v.type) for v in found.imported.inputs},
        "outputs": {name: str(v.type) for name, v in results},
        "kernels": [k.name for k in found.program.kernels],
        "weights_bytes": found.weights,
        "operators": found.operators,
        "host": [asdict(h) for h in found.host],
        "usage": [{"kernel": u.name, "target": u.target, **asdict(u.usage)} for u in found.usage],
    }


def _print(model: str, found: _Checked, target: str) -> None:
    imported = found.imported
    print(f"{Path(model).name}: can be compiled")
    for v in imported.inputs:
        print(f"  input  {v.name}: {v.type}")
    for name, v in zip(imported.result_names, imported.outputs, strict=True):
        print(f"  output {name}: {v.type}")
    if not any(v.type.symbols for v in imported.inputs):
        print("  symbolic dimensions: none")
    print(f"  {len(found.program.kernels)} kernels, {found.weights / 1e6:.1f} MB of weights")
    table = Table("operator", "count")
    for op, count in found.operators.items():
        table.add_row(op, str(count))
    if any(v.type.symbols for v in imported.inputs):
        _out.print(dimension_table(imported))
    if found.host:
        _out.print(host_table(found.host))
    _print_placement(found, target)
    _out.print(table)


def _print_cycles(model: str, target: str, choices: dict[str, Any], trace: Path | None) -> None:
    """What each layer takes."""
    from aisc.cli.cycle_table import cycle_table
    from aisc.codegen.files import write_whole
    from aisc.measure.cycles import layer_times
    from aisc.measure.timeline import timeline

    program = built(model, target, {**choices, "stop_after": "plan"}).product
    assert isinstance(program, Program), "the product of plan is a Program"
    _, devices = api.backends_of(target)
    if trace is None:
        layers = layer_times(program, devices)
    else:
        found = timeline(program, devices)
        layers = [layer for layer, _ in found.layers]
        write_whole(trace, found.to_json().encode())
    _out.print(cycle_table(layers, Path(model).name))


def _print_faults(model: str, target: str, choices: dict[str, Any]) -> None:
    """That the instructions of all layers are right."""
    from aisc.cli.fault_table import examined

    program = built(model, target, {**choices, "stop_after": "plan"}).product
    assert isinstance(program, Program), "the product of plan is a Program"
    _out.print("\n".join(examined(program, api.backends_of(target)[1])), markup=False)


def _print_placement(found: _Checked, target: str) -> None:
    """What runs where, if there are devices."""
    host, devices = api.backends_of(target)
    if not devices:
        return
    machines = Machines(host.policy, tuple(d.policy for d in devices))
    _out.print(placement_table(found.fused, machines))
    _out.print(crossing_table(list(crossings(found.program))))
    for device in devices:
        if isinstance(device, Measured):
            print(f"{device.target.name}: {device.here()}")
    if found.usage:
        _out.print(usage_table(found.usage))


def _operators(graph: Graph) -> Iterator[str]:
    """Operators of a graph and its regions."""
    for node in graph.nodes:
        yield node.op
        for region in node.regions:
            yield from _operators(region)

"""``aisc targets``: the machines that code can be made for, and their descriptions."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aisc.codegen import backend
from aisc.codegen.files import write_whole
from aisc.driver.api import resolve_target
from aisc.ir import target as targets
from aisc.ir.description import to_toml
from aisc.ir.diagnostics import error
from aisc.ir.measured import Measured, measured_path, processor
from aisc.ir.target import Target

_out = Console()
_err = Console(stderr=True)


def list_targets(as_json: bool = False) -> None:
    """``aisc targets list``."""
    if as_json:
        found = [targets.resolve(name) for name in targets.builtin_names()]
        memories = [{m.name: m.bytes for m in t.memories} for t in found]
        names = zip(targets.builtin_names(), found, memories, strict=True)
        told = {n: {"kind": t.kind, "arch": t.arch, "memories": m} for n, t, m in names}
        print(json.dumps(told, indent=2))
        return
    table = Table("target", "kind", "machine", "vectors", "memories")
    for name in targets.builtin_names():
        t = targets.resolve(name)
        machine = t.arch or "of this process"
        table.add_row(name, t.kind, machine, _vectors(t), ", ".join(map(_memory, t.memories)))
    _out.print(table)
    print(f"kinds with a back end here: {', '.join(backend.kinds())}")


def show_target(name: str) -> None:
    """``aisc targets show``: as a description that can be read again."""
    found = resolve_target(name)
    print(found.source.rstrip() or to_toml(found).rstrip())


def validate_target(path: Path) -> None:
    """``aisc targets validate``: E401 says what is wrong."""
    found = resolve_target(str(path))
    print(f"{path}: a target of kind {found.kind}, {found.name}")
    print(f"  vectors: {_vectors(found)}")
    for m in found.memories:
        print(f"  memory {_memory(m)}")
    for name in found.instructions:
        print(f"  instruction {name}")


def probe_host(output: Path | None, measure: bool = False) -> None:
    """``aisc targets probe``: the machine of this process as a description. `measure`: measure
    rates first, and keep them for models of cost."""
    if measure:
        _measure()
    text = to_toml(resolve_target("cpu"))
    if output is None:
        print(text.rstrip())
    else:
        write_whole(output, text.encode())


def _measure() -> None:
    """Measure the rates of this machine, and keep them."""
    from aisc.cli.spinner import spinner
    from aisc.measure import machine_rates

    with spinner("measuring"):
        found = machine_rates.measure()
    kept = Measured(processor(), found.reads, {"fma_f32": found.fma, "clock": found.clock})
    measured_path().parent.mkdir(parents=True, exist_ok=True)
    write_whole(measured_path(), kept.to_toml().encode())
    targets.host.cache_clear()
    _err.print(f"measured: {found.clock:.2f} GHz; kept in {measured_path()}")


def _vectors(t: Target) -> str:
    return f"{t.vector_registers} of {t.vector_bits} bits"


def _memory(m: targets.Memory) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if m.bytes % size == 0:
            return f"{m.name} {m.bytes // size} {unit}"
    return f"{m.name} {m.bytes} bytes"


def import_scalesim(config: Path, output: Path, layers: Path | None, model: Path | None) -> None:
    """``aisc targets import-scalesim``."""
    from aisc.exploring import scalesim

    if (layers is None) != (model is None):
        raise error("E401", "--topology and --model belong together")
    made = {output: scalesim.description(_text(config), str(config)).encode()}
    if layers is not None and model is not None:
        found = scalesim.topology(_text(layers), str(layers))
        made[model] = scalesim.model_of(found, layers.stem).SerializeToString()
    for place, data in made.items():
        write_whole(place, data)
        print(place)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise error("E401", f"{path} cannot be read", str(fault)) from None

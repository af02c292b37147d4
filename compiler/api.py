"""The Python API: compile, lower, load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from aisc.codegen.executable import Executable
from aisc.instruments import Collector, Dumper, Instrument, Instruments, Timer, Verifier
from aisc.ir import target as targets
from aisc.ir.arith.poly import Extent
from aisc.ir.graph.core import Graph
from aisc.ir.target import Target
from aisc.ir.tensor.func import Program
from aisc.kernels import Lookup, untuned
from aisc.options import Options, from_environment
from aisc.pipeline import Compiled, Context, complete_target, run_pipeline

Level = Literal["graph", "tensor", "program", "llvm", "asm"]
_LAST_STEP: dict[str, str] = {
    "graph": "fuse", "tensor": "optimize", "program": "plan", "llvm": "emit", "asm": "assemble",
}  # fmt: skip


def instruments_for(options: Options, *more: Instrument) -> Instruments:
    """The instruments that the options ask for."""
    items: list[Instrument] = list(more)
    if options.verify:
        items.append(Verifier())
    if options.dump_dir:
        items.append(Dumper(Path(options.dump_dir)))
    return Instruments(tuple(items))


def resolve_target(target: str | Target) -> Target:
    """A completed target from its name, file or description."""
    return complete_target(targets.resolve(target) if isinstance(target, str) else target)


def build(
    model: Any,
    target: str | Target,
    options: Options,
    *instruments: Instrument,
    lookup: Lookup = untuned,
) -> Compiled:
    """Run the pipeline; `lookup` gives tuned traces."""
    watching = instruments_for(options, *instruments)
    return run_pipeline(model, Context(resolve_target(target), options, watching, lookup=lookup))


def compile(
    model: Any,
    target: str | Target = "cpu",
    *,
    threads: int | None = None,
    shapes: Mapping[str, Extent] | None = None,
    level: int = 2,
    cache: bool = True,
    host: bool = True,
) -> Executable:
    """Compile a model for a target.

    model: path of an ONNX file, its bytes, an ``onnx.ModelProto`` or a :class:`Graph`.
    threads: how many threads a call uses; by default the cores of this process.
    shapes: values of symbolic dimensions by name, or their bounds as ``(least, greatest)``.
    host: whether operators without native code may run on the host, through numpy.
    Raises ``CompileError`` when the model cannot be compiled.
    """
    options = from_environment(
        threads=threads, shapes=shapes, level=level, use_cache=cache, host=host
    )
    compiled = build(model, target, options)
    assert compiled.executable is not None, "nothing stopped the pipeline"
    return compiled.executable


def lower(
    model: Any,
    to: Level = "program",
    target: str | Target = "cpu",
    *,
    shapes: Mapping[str, Extent] | None = None,
    level: int = 2,
) -> Graph | Program | str:
    """The product of the compiler at a level: the partitioned graph, the optimised or planned
    Program, LLVM IR or assembly."""
    options = from_environment(shapes=shapes, level=level, stop_after=_LAST_STEP[to])
    product = build(model, target, options).product
    assert product is not None, "every step up to assemble has a product"
    return product


def products(
    model: Any, target: str | Target = "cpu", **choices: Any
) -> tuple[Compiled, Mapping[str, Graph | Program | str]]:
    """Compile and keep the product of every step, by name."""
    collector = Collector()
    compiled = build(model, target, from_environment(**choices), collector)
    return compiled, collector.products


def timed(model: Any, target: str | Target = "cpu", **choices: Any) -> tuple[Compiled, Timer]:
    """Compile and measure every step."""
    timer = Timer()
    return build(model, target, from_environment(**choices), timer), timer

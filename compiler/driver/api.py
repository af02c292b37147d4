"""The Python API: compile, lower, load.

The compiler is loaded when something is compiled: a model that the cache holds needs none of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from aisc.codegen.backend import Backend, Host, backend_of, host_of, is_host
from aisc.codegen.run.executable import Executable
from aisc.codegen.run.threads import Wait
from aisc.driver import model_cache
from aisc.driver.collector import patient
from aisc.driver.options import Options, from_environment
from aisc.ir import target as targets
from aisc.ir.annotations import checked_arguments
from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import error, execution_error
from aisc.ir.dtypes import Precision
from aisc.ir.target import Target

if TYPE_CHECKING:
    from aisc.codegen.weights import Keep
    from aisc.driver.instruments import Instrument, Timer
    from aisc.driver.pipeline import Compiled
    from aisc.ir.graph.core import Graph
    from aisc.ir.tensor.func import Program
    from aisc.records.source import Lookup

Level = Literal["graph", "tensor", "program", "llvm", "asm"]
_LAST_STEP: dict[str, str] = {
    "graph": "fuse", "tensor": "optimize", "program": "plan", "llvm": "emit", "asm": "assemble",
}  # fmt: skip


# A target by name, file or description; several, of which the first that can run a group does.
Targets = str | Target | Sequence[str | Target]


@checked_arguments
def resolve_target(target: str | Target) -> Target:
    """A completed target from its name, file or description."""
    found = targets.resolve(target) if isinstance(target, str) else target
    return backend_of(found).target


def backends_of(target: Targets) -> tuple[Host, tuple[Backend, ...]]:
    """The back ends of the host and of the devices that a user has named; without a host among
    them it is the machine of this process. E401 where a name is twice, or two are hosts."""
    named: Sequence[str | Target]
    if isinstance(target, str):
        named = [name.strip() for name in target.split(",")]
    else:
        named = [target] if isinstance(target, Target) else target
    found = [backend_of(targets.resolve(t) if isinstance(t, str) else t) for t in named]
    hosts = [b for b in found if is_host(b)]
    if len(hosts) > 1:
        names = ", ".join(b.target.name for b in hosts)
        raise error("E401", "a model is compiled for one host", f"got {names}")
    host = hosts[0] if hosts else host_of(targets.resolve("cpu"))
    used = [b.target.name for b in (host, *(b for b in found if b is not host))]
    if len(set(used)) < len(used):
        raise error("E401", "two targets have the same name", f"got {', '.join(used)}")
    return host, tuple(b for b in found if b is not host)


def build(
    model: Any,
    target: Targets,
    options: Options,
    *instruments: Instrument,
    lookup: Lookup | None = None,
    keep: Keep | None = None,
) -> Compiled:
    """Run the pipeline; `lookup` gives tuned choices instead of what the options name, `keep` may
    store the result."""
    with patient():
        from aisc.driver.instruments import instruments_for
        from aisc.driver.pipeline import Context, run_pipeline
        from aisc.records.lookup import approval_for, lookup_for
        from aisc.records.source import tunes_later

        host, devices = backends_of(target)
        if tunes_later() and not options.stop_after:
            from aisc.tuning.background import Noting

            instruments += (Noting(host.target, options),)
        watching = instruments_for(options, *instruments)
        tuned = lookup or lookup_for(options.records, *(b.target for b in (host, *devices)))
        approve = approval_for(options.records, host)
        return run_pipeline(model, Context(host, options, watching, tuned, devices, keep, approve))


@checked_arguments
def compile(
    model: Any,
    target: Targets = "cpu",
    *,
    threads: int | None = None,
    wait: Wait | None = None,
    shapes: Mapping[str, Extent] | None = None,
    level: int = 2,
    cache: bool = True,
    host: bool = True,
    overridable: Sequence[str] = (),
    tuned: str | PathLike[str] | None = None,
    locked: str | PathLike[str] | None = None,
    exact_quantization: bool = False,
    precision: Precision = "f32",
    keep_float: Sequence[str] = (),
) -> Executable:
    """Compile a model for a target.

    model: path of an ONNX file, its bytes, an ``onnx.ModelProto`` or a :class:`Graph`.
    target: a name, a description or its file; several, by commas or as a list, where devices run
    what they can, in this order, and the host the rest.
    threads: how many threads a call uses; by default the cores of this process.
    wait: how they wait for each other, ``"active"`` or, where cores are shared, ``"passive"``.
    shapes: values of symbolic dimensions by name, or their bounds as ``(least, greatest)``.
    level: 2 for fast code, 1 for code that is there sooner and takes longer to run, 0 for naive
    loops.
    cache: whether kernels and whole models that were compiled before are taken from the cache, and
    kept there.
    host: whether operators without native code may run on the host, through numpy.
    overridable: inputs that have defaults in the model (initializers) and shall be true inputs.
    Others become constants; a call of ``run`` may give them all the same, at the price of another
    compilation when they are first given, for which `model` must not have changed.
    tuned: a database of :func:`aisc.tune`, whose records decide how kernels are scheduled: by
    default that of the user, if there is one; ``"none"`` for none.
    locked: a lock file of ``aisc tune --lock``: its choices are taken, and its code must result.
    exact_quantization: whether quantized models are computed without rules that may move a value
    by one step of its quantizer.
    precision: the type in which weights are stored: with ``"bf16"`` or ``"f16"`` those of products
    and tables have half the bytes, and are rounded once; what is computed stays f32, but for the
    products of a device that multiplies the type: both factors are rounded, sums are f32.
    keep_float: nodes of the model whose weights stay in f32 then.
    Raises ``CompileError`` when the model cannot be compiled.
    """
    options = from_environment(
        threads=threads, wait=wait, shapes=shapes, level=level, use_cache=cache, host=host,
        overridable=tuple(overridable), tuned=None if tuned is None else str(tuned),
        locked=None if locked is None else str(locked), exact_quantization=exact_quantization,
        precision=precision, keep_float=tuple(keep_float),
    )  # fmt: skip
    return executable(model, target, options)


def executable(
    model: Any, target: Targets, options: Options, *instruments: Instrument
) -> Executable:
    """What :func:`compile` gives: from the cache, or compiled now and kept there."""
    stamp = model_cache.stamp(model)

    def compile_with(names: tuple[str, ...], sizes: Mapping[str, int]) -> Executable:
        if model_cache.stamp(model) != stamp:
            raise execution_error("E501", f"{model} has changed since it was compiled")
        shapes = {**options.shapes, **sizes}
        other = replace(options, overridable=options.overridable + names, shapes=shapes)
        return executable(model, target, other)

    host, devices = backends_of(target)
    place = model_cache.place_of(model, [b.target for b in (host, *devices)], options)
    made = None if place is None else place.open(options.threads)
    if made is None:
        keep = None if place is None else place.keep
        made = build(model, target, options, *instruments, keep=keep).executable
        assert made is not None, "nothing stopped the pipeline"
    made.wait = options.wait
    made.compile_again_with(compile_with)

    def draw() -> str:
        from aisc.pictures.picture import frame

        return frame(model, target, {"shapes": options.shapes, "level": options.level})

    made.draw_with(draw)
    return made


@checked_arguments
def lower(
    model: Any,
    to: Level = "program",
    target: Targets = "cpu",
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
    model: Any, target: Targets = "cpu", **choices: Any
) -> tuple[Compiled, Mapping[str, Graph | Program | str]]:
    """Compile and keep the product of every step, by name."""
    from aisc.driver.instruments import Collector

    collector = Collector()
    compiled = build(model, target, from_environment(**choices), collector)
    return compiled, collector.products


def timed(model: Any, target: Targets = "cpu", **choices: Any) -> tuple[Compiled, Timer]:
    """Compile and measure every step."""
    from aisc.driver.instruments import Timer

    timer = Timer()
    return build(model, target, from_environment(**choices), timer), timer

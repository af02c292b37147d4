"""The compiler as one straight line of twelve named steps.

Everything that watches the steps (timing, dumps, verification) is an instrument; see
:mod:`aisc.instruments`. The products of steps 1-9 are IR that prints, parses back and runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from aisc.building import build_kernels
from aisc.cache import Cache, cache_of, key_of
from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.cpu.image import image_of
from aisc.codegen.executable import Executable
from aisc.codegen.llvm.generate import Assembled
from aisc.codegen.signature import Port
from aisc.fingerprint import fingerprint
from aisc.frontend.registry import importer_for
from aisc.instruments import Instruments, Product
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph
from aisc.ir.optional import attempt
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func, Program
from aisc.kernels import BuiltKernel, Lookup, schedule_kernel, untuned
from aisc.options import STEPS, Options
from aisc.passes.analysis.host import require_native
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.arena import Plan, plan_memory
from aisc.passes.plan.bind import ScheduledKernel, bind_kernels


@dataclass(frozen=True, slots=True)
class Context:
    """What steps may depend on; passed, never ambient."""

    target: Target
    options: Options
    instruments: Instruments
    lookup: Lookup = untuned

    def continues(self, step: str) -> bool:
        """Whether the user wants steps after `step`."""
        stop = self.options.stop_after
        return not stop or STEPS.index(step) < STEPS.index(stop)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation gives: an executable, unless it was stopped before.

    origins: with the option profile, the kernel before scheduling for each function that the
    planned entry calls.
    """

    executable: Executable | None
    product: Product | None
    plan: Plan | None = None
    kernels: int = 0
    from_cache: int = 0
    origins: Mapping[str, Func] = field(default_factory=dict)


def run_pipeline(model: Any, ctx: Context) -> Compiled:
    """Steps 1 to 12."""
    graph = import_step(model, ctx)
    known = () if isinstance(model, Graph) else graph.defaults  # a graph cannot be imported again
    defaults = tuple(Port(v.name, v.type) for v in known)
    graph = specialize_step(graph, ctx)
    if not ctx.continues("specialize"):
        return Compiled(None, graph)
    for name, action in (
        ("canonicalize", Canonicalize().run),
        ("legalize", Legalize().run),
        ("fuse", partial(_fuse, join=ctx.options.level > 0)),
    ):
        graph = graph_step(graph, name, action, ctx)
        if name == "legalize" and not ctx.options.host:
            require_native(graph)
        if not ctx.continues(name):
            return Compiled(None, graph)
    with ctx.instruments.step("lower") as done:
        program = lower_graph(graph, ctx.target.kind)
        done(program)
    if not ctx.continues("lower"):
        return Compiled(None, program)
    if ctx.target.kind != "cpu":
        raise error("E402", f"whole models cannot be compiled for kind '{ctx.target.kind}' yet")
    return _finish(graph, program, ctx, defaults)


def _fuse(graph: Graph, join: bool) -> Graph:
    """Step 5; where joining fails, every operator is a kernel."""
    plain = partial(Fuse(join=False).run, graph)
    return attempt("fusion", partial(Fuse(join=join).run, graph), plain)


def import_step(model: Any, ctx: Context) -> Graph:
    """Step 1: foreign model to graph."""
    if isinstance(model, Graph):
        return model
    with ctx.instruments.step("import") as done:
        graph = _import(model, ctx.options)
        done(graph)
    return graph


def _import(model: Any, options: Options) -> Graph:
    """A path goes to the importer of its suffix; bytes and ModelProto are ONNX."""
    shapes, overridable = dict(options.shapes), options.overridable
    if isinstance(model, str | Path):
        path = Path(model)
        return importer_for(path)(path, shapes, overridable=overridable)
    from aisc.frontend.onnx.importer import import_model

    return import_model(model, shapes, overridable=overridable)


def specialize_step(graph: Graph, ctx: Context) -> Graph:
    """Step 2: the importer has bound the dimensions that the user fixed; types are complete."""
    with ctx.instruments.step("specialize") as done:
        done(graph)
    return graph


def graph_step(graph: Graph, name: str, action: Callable[[Graph], Graph], ctx: Context) -> Graph:
    """One of steps 3 to 5."""
    with ctx.instruments.step(name) as done:
        graph = action(graph)
        done(graph)
    return graph


def _finish(graph: Graph, program: Program, ctx: Context, defaults: tuple[Port, ...]) -> Compiled:
    """Steps 7 to 12. Whoever looks at products of steps 7-9 gets them in full; otherwise kernels
    come from the cache as signatures and objects."""
    watched = bool(ctx.options.stop_after or ctx.options.dump_dir or ctx.options.verify)
    watched = watched or any(type(i).__name__ == "Collector" for i in ctx.instruments.items)
    backend = CpuBackend(ctx.target)
    cache = cache_of(ctx.options.cache_dir) if ctx.options.use_cache and not watched else None
    if watched:
        with ctx.instruments.step("schedule") as done:
            scheduled = {
                k.name: schedule_kernel(k, backend, ctx.options, ctx.lookup)
                for k in program.kernels
            }
        with ctx.instruments.step("optimize") as done:
            bound = bind_kernels(program, scheduled)
            done(bound)
        if not ctx.continues("optimize"):
            return Compiled(None, bound)
        built: dict[str, BuiltKernel] = {}
    else:
        with ctx.instruments.step("kernels") as done:
            built = build_kernels(program.kernels, backend, ctx.options, cache, ctx.lookup)
        scheduled = {n: b.scheduled for n, b in built.items()}
        bound = bind_kernels(program, scheduled)
    with ctx.instruments.step("plan") as done:
        plan = plan_memory(bound, ctx.options.apart)
        done(plan.program)
    if not ctx.continues("plan"):
        return Compiled(None, plan.program, plan)
    with ctx.instruments.step("emit") as done:
        texts = [backend.emit_entry(plan.program, ctx.options.profile)]
        if watched:
            texts.append(backend.emit(plan.program.kernels))
        done("\n\n".join(texts))
    if not ctx.continues("emit"):
        return Compiled(None, "\n\n".join(texts), plan)
    with ctx.instruments.step("assemble") as done:
        objects = [b.object for b in built.values()]
        results = [_assemble(t, backend, cache, watched) for t in texts]
        objects += [r.object for r in results]
        done("\n".join(r.assembly for r in results) if watched else None)
    if not ctx.continues("assemble"):
        return Compiled(None, "\n".join(r.assembly for r in results), plan)
    with ctx.instruments.step("load"):
        names = ([v.name for v in graph.inputs], list(graph.result_names))
        image = image_of(plan.program, objects, ctx.target, names, ctx.options.profile)
        image = replace(image, signature=replace(image.signature, defaults=defaults))
        executable = Executable(image, ctx.options.threads)
    hits = sum(b.cached for b in built.values())
    origins = _origins(program, scheduled) if ctx.options.profile else {}
    return Compiled(executable, plan.program, plan, len(program.kernels), hits, origins)


def _origins(program: Program, scheduled: Mapping[str, ScheduledKernel]) -> dict[str, Func]:
    """The lowered kernel that each scheduled function computes."""
    return {
        f.name: lowered
        for lowered in program.kernels
        for s in (scheduled[lowered.name],)
        for f in (s.func, *(v.func for v in s.versions))
    }


def _assemble(
    text: str, backend: CpuBackend, cache: Cache | None, want_assembly: bool
) -> Assembled:
    """Machine code of the entry, from the cache when the same text was assembled before."""
    if cache is None:
        return backend.assemble(text, want_assembly=want_assembly)
    key = key_of("entry", text, backend.target.key, backend.version, fingerprint())
    record = cache.get(key)
    if record is not None and "object" in record:
        return Assembled(record["object"], "")
    assembled = backend.assemble(text)
    cache.put(key, {"object": assembled.object})
    return assembled

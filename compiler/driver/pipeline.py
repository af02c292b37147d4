"""The compiler as one straight line of twelve named steps.

Everything that watches the steps (timing, dumps, verification) is an instrument; see
:mod:`aisc.driver.instruments`. The products of steps 1-9 are IR that prints, parses back and runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any

from aisc.artifact.cache import Cache, cache_of, key_of
from aisc.artifact.fingerprint import fingerprint
from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Host
from aisc.codegen.image import DeviceCode, Image
from aisc.codegen.run.executable import Executable
from aisc.codegen.signature import Port
from aisc.codegen.weights import Keep, with_weights
from aisc.driver.crew import ALONE, Crew
from aisc.driver.instruments import Instruments, Product
from aisc.driver.kernel import BuiltKernel, Look
from aisc.driver.kernels import build_kernels
from aisc.driver.options import STEPS, Options
from aisc.frontend.registry import importer_for
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph
from aisc.ir.optional import attempt
from aisc.ir.tensor.func import Func, Program
from aisc.passes.analysis.host import require_native
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.graph.place import place
from aisc.passes.graph.precision import TYPES, Precision
from aisc.passes.graph.specialize import specialize
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.arena import Plan, plan_memory
from aisc.passes.plan.bind import ScheduledKernel, bind_kernels
from aisc.passes.policy import Machines
from aisc.records.lookup import Approve
from aisc.records.source import Lookup, untuned

# What the model calls inputs and outputs.
Names = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Context:
    """What steps may depend on; passed, never ambient. `host` makes the entry and the kernels that
    no device takes; devices are asked in their order. `keep` may store what a model becomes, unless
    there are operators of a user in it; `approve` looks at every kernel that was made."""

    host: Host
    options: Options
    instruments: Instruments
    lookup: Lookup = untuned
    devices: tuple[Backend, ...] = ()
    keep: Keep | None = None
    approve: Approve | None = None

    @property
    def machines(self) -> Machines:
        """Whom the passes ask."""
        return Machines(self.host.policy, tuple(d.policy for d in self.devices))

    @property
    def watched(self) -> bool:
        """Whether somebody looks at the products of the steps: then kernels are made in full, and
        do not come from the cache as signatures and objects."""
        return bool(self.options.stop_after) or self.instruments.need_products

    def continues(self, step: str) -> bool:
        """Whether the user wants steps after `step`."""
        stop = self.options.stop_after
        return not stop or STEPS.index(step) < STEPS.index(stop)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation gives: an image and an executable of it, unless it was stopped before or
    was not to be loaded.

    origins: with the option profile, the kernel before scheduling for each function that the
    planned entry calls.
    """

    executable: Executable | None
    product: Product | None
    plan: Plan | None = None
    kernels: int = 0
    from_cache: int = 0
    origins: Mapping[str, Func] = field(default_factory=dict)
    image: Image | None = None


def run_pipeline(model: Any, ctx: Context) -> Compiled:
    """Steps 1 to 12."""
    graph = import_step(model, ctx)
    known = () if isinstance(model, Graph) else graph.defaults  # a graph cannot be imported again
    defaults = tuple(Port(v.name, v.type) for v in known)
    graph = specialize_step(model, graph, ctx)
    with _crew(graph, ctx) as crew:
        return _compiled(graph, ctx, defaults, crew)


def _crew(graph: Graph, ctx: Context) -> Crew:
    """Who makes kernels beside this process: ready when there are kernels, for it starts now."""
    if ctx.watched or not ctx.continues("plan"):
        return ALONE
    targets = [b.target for b in (ctx.host, *ctx.devices)]
    return Crew.start(targets, ctx.options, len(graph.nodes))


def _compiled(graph: Graph, ctx: Context, defaults: tuple[Port, ...], crew: Crew) -> Compiled:
    """Steps 3 to 12."""
    if opdef.uses_custom(graph):
        ctx = replace(ctx, keep=None)
    if not ctx.continues("specialize"):
        return Compiled(None, graph)
    machines, to = ctx.machines, TYPES.get(ctx.options.precision)
    precision = None
    if to is not None:
        precision = Precision(to, ctx.options.keep_float, machines.devices)
    canonicalize = Canonicalize.exactly() if ctx.options.exact_quantization else Canonicalize()
    for name, action in (
        ("canonicalize", canonicalize.run),
        ("legalize", Legalize(machines=machines, precision=precision).run),
        ("fuse", partial(_fuse, join=ctx.options.level > 0, machines=machines)),
    ):
        graph = graph_step(graph, name, action, ctx)
        if name == "legalize" and not ctx.options.host:
            require_native(graph)
        if not ctx.continues(name):
            return Compiled(None, graph)
    with ctx.instruments.step("lower") as done:
        program = lower_graph(graph, machines.host.name)
        done(program)
    if not ctx.continues("lower"):
        return Compiled(None, program)
    names = ([v.name for v in graph.inputs], list(graph.result_names))
    return finish(program, ctx, names, defaults, crew=crew)


def _fuse(graph: Graph, join: bool, machines: Machines) -> Graph:
    """Step 5, and who runs each group; where joining fails, every operator is a kernel."""
    plain = partial(Fuse(join=False, machines=machines).run, graph)
    fused = attempt("fusion", partial(Fuse(join=join, machines=machines).run, graph), plain)
    return place(fused, machines)


def import_step(model: Any, ctx: Context) -> Graph:
    """Step 1: foreign model to graph."""
    if isinstance(model, Graph):
        return model
    with ctx.instruments.step("import") as done:
        shapes, overridable = dict(ctx.options.shapes), ctx.options.overridable
        graph = importer_for(model)(model, shapes, overridable=overridable)
        done(graph)
    return graph


def specialize_step(model: Any, graph: Graph, ctx: Context) -> Graph:
    """Step 2: an importer has bound the dimensions that the user fixed; those of a graph are."""
    with ctx.instruments.step("specialize") as done:
        if isinstance(model, Graph):
            graph = specialize(graph, ctx.options.shapes)
        done(graph)
    return graph


def graph_step(graph: Graph, name: str, action: Callable[[Graph], Graph], ctx: Context) -> Graph:
    """One of steps 3 to 5."""
    with ctx.instruments.step(name) as done:
        graph = action(graph)
        done(graph)
    return graph


def finish(
    program: Program,
    ctx: Context,
    names: Names,
    defaults: tuple[Port, ...] = (),
    given: Mapping[str, ScheduledKernel] | None = None,
    crew: Crew = ALONE,
) -> Compiled:
    """Steps 7 to 12. `given` are kernels that somebody has scheduled already."""
    cache = cache_of(ctx.options.cache_dir) if ctx.options.use_cache and not ctx.watched else None
    with ctx.instruments.step("schedule") as done:
        built = _kernels(program, ctx, cache, given or {}, crew)
        done(None)
    return finish_with(program, built, ctx, names, defaults, cache)


def finish_with(
    program: Program,
    built: Mapping[str, BuiltKernel],
    ctx: Context,
    names: Names,
    defaults: tuple[Port, ...] = (),
    cache: Cache | None = None,
) -> Compiled:
    """What follows when every kernel has been made."""
    scheduled = {n: b.scheduled for n, b in built.items()}
    with ctx.instruments.step("optimize") as done:
        bound = bind_kernels(program, scheduled)
        done(bound if ctx.watched else None)
    if not ctx.continues("optimize"):
        return Compiled(None, bound)
    with ctx.instruments.step("plan") as done:
        plan = plan_memory(bound, ctx.options.apart)
        done(plan.program)
    if not ctx.continues("plan"):
        return Compiled(None, plan.program, plan)
    with ctx.instruments.step("emit") as done:
        entry = ctx.host.emit_entry(plan.program, ctx.options.profile)
        texts = "\n\n".join([entry, *(b.text for b in built.values() if b.text)])
        done(texts)
    if not ctx.continues("emit"):
        return Compiled(None, texts, plan)
    with ctx.instruments.step("assemble") as done:
        made = _assemble(entry, ctx, cache)
        listing = "\n".join([made.listing, *(b.listing for b in built.values() if b.listing)])
        done(listing if ctx.watched else None)
    if not ctx.continues("assemble"):
        return Compiled(None, listing, plan)
    with ctx.instruments.step("load"):
        host, devices = _objects(program, built, ctx)
        objects = [*host, made.object]
        image = ctx.host.image(plan.program, objects, devices, names, ctx.options.profile)
        image = replace(image, signature=replace(image.signature, defaults=defaults))
        image = with_weights(image, ctx.host.packing(plan.program, objects), ctx.keep)
        executable = Executable(image, ctx.options.threads) if ctx.options.load else None
    hits = sum(b.cached for b in built.values())
    origins = _origins(program, scheduled) if ctx.options.profile else {}
    return Compiled(executable, plan.program, plan, len(program.kernels), hits, origins, image)


def _kernels(
    program: Program,
    ctx: Context,
    cache: Cache | None,
    given: Mapping[str, ScheduledKernel],
    crew: Crew,
) -> dict[str, BuiltKernel]:
    """Every kernel, made by the back end of its target, in the order of the program."""
    look = Look(code=ctx.continues("plan"), text=ctx.watched)
    built: dict[str, BuiltKernel] = {}
    for backend in (ctx.host, *ctx.devices):
        mine = [k for k in program.kernels if k.target == backend.target.name]
        built |= build_kernels(mine, backend, ctx.options, cache, ctx.lookup, look, given, crew)
    if ctx.approve is not None and look.code:
        for kernel in program.kernels:
            ctx.approve(kernel, built[kernel.name].object)
    return {k.name: built[k.name] for k in program.kernels}


def _objects(
    program: Program, built: Mapping[str, BuiltKernel], ctx: Context
) -> tuple[list[bytes], list[DeviceCode]]:
    """What the kernels of the host and of each device were assembled to."""
    found: dict[str, list[bytes]] = {}
    for k in program.kernels:
        found.setdefault(k.target, []).append(built[k.name].object)
    targets = [d.target for d in ctx.devices if d.target.name in found]
    devices = [DeviceCode(t.name, t.kind, tuple(found[t.name])) for t in targets]
    return found.get(ctx.host.target.name, []), devices


def _origins(program: Program, scheduled: Mapping[str, ScheduledKernel]) -> dict[str, Func]:
    """The lowered kernel that each scheduled function computes."""
    return {
        f.name: lowered
        for lowered in program.kernels
        for s in (scheduled[lowered.name],)
        for f in (s.func, *(v.func for v in s.versions))
    }


def _assemble(text: str, ctx: Context, cache: Cache | None) -> Artefact:
    """Code of the entry, from the cache when the same text was assembled before."""
    host, quick = ctx.host, ctx.options.level == 1
    if cache is None:
        return host.assemble(text, want_listing=ctx.watched, quick=quick)
    key = key_of("entry", text, str(quick), host.target.key, host.version, fingerprint())
    record = cache.get(key)
    if record is not None and "object" in record:
        return Artefact(record["object"])
    assembled = host.assemble(text, quick=quick)
    cache.put(key, {"object": assembled.object})
    return assembled

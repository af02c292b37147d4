"""Fit the entry to its scheduled kernels: scratch buffers, packed weights, barriers.

before: ``call k0(x, w, y)``
after:  ``alloc k0_t; call k0(x, w_packed, y, k0_t)``, and ``prepare { call k0_pack(w, w_packed) }``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import map_children
from aisc.ir.tensor.expr import equal
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, CallKernel, If, Seq, Stmt, While, seq
from aisc.ir.tensor.visitor import buffers_of
from aisc.passes.plan.barriers import with_barriers
from aisc.passes.plan.overlap import storage
from aisc.passes.schedule.picks import Pick


@dataclass(frozen=True, slots=True)
class Version:
    """Another kernel for calls in which a dimension has a value. It takes the same arguments but
    for scratch of its own."""

    dim: str
    value: int
    func: Func


@dataclass(frozen=True, slots=True)
class ScheduledKernel:
    """A kernel after scheduling. Its parameters are those of the lowered kernel, weights possibly
    packed, followed by scratch. `packers` fill packed parameters: each is a kernel
    ``(source, packed)``; `packed` gives (parameter position, packer name) in order of packing.
    `picks` are the decisions of its rules."""

    func: Func
    packers: tuple[Func, ...] = ()
    packed: tuple[tuple[int, str], ...] = ()
    versions: tuple[Version, ...] = ()
    picks: tuple[Pick, ...] = ()

    @property
    def funcs(self) -> tuple[Func, ...]:
        """Every function that is to be compiled."""
        return (self.func, *(v.func for v in self.versions), *self.packers)


@dataclass(slots=True)
class _Binding:
    """State of one run: packed weights are shared by equal (source, packer)."""

    kernels: Mapping[str, ScheduledKernel]
    host: str
    done: dict[tuple[str, str], Buffer] = field(default_factory=dict)
    prepare: list[Stmt] = field(default_factory=list)
    sources: dict[str, Buffer] = field(default_factory=dict)
    count: int = 0


def bind_kernels(program: Program, kernels: Mapping[str, ScheduledKernel]) -> Program:
    """`program` with scheduled kernels, their scratch, packed weights and barriers in place."""
    host = program.entry.target
    kernels = {name: k if k.func.target == host else _alone(k) for name, k in kernels.items()}
    st = _Binding(kernels, host)
    body = _bind(st, program.entry.body)
    used = {storage(b) for b in buffers_of(body)}
    kept = [b for b in program.entry.params if b.role != "weight" or storage(b) in used]
    params = (*kept, *(b for b in st.done.values() if storage(b) in used))
    entry = replace(program.entry, params=params, body=_synchronized(body, kernels))
    funcs: list[Func] = []
    for k in kernels.values():
        packers = (replace(p, target=host) for p in k.packers)  # they run where weights are packed
        funcs.extend((k.func, *(v.func for v in k.versions), *packers))
    prepare = None
    if st.prepare:
        outputs = tuple(replace(b, role="output") for b in st.done.values())
        params = (*st.sources.values(), *outputs)
        prepare = Func("prepare", params, (), seq(*st.prepare), target=host)
    return replace(program, kernels=tuple(funcs), entry=entry, prepare=prepare)


def _alone(kernel: ScheduledKernel) -> ScheduledKernel:
    """A kernel of a device: one thread of the host has it run."""
    attrs = tuple(a for a in kernel.func.attrs if a[0] != "parallel")
    return replace(kernel, func=replace(kernel.func, attrs=attrs))


def _synchronized(body: Stmt, kernels: Mapping[str, ScheduledKernel]) -> Stmt:
    return with_barriers(body, {f.name: f for k in kernels.values() for f in k.funcs})


def _bind(st: _Binding, stmt: Stmt) -> Stmt:
    """`stmt` with every call bound."""
    if isinstance(stmt, CallKernel):
        return seq(*_bind_call(st, stmt))
    if isinstance(stmt, Seq | If | While):
        if isinstance(stmt, Seq):
            return seq(*(_bind(st, s) for s in stmt.stmts))
        return map_children(stmt, lambda n: _bind(st, n) if isinstance(n, Stmt) else n)
    return stmt


def _bind_call(st: _Binding, call: CallKernel) -> list[Stmt]:
    kernel = st.kernels[call.kernel]
    args = list(call.args)
    packers = {p.name: p for p in kernel.packers}
    for position, packer in kernel.packed:
        args[position] = _packed(st, args[position], packers[packer])
    made: Stmt = _with_scratch(st, call, kernel.func, args)
    for version in kernel.versions:
        names = [v.name for v in kernel.func.dims]
        size = call.dims[names.index(version.dim)]
        special = _with_scratch(st, call, version.func, args)
        made = If(equal(size, version.value), special, made)
    return [made]


def _with_scratch(st: _Binding, call: CallKernel, func: Func, args: list[Buffer]) -> Stmt:
    """A call of `func`, with scratch for the parameters that the lowered kernel does not have."""
    out: list[Stmt] = []
    full = list(args)
    for param in func.params[len(args) :]:
        name = f"{func.name}_{param.name}_{st.count}"
        st.count += 1
        space = param.space if func.target == st.host else f"{func.target}.{param.space}"
        scratch = replace(param, name=name, alias_set=name, space=space)
        out.append(Alloc(scratch))
        full.append(scratch)
    return seq(*out, replace(call, kernel=func.name, args=tuple(full)))


def _packed(st: _Binding, source: Buffer, packer: Func) -> Buffer:
    key = (source.name, packer.name)
    if key not in st.done:
        name = f"{source.name}_{packer.name}"
        result = replace(packer.params[1], name=name, alias_set=name, role="weight")
        made = any(b.name == source.name for b in st.done.values())  # by another packer
        st.done[key] = result
        if not made:
            st.sources[source.name] = replace(source, role="weight")
        first = replace(source, role="output") if made else source
        st.prepare.append(CallKernel(packer.name, (first, replace(result, role="output")), ()))
    return st.done[key]

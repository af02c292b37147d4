"""Fit the entry to its scheduled kernels: scratch buffers, packed weights, barriers.

before: ``call k0(x, w, y)``
after:  ``alloc k0_t; call k0(x, w_packed, y, k0_t)``, and ``prepare { call k0_pack(w, w_packed) }``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, Barrier, CallKernel, Seq, Stmt, seq
from aisc.ir.tensor.visitor import buffers_of


@dataclass(frozen=True, slots=True)
class ScheduledKernel:
    """A kernel after scheduling. Its parameters are those of the lowered kernel, weights possibly
    packed, followed by scratch. `packers` fill packed parameters: each is a kernel
    ``(source, packed)``; `packed` gives (parameter position, packer name) in order of packing."""

    func: Func
    packers: tuple[Func, ...] = ()
    packed: tuple[tuple[int, str], ...] = ()


@dataclass(slots=True)
class _Binding:
    """State of one run: packed weights are shared by equal (source, packer)."""

    kernels: Mapping[str, ScheduledKernel]
    done: dict[tuple[str, str], Buffer] = field(default_factory=dict)
    prepare: list[Stmt] = field(default_factory=list)
    sources: dict[str, Buffer] = field(default_factory=dict)
    replaced: dict[str, None] = field(default_factory=dict)
    used: dict[str, None] = field(default_factory=dict)
    count: int = 0


def bind_kernels(program: Program, kernels: Mapping[str, ScheduledKernel]) -> Program:
    """`program` with scheduled kernels, their scratch, packed weights and barriers in place."""
    st = _Binding(kernels)
    body: list[Stmt] = []
    stmts = (
        program.entry.body.stmts if isinstance(program.entry.body, Seq) else (program.entry.body,)
    )
    for stmt in stmts:
        body.extend(_bind_call(st, stmt) if isinstance(stmt, CallKernel) else [stmt])
    used = {storage(b) for s in body for b in buffers_of(s)}
    kept = [b for b in program.entry.params if b.role != "weight" or storage(b) in used]
    params = (*kept, *st.done.values())
    entry = replace(program.entry, params=params, body=seq(*_with_barriers(body, kernels)))
    funcs: list[Func] = []
    for k in kernels.values():
        funcs.extend((k.func, *k.packers))
    prepare = None
    if st.prepare:
        outputs = tuple(replace(b, role="output") for b in st.done.values())
        prepare = Func("prepare", (*st.sources.values(), *outputs), (), seq(*st.prepare))
    return replace(program, kernels=tuple(funcs), entry=entry, prepare=prepare)


def _bind_call(st: _Binding, call: CallKernel) -> list[Stmt]:
    kernel = st.kernels[call.kernel]
    args = list(call.args)
    packers = {p.name: p for p in kernel.packers}
    for position, packer in kernel.packed:
        args[position] = _packed(st, args[position], packers[packer])
    out: list[Stmt] = []
    for param in kernel.func.params[len(args) :]:
        name = f"{call.kernel}_{param.name}_{st.count}"
        st.count += 1
        scratch = replace(param, name=name, alias_set=name)
        out.append(Alloc(scratch))
        args.append(scratch)
    return [*out, replace(call, args=tuple(args))]


def _packed(st: _Binding, source: Buffer, packer: Func) -> Buffer:
    key = (source.name, packer.name)
    if key not in st.done:
        name = f"{source.name}_{packer.name}"
        result = replace(packer.params[1], name=name, alias_set=name, role="weight")
        st.done[key] = result
        st.sources[source.name] = replace(source, role="weight")
        st.prepare.append(CallKernel(packer.name, (source, replace(result, role="output")), ()))
    return st.done[key]


def _with_barriers(body: list[Stmt], kernels: Mapping[str, ScheduledKernel]) -> list[Stmt]:
    """A barrier before a call that depends on what other threads may still be computing."""
    out: list[Stmt] = []
    pending: dict[str, bool] = {}  # alias set -> written by all threads (else by thread 0)
    reading: dict[str, bool] = {}
    for stmt in body:
        if isinstance(stmt, Alloc):
            out.append(stmt)
            continue
        shared = isinstance(stmt, CallKernel) and is_shared(kernels[stmt.kernel].func)
        reads, writes = _effects(stmt, kernels)
        clash = any(s in pending and (pending[s] or shared) for s in (*reads, *writes))
        clash = clash or any(s in reading and (reading[s] or shared) for s in writes)
        if clash:
            out.append(Barrier("threads"))
            pending, reading = {}, {}
        out.append(stmt)
        for s in writes:
            pending[s] = pending.get(s, False) or shared
        for s in reads:
            reading[s] = reading.get(s, False) or shared
    return out


def is_shared(func: Func) -> bool:
    """Whether all threads take part in a kernel; others are run by thread 0 alone."""
    return bool(func.attr("parallel", False))


def _effects(stmt: Stmt, kernels: Mapping[str, ScheduledKernel]) -> tuple[list[str], list[str]]:
    """Alias sets (storage names) that a statement reads and writes."""
    reads: list[str] = []
    writes: list[str] = []
    if isinstance(stmt, CallKernel):
        for arg, param in zip(stmt.args, kernels[stmt.kernel].func.params, strict=True):
            (reads if param.role in ("input", "weight") else writes).append(storage(arg))
    else:
        both = [storage(b) for b in buffers_of(stmt)]
        reads, writes = both, both
    return reads, writes


def storage(b: Buffer) -> str:
    """The name of the storage that a buffer lies in."""
    return b.base or b.name

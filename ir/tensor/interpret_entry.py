"""Statements of entries alone, as Python closures: sizes, memory segments, calls of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aisc.ir.arith.poly import sole_symbol
from aisc.ir.diagnostics import execution_error
from aisc.ir.graph.core import attribute_symbols
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.first_fit import first_fit
from aisc.ir.tensor.interpret_expr import Frame
from aisc.ir.tensor.stmt import Bind, HostCall, Require, Reserve
from aisc.ir.tensor.storage import copy_into

if TYPE_CHECKING:
    from aisc.ir.tensor.interpret_stmt import StmtCompiler

Run = Callable[[Frame], None]


def host_call(c: StmtCompiler, s: HostCall) -> Run:
    """Run a graph operator through its reference."""
    host = c.machine.host
    if host is None:
        raise execution_error("E502", f"host operator '{s.op}' outside of a program's entry")
    reads = [None if b is None else c.array(b) for b in s.inputs]
    names = sorted({x.name for _, v in s.attrs for x in attribute_symbols(v)})
    dims = {n: c.expr(Var(n)) for n in names if all(n != v.name for v in s.binds)}
    store = _host_sizes(c, s) if s.binds else _host_results(c, s)

    def run(f: Frame) -> None:
        operands = [None if r is None else r(f) for r in reads]
        store(f, host(s, operands, {n: value(f) for n, value in dims.items()}))

    return run


def _host_results(c: StmtCompiler, s: HostCall) -> Callable[[Frame, list[Any]], None]:
    writes = [c.array(b) for b in s.outputs]

    def store(f: Frame, found: list[Any]) -> None:
        for write, array, b in zip(writes, found, s.outputs, strict=True):
            copy_into(write(f), array, b.name)

    return store


def _host_sizes(c: StmtCompiler, s: HostCall) -> Callable[[Frame, list[Any]], None]:
    names = {v.name for v in s.binds}
    places = [
        (c.scope.slot(x.name), k, axis)
        for k, b in enumerate(s.outputs)
        for axis, d in enumerate(b.shape)
        if (x := sole_symbol(d)) is not None and x.name in names
    ]

    def store(f: Frame, found: list[Any]) -> None:
        for slot, k, axis in places:
            f[slot] = found[k].shape[axis]

    return store


def bind(c: StmtCompiler, s: Bind) -> Run:
    """Assign dimensions; storages of these sizes that have no segment are made anew."""
    slots = [c.scope.slot(v.name) for v in s.vars]
    values = [c.expr(e) for e in s.values]
    moved = _resized(c, {v.name for v in s.vars})

    def run(f: Frame) -> None:
        found = [value(f) for value in values]
        for slot, number in zip(slots, found, strict=True):
            f[slot] = number
        for place in moved:
            place(f)

    return run


def _resized(c: StmtCompiler, names: set[str]) -> list[Run]:
    """What places again the buffers in scope whose storage has one of these sizes."""
    roots = {
        b.name
        for b, _ in c.placed
        if b.base in ("", b.name) and any(s.name in names for s in b.type.symbols)
    }
    return [place for b, place in c.placed if (b.base or b.name) in roots]


def require(c: StmtCompiler, s: Require) -> Run:
    """E502 unless the condition holds."""
    cond, values = c.expr(s.cond), [c.expr(v) for v in s.values]

    def run(f: Frame) -> None:
        if not cond(f):
            message = s.text.format(*(value(f) for value in values))
            raise execution_error("E502", message, loc=s.loc)

    return run


def reserve(c: StmtCompiler, s: Reserve) -> Run:
    """Memory of a segment, offsets of its slots; buffers in it get their new places."""
    segments = c.segments
    if segments is None:
        raise execution_error("E502", "a segment outside of a program's entry")
    whole, slots = c.expr(s.size), [c.scope.slot(x.var.name) for x in s.slots]
    sizes = [c.expr(x.size) for x in s.slots]
    moved = [place for b, place in c.placed if b.base == s.segment]

    def run(f: Frame) -> None:
        items = [(n(f), x.first, x.last) for n, x in zip(sizes, s.slots, strict=True)]
        offsets, total = first_fit(items)
        for slot, offset in zip(slots, offsets, strict=True):
            f[slot] = offset
        segments.reserve(s.segment, max(total, whole(f)), s.keep)
        for place in moved:
            place(f)

    return run

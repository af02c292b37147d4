"""Replaying a witness: the interpreter executes each of its two executions, and what they access is
recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aisc.ir.tensor.expr import Const, Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.interpret_expr import Scope, compile_expr, layout_of
from aisc.ir.tensor.interpret_stmt import Compiled, Machine
from aisc.ir.tensor.stmt import For
from aisc.ir.tensor.tree import guarded, places
from aisc.ir.tensor.visitor import buffers_of, substitute
from aisc.passes.schedule.dependence import Witness

Loops = tuple[tuple[str, int], ...]
Touch = tuple[str, tuple[int, ...], bool]


class Recorder:
    """Storage of a buffer that remembers which elements are accessed; all are zero."""

    def __init__(self, buffer: Buffer, dims: Mapping[str, int]) -> None:
        self.name, (self.shape, _) = buffer.name, layout_of(buffer, dims)
        self.zero: Any = 0.0 if buffer.dtype.is_float else buffer.dtype.kind != "bool" and 0
        self.found: list[Touch] = []

    def index(self, flat: int) -> tuple[int, ...]:
        """The indices of a place in memory."""
        at = []
        for d in reversed(self.shape):
            flat, i = divmod(flat, d)
            at.append(i)
        return tuple(reversed(at))

    def __getitem__(self, flat: int) -> Any:
        self.found.append((self.name, self.index(flat), False))
        return self.zero

    def __setitem__(self, flat: int, value: Any) -> None:
        self.found.append((self.name, self.index(flat), True))


def executed(func: Func, block: str, loops: Loops, dims: Mapping[str, int]) -> list[Touch]:
    """What one execution of a block accesses, by running it alone."""
    place = next(p for p in places(func.body) if p.block.name == block)
    assert [f.var.name for f in place.loops] == [name for name, _ in loops]
    env = dict(dims)
    for f, (name, value) in zip(place.loops, loops, strict=True):
        assert in_range(f, value, env), f"{name}={value} is no iteration"
        env[name] = value
    values: dict[Var, Expr] = {f.var: Const(env[f.var.name]) for f in place.loops}
    used = dict.fromkeys((*func.params, *buffers_of(func.body)))
    params = tuple(replace(b, role="output") for b in used)
    alone = replace(
        func, params=params, body=substitute(guarded(place.block, place.predicate), values)
    )
    recorders = [Recorder(b, dims) for b in params]
    compiled = Compiled(alone, dict(dims), {}, Machine())
    compiled.call(recorders, [dims[v.name] for v in func.dims])
    return [t for r in recorders for t in r.found]


def in_range(loop: For, value: int, env: Mapping[str, int]) -> bool:
    """Whether a loop has an iteration."""
    low, extent = (compile_expr(e, Scope(env, {}, {}))([]) for e in (loop.low, loop.extent))
    return bool(low <= value < low + extent)


def assert_replays(func: Func, witness: Witness) -> None:
    """Both executions of the witness access its element, as it says, and they are two."""
    w, dims = witness, dict(witness.dims)
    assert w.first_writes or w.second_writes
    assert (w.first, w.first_loops) != (w.second, w.second_loops)
    for block, loops, writes in (
        (w.first, w.first_loops, w.first_writes),
        (w.second, w.second_loops, w.second_writes),
    ):
        found = executed(func, block, loops, dims)
        assert (w.buffer, w.index, writes) in found, f"{w}: {block} accesses {found}"

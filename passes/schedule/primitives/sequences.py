"""Primitives on the order of loops that stand one after the other: partition, fission,
fuse_loops."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from aisc.ir.diagnostics import CompileError, error
from aisc.ir.tensor.expr import ONE, ZERO, Const, Expr, Var, binary, logical_and, maximum, minimum
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Alloc, For, Seq, Stmt, seq
from aisc.ir.tensor.tree import (
    Place,
    claim,
    find_loop,
    find_place,
    fresh,
    indexer,
    outer_loops,
    places,
    replace_stmt,
)
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.copies import Names, copied
from aisc.passes.schedule.guards import never, simplify_guards
from aisc.passes.schedule.legality import require_independent, require_sequence
from aisc.passes.schedule.schedule import primitive


@primitive()
def partition(func: Func, loop: str, *at: int | str, names: tuple[str, ...] = ()) -> Func:
    """Cut the range of a loop into pieces that run one after the other (peel).

    before: ``for i in 0..N: S(i)``
    after ``partition("i", p)``: ``for i in 0..p: S(i);  for i_1 in 0..N-p: S(p + i_1)``
    A point counts from the start, a negative one from the end; a text is an expression over the
    function's dimensions, such as ``"n // 2"``. Points beyond the range are moved to its ends. The
    first piece keeps all names; loops, blocks and private buffers of the others get fresh ones, or
    the loops get `names`, one for each piece. Guards and initialisations that a piece decides are
    dropped. Legal unless a reduction over the loop might start in any of several pieces.
    """
    old = find_loop(func, loop)
    step = f"partition({loop})"
    if "." in old.kind:
        raise error("E302", f"{step}: it is bound to {old.kind}", "partition it before bind")
    if not at or len(names) not in (0, len(at) + 1):
        raise error("E302", f"{step}: it takes points, and a name for each piece or none")
    outer = outer_loops(func, old)
    index = indexer((), func.dims)
    starts = _starts(func, old, at, index)
    ends = [*starts[1:], old.extent]
    free = Names(func)
    pieces: list[Stmt] = []
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        extent = index.simplify(end - start)
        if extent == ZERO:
            continue
        if not pieces:
            _require_start(func, old, extent, outer, step)
        piece = copied(old, free) if pieces else old
        assert isinstance(piece, For), "a copy of a loop is a loop"
        chosen = names[k] if names else ""
        own = claim(func, chosen, step) if chosen not in ("", loop) else piece.var.name
        done = simplify_guards(func, _piece(piece, own, start, extent), outer)
        if pieces and any(p.block.init is not None and _open(p, own) for p in places(done)):
            raise _unclear(step)
        pieces.append(done)
    if len(pieces) < 2:
        raise error("E302", f"{step}: the points {', '.join(map(str, at))} cut nothing off")
    return replace_stmt(func, old, seq(*pieces))


def _require_start(func: Func, loop: For, first: Expr, outer: tuple[For, ...], step: str) -> None:
    """Reductions over the loop start in the first piece: it is empty only where the loop is."""
    inside = [replace(p, loops=(*outer, *p.loops)) for p in places(loop)]
    if not any(p.block.init is not None and _open(p, loop.var.name) for p in inside):
        return
    empty = logical_and(binary("le", first, ZERO), binary("ge", loop.extent, ONE))
    if not never(func, outer, empty):
        raise _unclear(step)


def _open(place: Place, loop: str) -> bool:
    """Whether a block reduces over the loop, and maybe over nothing: a loop without iterations
    stands for the start of the reduction."""
    pairs = zip(place.block.iters, place.block.bindings, strict=True)
    values = [v for it, v in pairs if it.kind == "reduce"]
    used = [f for f in place.loops if any(mentions(v, f.var) for v in values)]
    fixed = all(isinstance(f.extent, Const) for f in used)
    return not fixed and any(f.var.name == loop for f in used)


def _unclear(step: str) -> CompileError:
    return error(
        "E302", f"{step}: a reduction may start in several pieces", "decompose_reduction first"
    )


def _piece(loop: For, name: str, start: Expr, extent: Expr) -> For:
    """The iterations from `start` on, counted from 0."""
    var = Var(name)
    body = substitute(loop.body, {loop.var: loop.low + start + var})
    return replace(loop, var=var, low=ZERO, extent=extent, body=body)


def _starts(func: Func, loop: For, at: tuple[int | str, ...], index: Indexer) -> list[Expr]:
    """Where the pieces begin, ascending and within the loop."""
    dims = {d.name: d for d in func.dims}
    found: list[Expr] = [ZERO]
    for point in at:
        if isinstance(point, str):
            value = _expression(point, dims)
        else:
            value = Const(point) if point >= 0 else loop.extent + point
        if not never(func, (), binary("lt", value, found[-1])):
            value = maximum(value, found[-1])
        if not never(func, (), binary("gt", value, loop.extent)):
            value = minimum(value, loop.extent)
        found.append(index.simplify(value))
    return found


def _expression(text: str, dims: Mapping[str, Var]) -> Expr:
    """An expression over dimensions: ``+ - * //``, numbers, names; E302 for others."""

    def go(node: ast.expr) -> Expr:
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Const(node.value)
        if isinstance(node, ast.Name) and node.id in dims:
            return dims[node.id]
        if isinstance(node, ast.BinOp):
            a, b = go(node.left), go(node.right)
            if isinstance(node.op, ast.Add):
                return a + b
            if isinstance(node.op, ast.Sub):
                return a - b
            if isinstance(node.op, ast.Mult):
                return a * b
            if isinstance(node.op, ast.FloorDiv) and isinstance(b, Const) and int(b.value) > 0:
                return a // b
        raise _not_a_point(text, dims)

    try:
        return go(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _not_a_point(text, dims) from None


def _not_a_point(text: str, dims: Mapping[str, Var]) -> CompileError:
    have = ", ".join(dims) or "none"
    return error(
        "E302", f"partition: '{text}' is no expression over dimensions", f"dimensions: {have}"
    )


@primitive()
def fission(func: Func, loop: str, after_block: str, name: str = "") -> Func:
    """Split a loop over a sequence of statements into two loops, the first up to the statement
    that holds `after_block`.

    before: ``for i: { A(i); B(i) }``   after: ``for i: A(i);  for i_1: B(i_1)``
    Legal when no later iteration of A conflicts with an earlier one of B. Buffers that the body
    declares are declared before both loops.
    """
    old, place = find_loop(func, loop), find_place(func, after_block)
    step = f"fission({loop}, {after_block})"
    stmts = old.body.stmts if isinstance(old.body, Seq) else (old.body,)
    allocs = [s for s in stmts if isinstance(s, Alloc)]
    parts = [s for s in stmts if not isinstance(s, Alloc)]
    at = next((k for k, s in enumerate(parts) if place.block in (p.block for p in places(s))), None)
    if at is None or at == len(parts) - 1 or "." in old.kind:
        raise error("E302", f"{step}: the loop's body has nothing after the block to split off")
    first, second = seq(*parts[: at + 1]), seq(*parts[at + 1 :])
    require_sequence(func, (old, old), (first, second), step)
    var = Var(claim(func, name, step) if name else fresh(func, loop))
    halves = (
        replace(old, body=first),
        replace(old, var=var, body=substitute(second, {old.var: var})),
    )
    return replace_stmt(func, old, seq(*allocs, *halves))


@primitive()
def fuse_loops(func: Func, first: str, second: str) -> Func:
    """Merge two loops that stand one after the other and have as many iterations.

    before: ``for i in 0..N: A(i);  for j in 0..N: B(j)``   after: ``for i in 0..N: { A(i); B(i) }``
    Legal when no later iteration of A conflicts with an earlier one of B; parallel and vectorized
    loops must still be independent.
    """
    a, b = find_loop(func, first), find_loop(func, second)
    step = f"fuse_loops({first}, {second})"
    around = _sequence_of(func, a, b, step)
    index = indexer(outer_loops(func, a), func.dims)
    if index.linear(a.extent) != index.linear(b.extent) or a.kind != b.kind or "." in a.kind:
        raise error("E302", f"{step}: the loops differ in kind or in number of iterations")
    require_sequence(func, (a, b), (a.body, b.body), step)
    turn = a.var + (b.low - a.low)
    fused = replace(a, body=seq(a.body, substitute(b.body, {b.var: turn})))
    merged = [fused if s is a else s for s in _allocs_first(around, a, b) if s is not b]
    result = replace_stmt(func, around, seq(*merged))
    if a.kind in ("parallel", "vectorize"):
        require_independent(result, find_loop(result, first), step, apart=a.kind == "parallel")
    return result


def _allocs_first(around: Seq, a: For, b: For) -> list[Stmt]:
    """The statements with the declarations between both loops before the first of them."""
    stmts = list(around.stmts)
    i, j = (next(k for k, s in enumerate(stmts) if s is x) for x in (a, b))
    between = [s for s in stmts[i:j] if isinstance(s, Alloc)]
    others = [s for s in stmts[i:j] if not isinstance(s, Alloc)]
    return [*stmts[:i], *between, *others, *stmts[j:]]


def _sequence_of(func: Func, a: For, b: For, step: str) -> Seq:
    """The sequence in which `b` follows `a`, declarations aside."""
    for seq_ in _sequences(func.body):
        parts = [s for s in seq_.stmts if not isinstance(s, Alloc)]
        if any(x is a and y is b for x, y in pairwise(parts)):
            return seq_
    raise error("E302", f"{step}: the second loop does not follow the first")


def _sequences(stmt: Stmt) -> list[Seq]:
    if isinstance(stmt, Seq):
        return [stmt, *(x for s in stmt.stmts for x in _sequences(s))]
    return _sequences(stmt.body) if isinstance(stmt, For) else []

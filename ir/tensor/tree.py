"""Finding and replacing parts of a scheduled loop tree.

A scheduled body is made of loops, sequences, allocations, and blocks as leaves; the predicate of a
block, if any, is an ``If`` directly around it. Loops and blocks are named; names are unique.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import Node, children, map_children
from aisc.ir.tensor.builder import accesses
from aisc.ir.tensor.expr import TRUE, Binary, Const, Expr, Var, logical_and, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Let, Prefetch, Seq, Stmt, While, seq
from aisc.ir.tensor.visitor import touched


@dataclass(frozen=True, slots=True)
class Place:
    """A block with the loops around it, outermost first, and its predicate."""

    block: Block
    loops: tuple[For, ...]
    predicate: Expr


def places(node: Stmt) -> tuple[Place, ...]:
    """Every block below `node`, in program order."""
    try:
        return node._places
    except AttributeError:
        object.__setattr__(node, "_places", tuple(_places(node)))
        return node._places


def _places(node: Stmt) -> Iterator[Place]:
    stack: list[tuple[Node, tuple[For, ...], Expr]] = [(node, (), TRUE)]
    while stack:
        top, loops, cond = stack.pop()
        if isinstance(top, Block):
            yield Place(top, loops, cond)
        elif isinstance(top, For):
            stack.append((top.body, (*loops, top), cond))
        elif isinstance(top, If):
            if top.other is not None:
                stack.append((top.other, loops, cond))
            stack.append((top.then, loops, logical_and(cond, top.cond)))
        elif isinstance(top, Seq):
            stack.extend((s, loops, cond) for s in reversed(top.stmts))


def is_fresh(place: Place) -> bool:
    """Whether the nest of a block is as it was lowered: one serial loop per iterator."""
    top = place.loops[0] if place.loops else None
    if top is None or len(list(places(top))) != 1 or len(place.loops) != len(place.block.iters):
        return False
    pairs = zip(place.loops, place.block.bindings, place.block.iters, strict=True)
    return all(
        f.kind == "serial" and f.var == v and f.extent == it.extent and f.low == Const(0)
        for f, v, it in pairs
    )


def outer_loops(func: Func, loop: For) -> tuple[For, ...]:
    """The loops around `loop`, outermost first."""
    for place in places(func.body):
        for k, f in enumerate(place.loops):
            if f is loop:
                return place.loops[:k]
    return ()


def statements(node: Stmt) -> tuple[Stmt, ...]:
    """`node` and every statement below it, outer ones first; expressions are not looked at."""
    try:
        return node._statements
    except AttributeError:
        found = [node]
        for part in _parts(node):
            found += statements(part)
        object.__setattr__(node, "_statements", tuple(found))
        return node._statements


def _parts(node: Stmt) -> tuple[Stmt, ...]:
    """The statements that a statement consists of, in the order of execution."""
    if isinstance(node, Seq):
        return node.stmts
    if isinstance(node, For | While | Let):
        return (node.body,)
    if isinstance(node, Block):
        return (node.body,) if node.init is None else (node.init, node.body)
    if isinstance(node, If):
        return (node.then,) if node.other is None else (node.then, node.other)
    return ()


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that a statement itself holds, not those of statements in it."""
    return tuple(n for n in children(stmt) if isinstance(n, Expr))


def loops_of(node: Stmt) -> tuple[For, ...]:
    """Every loop below `node`, outer ones first."""
    try:
        return node._loops
    except AttributeError:
        found = tuple(n for n in statements(node) if isinstance(n, For))
        object.__setattr__(node, "_loops", found)
        return found


def transform_statements(node: Stmt, fn: Callable[[Stmt], Stmt]) -> Stmt:
    """`fn` applied to every statement, inner ones first; expressions are not looked at."""

    def go(n: Node) -> Node:
        return fn(map_children(n, go)) if isinstance(n, Stmt) else n

    result = go(node)
    assert isinstance(result, Stmt), "a statement stays one"
    return result


def find_loop(func: Func, name: str) -> For:
    """The loop whose variable is called `name`; E302 when there is none."""
    for loop in loops_of(func.body):
        if loop.var.name == name:
            return loop
    have = ", ".join(f.var.name for f in loops_of(func.body))
    raise error("E302", f"{func.name} has no loop '{name}'", f"its loops are: {have}")


def find_place(func: Func, name: str) -> Place:
    """The block called `name` with its loops; E302 when there is none."""
    for place in places(func.body):
        if place.block.name == name:
            return place
    have = ", ".join(p.block.name for p in places(func.body))
    raise error("E302", f"{func.name} has no block '{name}'", f"its blocks are: {have}")


def replace_stmt(func: Func, old: Stmt, new: Stmt | None) -> Func:
    """`func` with one statement (found by identity) replaced, or removed with ``None``."""

    def go(n: Node) -> Node:
        if n is old:
            return new if new is not None else Seq(())
        if isinstance(n, Seq):
            return seq(*(s for s in (go(x) for x in n.stmts) if isinstance(s, Stmt)))
        if isinstance(n, For | If):
            return map_children(n, lambda c: go(c) if isinstance(c, Stmt) else c)
        return n

    body = go(func.body)
    assert isinstance(body, Stmt), "a statement was replaced by something else"
    return replace(func, body=prune(body))


def prune(stmt: Stmt) -> Stmt:
    """Drop loops and conditions whose body became empty."""
    if isinstance(stmt, Seq):
        return seq(*(s for s in map(prune, stmt.stmts) if not _is_empty(s)))
    if isinstance(stmt, For):
        body = prune(stmt.body)
        return body if _is_empty(body) else stmt if body is stmt.body else _with(stmt, body)
    if isinstance(stmt, If) and stmt.other is None:
        then = prune(stmt.then)
        if _is_empty(then):
            return then
        return stmt if then is stmt.then else replace(stmt, then=then)
    return stmt


def _is_empty(stmt: Stmt) -> bool:
    return isinstance(stmt, Seq) and not stmt.stmts


def _with(loop: For, body: Stmt) -> For:
    return replace(loop, body=body)


def without_alloc(func: Func, buffer: Buffer) -> Func:
    """`func` without the declaration of `buffer`, and without hints that name it."""

    def go(n: Node) -> Node:
        if not isinstance(n, Stmt) or buffer not in touched(n):
            return n
        n = map_children(n, go)
        if isinstance(n, Seq):
            return seq(*(s for s in n.stmts if not (isinstance(s, Alloc) and s.buffer == buffer)))
        return n

    body = go(func.body)
    assert isinstance(body, Stmt), "a statement stays one"
    return without_hints(replace(func, body=body), buffer)


def without_hints(func: Func, buffer: Buffer) -> Func:
    """`func` without requests for parts of `buffer`, which will lie elsewhere."""
    found = [s for s in statements(func.body) if isinstance(s, Prefetch) and s.buffer == buffer]
    for hint in found:
        func = replace_stmt(func, hint, None)
    return func


def map_blocks(stmt: Stmt, fn: Callable[[Block], Stmt]) -> Stmt:
    """`stmt` with every block replaced by ``fn(block)``."""

    def go(n: Node) -> Node:
        if isinstance(n, Block):
            return fn(n)
        if isinstance(n, For | If | Seq):
            return map_children(n, lambda c: go(c) if isinstance(c, Stmt) else c)
        return n

    result = go(stmt)
    assert isinstance(result, Stmt), "a block was replaced by something else"
    return result


def guarded(block: Block, cond: Expr) -> Stmt:
    """`block` under a predicate; no ``If`` when it is trivially true."""
    return block if cond == TRUE else If(cond, block)


def push_guard(stmt: Stmt, cond: Expr) -> Stmt:
    """Conjoin `cond` to the predicate of every block below."""
    if isinstance(stmt, Block):
        return If(cond, stmt)
    if isinstance(stmt, If):
        return replace(stmt, cond=logical_and(stmt.cond, cond))
    if isinstance(stmt, For):
        return replace(stmt, body=push_guard(stmt.body, cond))
    if isinstance(stmt, Seq):
        return Seq(tuple(push_guard(s, cond) for s in stmt.stmts))
    return stmt


def conjuncts(cond: Expr) -> list[Expr]:
    """The conditions that a conjunction consists of; none for true."""
    if isinstance(cond, Binary) and cond.op == "and":
        return conjuncts(cond.a) + conjuncts(cond.b)
    return [] if cond == TRUE else [cond]


def with_regions(block: Block) -> Block:
    """`block` with its declared regions derived again from its body."""
    reads, writes = accesses(block.body)
    return replace(block, reads=tuple(r for r in reads if r not in writes), writes=writes)


def nest(loops: tuple[For, ...], body: Stmt) -> Stmt:
    """`loops` around `body`, the first outermost; their own bodies are dropped."""
    for loop in reversed(loops):
        body = replace(loop, body=body)
    return body


def extent_of(loop: For) -> int | None:
    """Constant extent of a loop, if it has one."""
    return int(loop.extent.value) if isinstance(loop.extent, Const) else None


def indexer(loops: tuple[For, ...], dims: tuple[Var, ...] = ()) -> Indexer:
    """Ranges of loop variables (symbolic extents are bounded below only); one for all who ask for
    the same loops, so that it knows the forms that it was asked for before."""
    return _indexer(tuple([(f.var, f.low, f.extent) for f in loops]), dims)


@lru_cache(maxsize=64)
def _indexer(loops: tuple[tuple[Var, Expr, Expr], ...], dims: tuple[Var, ...]) -> Indexer:
    index = Indexer({d.name: (0, float("inf")) for d in dims})
    for var, first, extent in loops:  # a range is known before anything mentions the variable
        low, high = index.bounds(first), index.bounds(first + extent)
        index.ranges[var.name] = low[0], high[1] - 1
    return index


def linear_address(buffer: Buffer, indices: Sequence[Expr], index: Indexer | None = None) -> Linear:
    """The place of an element among those of its buffer, as a linear form; `index` knows the ranges
    of variables."""
    flat: Expr = Const(0)
    for i, stride in zip(indices, buffer.strides, strict=True):
        flat = flat + i * of_dim(stride)
    return (index or Indexer()).linear(flat)


def all_names(func: Func) -> set[str]:
    """Names of all loops, blocks and variables, to make fresh ones."""
    names = {b.name for b in func.params} | {v.name for v in func.dims}
    for n in statements(func.body):
        if isinstance(n, For | Let):
            names.add(n.var.name)
        elif isinstance(n, Block):
            names.update((n.name, *(it.var.name for it in n.iters)))
        elif isinstance(n, Alloc):
            names.add(n.buffer.name)
    return names


def claim(func: Func, name: str, step: str) -> str:
    """A name that the user chose, if nothing has it; E302 otherwise."""
    if name in all_names(func):
        raise error("E302", f"{step}: the name '{name}' is taken")
    return name


def fresh(func: Func, hint: str) -> str:
    """`hint`, or `hint` with the first free number."""
    names = all_names(func)
    if hint not in names:
        return hint
    count = 1
    while f"{hint}_{count}" in names:
        count += 1
    return f"{hint}_{count}"

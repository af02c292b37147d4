"""Rewriting of tensor-IR trees: substitution of variables and buffers, bottom-up maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from aisc.ir.node import Node, children, map_children
from aisc.ir.tensor.expr import Expr, Load, Var, has_loads, loaded, variables
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import (
    Alloc,
    CallKernel,
    Copy,
    HostCall,
    Invoke,
    Prefetch,
    Region,
    Stmt,
    Store,
)

N = TypeVar("N", bound=Node)


def transform(node: N, fn: Callable[[Node], Node]) -> N:
    """`fn` applied to every node, children first; unchanged parts are shared."""
    kept = once(lambda n: fn(map_children(n, kept)))
    return cast(N, kept(node))


def transform_accesses(node: N, fn: Callable[[Node], Node]) -> N:
    """Like :func:`transform` for an `fn` that leaves expressions without loads as they are: it is
    not asked for them."""
    kept = once(
        lambda n: n if isinstance(n, Expr) and not has_loads(n) else fn(map_children(n, kept))
    )
    return cast(N, kept(node))


def walk_accesses(node: Node) -> Iterator[Node]:
    """Like :func:`walk`, without expressions that have no loads."""
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, Expr) and not has_loads(top):
            continue
        yield top
        stack += children(top)[::-1]


def once(fn: Callable[[Node], Node]) -> Callable[[Node], Node]:
    """`fn`, applied to each node of a tree once however often the tree holds it; the tree must
    outlive the result."""
    memo: dict[int, Node] = {}

    def go(n: Node) -> Node:
        known = memo.get(id(n))
        if known is None:
            known = memo[id(n)] = fn(n)
        return known

    return go


def substitute(node: N, values: Mapping[Var, Expr]) -> N:
    """`node` with variables replaced; names are unique in a Func, so nothing is captured."""
    return substitution(values)(node) if values else node


def substitution(values: Mapping[Var, Expr]) -> Callable[[N], N]:
    """:func:`substitute` for several parts of one tree, which must outlive it: what they share is
    replaced once."""

    names, memo = frozenset(values), dict[int, Node]()

    def go(n: Node) -> Node:
        try:
            own: frozenset[Var] = n._variables  # type: ignore[attr-defined]
        except AttributeError:
            own = mentioned(n)
        if own.isdisjoint(names):
            return n
        known = memo.get(id(n))
        if known is None:
            known = values[n] if isinstance(n, Var) else map_children(n, go)
            memo[id(n)] = known
        return known

    return cast(Callable[[N], N], go)


def mentioned(node: Node) -> frozenset[Var]:
    """The variables that occur in a statement or an expression, and those that it binds."""
    try:
        return node._variables  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        if isinstance(node, Expr):
            return variables(node)
        found = frozenset[Var]().union(*map(mentioned, children(node)))
        if isinstance(node, Stmt):
            object.__setattr__(node, "_variables", found)
        return found


def touched(node: Node) -> frozenset[Buffer]:
    """The buffers that a statement or an expression names."""
    try:
        return node._buffers  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        if isinstance(node, Expr):
            return loaded(node)
        found = frozenset(b for b in _own_buffers(node) if b).union(*map(touched, children(node)))
        if isinstance(node, Stmt):
            object.__setattr__(node, "_buffers", found)
        return found


def size(node: Node) -> int:
    """How many nodes a tree has; what it holds several times counts as often."""
    try:
        return node._size  # type: ignore[attr-defined,no-any-return]
    except AttributeError:
        found = 1 + sum(map(size, children(node)))
        if isinstance(node, Stmt | Expr):
            object.__setattr__(node, "_size", found)
        return found


def _own_buffers(node: Node) -> Iterable[Buffer | None]:
    """The buffers that stand in the fields of a node."""
    if isinstance(node, Store | Region | Prefetch | Alloc):
        return (node.buffer,)
    if isinstance(node, CallKernel):
        return node.args
    if isinstance(node, Copy):
        return node.src, node.dst
    return (*node.inputs, *node.outputs) if isinstance(node, HostCall) else ()


def replace_buffers(node: N, table: Mapping[Buffer, Buffer]) -> N:
    """`node` with buffers exchanged wherever they are accessed, declared or passed."""

    buffers = frozenset(table)

    def go(n: Node) -> Node:
        n = map_children(n, inner)
        if isinstance(n, Load):
            return Load(table.get(n.buffer, n.buffer), n.indices)
        if isinstance(n, Store) and n.buffer in table:
            return replace(n, buffer=table[n.buffer])
        if isinstance(n, Prefetch) and n.buffer in table:
            return Prefetch(table[n.buffer], n.indices, n.write)
        if isinstance(n, Alloc):
            return Alloc(table.get(n.buffer, n.buffer))
        if isinstance(n, Region) and n.buffer in table:
            return Region(table[n.buffer], n.low, n.extent, n.step)
        if isinstance(n, CallKernel):
            return replace(n, args=tuple(table.get(b, b) for b in n.args))
        if isinstance(n, Copy):
            return Copy(table.get(n.src, n.src), table.get(n.dst, n.dst))
        if isinstance(n, HostCall):
            ins = tuple(None if b is None else table.get(b, b) for b in n.inputs)
            outs = tuple(table.get(b, b) for b in n.outputs)
            return replace(n, inputs=ins, outputs=outs)
        return n

    kept = once(go)

    def inner(n: Node) -> Node:
        return n if touched(n).isdisjoint(buffers) else kept(n)

    return cast(N, inner(node))


def buffers_of(node: Node) -> dict[Buffer, None]:
    """Every buffer accessed in `node`, in order of first use."""
    found: dict[Buffer, None] = {}
    for n in walk_accesses(node):
        if isinstance(n, Load | Store | Region):
            found[n.buffer] = None
        elif isinstance(n, CallKernel):
            found.update(dict.fromkeys(n.args))
        elif isinstance(n, Copy):
            found.update({n.src: None, n.dst: None})
        elif isinstance(n, HostCall):  # one that binds sizes does not touch its results
            used = n.inputs if n.binds else (*n.inputs, *n.outputs)
            found.update({b: None for b in used if b is not None})
    return found


def written_buffers(node: Node) -> dict[Buffer, None]:
    """Buffers that `node` stores to (an ``Invoke`` counts for all its operands)."""
    found: dict[Buffer, None] = {}
    for n in walk_accesses(node):
        if isinstance(n, Store):
            found[n.buffer] = None
        elif isinstance(n, Invoke):
            found.update({r.buffer: None for r in n.operands})
    return found

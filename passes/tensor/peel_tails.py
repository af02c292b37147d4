"""Divide loops over vectors into the turns that are whole and those that are not.

before: ``for o in 0..4: vectorize l in 0..16: if o*16 + l < 60: y[o*16 + l] = …``
after:  ``for o in 0..3: vectorize l in 0..16: y[o*16 + l] = …;
for o in 3..4: vectorize l in 0..16: if o*16 + l < 60: y[o*16 + l] = …``
A mask costs several instructions for each vector, and only the last one needs it. The order of
turns stays. Sizes may be known at run time only, where the loop has just as many turns as hold
elements. Precondition: blocks are lowered, conditions simplified. Only loops around little are
divided: a serial loop whose body is vectors and copies.

What all lanes of a vector pass or none is no mask: its first lane is asked.

Copies of vectors that a schedule has marked, because its machine stores some lanes of a vector
slowly, are there twice, and whole wherever the last of them is inside::

    if t*24 + 23 < 60 { unroll v in 0..3: vectorize l in 0..8: y[t*24 + v*8 + l] = … }
    else { … if t*24 + v*8 + l < 60: y[t*24 + v*8 + l] = … }

So are those of a parallel loop around nothing else, which stays one loop: what would come after it
would have to wait for all threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import (
    FALSE,
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Select,
    Var,
    binary,
    has_loads,
    variables,
)
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import For, If, Let, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import statements, transform_statements
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names, copied
from aisc.passes.tensor.lower_blocks import simplified

# Copies of a body that a loop may hold and still have its last turns apart.
MOST_COPIES = 16
# The annotation of such copies.
WHOLE_APART = "whole_apart"


@dataclass(frozen=True, slots=True)
class PeelTails:
    """The pass; see the module's docstring."""

    name: str = "peel-tails"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        names = Names(func)
        index = Indexer({d.name: (0, float("inf")) for d in func.dims})

        def go(n: Stmt) -> Stmt:
            if isinstance(n, Seq):
                return seq(*n.stmts)
            if not isinstance(n, For):
                return n
            if n.kind == "vectorize":
                return _alike(n, index)
            if WHOLE_APART in dict(n.annotations):
                return _twice(n, index, names)
            if not _is_small(n):
                return n
            if n.kind == "parallel":
                apart = _twice(n.body, index, names) if isinstance(n.body, For) else n.body
                return n if apart is n.body else replace(n, body=apart)
            return _divided(n, index, names)

        body = transform_statements(func.body, go)
        return func if body is func.body else replace(func, body=body)


def _is_small(loop: For) -> bool:
    """Whether a loop of turns holds nothing but vectors and a few copies of them."""
    turns = loop.kind in ("serial", "parallel") and loop.low == ZERO
    return turns and 0 < _copies(loop.body) <= MOST_COPIES


def _copies(s: Stmt) -> int:
    """How many vectors one turn stores; 0 where it does other things too."""
    if isinstance(s, Store):
        return 1
    if isinstance(s, Seq):
        counts = [_copies(x) for x in s.stmts]
        return sum(counts) if all(counts) else 0
    if isinstance(s, If):
        return _copies(s.then) if s.other is None else 0
    if isinstance(s, Let):
        return _copies(s.body)
    if isinstance(s, For) and isinstance(s.extent, Const):
        times = int(s.extent.value) if s.kind == "unroll" else 1
        return times * _copies(s.body) if s.kind in ("unroll", "vectorize") else 0
    return 0


def _divided(loop: For, index: Indexer, names: Names) -> Stmt:
    """The loop in two, where it has conditions that hold in all but its last turns."""
    found = [(c, _whole_turns(c, loop, index)) for c in _conditions(loop.body)]
    known = [(c, turns) for c, turns in found if turns is not None]
    if not known:
        return loop
    turns = known[0][1]
    if isinstance(turns, Const):
        fewest = min(int(t.value) for _, t in known if isinstance(t, Const))
        turns = Const(fewest)
    settled = [c for c, t in known if isinstance(t, Const) or t == turns]
    inside = index.bind(loop.var, 0, index.bounds(turns)[1] - 1)
    whole = simplified(_settle(loop.body, settled), inside)
    last = copied(replace(loop, low=turns, extent=index.simplify(loop.extent - turns)), names)
    return seq(replace(loop, extent=turns, body=whole), simplified(last, index))


def _alike(loop: For, index: Indexer) -> Stmt:
    """A loop over lanes of which each condition that holds in all lanes or in none asks the first
    of them: ``t*72 + v*8 + l < 200`` for 8 lanes."""
    if not isinstance(loop.extent, Const):
        return loop
    lanes = int(loop.extent.value)

    def first(cond: Expr) -> Expr:
        if isinstance(cond, Binary) and cond.op == "and":
            return binary("and", first(cond.a), first(cond.b))
        if not isinstance(cond, Binary) or cond.op != "lt" or has_loads(cond):
            return cond
        form = index.linear(cond.a - cond.b)
        rest = [c for mono, c in form.terms if mono != (loop.var,)]
        whole = form.coeff(loop.var) == 1 and not any(c % lanes for c in (form.const, *rest))
        return substitute(cond, {loop.var: ZERO}) if whole else cond

    def go(n: Node) -> Node:
        cond = first(n.cond) if isinstance(n, If) else None
        return n if not isinstance(n, If) or cond in (None, n.cond) else replace(n, cond=cond)

    after = transform(loop, go)
    return loop if after is loop else simplified(after, index)


def _twice(loop: For, index: Indexer, names: Names) -> Stmt:
    """Copies of vectors without their conditions where these hold for all of them, else with
    them; as they are where some condition is of another kind."""
    bound = [n for n in statements(loop) if isinstance(n, For | Let)]
    known = [n.var for n in bound if isinstance(n, For) and n.low == ZERO]
    inner = {v: n for v, n in _inner_loops(loop).items() if v in known}
    found = list(dict.fromkeys(_conditions(loop.body)))
    if any(mentions(c, n.var) for c in found for n in bound if n.var not in inner):
        return loop
    limits = [_at_most(c, inner, index) for c in found]
    lanes = [n.var for n in statements(loop) if isinstance(n, For) and n.kind == "vectorize"]
    if not any(mentions(c, v) for c in found for v in lanes) or None in limits:
        return loop
    whole: Expr = TRUE
    for limit in limits:
        assert limit is not None, "all are known"
        test = index.simplify(binary("lt", limit, ZERO))
        if test == FALSE:
            return loop
        whole = test if whole == TRUE else binary("and", whole, test)
    plain = simplified(_settle(loop, found), index)
    return If(whole, plain, copied(loop, names))


def _at_most(cond: Binary, inner: Mapping[Var, int], index: Indexer) -> Expr | None:
    """The largest difference that a comparison makes over lanes and copies, of ``a < b``."""
    form, most = index.linear(cond.a - cond.b), 0
    own = [t for t in form.terms if any(mentions(a, v) for a in t[0] for v in inner)]
    for mono, c in own:
        if len(mono) > 1 or not isinstance(mono[0], Var):
            return None
        most += max(0, c * (inner[mono[0]] - 1))
    rest = tuple(t for t in form.terms if t not in own)
    return index.build(Linear(rest, form.const + most))


def _conditions(n: Node) -> Iterator[Binary]:
    """Comparisons that guard statements or choose values."""
    if isinstance(n, If | Select):
        yield from _parts(n.cond)
    for child in children(n):
        yield from _conditions(child)


def _parts(cond: Expr) -> Iterator[Binary]:
    if isinstance(cond, Binary) and cond.op == "and":
        yield from _parts(cond.a)
        yield from _parts(cond.b)
    elif isinstance(cond, Binary) and cond.op == "lt" and not has_loads(cond):
        yield cond


def _whole_turns(cond: Binary, loop: For, index: Indexer) -> Expr | None:
    """The number of first turns in which a condition holds for all lanes and copies, if that is
    neither none nor all of them as far as one knows."""
    form, inner = index.linear(cond.a - cond.b), _inner_loops(loop.body)
    step = form.coeff(loop.var)
    if step is None or step <= 0:
        return None
    own = [t for t in form.terms if t[0] != (loop.var,)]
    lanes = [t for t in own if any(mentions(a, v) for a in t[0] for v in inner)]
    rest = [t for t in own if t not in lanes]
    most = 0
    for mono, c in lanes:
        if len(mono) > 1 or not isinstance(mono[0], Var):
            return None
        most += max(0, c * (inner[mono[0]] - 1))
    limit = index.build(Linear(tuple((m, -c) for m, c in rest), -form.const))
    if isinstance(limit, Const) and isinstance(loop.extent, Const):
        turns = (int(limit.value) - most + step - 1) // step
        return Const(turns) if 0 < turns < int(loop.extent.value) else None
    count = index.linear(binary("floordiv", limit + (step - 1), Const(step)))
    if most != step - 1 or count != index.linear(loop.extent) or _varies(limit, index):
        return None
    if index.bounds(limit)[0] < 0:
        return None
    return index.simplify(binary("floordiv", limit, Const(step)))


def _varies(limit: Expr, index: Indexer) -> bool:
    """Whether a limit is made of anything but the sizes of a function."""
    return any(v.name not in index.ranges for v in variables(limit))


def _inner_loops(s: Stmt) -> Mapping[Var, int]:
    """Lanes and copies below, with their numbers."""
    return {
        n.var: int(n.extent.value)
        for n in statements(s)
        if isinstance(n, For) and isinstance(n.extent, Const)
    }


def _settle(body: Stmt, held: list[Binary]) -> Stmt:
    """The body where conditions hold."""

    def go(n: Node) -> Node:
        return TRUE if isinstance(n, Binary) and n in held else n

    return transform(body, go)

"""Control operators as statements of the entry.

before: ``%y = if(%c, %x) regions {…}``
after:  ``alloc y; if c[] { call k0(x, y) } else { call k1(x, y) }``

A loop keeps each carried value in storage of its own. Where sizes do not change, the storage has
two halves: a turn reads one and writes the other, and nothing is copied. Where they change, the new
value is copied once it is complete. Stacked values are written in place; when the number of
turns is not known before, their storage grows. Sizes that outlive a branch or a loop are bound
where the old value is last needed, so that each gets its memory then (see
:mod:`aisc.passes.plan.arena`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, SymDim, ceildiv, mod, product, sole_symbol, substitute, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, defined_symbols
from aisc.ir.graph.ops.control import loop_trip
from aisc.ir.tensor.expr import (
    ONE,
    TRUE,
    ZERO,
    Const,
    Expr,
    Load,
    Var,
    binary,
    cast,
    logical_and,
    of_dim,
)
from aisc.ir.tensor.first_fit import ALIGNMENT
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.stmt import Alloc, Bind, If, Require, While, seq
from aisc.ir.types import TensorType
from aisc.passes.lower.scan import Scan, copy_into, finish
from aisc.passes.lower.state import State


def lower_bind(st: State, node: GraphNode) -> None:
    """Sizes from a vector, tested against their bounds before anything relies on them."""
    source = node.inputs[0]
    assert source is not None, "the values are there"
    found = defined_symbols(node)
    values = [Load(st.use(source), (Const(k),)) for k in range(len(found))]
    for s, value in zip(found, values, strict=True):
        least, most = value >= s.lower, TRUE if s.upper is None else value <= s.upper
        limit = "any number" if s.upper is None else s.upper
        text = f"a size computed at run time is {{}}, expected {s.lower} to {limit}"
        st.body.append(Require(logical_and(least, most), text, (value,), node.loc))
    st.body.append(Bind(tuple(Var(s.name) for s in found), tuple(values)))


def lower_expect(st: State, node: GraphNode) -> None:
    """A test of a condition from data; the result is the operand itself."""
    x, condition = node.input_values
    text = str(node.attr("message")).replace("{", "{{").replace("}", "}}")
    sizes: Any = node.attr_map.get("sizes", ())
    st.body.append(Require(Load(st.use(condition), ()), text, (), node.loc, tuple(sizes)))
    st.buffers[node.output] = st.view(st.use(x), x.type, x.name)


def _enter(st: State, region: Graph, captures: Sequence[Value]) -> None:
    """Inputs of a region stand for values outside."""
    st.aliases.update(zip(region.inputs, captures, strict=True))


def made_by_kernels(region: Graph) -> set[Value]:
    """Values that are written where they are wanted."""
    return {v for n in region.nodes if n.op in ("fused", "if", "loop", "concat") for v in n.outputs}


# --- if ---------------------------------------------------------------------------------------
def lower_if(st: State, node: GraphNode) -> None:
    """A branch whose arms write the results; sizes that differ are bound in each arm."""
    cond, *captures = node.input_values
    fresh = defined_symbols(node)
    if fresh:
        st.body.append(Bind(tuple(Var(s.name) for s in fresh), (ZERO,) * len(fresh)))
    flag = st.use(cond)
    results = [st.result(v) for v in node.outputs]
    arms = []
    for region in node.regions:
        with st.block() as body:
            _enter(st, region, captures)
            _arm(st, region, results, node.outputs, {s.name for s in fresh})
        arms.append(seq(*body))
    st.body.append(If(Load(flag, ()), arms[0], arms[1]))


def _arm(
    st: State,
    region: Graph,
    results: Sequence[Buffer],
    outputs: Sequence[Value],
    fresh: set[str],
) -> None:
    """One arm: kernels write results of known size directly, others are copied."""
    direct = made_by_kernels(region)
    given: dict[Value, Buffer] = {}
    for inner, out in zip(region.outputs, results, strict=True):
        if inner in direct and inner not in given and not _mentions(out, fresh):
            given[inner] = out
    st.buffers.update(given)
    st.lower_nodes(st, region)
    pairs: dict[Var, Expr] = {}
    for inner, v in zip(region.outputs, outputs, strict=True):
        for d, known in zip(v.type.shape, inner.type.shape, strict=True):
            s = sole_symbol(d)
            if s is not None and s.name in fresh:
                pairs[Var(s.name)] = of_dim(known)
    if pairs:
        st.body.append(Bind(tuple(pairs), tuple(pairs.values())))
    for inner, out in zip(region.outputs, results, strict=True):
        if given.get(inner) is not out:
            copy_into(st, st.use(inner), out)


def _mentions(b: Buffer, names: set[str]) -> bool:
    return any(s.name in names for s in b.type.symbols)


# --- loop -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Carried:
    """A carried value: what a turn reads and makes, and the storage that outlives turns.

    way: ``same`` (never changes), ``halves`` (of constant size: two halves in turn), ``copied``.
    """

    inner: Value
    next: Value
    storage: Buffer
    way: str
    half: Dim = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """Sizes that change from turn to turn: their names in the body, the variables that hold them
    between turns, and what they become."""

    inner: tuple[Var, ...]
    held: tuple[SymDim, ...]
    next: tuple[Expr, ...]

    @property
    def held_vars(self) -> tuple[Var, ...]:
        """The variables between turns."""
        return tuple(Var(s.name) for s in self.held)

    def outside(self, t: TensorType) -> TensorType:
        """A type of the body in terms of the variables between turns."""
        env: dict[str, Dim] = {
            v.name: symbol(s.name, s.lower, s.upper, s.kind)
            for v, s in zip(self.inner, self.held, strict=True)
        }
        return TensorType(tuple(substitute(d, env) for d in t.shape), t.dtype)


def lower_loop(st: State, node: GraphNode) -> None:
    """``bind turn = 0; while … { …; bind turn = turn + 1 }``, then the results."""
    call = opdef.call_of(node)
    limit, cond, *values = node.inputs
    given = [v for v in values if v is not None]
    (body,), count = node.regions, int(call.attrs["carried"])
    conditional = bool(call.attrs["conditional"])
    nexts = body.outputs[conditional : conditional + count]
    index = _index(st, call.attrs["index"])
    _enter(st, replace(body, inputs=body.inputs[count:]), given[count:])
    kept = _kept_sizes(st, call.attrs["carried_dims"], body, nexts, given)
    carried = [
        _start(st, inner, nxt, v, kept)
        for inner, nxt, v in zip(body.inputs[:count], nexts, given[:count], strict=True)
    ]
    test = _test(st, index, call.attrs["trip"], limit)
    go = Var(st.fresh("go")) if cond is not None or conditional else None
    if go is not None:
        first = ONE if cond is None else cast(Load(st.use(cond), ()), dtypes.i64)
        st.body.append(Bind((go,), (first,)))
        test = logical_and(binary("gt", go, 0), test)
    trip = loop_trip(call)
    scans = [
        Scan(st, out, inner, index, trip, node.loc)
        for out, inner in zip(
            node.outputs[count:], body.outputs[conditional + count :], strict=True
        )
    ]
    with st.block() as turn:
        _turn(st, body, carried, scans, index, kept)
        if conditional and go is not None:
            st.body.append(Bind((go,), (cast(Load(st.use(body.outputs[0]), ()), dtypes.i64),)))
        st.body.append(Bind((index,), (index + 1,)))
    st.body.append(While(test, seq(*turn)))
    _results(st, node, carried, scans, index, kept)


def _index(st: State, dims: tuple[Dim, ...]) -> Var:
    """The number of the turn, from 0 on."""
    found = sole_symbol(dims[0]) if dims else None
    index = Var(found.name if found is not None else st.fresh("turn"))
    st.body.append(Bind((index,), (ZERO,)))
    return index


def _test(st: State, index: Var, trip: tuple[Dim, ...], limit: Value | None) -> Expr:
    """Whether another turn is within the limit."""
    if trip:
        return binary("lt", index, of_dim(trip[0]))
    if limit is None:
        return TRUE
    bound = Var(st.fresh("limit"))
    st.body.append(Bind((bound,), (Load(st.use(limit), ()),)))
    return binary("lt", index, bound)


def _kept_sizes(
    st: State,
    varying: tuple[Dim, ...],
    body: Graph,
    nexts: Sequence[Value],
    given: Sequence[Value],
) -> _Kept:
    """The sizes that change, bound to what they are before the loop."""
    found: dict[str, tuple[SymDim, Dim, Dim]] = {}
    for inner, nxt, first in zip(body.inputs, nexts, given, strict=False):
        triples = zip(inner.type.shape, first.type.shape, nxt.type.shape, strict=True)
        for d, start, end in triples:
            s = sole_symbol(d)
            if s is not None and d in varying and s.name not in found:
                found[s.name] = (replace(s, name=st.fresh(f"{s.name}_held")), start, end)
    kept = _Kept(
        tuple(map(Var, found)),
        tuple(held for held, _, _ in found.values()),
        tuple(of_dim(end) for _, _, end in found.values()),
    )
    if found:
        st.body.append(Bind(kept.held_vars, tuple(of_dim(start) for _, start, _ in found.values())))
    return kept


def _start(st: State, inner: Value, nxt: Value, initial: Value, kept: _Kept) -> _Carried:
    """Storage for a carried value, with its first contents."""
    source = st.use(initial)
    if nxt is inner:
        return _Carried(inner, nxt, source, "same")
    names = {v.name for v in kept.inner}
    if any(s.name in names for s in inner.type.symbols):
        shape = kept.outside(inner.type).shape
        storage = buffer(st.fresh(inner.name), inner.type.dtype, shape)
        st.body.append(Alloc(storage))
        st.views.append(storage)
        copy_into(st, source, storage)
        return _Carried(inner, nxt, storage, "copied")
    half = ceildiv(product(inner.type.shape) * inner.type.dtype.bytes, ALIGNMENT) * ALIGNMENT
    both = buffer(st.fresh(f"{inner.name}_halves"), dtypes.u8, (half * 2,))
    st.body.append(Alloc(both))
    st.views.append(both)
    copy_into(st, source, st.view(both, inner.type, inner.name))
    return _Carried(inner, nxt, both, "halves", half)


def _turn(
    st: State,
    body: Graph,
    carried: Sequence[_Carried],
    scans: Sequence[Scan],
    index: Var,
    kept: _Kept,
) -> None:
    """One turn: read the carried values, compute, keep what the next turn needs."""
    direct = made_by_kernels(body)
    at = symbol(index.name, kind="data")
    if kept.inner:
        st.body.append(Bind(kept.inner, kept.held_vars))
    targets: list[tuple[Value, Buffer]] = []
    for c in carried:
        st.buffers[c.inner] = _read(st, c, at)
        if c.way == "halves":
            side = mod(at + 1, 2) * c.half
            targets.append((c.next, st.view(c.storage, c.next.type, c.next.name, side)))
    for scan in scans:
        part = scan.before(st)
        if part is not None:
            targets.append((scan.inner, part))
    for v, b in targets:
        if v in direct and v not in st.buffers:
            st.buffers[v] = b
    st.lower_nodes(st, body)
    for v, b in targets:
        if st.buffers.get(v) is not b:
            copy_into(st, st.use(v), b)
    for scan in scans:
        scan.after(st)
    _keep_copied(st, [c for c in carried if c.way == "copied"], kept)


def _read(st: State, c: _Carried, at: Dim) -> Buffer:
    """The buffer of a carried value in the body."""
    if c.way == "same":
        return c.storage
    side = mod(at, 2) * c.half if c.way == "halves" else 0
    return st.view(c.storage, c.inner.type, c.inner.name, side)


def _keep_copied(st: State, carried: Sequence[_Carried], kept: _Kept) -> None:
    """New sizes, then new contents. What lies in storage about to be lost is saved before."""
    lost = {c.storage.name for c in carried}
    sources: list[Buffer] = []
    for c in carried:
        source = st.use(c.next)
        if (source.base or source.name) in lost:
            saved = buffer(st.fresh(f"{source.name}_saved"), source.dtype, source.shape)
            st.body.append(Alloc(saved))
            st.views.append(saved)
            copy_into(st, source, saved)
            source = saved
        sources.append(source)
    if kept.inner:
        st.body.append(Bind(kept.held_vars, kept.next))
    for c, source in zip(carried, sources, strict=True):
        copy_into(st, source, c.storage)


def _results(
    st: State,
    node: GraphNode,
    carried: Sequence[_Carried],
    scans: Sequence[Scan],
    index: Var,
    kept: _Kept,
) -> None:
    """Bind the sizes that are known now; the last contents of carried values are the results."""
    values: dict[Var, Expr] = {}
    for c, v in zip(carried, node.outputs, strict=False):
        pairs = zip(kept.outside(c.inner.type).shape, v.type.shape, strict=True)
        values.update({Var(str(outer)): of_dim(held) for held, outer in pairs if outer != held})
    for scan in scans:
        values.update(scan.sizes())
    fresh = defined_symbols(node)
    unused = [Var(s.name) for s in fresh if Var(s.name) not in values]
    values.update(dict.fromkeys(unused, index))  # the number of turns, where nothing has it
    if values:
        st.body.append(Bind(tuple(values), tuple(values.values())))
    turns = symbol(index.name, kind="data")
    for c, v in zip(carried, node.outputs, strict=False):
        side = mod(turns, 2) * c.half if c.way == "halves" else 0
        finish(st, v, st.view(c.storage, v.type, v.name, side))
    for scan in scans:
        scan.finish(st)

"""Which executions of blocks touch the same element: accesses, and pairs of them that meet.

An access is found in a block's statements with the conditions that lead to it, so that a pair that
meets is a :class:`Witness`: two executions that the interpreter can replay to two accesses of one
element. Integer sets decide; where an index, a condition or an extent is not affine, a pair that
only might meet raises :class:`~aisc.passes.schedule.sets.Undecided`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, replace
from typing import cast

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children, map_children, walk
from aisc.ir.tensor.expr import (
    ONE,
    TRUE,
    ZERO,
    Binary,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    equal,
    has_loads,
    logical_and,
)
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Let, Stmt, Store, While
from aisc.ir.tensor.tree import Place, conjuncts, places, statements
from aisc.ir.tensor.visitor import substitute, substitution, touched
from aisc.passes.schedule.sets import NotAffine, Problem, Undecided, affine, condition

Names = Mapping[Var, str]


@dataclass(frozen=True, slots=True)
class Access:
    """One region touched by one block, in terms of the loops around it; `conds` hold where the
    block does it (beside the predicate of the block)."""

    place: Place
    buffer: Buffer
    low: tuple[Expr, ...]
    extent: tuple[Expr, ...]
    write: bool
    conds: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Witness:
    """Two executions that touch the same element, at least one of them writing."""

    first: str
    second: str
    first_loops: tuple[tuple[str, int], ...]
    second_loops: tuple[tuple[str, int], ...]
    buffer: str
    index: tuple[int, ...]
    first_writes: bool
    second_writes: bool
    dims: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        def side(block: str, loops: tuple[tuple[str, int], ...], writes: bool) -> str:
            at = ", ".join(f"{k}={v}" for k, v in loops)
            return f"block {block} at {at} {'writes' if writes else 'reads'}"

        element = f"{self.buffer}[{', '.join(map(str, self.index))}]"
        first = side(self.first, self.first_loops, self.first_writes)
        sizes = "".join(f" ({k}={v})" for k, v in self.dims)
        second = side(self.second, self.second_loops, self.second_writes)
        return f"{first} {element}, {second} it{sizes}"


def private_to(root: Stmt) -> frozenset[Buffer]:
    """Buffers declared below a statement: each execution of it has its own."""
    return frozenset(n.buffer for n in statements(root) if isinstance(n, Alloc))


def declared_under(loop: For, outer: tuple[For, ...] = ()) -> Iterator[Access]:
    """The declared regions of all blocks below `loop`; `outer` are the loops around it."""
    for place in _places_under(loop, outer):
        at = substitution(_bound(place.block))
        for regions, write in ((place.block.reads, False), (place.block.writes, True)):
            for r in regions:
                low, extent = tuple(map(at, r.low)), tuple(map(at, r.extent))
                yield Access(place, r.buffer, low, extent, write)


def accesses_under(
    root: Stmt, outer: tuple[For, ...] = (), only: Buffer | None = None
) -> list[Access]:
    """Every access of the blocks below `root` to buffers that are not private to it, or to one of
    them `only`, each under the conditions that lead to it; `outer` are the loops around `root`."""
    private = private_to(root)
    places_ = _places_under(root, outer)
    return [a for p in places_ for a in accesses_of(p, only) if a.buffer not in private]


def accesses_of(place: Place, only: Buffer | None = None) -> list[Access]:
    """Every access of one block to buffers from outside of it, or to one of them `only`, those of
    its initialisation first, in the order of execution."""
    if only is not None and only not in touched(place.block):
        return []
    found = []
    for t in _bound_touches(place.block):
        if only is None or t.buffer == only:
            inside = (*place.loops, *t.loops)
            where = replace(place, loops=inside) if t.loops else place
            found.append(Access(where, t.buffer, t.at, (ONE,) * len(t.at), t.write, t.conds))
    return found


def started_loops(root: Stmt) -> list[For]:
    """Loops of the reductions below `root` that start there. A reduction over nothing is its
    initialisation, so questions about values may take these loops to have iterations."""
    found: dict[Var, For] = {}
    for p in places(root):
        if p.block.init is not None:
            pairs = zip(p.block.iters, p.block.bindings, strict=True)
            values = [v for it, v in pairs if it.kind == "reduce"]
            found |= {f.var: f for f in p.loops if any(mentions(v, f.var) for v in values)}
    return list(found.values())


def _places_under(root: Stmt, outer: tuple[For, ...]) -> Iterator[Place]:
    return (replace(inner, loops=(*outer, *inner.loops)) for inner in places(root))


def _bound(block: Block) -> dict[Var, Expr]:
    return {it.var: value for it, value in zip(block.iters, block.bindings, strict=True)}


@dataclass(frozen=True, slots=True)
class _Touch:
    """An access in terms of a block's iterators; `loops` are those inside of the block; `initial`:
    it belongs to the initialisation."""

    buffer: Buffer
    at: tuple[Expr, ...]
    write: bool
    loops: tuple[For, ...]
    conds: tuple[Expr, ...]
    initial: bool

    def key(self) -> object:
        """What tells two accesses apart; loops count by their variables, not by what they hold."""
        around = tuple(f.var for f in self.loops)
        return self.buffer, self.at, self.write, around, self.conds


def _bound_touches(block: Block) -> tuple[_Touch, ...]:
    """The accesses of a block, each once, in terms of the loops around it; kept by the block."""
    try:
        return cast(tuple[_Touch, ...], block._accesses)
    except AttributeError:
        object.__setattr__(block, "_accesses", _bind(block))
        return cast(tuple[_Touch, ...], block._accesses)


def _bind(block: Block) -> tuple[_Touch, ...]:
    bound = _bound(block)
    first = logical_and(*(equal(bound[it.var], ZERO) for it in block.iters if it.kind == "reduce"))
    starting = () if first == TRUE else (first,)
    at = substitution(bound)

    inner: dict[int, For] = {}  # one copy of each loop, whose identity tells it from others

    def loop(f: For) -> For:
        return inner.setdefault(id(f), replace(f, low=at(f.low), extent=at(f.extent)))

    found: dict[object, _Touch] = {}
    for t in _touches_of(block):
        low, conds = tuple(map(at, t.at)), tuple(map(at, t.conds))
        if t.initial:
            conds = (*starting, *conds)
        moved = _Touch(t.buffer, low, t.write, tuple(map(loop, t.loops)), conds, t.initial)
        found.setdefault(moved.key(), moved)
    return tuple(found.values())


# What blocks touch, by the identity of their statements, which steps of a schedule share: only
# bindings change most of the time. Statements are kept with their ids.
_KNOWN: dict[tuple[int, int], tuple[Stmt, Stmt | None, tuple[_Touch, ...]]] = {}
_KNOWN_BLOCKS = 256


def _touches_of(block: Block) -> tuple[_Touch, ...]:
    """The accesses of a block to buffers from outside of it, in the order of execution."""
    at = id(block.body), id(block.init)
    known = _KNOWN.get(at)
    if known is None:
        if len(_KNOWN) >= _KNOWN_BLOCKS:
            _KNOWN.clear()
        walker = _Touches()
        if block.init is not None:
            walker.initial = True
            walker.visit(block.init, _Path(()))
            walker.initial, walker.seen = False, {}
        walker.visit(block.body, _Path(()))
        own = private_to(block)
        found = tuple(t for t in walker.found.values() if t.buffer not in own)
        known = _KNOWN[at] = block.body, block.init, found
    return known[2]


@dataclass(frozen=True, slots=True)
class _Path:
    """The loops and conditions that lead to a node; `key` tells conditions apart by identity."""

    loops: tuple[For, ...]
    conds: tuple[Expr, ...] = ()
    key: tuple[int, ...] = ()

    def under(self, cond: Expr, holds: bool = True) -> _Path:
        """The path on which a condition holds as well, or does not."""
        more = cond if holds else Unary("not", cond)
        key = id(cond) if holds else -id(cond)
        return _Path(self.loops, (*self.conds, more), (*self.key, key))


class _Touches:
    """Collects accesses of statements and expressions in the order of execution. Expressions share
    parts: what was seen under the same conditions is not seen again."""

    def __init__(self) -> None:
        self.found: dict[object, _Touch] = {}
        self.lets: dict[Var, Expr] = {}
        self.seen: dict[tuple[int, tuple[int, ...]], Node] = {}  # nodes are kept, with their ids
        self.initial = False

    def visit(self, n: Node, path: _Path) -> None:
        """Accesses below a node."""
        if (isinstance(n, Expr) and not has_loads(n)) or (id(n), path.key) in self.seen:
            return
        self.seen[id(n), path.key] = n
        if isinstance(n, Select | If):
            self.visit(n.cond, path)
            self.visit(n.then, path.under(n.cond))
            if n.other is not None:
                self.visit(n.other, path.under(n.cond, False))
        elif isinstance(n, Let):
            self.visit(n.value, path)
            if n.var.dtype in (dtypes.i64, dtypes.boolean):  # others stand in no index
                self.lets[n.var] = self._closed(n.value)
            self.visit(n.body, path)
        else:
            inside = path.under(n.cond) if isinstance(n, While) else path
            if isinstance(n, For):
                inside = replace(inside, loops=(*inside.loops, n))
            for child in children(n):
                self.visit(child, inside)
            if isinstance(n, Load | Store):
                at, conds = map(self._closed, n.indices), map(self._closed, path.conds)
                write, known = isinstance(n, Store), (tuple(at), tuple(conds))
                touch = _Touch(n.buffer, known[0], write, path.loops, known[1], self.initial)
                self.found.setdefault((self.initial, touch.key()), touch)

    def _closed(self, e: Expr) -> Expr:
        """`e` without the scalars that were bound around it."""
        return substitute(e, self.lets) if self.lets else e


Order = Callable[[Names, Names], list[str]]


def meet(
    a: Access, b: Access, shared: tuple[For, ...], dims: tuple[Var, ...], order: Order
) -> Witness | None:
    """Two executions, equal in the `shared` loops and related by `order` (constraints in terms of
    the names of both sides' loops), in which `a` and `b` touch one element."""
    space = Space(dims, frozenset(f.var for f in shared))
    common = {f.var: f"o{k}" for k, f in enumerate(shared)}
    space.names.extend(common.values())
    for f in shared:
        space.range(f, common)
    sides = [space.side(tag, access, common) for tag, access in (("a", a), ("b", b))]
    space.constraints.extend(order(*sides))
    element = [f"e{k}" for k in range(a.buffer.rank)]
    space.names.extend(element)
    space.inside(a, sides[0], element)
    space.inside(b, sides[1], element)
    point = space.point()
    return None if point is None else _witness(a, b, sides, point, dims)


def _witness(
    a: Access, b: Access, sides: list[dict[Var, str]], point: dict[str, int], dims: tuple[Var, ...]
) -> Witness:
    loops = [
        tuple((f.var.name, point[rename[f.var]]) for f in access.place.loops)
        for access, rename in ((a, sides[0]), (b, sides[1]))
    ]
    index = tuple(point[f"e{k}"] for k in range(a.buffer.rank))
    return Witness(
        a.place.block.name, b.place.block.name, loops[0], loops[1], a.buffer.name, index,
        a.write, b.write, tuple((d.name, point[affine(d, {})]) for d in dims),
    )  # fmt: skip


@dataclass(slots=True)
class Space:
    """Collects the constraints of a question about executions. Expressions over dimensions and
    `fixed` loops (of one value in all executions) that are not affine stand as fresh parameters,
    conditions that are not affine are left out; then the answer is a bound only, and `exact` is
    false."""

    dims: tuple[Var, ...]
    fixed: frozenset[Var] = frozenset()
    names: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    sizes: dict[Expr, Var] = field(default_factory=dict)
    dropped: bool = False

    @property
    def exact(self) -> bool:
        """Whether the constraints say all."""
        return not self.dropped and not self.sizes

    def side(self, tag: str, access: Access, shared: Names) -> dict[Var, str]:
        """Names of the loops around an access; those that are not shared are new."""
        rename = dict(shared)
        for k, f in enumerate(access.place.loops):
            if f.var not in rename:
                rename[f.var] = f"{tag}{k}"
                self.names.append(f"{tag}{k}")
                self.range(f, rename)
        for cond in (access.place.predicate, *access.conds):
            self.condition(cond, rename)
        return rename

    def text(self, e: Expr, rename: Names) -> str:
        """isl text of an index in terms of renamed loops and of the dimensions."""
        return affine(self._closed(e, rename), dict(rename))

    def range(self, loop: For, rename: Names) -> None:
        """The loop's variable is in its range."""
        low, var = self.text(loop.low, rename), rename[loop.var]
        self.constraints.append(f"{low} <= {var}")
        self.constraints.append(f"{var} < {low} + {self.text(loop.extent, rename)}")

    def condition(self, cond: Expr, rename: Names) -> None:
        """A condition holds."""
        for part in conjuncts(cond):
            try:
                self.constraints.append(condition(self._closed(part, rename), dict(rename)))
            except NotAffine:
                self.dropped = True

    def inside(self, access: Access, rename: Names, element: list[str]) -> None:
        """The element is one of those that the access touches."""
        for e, low, extent in zip(element, access.low, access.extent, strict=True):
            start = self.text(low, rename)
            self.constraints.append(
                f"{start} <= {e} and {e} < {start} + {self.text(extent, rename)}"
            )

    def started(self, loops: list[For], rename: Names) -> None:
        """Each loop has an iteration."""
        for f in loops:
            self.constraints.append(f"{self.text(f.extent, rename)} >= 1")

    def params(self) -> tuple[str, ...]:
        """Parameters of the question: dimensions, and sizes that are not affine in them."""
        return tuple(affine(v, {}) for v in (*self.dims, *self.sizes.values()))

    def point(self) -> dict[str, int] | None:
        """An answer, if there is one; :class:`Undecided` where it is not known to be real."""
        sizes = tuple(f"{affine(d, {})} >= 0" for d in self.dims)
        problem = Problem(tuple(self.names), self.params(), (*self.constraints, *sizes))
        found = problem.sample()
        if found is not None and not self.exact:
            raise Undecided("a condition or a size is not affine")
        return found

    def _closed(self, e: Expr, rename: Names) -> Expr:
        """`e` with its fixed parts that are not affine replaced by parameters; variables that are
        neither loops nor dimensions are refused."""

        def go(n: Node) -> Node:
            if isinstance(n, Load):
                return n
            m = map_children(n, go)
            if not isinstance(m, Binary) or _is_affine(m):
                return m
            over = [v for v in walk(m) if isinstance(v, Var | Load)]
            known = (*self.dims, *self.fixed, *self.sizes.values())
            if not all(v in known for v in over):
                return m
            return self.sizes.setdefault(m, Var(f"size {len(self.sizes)}"))

        if not _is_affine(e):  # in normal form, so that equal products are one parameter
            e = Indexer().simplify(e)
        result = go(e)
        assert isinstance(result, Expr), "an index stays an expression"
        known = {*rename, *self.dims, *self.sizes.values()}
        for v in walk(result):
            if isinstance(v, Var) and v not in known:
                raise NotAffine(f"{v.name} is no loop")
        return result


def _is_affine(e: Expr) -> bool:
    try:
        condition(e, {}) if e.dtype is dtypes.boolean else affine(e, {})
    except NotAffine:
        return False
    return True

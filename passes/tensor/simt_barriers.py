"""Barriers of a block: inserted where threads depend on each other, and proved sufficient.

before: ``thread.x t { s[t] = x[t];  y[t] = s[15 - t] }``
after:  ``thread.x t { s[t] = x[t];  barrier block;  y[t] = s[15 - t] }``
Two accesses of different threads to one element, one of them writing, must be separated by a
barrier, also around the back edge of a loop (the next fill overwrites what others still read).
The test is exact: integer sets give a witness or prove that there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, Diagnostic, error
from aisc.ir.node import Node, walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import ZERO, Binary, Const, Expr, Load, Var, equal, variables
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Alloc, Barrier, For, If, Invoke, Let, Seq, Stmt, Store, While, seq
from aisc.ir.tensor.thread_trace import index_value
from aisc.ir.tensor.tree import conjuncts, replace_stmt
from aisc.ir.tensor.visitor import transform, written_buffers
from aisc.passes.analysis.simt_kernel import COPIES, Kernel, of_warp
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.sets import NotAffine, Problem, Undecided, affine, condition
from aisc.passes.tensor.inline_instructions import meaning
from aisc.passes.tensor.intervals import NOTHING, Meaning, Pair, Touch, interval_pairs
from aisc.passes.tensor.lower_blocks import simplified

Values = tuple[tuple[str, int], ...]
MEMORIES = ("global", "shared")  # which threads have in common
# What is known of pairs of accesses: a race, or that there is none.
Decided = dict[tuple[object, ...], "Race | None"]


@dataclass(frozen=True, slots=True)
class Side:
    """One access of a race: block and thread numbers, loop values, and whether it writes."""

    blocks: Values
    threads: Values
    loops: Values
    write: bool

    def __str__(self) -> str:
        at = ", ".join(f"{k}={v}" for k, v in (*self.blocks, *self.threads, *self.loops))
        return f"thread {at} {'writes' if self.write else 'reads'}"


@dataclass(frozen=True, slots=True)
class Race:
    """Two accesses of different threads to one element that no barrier separates."""

    buffer: str
    index: tuple[int, ...]
    first: Side
    second: Side

    def __str__(self) -> str:
        element = f"{self.buffer}[{', '.join(map(str, self.index))}]"
        return f"{self.first} {element}, {self.second} it"


class RaceError(CompileError):
    """A proved race; `race` is its witness."""

    def __init__(self, diagnostic: Diagnostic, race: Race) -> None:
        super().__init__(diagnostic)
        self.race = race


@dataclass(frozen=True, slots=True)
class InsertBlockBarriers:
    """The pass: one barrier after another until no race is left; see the module's docstring.
    Instructions are those of `target`."""

    target: Target | None = None
    name: str = "insert-block-barriers"

    def run(self, func: Func) -> Func:
        """Apply to a function in kernel form; E306 where no barrier can help."""
        known: Decided = {}
        while True:
            kernel = Kernel.of(func)
            found = next((p for p, _ in _races(func, kernel, self.target, known)), None)
            if found is None:
                _require_uniform(func, kernel)
                return func
            if found.place is None and found.step is None:
                check_barriers(func, self.target)
            func = _with_barrier(func, found)


def _with_barrier(func: Func, pair: Pair) -> Func:
    """A barrier between both: of a warp where they are accesses of its registers."""
    new = Barrier("warp" if pair.first.buffer.space == "warp" else "block")
    if pair.place is not None:
        at, k = pair.place
        return replace_stmt(func, at, seq(*at.stmts[:k], new, *at.stmts[k:]))
    assert pair.step is not None, "a pair without a place is around a loop"
    body = seq(pair.step.body, new)
    return replace_stmt(func, pair.step, replace(pair.step, body=body))


def check_barriers(func: Func, target: Target | None = None) -> None:
    """Prove that the barriers of a kernel suffice: E306 with a witness when they do not, E304
    when an access cannot be decided."""
    kernel = Kernel.of(func)
    _require_uniform(func, kernel)
    for _, race in _races(func, kernel, target):
        raise RaceError(
            Diagnostic(
                "E306",
                f"{func.name}: threads race on {race.buffer}",
                func.loc,
                (str(race), "a barrier is needed between the two accesses"),
            ),
            race,
        )


def check_private(func: Func) -> None:
    """Prove that no thread touches what another wrote into a buffer that becomes private,
    whenever it does."""
    kernel = Kernel.of(func)
    own = frozenset(n.buffer.name for n in walk(kernel.body) if isinstance(n, Alloc))
    body = transform(kernel.body, lambda n: Seq(()) if isinstance(n, Barrier) else n)
    found = {(p.first, p.second): p for p in interval_pairs(func, body, own)}
    for pair in found.values():
        race = decide(func, kernel, replace(pair, same=(), step=None))
        if race is not None:
            raise RaceError(
                Diagnostic(
                    "E303",
                    f"{func.name}: {race.buffer} cannot be private to each thread",
                    func.loc,
                    (str(race), "place it in shared memory by set_scope"),
                ),
                race,
            )


def _races(
    func: Func, kernel: Kernel, target: Target | None, known: Decided | None = None
) -> Iterator[tuple[Pair, Race]]:
    """Pairs that race, with a witness. `known`: what was decided before, about the same accesses
    among other barriers."""
    known = {} if known is None else known
    _require_warps(func, kernel, target)
    own = {n.buffer.name for n in walk(kernel.body) if isinstance(n, Alloc)}
    warp = {s.buffer.name for s in kernel.shared if s.buffer.space == "warp"}
    watched = frozenset(b.name for b in written_buffers(kernel.body)) - own
    told = on_memory(func, target)
    pairs = (
        *interval_pairs(func, kernel.body, watched - warp, told),
        *interval_pairs(func, kernel.body, watched & warp, told, ("block", "warp")),
    )
    for pair in pairs:
        about = _about(pair)
        if about not in known:
            known[about] = decide(func, kernel, pair)
        race = known[about]
        if race is not None:
            yield pair, race


def on_memory(func: Func, target: Target | None) -> Meaning:
    """What instructions do to memory that threads have in common. Registers of warps are left out:
    a lane touches its own of them, which the emitter checks; what a warp reads any lane may."""
    names = Names(func)

    def told(s: Invoke) -> tuple[Stmt, bool]:
        if target is None or all(r.buffer.space not in MEMORIES for r in s.operands):
            return Seq(()), False
        found = target.intrinsic(s.intrinsic)
        meant = simplified(meaning(found, s, names), Indexer())
        return transform(meant, _only_reads), found.unit == COPIES

    return told


def _only_reads(n: Node) -> Node:
    """What is stored into registers is only read."""
    if isinstance(n, Store) and n.buffer.space not in MEMORIES:
        return Store(NOTHING, (), n.value)
    return n


def _require_warps(func: Func, kernel: Kernel, target: Target | None) -> None:
    """The lanes of a warp execute its instructions together: no condition is between them. What a
    warp writes lies in its registers; of what instructions do to memory it is known what."""
    lane = tuple(f.var for f in kernel.threads if f.kind == "thread.x")
    for s in walk(kernel.body):
        if (
            isinstance(s, Invoke)
            and target is None
            and not all(r.buffer.space == "warp" for r in s.operands)
        ):
            raise error(
                "E304", f"{func.name}: accesses of {s.intrinsic} cannot be checked for races"
            )
        if isinstance(s, If | While) and _varies(s.cond, lane) and _holds_warps(s):
            raise error(
                "E306", f"{func.name}: an instruction is not reached by all lanes of a warp"
            )


def _about(pair: Pair) -> tuple[object, ...]:
    """All that a decision depends on: not the bodies of loops."""

    def ranges(loops: tuple[For, ...]) -> tuple[object, ...]:
        return tuple([(f.var, f.low, f.extent) for f in loops])

    sides = [
        (t.buffer.name, t.index, t.write, t.late, t.conds, ranges(t.loops))
        for t in (pair.first, pair.second)
    ]
    step = () if pair.step is None else ranges((pair.step,))
    return (*sides, ranges(pair.same), step, pair.adjacent)


def _require_uniform(func: Func, kernel: Kernel) -> None:
    """Barriers stand only where all threads of a block arrive."""
    threads = tuple(f.var for f in kernel.threads)
    for s in walk(kernel.body):
        if not isinstance(s, For | If | While | Let) or not _holds_barrier(s):
            continue
        steering: tuple[Expr, ...] = ()
        if isinstance(s, For):
            steering = (s.low, s.extent)
        elif isinstance(s, If | While):
            steering = (s.cond,)
        if any(_varies(e, threads) for e in steering):
            raise error(
                "E306",
                f"{func.name}: a barrier is not reached by all threads",
                "it stands under a loop or condition that differs between threads",
            )


def _holds_barrier(s: Stmt) -> bool:
    return _holds(s, Barrier)


def _holds_warps(s: Stmt) -> bool:
    return any(isinstance(n, Invoke) and of_warp(n) for n in walk(s))


def _holds(s: Stmt, kind: type[Stmt]) -> bool:
    return any(isinstance(n, kind) for n in walk(s))


def _varies(e: Expr, threads: tuple[Var, ...]) -> bool:
    return any(mentions(e, v) for v in threads) or any(isinstance(n, Load) for n in walk(e))


def decide(func: Func, kernel: Kernel, pair: Pair, alone: bool = False) -> Race | None:
    """:func:`race_of`; E304 where it cannot be decided."""
    try:
        return race_of(func, kernel, pair, alone)
    except (NotAffine, Undecided) as why:
        raise error(
            "E304",
            f"{func.name}: accesses of {pair.first.buffer.name} by threads cannot be decided",
            str(why),
        ) from why


def race_of(func: Func, kernel: Kernel, pair: Pair, alone: bool = False) -> Race | None:
    """Two threads of one block in which the accesses of a pair meet; ``None``: there are none.
    `alone`: both may be the same one."""
    if not alone and (not kernel.threads or _apart(kernel, pair)):
        return None
    pair, kernel, unknown = _with_atoms(func, kernel, pair)
    common = {f.var: f"g{k}" for k, f in enumerate((*kernel.grid, *pair.same))}
    constraints = [c for f in (*kernel.grid, *pair.same) for c in _range(f, common)]
    names = list(common.values())
    sides: list[dict[Var, str]] = []
    for tag, touch in (("a", pair.first), ("b", pair.second)):
        rename = dict(common)
        own = [f for f in (*kernel.threads, *touch.loops) if f.var not in common]
        rename.update({f.var: f"{tag}{k}" for k, f in enumerate(own)})
        names.extend(rename[f.var] for f in own)
        constraints.extend(c for f in own for c in _range(f, rename))
        constraints.extend(condition(c, rename) for c in touch.conds)
        sides.append(rename)
    a, b = sides
    if not alone:
        differ = [f"{a[f.var]} != {b[f.var]}" for f in kernel.threads]
        constraints.append(f"({' or '.join(differ)})")
    if pair.step is not None:
        first, second = a[pair.step.var], b[pair.step.var]
        later = f"{second} = {first} + {pair.adjacent}"
        constraints.append(later if pair.adjacent else f"{second} > {first}")
    for i, j in zip(pair.first.index, pair.second.index, strict=True):
        constraints.append(f"{affine(i, a)} = {affine(j, b)}")
    params = tuple(affine(d, {}) for d in (*func.dims, *unknown))
    known = tuple(f"{p} >= 0" for p in params)
    point = Problem(tuple(names), params, (*constraints, *known)).sample()
    return None if point is None else _witness(func, kernel, pair, point, sides)


def _apart(kernel: Kernel, pair: Pair) -> bool:
    """Sufficient: along each axis both accesses have the number of their thread as an index of the
    same dimension, or happen on thread 0 alone."""
    both = list(zip(pair.first.index, pair.second.index, strict=True))
    alone = [{p for c in t.conds for p in conjuncts(c)} for t in (pair.first, pair.second)]

    def same(v: Var) -> bool:
        return any(a == b == v for a, b in both) or all(equal(v, ZERO) in c for c in alone)

    return all(same(f.var) for f in kernel.threads)


def _with_atoms(func: Func, kernel: Kernel, pair: Pair) -> tuple[Pair, Kernel, tuple[Var, ...]]:
    """What both threads compute alike from the sizes and the number of their block, and is not
    affine, as one unknown."""
    fixed = frozenset((*func.dims, *(f.var for f in kernel.grid)))
    known: dict[Expr, Var] = {}

    def simple(e: Node) -> Node:
        if not isinstance(e, Binary) or e.op not in ("mul", "floordiv", "mod"):
            return e
        if isinstance(e.b, Const) or (e.op == "mul" and isinstance(e.a, Const)):
            return e
        inside = variables(e)
        if not inside or any(v not in fixed and v not in known.values() for v in inside):
            return e
        return known.setdefault(e, Var(f"unknown {len(known)}"))

    def loops(group: tuple[For, ...]) -> tuple[For, ...]:
        return tuple(
            replace(
                f, low=transform(f.low, simple), extent=transform(f.extent, simple), body=Seq(())
            )
            for f in group
        )

    def touch(t: Touch) -> Touch:
        parts = (tuple(transform(e, simple) for e in group) for group in (t.index, t.conds))
        index, conds = parts
        return replace(t, index=index, conds=conds, loops=loops(t.loops))

    step = None if pair.step is None else loops((pair.step,))[0]
    pair = replace(
        pair, first=touch(pair.first), second=touch(pair.second), same=loops(pair.same), step=step
    )
    kernel = replace(kernel, grid=loops(kernel.grid), threads=loops(kernel.threads))
    return pair, kernel, tuple(known.values())


def _range(loop: For, rename: dict[Var, str]) -> tuple[str, str]:
    low, var = affine(loop.low, rename), rename[loop.var]
    return f"{low} <= {var}", f"{var} < {low} + {affine(loop.extent, rename)}"


def _witness(
    func: Func, kernel: Kernel, pair: Pair, point: dict[str, int], sides: list[dict[Var, str]]
) -> Race:
    found: list[Side] = []
    for touch, rename in zip((pair.first, pair.second), sides, strict=True):
        blocks, threads, loops = (
            tuple((f.var.name, point[rename[f.var]]) for f in loops)
            for loops in (kernel.grid, kernel.threads, touch.loops)
        )
        found.append(Side(blocks, threads, loops, touch.write))
    index = element(func, pair.first, point, sides[0])
    return Race(pair.first.buffer.name, index, *found)


def element(
    func: Func, touch: Touch, point: dict[str, int], rename: dict[Var, str]
) -> tuple[int, ...]:
    """The element an access touches at a point of its loops and of the function's dimensions."""
    values = {v.name: point[n] for v, n in rename.items()}
    values.update({d.name: point[affine(d, {})] for d in func.dims})
    return tuple(index_value(i, values) for i in touch.index)

"""The default schedule of a kernel on a SIMT machine: each of its nests by its structure.

A kernel is one launch after the other (:mod:`aisc.passes.tensor.simt_form`), each for nests that
belong together:

1. a product of enough rows and columns, with the map that reads it, goes by panels in shared memory
   (:mod:`aisc.passes.schedule.rules.simt_product`);
2. reductions and maps over the same rows go row by row, a row to a block of threads or a part of it
   (:mod:`aisc.passes.schedule.rules.simt_rows`);
3. what else is reduced goes along the lanes of its results;
4. maps, and reductions over little, are divided among all threads
   (:mod:`aisc.passes.schedule.rules.simt_maps`).

Before, the depth of products with few results is divided
(:mod:`aisc.passes.schedule.rules.simt_split`). Where one of these is not legal, the next one is
tried. What is left runs in one block, in one thread if need be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aisc.ir.diagnostics import CompileError, error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Load, Select
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, Block, Seq, Stmt, Store
from aisc.ir.tensor.tree import loops_of, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.inlining import inline_maps, inline_where_legal
from aisc.passes.schedule.rules.simt_maps import in_one_block, simt_map
from aisc.passes.schedule.rules.simt_product import is_product, simt_product
from aisc.passes.schedule.rules.simt_rows import rows_of, simt_columns, simt_rows
from aisc.passes.schedule.rules.simt_split import split_depth
from aisc.passes.schedule.schedule import Schedule

# The decision about a kernel as a whole: its nests by their structure, all as if they were maps, in
# one block, in one thread.
FORM, FORMS = "kernel.form", ("structure", "maps", "block", "thread")


def simt_schedule(func: Func, d: Chooser) -> Schedule:
    """The schedule of a kernel by the first way that is legal, or the one that `d` prefers; E302
    where none is."""
    refused: CompileError | None = None
    for form in (str(d.preferred[FORM]),) if FORM in d.preferred else FORMS:
        trial = d.fork(d.choices, {**d.preferred, FORM: form})
        try:
            made = _WAYS[trial.pick(FORM, FORMS, form)](func, trial)
        except CompileError as fault:
            refused = fault
            continue
        return replace(made, picks=trial.picks)
    raise refused or error("E302", f"{func.name} has no schedule")


def _structure(func: Func, d: Chooser) -> Schedule:
    """Each nest by its structure."""
    s = inline_maps(Schedule.of(func), d)
    for p in places(func.body):
        if p.block.combiner:
            s = _with_operands(s, p.block.name)
            s = d.attempt(s, _divided(p.block.name, d))
    done: set[str] = set()
    while group := _next(s.func, done):
        s = _scheduled(s, group, d)
        bound = [p.block.name for x in _nests(s.func) if _is_bound(x) for p in places(x)]
        done |= {*bound, *group}
    return s


def _divided(name: str, d: Chooser) -> Callable[[Schedule], Schedule]:
    return lambda s: split_depth(s, name, d)


def _maps(func: Func, d: Chooser) -> Schedule:
    """Every nest divided among all threads."""
    s = inline_maps(Schedule.of(func), d)
    for nest in _nests(s.func):
        names = [p.block.name for p in places(nest)]
        if len(names) == 1:
            s = d.attempt(s, _as_map(names[0], d))
    return s


def _as_map(name: str, d: Chooser) -> Callable[[Schedule], Schedule]:
    return lambda s: simt_map(s, name, d)


def _block(func: Func, d: Chooser) -> Schedule:
    """Nest after nest, each divided among the threads of one block."""
    s = inline_maps(Schedule.of(func), d)
    return in_one_block(s, d)


def _thread(func: Func, d: Chooser) -> Schedule:
    """The loops as they are, in one thread."""
    return Schedule.of(func)


_WAYS: dict[str, Callable[[Func, Chooser], Schedule]] = {
    "structure": _structure, "maps": _maps, "block": _block, "thread": _thread,
}  # fmt: skip


def _nests(func: Func) -> list[Stmt]:
    """The outermost statements, declarations aside."""
    stmts = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
    return [x for x in stmts if not isinstance(x, Alloc)]


def _is_bound(nest: Stmt) -> bool:
    return any(f.kind.startswith("block.") for f in loops_of(nest))


def _next(func: Func, done: set[str]) -> list[str]:
    """The blocks of the next nest that has not been scheduled, with those that share its rows."""
    nests = [[p.block.name for p in places(x)] for x in _nests(func)]
    start = next((k for k, names in enumerate(nests) if names and not done & set(names)), None)
    if start is None:
        return []
    if len(nests[start]) > 1 or is_product(func, nests[start][0]):
        return nests[start]
    together = rows_of(func, [names[0] for names in _simple(nests[start:], func, done)])
    return together or nests[start]


def _simple(nests: list[list[str]], func: Func, done: set[str]) -> list[list[str]]:
    """The nests up to the first that is no single block, or a product."""
    found = []
    for names in nests:
        if len(names) != 1 or names[0] in done or is_product(func, names[0]):
            break
        found.append(names)
    return found


def _scheduled(s: Schedule, group: list[str], d: Chooser) -> Schedule:
    """A group of nests by the first way that is legal."""
    first = group[0]
    ways: list[Callable[[Schedule], Schedule]] = []
    if len(group) == 1 and is_product(s.func, first):
        ways.append(lambda t: simt_product(t, first, d))
    if rows_of(s.func, group) == group:
        ways.append(lambda t: simt_rows(t, group, d))
    for way in ways:
        after = d.attempt(s, way)
        if after is not s:
            return after
    for name in group:
        s = _alone(s, name, d)
    return s


def _alone(s: Schedule, name: str, d: Chooser) -> Schedule:
    """One nest along the lanes of its results, or as a map."""
    nest = next(x for x in _nests(s.func) if name in [p.block.name for p in places(x)])
    if len(places(nest)) > 1:
        return s
    after = d.attempt(s, lambda t: simt_columns(t, name, d))
    return d.attempt(s, _as_map(name, d)) if after is s else after


def _with_operands(s: Schedule, name: str) -> Schedule:
    """Maps that a reduction reads are computed where it reads them if they only move elements, as
    borders and other orders of axes do; those before a product whatever they compute."""
    product = is_product(s.func, name)
    while True:
        block = next(p.block for p in places(s.func.body) if p.block.name == name)
        read = {n.buffer for n in walk(block.body) if isinstance(n, Load)}
        before = s
        for b in (p.block for p in places(s.func.body)):
            if b.combiner or len(b.writes) != 1 or b.writes[0].buffer not in read:
                continue
            if not product and not _moves(b):
                continue
            after = inline_where_legal(s, b.name)
            if after is not s and is_product(after.func, name) == product:
                s = after
                break
        if s is before:
            return s


def _moves(block: Block) -> bool:
    """Whether a map gives elements of another buffer, or constants in their place."""
    value = block.body.value if isinstance(block.body, Store) else None
    if isinstance(value, Select):
        return isinstance(value.then, Load) and isinstance(value.other, Const)
    return isinstance(value, Load)

"""Sums of products of short integers by instructions that add up several steps at a time.

Such an instruction (:attr:`aisc.ir.target.Target.available`) takes a few neighbouring steps of the
reduction from the data, the same of a vector of lanes from the weights, and adds their products to
accumulators of 32 bits. For that the data are copied into the type that the instruction reads,
where they have another one, and weights are packed with the steps of a lane side by side. The
register tile has the instruction in place of its innermost loops.
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import DType, i32
from aisc.ir.target import Target, instructions_name
from aisc.ir.tensor.expr import Const, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import For, Iter, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.products import factors
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.inlining import inline_where_legal
from aisc.passes.schedule.rules.structure import Reduction, plain_axis, step_of
from aisc.passes.schedule.rules.tile_cost import AROUND
from aisc.passes.schedule.schedule import Schedule, unless_refused

LANES, STEPS = "_l", "_d"
# Instructions of a turn of a loop beside its work.
TURN = 3


@dataclass(frozen=True, slots=True)
class Dot:
    """An instruction for a reduction: so many `steps` of the iterator `over` at a time."""

    instruction: Intrinsic
    over: Iter

    @property
    def steps(self) -> int:
        """Steps of the reduction in one instruction."""
        return static_size(self.data)

    @property
    def data(self) -> Buffer:
        """The operand that all lanes share."""
        return self.instruction.semantics.params[0]


def candidates(reduction: Reduction, lanes: int, target: Target) -> list[Intrinsic]:
    """Instructions for a contraction's types, those first that add up most in a cycle."""
    data, weights = reduction.data, reduction.weights
    if not reduction.contraction or data is None or weights is None or weights.dtype.bits > 16:
        return []
    if reduction.block.writes[0].buffer.dtype is not i32:
        return []
    found = [i for i in target.available if _takes(i, data.dtype, weights.buffer, lanes)]
    return sorted(found, key=lambda i: (-_rate(i), i.name))


def instruction_for(reduction: Reduction, lanes: int, d: Chooser) -> Dot | None:
    """The best of its :func:`candidates`, where the operands lie as one needs them."""
    found, data, weights = candidates(reduction, lanes, d.target), reduction.data, reduction.weights
    if not found or data is None or weights is None:
        return None
    over = [it for it in reduction.block.iters if it.kind == "reduce"][-1]
    if plain_axis(data, over.var) is None or step_of(data, over.var) != 1:
        return None
    if plain_axis(weights, over.var) is None:
        return None
    options = ["", *(i.name for i in found)]
    name = d.pick(f"{reduction.block.name}.instruction", options, options[min(1, len(found))])
    return next((Dot(i, over) for i in found if i.name == name), None)


def _takes(i: Intrinsic, data: DType, weights: Buffer, lanes: int) -> bool:
    """Whether an instruction computes with these types, or with a wider one of the data, and with
    weights so great."""
    a, w, acc = i.semantics.params
    small = not w.most or 0 < weights.most <= w.most
    return small and acc.shape == (lanes,) and w.dtype is weights.dtype and holds(a.dtype, data)


def holds(wide: DType, t: DType) -> bool:
    """Whether an integer type has all values of another."""
    return wide.min_value <= t.min_value and t.max_value <= wide.max_value


def _rate(i: Intrinsic) -> float:
    """Products in a cycle."""
    return static_size(i.semantics.params[1]) / i.cycles()


def static_size(operand: Buffer) -> int:
    """Elements of an operand of an instruction."""
    return prod(d for d in operand.shape if isinstance(d, int))


def issued(i: Intrinsic, tile: tuple[int, int], waste: float, steps: int) -> tuple[float, int, int]:
    """How good a tile of rows and vectors is for what takes several instructions, the least first:
    instructions for a useful product, loads included, since a core is busy with beginning all of
    them and not with one kind; then the number of accumulators."""
    rows, vectors = tile
    acc, turns = rows * vectors, steps // static_size(i.semantics.params[0])
    count = acc * i.cycles() + rows + vectors + TURN + AROUND / max(turns, 1)
    return round(waste * count / acc, 3), -acc, vectors


def prepare(s: Schedule, reduction: Reduction, dot: Dot) -> Schedule:
    """Data in the instruction's type and filled up with zeros to whole steps, weights packed; the
    schedule as it was where one of that is refused."""
    return unless_refused(s, partial(_prepared, reduction, dot))


def _prepared(reduction: Reduction, dot: Dot, s: Schedule) -> Schedule:
    block, data = reduction.block.name, reduction.data
    assert data is not None, "a contraction has data"
    extent = dot.over.extent
    whole = isinstance(extent, Const) and int(extent.value) % dot.steps == 0
    if data.dtype is not dot.data.dtype or not whole:
        s = _copied(s, block, data, dot, whole)
    weights = _weights(s, reduction)
    axis = plain_axis(weights, dot.over.var)
    assert axis is not None, "it was one before"
    rank = weights.buffer.rank + 1
    order = [k for k in range(rank) if k != axis + 1]
    s = s.pack(weights.buffer.name, axis, dot.steps, (*order, axis + 1))
    return s if whole else s.pad_reduction(block, _loop_of(s, block, dot), dot.steps)


def _weights(s: Schedule, reduction: Reduction) -> Load:
    """The factor that is read a vector at a time, now that it is packed."""
    body = find_place(s.func, reduction.block.name).block.body
    pair = factors(body.value) if isinstance(body, Store) else None
    assert pair is not None, "a contraction is a sum of products"
    lane = reduction.lane.var
    return next(load for load in pair if any(mentions(i, lane) for i in load.indices))


def _loop_of(s: Schedule, block: str, dot: Dot) -> str:
    place = find_place(s.func, block)
    names = dict(zip((it.var for it in place.block.iters), place.block.bindings, strict=True))
    loop = names[dot.over.var]
    assert isinstance(loop, Var), "a loop of its own"
    return loop.name


def _copied(s: Schedule, block: str, data: Load, dot: Dot, whole: bool) -> Schedule:
    """A copy of the data in the instruction's type; where steps are whole, what makes them, as a
    border does, makes it."""
    name, axis = data.buffer.name, plain_axis(data, dot.over.var)
    assert axis is not None, "one axis holds neighbours"
    copy, wide = f"{name}_wide", dot.data.dtype
    s = s.cache_read(block, name, "global", copy, "" if wide is data.dtype else wide.name)
    if whole:
        found = [p.block for p in places(s.func.body)]
        writers = [b.name for b in found if name in {w.buffer.name for w in b.writes}]
        for writer in writers:
            s = inline_where_legal(s, writer)
        return s
    # What is added must be zero, and a border need not be: it is made before.
    fill = find_place(s.func, f"{copy}_fill")
    return s.clamp_tail(fill.block.name, fill.loops[axis].var.name, dot.steps, zero=True)


def use_instructions(s: Schedule, d: Chooser) -> Schedule:
    """Instructions in place of the loops that a tile has left for them, the last step: lanes
    become a vector where that is refused."""
    nests = [p for p in places(s.func.body) if len(p.loops) > 1 and _is_left(p.loops)]
    for place in nests:
        lanes, steps = (f.var.name for f in place.loops[-2:])
        s = _invoked(s, lanes, d.target) or s.vectorize(lanes).unroll(steps)
    return s


def _is_left(loops: tuple[For, ...]) -> bool:
    lanes, steps = loops[-2:]
    names = lanes.var.name.endswith(LANES) and steps.var.name.endswith(STEPS)
    return names and lanes.kind == steps.kind == "serial"


def _invoked(s: Schedule, loop: str, target: Target) -> Schedule | None:
    where = instructions_name(target.triple)
    for i in target.available:
        try:
            return s.tensorize(loop, i.name, where)
        except CompileError:
            continue
    return None

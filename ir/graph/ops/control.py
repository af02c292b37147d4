"""Operators with regions, and those that bind dimensions at run time.

``fused`` is a group of nodes that becomes one kernel; ``if`` and ``loop`` become branches and loops
of a Program's entry; ``bind_dims`` reads sizes from a tensor. Regions see no values from outside
(captures are operands) but every dimension that is bound before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, evaluate, maximum, sole_symbol, symbols
from aisc.ir.diagnostics import execution_error
from aisc.ir.graph.core import Graph, bound_symbols
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    present,
    register,
)
from aisc.ir.types import TensorType

_BINDS = Attr("binds", "dims", ())
_BOOL = TensorType((), dtypes.boolean)


# --- fused ------------------------------------------------------------------------------------
def _fused_rule(call: OpCall) -> tuple[TensorType, ...]:
    (region,) = _regions(call, 1)
    expected = tuple(v.type for v in region.inputs)
    if expected != call.types:
        raise call.fail("operands do not fit the region's inputs")
    return tuple(v.type for v in region.outputs)


def _fused_reference(call: OpCall, xs: Arrays) -> list[Array]:
    return run_region(call, 0, [x for x in xs if x is not None])


def _regions(call: OpCall, count: int) -> tuple[Graph, ...]:
    if len(call.regions) != count:
        raise call.fail(f"needs {count} regions, has {len(call.regions)}", code="E202")
    return call.regions


def run_region(
    call: OpCall, index: int, xs: Sequence[Array], more: dict[str, int] | None = None
) -> list[Array]:
    """The outputs of a region for its inputs; `more` are dimensions bound for this run."""
    from aisc.ir.graph.interpret import interpret

    return interpret(call.regions[index], xs, dims={**call.dims, **(more or {})})


register(
    OpDef(
        "fused",
        "A group of operators that is computed by one kernel: its region over the operands. "
        "`target` names the device that runs it, if not the host.",
        (Operand("xs", optional=True, variadic=True),),
        _fused_rule,
        _fused_reference,
        "opaque",
        (Attr("target", "str", ""),),
        outputs=1,
    )
)


# --- sizes from data --------------------------------------------------------------------------
def _bind_rule(call: OpCall) -> tuple[TensorType, ...]:
    wanted = TensorType((len(call.attrs["binds"]),), dtypes.i64)
    if call.type(0) != wanted:
        raise call.fail(f"expected {wanted}, got {call.type(0)}")
    return ()


def _bind_reference(call: OpCall, xs: Arrays) -> list[Array]:
    return []


register(
    OpDef(
        "bind_dims",
        "Gives the dimensions `binds` the values in a vector. A value outside a dimension's bounds "
        "is an error of the run.",
        (Operand("values"),), _bind_rule, _bind_reference, "control",
        (_BINDS,), outputs=0,
    )
)  # fmt: skip


# --- conditions of the run --------------------------------------------------------------------
def _expect_rule(call: OpCall) -> tuple[TensorType, ...]:
    if call.type(1) != _BOOL:
        raise call.fail(f"the condition must be {_BOOL}, got {call.type(1)}")
    return (call.type(0),)


def _expect_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, condition = present(xs)
    if not bool(condition):
        raise ValueError(call.attrs["message"])
    return [x]


register(
    OpDef(
        "expect",
        "x, once the condition holds; otherwise the run ends with the error `message`. `sizes` are "
        "those of inputs on which alone the condition depends.",
        (Operand("x"), Operand("condition")), _expect_rule, _expect_reference, "control",
        (Attr("message", "str"), Attr("sizes", "strs", ())),
    )
)  # fmt: skip


# --- if ---------------------------------------------------------------------------------------
class _Fresh:
    """Hands out the dimensions of `binds` in order."""

    def __init__(self, call: OpCall) -> None:
        self.call = call
        self.left = iter(call.attrs["binds"])

    def next(self) -> Dim:
        """The next dimension; E202 when there are too few."""
        found: Dim | None = next(self.left, None)
        if found is None or sole_symbol(found) is None:
            raise self.call.fail("too few dimensions in 'binds'", code="E202")
        return found

    def finish(self) -> None:
        """E202 when some were not needed."""
        if next(self.left, None) is not None:
            raise self.call.fail("too many dimensions in 'binds'", code="E202")


def escapes(d: Dim, inner: frozenset[str]) -> bool:
    """Whether a dimension is known outside of the region that binds `inner`."""
    return not any(s.name in inner for s in symbols(d))


def _check_inputs(call: OpCall, region: Graph, given: Sequence[TensorType | None]) -> None:
    if tuple(v.type for v in region.inputs) != tuple(given):
        raise call.fail("operands do not fit the region's inputs", code="E202")


def _if_rule(call: OpCall) -> tuple[TensorType, ...]:
    if call.type(0) != _BOOL:
        raise call.fail(f"the condition must be {_BOOL}, got {call.type(0)}")
    then, other = _regions(call, 2)
    for region in (then, other):
        _check_inputs(call, region, call.types[1:])
    if len(then.outputs) != len(other.outputs):
        raise call.fail("the branches differ in their number of results", code="E202")
    fresh, inner = _Fresh(call), bound_symbols(then) | bound_symbols(other)
    results: list[TensorType] = []
    for a, b in zip((v.type for v in then.outputs), (v.type for v in other.outputs), strict=True):
        if a.dtype is not b.dtype or a.rank != b.rank:
            raise call.fail(f"the branches give {a} and {b}", code="E201")
        shape = tuple(
            x if x == y and escapes(x, inner) else fresh.next()
            for x, y in zip(a.shape, b.shape, strict=True)
        )
        results.append(TensorType(shape, a.dtype))
    fresh.finish()
    return tuple(results)


def _if_reference(call: OpCall, xs: Arrays) -> list[Array]:
    cond, *captures = (x for x in xs if x is not None)
    return run_region(call, 0 if bool(cond) else 1, captures)


register(
    OpDef(
        "if",
        "The results of the first region where the condition holds, else of the second; both take "
        "the captures. A size that differs between them is a new dimension of `binds`.",
        (Operand("cond"), Operand("captures", optional=True, variadic=True)),
        _if_rule, _if_reference, "control", (_BINDS,),
    )
)  # fmt: skip


# --- loop -------------------------------------------------------------------------------------
def loop_trip(call: OpCall) -> Dim | None:
    """The number of turns when it is known before the loop starts."""
    trip: tuple[Dim, ...] = call.attrs["trip"]
    return maximum(trip[0], 0) if trip and not call.attrs["conditional"] else None


def carried_types(call: OpCall) -> tuple[TensorType, ...]:
    """Types of the carried values inside the body."""
    return tuple(v.type for v in call.regions[0].inputs[: call.attrs["carried"]])


def _loop_rule(call: OpCall) -> tuple[TensorType, ...]:
    (body,) = _regions(call, 1)
    count, conditional = call.attrs["carried"], call.attrs["conditional"]
    if call.has(0) and call.type(0) != TensorType((), dtypes.i64):
        raise call.fail(f"the limit must be a scalar of i64, got {call.type(0)}")
    if call.has(1) and call.type(1) != _BOOL:
        raise call.fail(f"the condition must be {_BOOL}, got {call.type(1)}")
    given = call.types[2:]
    varying = dict.fromkeys(map(str, call.attrs["carried_dims"]))
    if len(body.outputs) < count + conditional or len(given) < count:
        raise call.fail("too few carried values", code="E202")
    _check_inputs(call, body, (*carried_types(call), *given[count:]))
    outputs = [v.type for v in body.outputs]
    if conditional and outputs.pop(0) != _BOOL:
        raise call.fail("the first result of the body must be its condition", code="E202")
    fresh, inner = _Fresh(call), bound_symbols(body) | _own_symbols(call)
    trip = loop_trip(call)
    turns = fresh.next() if trip is None else trip
    last: dict[str, Dim] = {}
    results: list[TensorType] = []
    for inside, start, end in zip(carried_types(call), given, outputs, strict=False):
        assert start is not None, "checked by the arity"
        _check_carried(call, (inside, start, end), varying)
        for d in inside.shape:
            if str(d) in varying and str(d) not in last:
                last[str(d)] = fresh.next()
        shape = tuple(last.get(str(d), d) for d in inside.shape)
        results.append(TensorType(shape, inside.dtype))
    for t in outputs[count:]:
        shape = tuple(d if escapes(d, inner) else fresh.next() for d in t.shape)
        results.append(TensorType((turns, *shape), t.dtype))
    fresh.finish()
    return tuple(results)


def _own_symbols(call: OpCall) -> frozenset[str]:
    """Dimensions that each turn binds anew."""
    dims = (*call.attrs["index"], *call.attrs["carried_dims"])
    return frozenset(s.name for d in dims for s in symbols(d))


def _check_carried(
    call: OpCall, types: tuple[TensorType, TensorType, TensorType], varying: Mapping[str, object]
) -> None:
    """E201 unless a carried value has one type before the loop, in it and after a turn, but for
    the dimensions that vary."""
    inside, start, end = types
    same = inside.dtype is start.dtype is end.dtype and inside.rank == start.rank == end.rank
    for d, a, b in zip(inside.shape, start.shape, end.shape, strict=False):
        same = same and (str(d) in varying or d == a == b)
    if not same:
        raise call.fail(f"a carried value starts as {start}, is {inside} and becomes {end}")


MAX_TURNS = 1 << 24  # of the interpreter


def _loop_reference(call: OpCall, xs: Arrays) -> list[Array]:
    limit, cond, *rest = xs
    count, conditional = call.attrs["carried"], call.attrs["conditional"]
    state = [np.asarray(x) for x in rest[:count]]
    captures = [np.asarray(x) for x in rest[count:]]
    trip = call.attrs["trip"]
    turns = int(trip[0]) if trip else int(limit) if limit is not None else MAX_TURNS
    scans: list[list[Array]] = [
        [] for _ in range(len(call.regions[0].outputs) - conditional - count)
    ]
    turn, goes_on = 0, cond is None or bool(cond)
    while goes_on and turn < turns:
        if turn >= MAX_TURNS:
            raise execution_error("E502", f"a loop takes more than {MAX_TURNS} turns")
        found = run_region(call, 0, [*state, *captures], _turn_dims(call, turn, state))
        if conditional:
            goes_on = bool(found.pop(0))
        state = found[:count]
        for scan, value in zip(scans, found[count:], strict=True):
            scan.append(value)
        turn += 1
    outputs = [v.type for v in call.regions[0].outputs[conditional + count :]]
    return [*state, *(_stacked(s, t, call) for s, t in zip(scans, outputs, strict=True))]


def _stacked(items: list[Array], t: TensorType, call: OpCall) -> Array:
    if any(x.shape != items[0].shape for x in items):
        raise execution_error("E502", "stacked values of a loop differ in size")
    if items:
        return np.stack(items)
    inner = bound_symbols(call.regions[0]) | _own_symbols(call)
    sizes = (evaluate(d, call.dims) if escapes(d, inner) else 0 for d in t.shape)
    return np.zeros((0, *sizes), t.dtype.numpy)


def _turn_dims(call: OpCall, turn: int, state: Sequence[Array]) -> dict[str, int]:
    """Values of the dimensions that a turn binds."""
    found: dict[str, int] = {}
    for d in call.attrs["index"]:
        symbol = sole_symbol(d)
        assert symbol is not None, "the index is one dimension"
        found[symbol.name] = turn
    names = {s.name for d in call.attrs["carried_dims"] for s in symbols(d)}
    for t, array in zip(carried_types(call), state, strict=True):
        for d, size in zip(t.shape, array.shape, strict=True):
            symbol = sole_symbol(d)
            if symbol is not None and symbol.name in names:
                found[symbol.name] = size
    return found


register(
    OpDef(
        "loop",
        "Runs its region again and again: over the carried values, then the captures; it gives the "
        "condition of another turn (if `conditional`), the next carried values, and values that "
        "are stacked. At most `trip` (or else `limit`) turns, none without `cond`. `index` is the "
        "number of the turn, `carried_dims` the sizes that change; `binds` the number of turns, "
        "unless it is known, the last of the sizes that change, and sizes of stacked values that "
        "are known in a turn only, where they must not differ.",
        (Operand("limit", optional=True), Operand("cond", optional=True),
         Operand("xs", optional=True, variadic=True)),
        _loop_rule, _loop_reference, "control",
        (Attr("trip", "dims", ()), Attr("index", "dims", ()), Attr("carried", "int", 0),
         Attr("carried_dims", "dims", ()), Attr("conditional", "bool", False), _BINDS),
    )
)  # fmt: skip

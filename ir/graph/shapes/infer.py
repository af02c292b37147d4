"""Pieces of type rules that several operator families share: broadcasting, axes, dtype checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, least_of, sole_symbol, symbol_part
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import OpCall
from aisc.ir.graph.shapes.checks import decide, require

Accepts = Callable[[DType], bool]


def is_float(t: DType) -> bool:
    """Any floating-point type."""
    return t.is_float


def is_number(t: DType) -> bool:
    """Anything but bool."""
    return t.kind not in ("bool", "coded")


def is_integer(t: DType) -> bool:
    """Signed or unsigned integers."""
    return t.is_integer


def is_bits(t: DType) -> bool:
    """Integers and bool."""
    return not t.is_float


def is_bool(t: DType) -> bool:
    """Only bool."""
    return t.kind == "bool"


def any_dtype(t: DType) -> bool:
    """Every type."""
    return True


def is_computed(t: DType) -> bool:
    """Every type but those that nothing computes with."""
    return not t.is_coded


def broadcast(call: OpCall, *shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """The numpy broadcast of `shapes`: per dimension equal, or statically 1 in all but some; sizes
    that are not known to be equal must be so in the run. E201 for sizes that differ.
    """
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = []
    for i in range(rank):
        column = [s[i - rank + len(s)] for s in shapes if i - rank + len(s) >= 0]
        result.append(_broadcast_dim(call, column))
    return tuple(result)


def _broadcast_dim(call: OpCall, column: Sequence[Dim]) -> Dim:
    distinct = list(dict.fromkeys(d for d in column if d != 1))
    if not distinct:
        return 1
    if len(distinct) == 1:
        return distinct[0]
    sizes = " and ".join(map(str, distinct))
    numbers = [d for d in distinct if isinstance(d, int)]
    if len(numbers) > 1:
        raise call.fail(f"sizes {sizes} do not broadcast")
    implied = implied_bound(distinct)
    if implied is not None:
        fault = call.fail(f"whether sizes {sizes} are equal is not known", code="E204")
        assert isinstance(fault, CompileError), "a fault of the user's"
        raise BoundNeeded(fault, *implied)
    size = numbers[0] if numbers else distinct[0]
    for d in distinct:
        require(call, "==", d, size, "sizes that are broadcast")
    return size


class BoundNeeded(CompileError):
    """E204 that goes away with an upper bound of one symbolic dimension, beyond which the sizes
    could not agree anyway. Whoever made the symbols may start over with the bound."""

    def __init__(self, fault: CompileError, symbol: str, upper: int) -> None:
        super().__init__(fault.diagnostics)
        self.symbol, self.upper = symbol, upper

    def __reduce__(self) -> tuple[object, ...]:
        return BoundNeeded, (CompileError(self.diagnostics), self.symbol, self.upper)


def implied_bound(sizes: Sequence[Dim]) -> tuple[str, int] | None:
    """(symbol of an input, upper bound) that two sizes to be broadcast imply: ``s + k`` and
    ``min(c, s + k)`` with c > 1 agree exactly where ``s + k <= c``."""
    if len(sizes) != 2:
        return None
    for a, b in (sizes, sizes[::-1]):
        limits = least_of(b)
        others = [x for x in limits if x != a]
        if len(others) != 1 or len(limits) != 2 or not isinstance(a, Poly):
            continue
        (limit,) = others
        offset = a - symbol_part(a)
        symbol = sole_symbol(symbol_part(a))
        if symbol is None or symbol.kind != "input" or not isinstance(offset, int):
            continue
        if isinstance(limit, int) and limit > 1:
            return symbol.name, limit - offset
    return None


def normal_axis(call: OpCall, axis: int, rank: int) -> int:
    """`axis` counted from the front; E203 when it is outside ``[-rank, rank)``."""
    if not -rank <= axis < rank:
        raise call.fail(f"axis {axis} is outside a tensor of rank {rank}", code="E203")
    return axis % rank


def normal_axes(call: OpCall, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Sorted distinct axes counted from the front; E203 on repeats or values out of range."""
    found = sorted(normal_axis(call, a, rank) for a in axes)
    if len(set(found)) != len(found):
        raise call.fail(f"axes {tuple(axes)} repeat", code="E203")
    return tuple(found)


def check_dtype(call: OpCall, index: int, accepts: Accepts) -> DType:
    """The dtype of an input; E201 unless `accepts` it."""
    t = call.type(index).dtype
    if not accepts(t):
        name = call.op.inputs[min(index, len(call.op.inputs) - 1)].name
        rule = (accepts.__doc__ or "another type").rstrip(".").lower()
        raise call.fail(f"operand '{name}' may not be {t}", f"expected: {rule}")
    return t


def same_dtype(call: OpCall, *indices: int) -> DType:
    """The one dtype of several present inputs; E201 when they differ."""
    types = [call.type(i).dtype for i in indices if call.has(i)]
    if len(set(types)) > 1:
        raise call.fail(f"operand types differ: {', '.join(map(str, types))}")
    return types[0]


def check_rank(call: OpCall, index: int, low: int, high: int | None = None) -> int:
    """The rank of an input; E201 when outside ``[low, high]``."""
    rank = call.type(index).rank
    if rank < low or (high is not None and rank > high):
        wanted = (
            f"{low}" if high == low else f"at least {low}" if high is None else f"{low}..{high}"
        )
        raise call.fail(f"operand {index} has rank {rank}, expected {wanted}")
    return rank


def size_code(*sizes: Dim) -> str:
    """The code for sizes that should be equal and are not: E201, or E204 when one is symbolic."""
    return "E201" if all(isinstance(d, int) for d in sizes) else "E204"


def check_shape(call: OpCall, index: int, shape: Sequence[Dim]) -> None:
    """A present input must have this shape: E201 where it cannot, a check of the run where only
    that can tell."""
    if not call.has(index) or call.type(index).shape == tuple(shape):
        return
    found = call.type(index)
    wanted = ", ".join(map(str, shape))
    pairs = list(zip(found.shape, shape, strict=False))
    if len(shape) != found.rank or any(decide("==", a, b) is False for a, b in pairs):
        raise call.fail(f"operand {index} is {found}, expected shape [{wanted}]")
    name = call.op.inputs[min(index, len(call.op.inputs) - 1)].name
    for axis, (a, b) in enumerate(pairs):
        require(call, "==", a, b, f"axis {axis} of '{name}'")


def static_dims(call: OpCall, index: int, axes: Sequence[int]) -> tuple[int, ...]:
    """Sizes of an input along `axes`; E204 when one is symbolic."""
    shape = call.type(index).shape
    sizes = tuple(d for d in (shape[a] for a in axes) if isinstance(d, int))
    if len(sizes) != len(axes):
        raise call.fail(f"operand {index} {call.type(index)} must have known sizes", code="E204")
    return sizes


def contracted(call: OpCall, a: int, b: int) -> DType:
    """The dtype of a sum of products of two inputs: what the attribute `accumulator` names, which
    lets operands be integers of two types; without it that of the operands, which are alike."""
    name = call.attrs["accumulator"]
    if not name:
        return same_dtype(call, a, b)
    wanted, types = dtypes.dtype(name), (call.type(a).dtype, call.type(b).dtype)
    holds = all(t.is_float == wanted.is_float and t.bits <= wanted.bits for t in types)
    if not holds or (wanted.is_float and types[0] is not types[1]):
        found = " and ".join(map(str, types))
        raise call.fail(f"products of {found} do not add up in {wanted}", code="E203")
    return wanted


def accumulator(t: DType) -> DType:
    """The dtype in which sums of `t` are kept: 16-bit floats accumulate in f32."""
    return dtypes.f32 if t.is_float and t.bits < 32 else t

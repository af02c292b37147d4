"""Rules that find softmax and norms where a model spells them out.

A row's statistics are read through reshapes, as they are broadcast along the row again; a mean may
be a sum divided by the number of its terms.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.arith.poly import Dim, product
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, GraphNode, Value
from aisc.ir.rewrite.rules import Match, Rule, rule


def _statistic(
    m: Match, v: Value | None, op: str, x: Value | None, shape: Sequence[Dim] | None = None
) -> tuple[int, ...] | None:
    """The axes along which `v`, broadcast from `shape` or its own, is the reduction `op` of `x` for
    each element of it."""
    if v is None or x is None:
        return None
    node = m.producer(_source(m, v))
    if node is None or node.op != op or node.inputs[0] is not x:
        return None
    axes = tuple(sorted(a % x.type.rank for a in _ints(node, "axes")))
    kept = tuple(1 if a in axes else d for a, d in enumerate(x.type.shape))
    own = tuple(v.type.shape if shape is None else shape)
    return axes if (1,) * (len(kept) - len(own)) + own == kept else None


def _source(m: Match, v: Value) -> Value:
    """What reshapes make `v` of."""
    while True:
        node = m.producer(v, "reshape")
        if node is None or node.inputs[0] is None:
            return v
        v = node.inputs[0]


def _ints(node: GraphNode, name: str) -> tuple[int, ...]:
    found = node.attr(name)
    assert isinstance(found, tuple), "a tuple of axes"
    return tuple(a for a in found if isinstance(a, int))


@rule("div")
def sum_is_mean(m: Match) -> Sequence[Value] | None:
    """``reduce_sum(x, axes) / n -> reduce_mean(x, axes)`` where `n` is the number of terms."""
    node, count = m.producer(m.input(0), "reduce_sum"), m.constant(m.input(1))
    if node is None or count is None or count.size != 1 or not m.single_use(node):
        return None
    x, t = node.input_values[0], m.node.output.type
    terms = product(tuple(x.type.shape[a] for a in _ints(node, "axes")))
    if not t.dtype.is_float or t != node.output.type or count.array.reshape(-1)[0] != terms:
        return None
    return (m.add("reduce_mean", (x,), node.attr_map, (node,)),)


@rule("div")
def softmax_spelled_out(m: Match) -> Sequence[Value] | None:
    """``e / sum(e) -> softmax(x)`` for ``e = exp(x - max(x))``."""
    shifted = _shifted(m, m.input(0))
    if shifted is None:
        return None
    x, axes = shifted
    if _statistic(m, m.input(1), "reduce_sum", m.input(0)) != axes:
        return None
    return (m.add("softmax", (x,), {"axis": axes[0]}),)


def _shifted(m: Match, e: Value | None) -> tuple[Value, tuple[int, ...]] | None:
    """`x` and its one axis where ``e = exp(x - max(x))``."""
    exp = m.producer(e, "exp")
    sub = m.producer(exp.inputs[0], "sub") if exp is not None else None
    if sub is None:
        return None
    x, top = sub.inputs
    axes = _statistic(m, top, "reduce_max", x)
    return (x, axes) if x is not None and axes is not None and len(axes) == 1 else None


@rule("sub")
def log_softmax_spelled_out(m: Match) -> Sequence[Value] | None:
    """``d - log(sum(exp(d))) -> log_softmax(x)`` for ``d = x - max(x)``."""
    d, log = m.input(0), m.producer(_source(m, m.node.input_values[1]), "log")
    sub = m.producer(d, "sub")
    total = None if log is None or log.inputs[0] is None else _source(m, log.inputs[0])
    summed = m.producer(total, "reduce_sum")
    if sub is None or summed is None or m.node.output.type != (d and d.type):
        return None
    e = summed.inputs[0]
    exp = m.producer(e, "exp")
    axes = _statistic(m, sub.inputs[1], "reduce_max", sub.inputs[0])
    if exp is None or exp.inputs[0] is not d or axes is None or len(axes) != 1:
        return None
    found = tuple(a % sub.output.type.rank for a in _ints(summed, "axes"))
    kept = tuple(1 if a in axes else n for a, n in enumerate(sub.output.type.shape))
    if found != axes or m.node.input_values[1].type.shape != kept:
        return None
    return (m.add("log_softmax", (sub.inputs[0],), {"axis": axes[0]}),)


@rule("div", "mul")
def norm_spelled_out(m: Match) -> Sequence[Value] | None:
    """``c / sqrt(mean(c * c) + epsilon) -> layer_norm(x)`` for ``c = x - mean(x)``, and
    ``rms_norm(c)`` for other c."""
    c, root = m.input(0), m.input(1)
    found = None if root is None else _root(m, root)
    if c is None or root is None or found is None or m.node.output.type != c.type:
        return None
    spread, epsilon = found
    squares = (_operand_of_square(m, spread), c)
    axes = _statistic(m, spread, "reduce_mean", squares[0], root.type.shape)
    if not axes or axes != tuple(range(axes[0], c.type.rank)) or not _is_square(m, *squares):
        return None
    attrs: dict[str, AttrValue] = {"axis": axes[0], "epsilon": epsilon}
    sub = m.producer(c, "sub")
    if sub is not None and _statistic(m, sub.inputs[1], "reduce_mean", sub.inputs[0]) == axes:
        return (m.add("layer_norm", (sub.inputs[0],), attrs),)
    return (m.add("rms_norm", (c,), attrs),)


def _root(m: Match, v: Value) -> tuple[Value, float] | None:
    """What `v`, or its reciprocal where it is multiplied by, is the root of, and what is added to
    that."""
    node = m.producer(_source(m, v))
    if m.node.op == "mul" and node is not None:
        one = m.constant(node.inputs[0]) if node.op == "div" else None
        is_one = one is not None and one.size == 1 and one.array.reshape(-1)[0] == 1
        below = node.inputs[1] if is_one else node.inputs[0] if node.op == "reciprocal" else None
        node = m.producer(below)
    added = m.producer(node.inputs[0], "add") if node is not None and node.op == "sqrt" else None
    blob = None if added is None else m.constant(added.inputs[1])
    if added is None or blob is None or blob.size != 1:
        return None
    epsilon = float(blob.array.reshape(-1)[0])
    return (added.input_values[0], epsilon) if epsilon > 0 else None


def _operand_of_square(m: Match, spread: Value) -> Value | None:
    """What is averaged."""
    node = m.producer(_source(m, spread), "reduce_mean")
    return None if node is None else node.inputs[0]


def _is_square(m: Match, square: Value | None, c: Value) -> bool:
    """``c * c`` or ``c ** 2``."""
    node = m.producer(square)
    if node is None or node.inputs[0] is not c:
        return False
    power = m.constant(node.inputs[1]) if node.op == "pow" else None
    two = power is not None and power.size == 1 and power.array.reshape(-1)[0] == 2
    return two or (node.op == "mul" and node.inputs[1] is c)


@rule("mul", "add")
def norm_takes_scale(m: Match) -> Sequence[Value] | None:
    """``layer_norm(x) * s -> layer_norm(x, s)``, and ``+ b`` likewise, for one value (or one row of
    them) that all rows share."""
    for k in (0, 1):
        norm, operand = m.producer(m.input(k)), m.input(1 - k)
        if norm is None or norm.op not in _NORMS or operand is None or not m.single_use(norm):
            continue
        place, axis = (1 if m.node.op == "mul" else 2), norm.attr("axis")
        takes = place == len(norm.inputs) < len(opdef.get(norm.op).inputs)
        if not takes or not isinstance(axis, int):
            continue
        inner = norm.output.type.shape[axis % norm.output.type.rank :]
        source = _source(m, operand)
        if not _is_along(operand.type.shape, inner):
            continue
        if source.type.shape != inner:
            source = m.add("reshape", (operand,), {"shape": inner})
        return (m.add(norm.op, (*norm.inputs, source), norm.attr_map, (norm,)),)
    return None


_NORMS = ("layer_norm", "rms_norm")


def _is_along(shape: Sequence[Dim], inner: Sequence[Dim]) -> bool:
    """Whether a shape is the inner one but for ones in front."""
    own = list(shape)
    while own and own[0] == 1 and len(own) > len(inner):
        own.pop(0)
    return own == list(inner)


RULES: tuple[Rule, ...] = (
    sum_is_mean, softmax_spelled_out, log_softmax_spelled_out, norm_spelled_out,
    norm_takes_scale,
)  # fmt: skip

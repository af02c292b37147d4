"""How operators are written: signs, indices, calls.

A form lists its operands in the order in which they are evaluated, and says what is written for
what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from aisc.frontend.lang import indexing
from aisc.frontend.lang.printing import literals
from aisc.frontend.lang.printing.attributes import dims, whole
from aisc.frontend.lang.printing.sizes import POSTFIX, Sizes
from aisc.frontend.lang.statics import FUNCTIONS
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, maximum
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, GraphNode, Value
from aisc.ir.location import UNKNOWN

ATOM = 10


@dataclass(frozen=True, slots=True)
class Text:
    """An expression: what is written, how tightly it binds, how many operators it has.

    pick: of a slice of one place, what is written if the axis goes."""

    text: str
    level: int = ATOM
    weight: int = 0
    pick: str = ""

    def at(self, level: int) -> str:
        """What is written where something that binds at least so tightly is expected."""
        return f"({self.text})" if self.level < level else self.text


Write = Callable[[Sequence[Text]], Text]


@dataclass(frozen=True, slots=True)
class Form:
    """`operands`: in the order of evaluation. `typed`: those of which a literal takes its type
    from the first that is none. `infix`: one at least must be no literal."""

    operands: tuple[Value, ...]
    write: Write
    typed: tuple[Value, ...] = ()
    infix: bool = False


# Operator -> (sign, level of all, of the left, of the right).
INFIX = {
    "or": ("or", 1, 1, 2), "and": ("and", 2, 2, 3),
    "equal": ("==", 4, 5, 5), "less": ("<", 4, 5, 5), "less_equal": ("<=", 4, 5, 5),
    "greater": (">", 4, 5, 5), "greater_equal": (">=", 4, 5, 5),
    "add": ("+", 5, 5, 6), "sub": ("-", 5, 5, 6), "mul": ("*", 6, 6, 7), "div": ("/", 6, 6, 7),
    "mod": ("%", 6, 6, 7), "matmul": ("@", 6, 6, 7), "pow": ("**", 8, 9, 7),
}  # fmt: skip
PREFIX = {"neg": ("-", 7, 7), "not": ("not ", 3, 3)}


def infix(op: str, a: Text, b: Text) -> Text:
    """``a op b``."""
    sign, level, left, right = INFIX[op]
    return Text(f"{a.at(left)} {sign} {b.at(right)}", level, 1 + a.weight + b.weight)


def prefix(op: str, a: Text) -> Text:
    """``-a`` or ``not a``."""
    sign, level, inner = PREFIX[op]
    return Text(sign + a.at(inner), level, 1 + a.weight)


def choice(cond: Text, a: Text, b: Text) -> Text:
    """``a if cond else b``."""
    weight = 1 + cond.weight + a.weight + b.weight
    return Text(f"{a.at(1)} if {cond.at(1)} else {b.at(0)}", 0, weight)


def joined(texts: Sequence[Text]) -> Text:
    """``a, b``."""
    return Text(", ".join(t.text for t in texts), 0, sum(t.weight for t in texts))


def form_of(node: GraphNode, sizes: Sizes, exact: bool) -> Form:
    """How a node without regions is written; unless `exact`, attributes may say the same in fewer
    words."""
    inputs = node.input_values
    full = len(inputs) == len(node.inputs)
    if node.op in INFIX and full and _has_sign(node):
        return Form(inputs, lambda t: infix(node.op, *t), inputs, infix=True)
    if node.op in PREFIX and full:
        return Form(inputs, lambda t: prefix(node.op, t[0]), inputs, infix=True)
    if node.op == "where" and full:
        return Form(inputs, lambda t: choice(*t), inputs[1:])
    if node.op == "slice":
        found = _slice(node, sizes)
        if found is not None:
            return found
    if node.op == "gather" and full:
        return _gather(node)
    return _call(node, sizes, exact)


def _has_sign(node: GraphNode) -> bool:
    """Whether the sign means the operator: for operands of one type, of which ``%`` has others."""
    a, b = (v.type.dtype for v in node.input_values)
    return a is b and (node.op != "mod" or a.is_integer)


def _slice(node: GraphNode, sizes: Sizes) -> Form | None:
    """``x[:, a:b]`` for a part of one axis."""
    (x,) = node.input_values
    shape, starts, ends = x.type.shape, dims(node, "starts"), dims(node, "ends")
    steps = cast(tuple[int, ...], node.attr("steps"))
    cut = [a for a, d in enumerate(shape) if (starts[a], ends[a], steps[a]) != (0, d, 1)]
    if len(cut) != 1:
        return None
    axis = cut[0]
    inside = _range(shape[axis], starts[axis], ends[axis], steps[axis], sizes)
    if inside is None:
        return None
    before = ":, " * axis
    single = steps[axis] == 1 and ends[axis] == starts[axis] + 1

    def write(t: Sequence[Text]) -> Text:
        base = t[0].at(POSTFIX)
        pick = f"{base}[{before}{sizes.text(starts[axis])}]" if single else ""
        return Text(f"{base}[{before}{inside}]", POSTFIX, 1 + t[0].weight, pick)

    return Form((x,), write)


def _range(size: Dim, start: Dim, end: Dim, step: int, sizes: Sizes) -> str | None:
    """``a:b:c``, if it means exactly these bounds."""
    by = "" if step == 1 else f":{step}"
    if step < 0:
        return f":{by}" if (start, end) == (size - 1, -1) else None
    first = start if start == 0 else indexing.bound(start, size, UNKNOWN)
    last = end if end == size else indexing.bound(end, size, UNKNOWN)
    last = last if (start, end) == (0, size) else maximum(first, last)
    if (first, last) != (start, end):
        return None
    low = "" if start == 0 else sizes.text(start)
    high = "" if end == size else sizes.text(end)
    return f"{low}:{high}{by}"


def _gather(node: GraphNode) -> Form:
    """``x[:, places]``."""
    axis = whole(node, "axis")
    data, _ = node.input_values
    before = ":, " * (axis % max(1, data.type.rank))
    return Form(
        node.input_values,
        lambda t: Text(f"{t[0].at(POSTFIX)}[{before}{t[1].text}]", POSTFIX,
                       1 + t[0].weight + t[1].weight),
    )  # fmt: skip


def _call(node: GraphNode, sizes: Sizes, exact: bool) -> Form:
    """``op(a, b, name=value)``: what is optional has its name."""
    op = opdef.get(node.op)
    operands: list[tuple[str, Value]] = []
    for k, v in enumerate(node.inputs):
        declared = op.inputs[min(k, len(op.inputs) - 1)]
        if v is not None:
            operands.append((f"{declared.name}=" if declared.optional else "", v))
    given = _attributes(node, sizes, exact)

    def write(t: Sequence[Text]) -> Text:
        parts = [f"{word}{x.text}" for (word, _), x in zip(operands, t, strict=True)]
        weight = 1 + sum(x.weight for x in t)
        return Text(f"{node.op}({', '.join((*parts, *given))})", ATOM, weight)

    values = tuple(v for _, v in operands)
    return Form(values, write, values, infix=node.op in FUNCTIONS)


# Attributes of which an empty list means these numbers.
_UNIFORM = {"strides": 1, "dilations": 1, "pads": 0}


def _attributes(node: GraphNode, sizes: Sizes, exact: bool) -> list[str]:
    """``name=value`` of every attribute that is not as usual."""
    attrs = node.attr_map
    found: list[str] = []
    for a in opdef.get(node.op).attrs:
        if a.name == "binds" or a.name not in attrs:
            continue
        value = attrs[a.name] if exact else _plain(node, a, attrs[a.name])
        if not _equal(value, a.default):
            found.append(f"{a.name}={literals.attribute(value, a.type, sizes)}")
    return found


def _plain(node: GraphNode, a: opdef.Attr, value: AttrValue) -> AttrValue:
    """A value that means the same: a number without the digits that f32 does not hold, where
    nothing is wider; an empty list."""
    if isinstance(value, float) and not _is_wide(node) and np.float32(value) == value:
        return float(str(np.float32(value)))
    if a.default == () and isinstance(value, tuple) and set(value) == {_UNIFORM.get(a.name)}:
        return ()
    return value


def _is_wide(node: GraphNode) -> bool:
    return any(v.type.dtype is dtypes.f64 for v in (*node.input_values, *node.outputs))


def _equal(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return type(a) is type(b) and a == b

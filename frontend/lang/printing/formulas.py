"""The operator ``index`` as index notation, if that means exactly the same function.

What is written is read again: where another function comes of it, the operator is called with the
text of its function.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from aisc.frontend.lang.model import graph_of
from aisc.frontend.lang.printing import literals
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.forms import Text, choice, infix, prefix
from aisc.frontend.lang.printing.names import RESERVED, Names
from aisc.frontend.lang.printing.sizes import SUM, Sizes
from aisc.ir.arith.poly import Dim, SymDim, sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.core import GraphNode
from aisc.ir.graph.ops.index import block_of, formula
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var
from aisc.ir.tensor.func import Func
from aisc.ir.types import TensorType

LETTERS = "ijklmnopqrstuvwxyzabcdefgh"
_OPS = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "truncdiv": "div", "mod": "mod",
    "pow": "pow", "and": "and", "or": "or", "eq": "equal", "lt": "less", "le": "less_equal",
    "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
_CHECK = "checked"


class _NoNotation(Exception):
    """A part of a function has no form in a formula."""


def write_formula(body: Body, node: GraphNode) -> bool:
    """Write ``y[i, j] = …``; false where the operator must be called."""
    func = formula(str(node.attr("body")))
    sizes = _sizes_of(func, node)
    taken = body.fn.names.taken
    letters = [x for x in LETTERS if x not in taken and x not in RESERVED]
    for spelled in (False, True):
        notation = _notation(func, node, tuple(letters), spelled)
        if notation is None:
            continue
        operands = [body.named(v) for v in node.input_values]
        body.flush()
        name = body.name(node.output)
        known = {k: body.fn.sizes.text(d, SUM) for k, d in sizes.items() if k in notation.ranges}
        body.lines.append(notation.text(name, operands, known))
        return True
    return False


@dataclass(frozen=True, slots=True)
class _Notation:
    """A formula with places for names. `ranges`: sizes of the function that it mentions."""

    template: str
    ranges: tuple[str, ...]

    def text(self, name: str, operands: Sequence[str], sizes: Mapping[str, str]) -> str:
        """The formula for these tensors."""
        found = self.template.replace("\0y\0", name)
        for k, operand in enumerate(operands):
            found = found.replace(f"\0x{k}\0", operand)
        for word, size in sizes.items():
            found = found.replace(f"\0n{word}\0", size)
        return found


def _sizes_of(func: Func, node: GraphNode) -> dict[str, Dim]:
    """What the symbols of a function are for the operands at hand."""
    found: dict[str, Dim] = {}
    for b, v in zip((b for b in func.params if b.role == "input"), node.input_values, strict=True):
        for own, size in zip(b.shape, v.type.shape, strict=True):
            s = sole_symbol(own)
            if s is not None:
                found.setdefault(s.name, size)
    return found


def _notation(
    func: Func, node: GraphNode, letters: tuple[str, ...], spelled: bool
) -> _Notation | None:
    types = tuple(v.type for v in node.input_values)
    return _checked(str(node.attr("body")), types, letters, spelled)


@lru_cache(maxsize=1 << 9)
def _checked(
    body: str, types: tuple[TensorType, ...], letters: tuple[str, ...], spelled: bool
) -> _Notation | None:
    """The notation of a function, if reading it gives the function again."""
    func = formula(body)
    try:
        found = _Writer(func, letters, spelled).notation()
    except _NoNotation:
        return None
    sizes = Sizes(Names([f"x{k}" for k in range(len(types))]))
    dims: dict[str, SymDim] = {s.name: s for t in types for s in sorted(
        t.symbols, key=lambda s: s.name)}  # fmt: skip
    heads = [f"{sizes.names.fresh('s')}: bool[{_bounded(sizes, s)}]" for s in dims.values()]
    named: dict[str, Dim] = {}
    for b, t in zip((b for b in func.params if b.role == "input"), types, strict=True):
        named.update({s.name: d for own, d in zip(b.shape, t.shape, strict=True)
                      if (s := sole_symbol(own)) is not None})  # fmt: skip
    heads += [f"x{k}: {t.dtype.name}{sizes.list_of(t.shape)}" for k, t in enumerate(types)]
    texts = {k: sizes.text(d, SUM) for k, d in named.items()}
    line = found.text("y", [f"x{k}" for k in range(len(types))], texts)
    text = f"model {_CHECK}({', '.join(heads)}) {{\n    {line}\n    return y\n}}\n"
    try:
        graph = graph_of(text, _CHECK, Path(), {})
    except CompileError:
        return None
    ways = [n for n in graph.nodes if n.op == "index"]
    same = len(ways) == len(graph.nodes) == 1 and ways[0].attr("body") == body
    return found if same and list(ways[0].inputs) == list(graph.inputs[len(dims) :]) else None


def _bounded(sizes: Sizes, s: SymDim) -> str:
    name = sizes.define(s)
    return name if (s.lower, s.upper) == (0, None) or s.upper is None else (
        f"{name} in {s.lower}..{s.upper + 1}"
    )  # fmt: skip


class _Writer:
    """Writes the value of a function's one block."""

    def __init__(self, func: Func, letters: Sequence[str], spelled: bool) -> None:
        self.func, self.spelled = func, spelled
        self.block, self.value = block_of(func)
        if len(letters) < len(self.block.iters):
            raise _NoNotation
        pairs = zip(self.block.iters, letters, strict=False)
        self.names = {it.var: name for it, name in pairs}
        inputs = [b for b in func.params if b.role == "input"]
        self.places = {b: f"\0x{k}\0" for k, b in enumerate(inputs)}
        self.extents = {it.var: it.extent for it in self.block.iters}
        self.ranges: dict[str, None] = {}

    def notation(self) -> _Notation:
        """``y[i] = sum[k](…)``."""
        outer = [self._index(it.var) for it in self.block.iters if it.kind == "spatial"]
        inner = [self._index(it.var) for it in self.block.iters if it.kind == "reduce"]
        if len(outer) + len(inner) != len(self.block.iters) or not outer:
            raise _NoNotation
        value = self._expr(self.value).text
        if self.block.combiner:
            value = f"{self.block.combiner}[{', '.join(inner)}]({value})"
        return _Notation(f"\0y\0[{', '.join(outer)}] = {value}", tuple(self.ranges))

    def _index(self, v: Var) -> str:
        """An index, with its range unless it stands for a whole axis."""
        if not self.spelled and any(self._is_axis(x, v) for x in walk(self.value)):
            return self.names[v]
        extent = self.extents[v]
        return f"{self.names[v]} in 0..{self._size(extent)}"

    def _is_axis(self, x: object, v: Var) -> bool:
        if not isinstance(x, Load) or x.buffer not in self.places:
            return False
        pairs = zip(x.indices, x.buffer.shape, strict=True)
        return any(i == v and self._is_size(d, self.extents[v]) for i, d in pairs)

    @staticmethod
    def _is_size(d: Dim, extent: Expr) -> bool:
        if isinstance(extent, Const):
            return d == extent.value
        own = sole_symbol(d)
        return isinstance(extent, Var) and own is not None and own.name == extent.name

    def _size(self, extent: Expr) -> str:
        if isinstance(extent, Const):
            return str(int(extent.value))
        if not isinstance(extent, Var):
            raise _NoNotation
        self.ranges[extent.name] = None
        return f"\0n{extent.name}\0"

    # -- values ------------------------------------------------------------------------------
    def _expr(self, x: Expr) -> Text:
        match x:
            case Const():
                text = literals.scalar(np.asarray(x.value).astype(x.dtype.numpy))
                if text is None:
                    raise _NoNotation
                return Text(text, 7 if text.startswith("-") else 10)
            case Var():
                return Text(self.names[x]) if x in self.names else Text(self._size(x))
            case Load():
                indices = ", ".join(self._expr(i).text for i in x.indices)
                return Text(f"{self.places[x.buffer]}[{indices}]" if x.indices else
                            self.places[x.buffer])  # fmt: skip
            case Binary() if x.op in _OPS:
                return infix(_OPS[x.op], self._expr(x.a), self._expr(x.b))
            case Binary() if x.op in ("min", "max"):
                return Text(f"{x.op}({self._expr(x.a).text}, {self._expr(x.b).text})")
            case Unary() if x.op in ("neg", "not"):
                return prefix(x.op, self._expr(x.a))
            case Unary():
                return Text(f"{x.op}({self._expr(x.a).text})")
            case Cast():
                return Text(f"cast({self._expr(x.a).text}, to={x.dtype.name})")
            case Call():
                return Text(f"{x.name}({', '.join(self._expr(a).text for a in x.args)})")
            case Select() if isinstance(x.then, Load) and self._guards(x.cond):
                element, other = self._expr(x.then).text, self._expr(x.other).text
                return Text(f"({element} else {other})")
            case Select():
                return choice(self._expr(x.cond), self._expr(x.then), self._expr(x.other))
            case _:
                raise _NoNotation

    def _guards(self, cond: Expr) -> bool:
        """Whether a condition only asks whether places lie inside of axes."""
        return all(
            isinstance(c, Binary) and c.op in ("ge", "lt", "le", "gt") for c in _conjuncts(cond)
        )


def _conjuncts(x: Expr) -> Iterator[Expr]:
    if isinstance(x, Binary) and x.op == "and":
        yield from _conjuncts(x.a)
        yield from _conjuncts(x.b)
    else:
        yield x

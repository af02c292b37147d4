"""ONNX Einsum: pairs of operands become transposes, one matmul, and sums."""

from __future__ import annotations

import string
from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value


@dataclass(frozen=True, slots=True)
class _Term:
    """A tensor whose axes are named by distinct letters."""

    value: Value
    axes: str

    def size(self, letter: str) -> Dim:
        """Size of the axis called `letter`."""
        return self.value.type.shape[self.axes.index(letter)]


def _parse(node: Node, values: Sequence[Value]) -> tuple[list[str], str]:
    """Axes of every operand and of the result; an ellipsis becomes capital letters."""
    text = node.text("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(values):
        raise node.malformed(f"'{text}' does not fit {len(values)} operands")
    spare = [c for c in reversed(string.ascii_letters) if c not in text]
    extra = 0
    for axes, v in zip(inputs, values, strict=True):
        if "..." in axes:
            extra = max(extra, v.type.rank - len(axes.replace("...", "")))
    if extra > len(spare) or extra < 0:
        raise node.malformed(f"'{text}' does not fit the operands")
    dots = "".join(spare[:extra])
    found: list[str] = []
    for axes, v in zip(inputs, values, strict=True):
        used = max(v.type.rank - len(axes.replace("...", "")), 0)
        found.append(axes.replace("...", dots[len(dots) - used :], 1))
    if not arrow:
        every = "".join(inputs).replace("...", "")
        right = "".join(sorted(c for c in set(every) if every.count(c) == 1))
        right = ("..." if "..." in left else "") + right
    result = right.replace("...", dots, 1)
    _check(node, text, found, result, values)
    return found, result


def _check(
    node: Node, text: str, inputs: Sequence[str], result: str, values: Sequence[Value]
) -> None:
    for axes, v in zip(inputs, values, strict=True):
        if len(axes) != v.type.rank or not all(c in string.ascii_letters for c in axes):
            raise node.malformed(f"'{text}' does not fit {v.type}")
        if len(set(axes)) != len(axes):
            raise node.unsupported(f"'{text}' takes a diagonal")
    if len(set(result)) != len(result) or not set(result) <= set("".join(inputs)):
        raise node.malformed(f"'{text}' has a wrong result")


def _sum_out(em: Emitter, term: _Term, keep: str) -> _Term:
    """`term` summed over the axes that are not in `keep`."""
    gone = tuple(k for k, c in enumerate(term.axes) if c not in keep)
    if not gone:
        return term
    value = em.op("reduce_sum", term.value, axes=gone, keepdims=False)
    return _Term(value, "".join(c for c in term.axes if c in keep))


def _arranged(em: Emitter, term: _Term, groups: Sequence[str]) -> Value:
    """`term` with one axis for each group of letters; missing letters have size 1."""
    order = "".join(c for g in groups for c in g if c in term.axes)
    value = em.transpose(term.value, tuple(term.axes.index(c) for c in order))
    shape = [product(tuple(term.size(c) for c in g if c in term.axes)) for g in groups]
    return em.reshape(value, tuple(shape))


def _multiply(em: Emitter, a: _Term, b: _Term, keep: str) -> _Term:
    """The product of two terms, summed over the letters that `keep` lacks."""
    a = _sum_out(em, a, keep + b.axes)
    b = _sum_out(em, b, keep + a.axes)
    both = [c for c in a.axes if c in b.axes]
    batch = "".join(c for c in both if c in keep)
    inner = "".join(c for c in both if c not in keep)
    rows = "".join(c for c in a.axes if c not in both)
    columns = "".join(c for c in b.axes if c not in both)
    sizes = {c: t.size(c) for t in (a, b) for c in t.axes if t.size(c) != 1}
    if any(a.size(c) != b.size(c) for c in inner) or any(a.size(c) != b.size(c) for c in batch):
        return _broadcast(em, a, b, keep)  # an axis of size 1 stands for all
    x = _arranged(em, a, (batch, rows, inner))
    y = _arranged(em, b, (batch, inner, columns))
    flat = em.op("matmul", x, y)
    axes = batch + rows + columns
    return _Term(em.reshape(flat, tuple(sizes.get(c, 1) for c in axes)), axes)


def _broadcast(em: Emitter, a: _Term, b: _Term, keep: str) -> _Term:
    """The same as a broadcast product and a sum."""
    axes = a.axes + "".join(c for c in b.axes if c not in a.axes)
    parts = [_arranged(em, t, tuple(axes)) for t in (a, b)]
    return _sum_out(em, _Term(em.op("mul", *parts), axes), keep)


@onnx_op("Einsum")
def _einsum(em: Emitter, node: Node) -> Value:
    values = node.all_inputs()
    inputs, result = _parse(node, values)
    terms = [_Term(v, axes) for v, axes in zip(values, inputs, strict=True)]
    total = terms[0]
    for k, term in enumerate(terms[1:], 1):
        later = "".join(t.axes for t in terms[k + 1 :])
        total = _multiply(em, total, term, result + later)
    total = _sum_out(em, total, result)
    return em.transpose(total.value, tuple(total.axes.index(c) for c in result))

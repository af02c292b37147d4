"""Index notation: ``y[i, j] = sum[k](a[i, k] * b[k, j])`` becomes the operator ``index``.

Ranges of indices are the sizes of the axes that they stand for, or said (``r in 0..3``). An element
whose place may lie outside of its tensor needs a value for there. After Vasilache et al., Tensor
Comprehensions, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Protocol

from aisc.frontend.lang import operators, statics
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.scope import Item, Scope, misfit, shown, unknown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, sole_symbol, symbol, symbols
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.location import Loc
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var, cast, const, logical_and, of_dim, select
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.visitor import substitute
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

COMBINERS = ("sum", "prod", "max", "min", "all", "any", "mean")
_SUMS = ("sum", "prod", "mean")
# A place as a sum: multiples of indices, and what is added to them.
Affine = tuple[dict[str, int], Dim]


class Evaluator(Protocol):
    """What evaluates expressions that are known, or tensors."""

    def expr(self, scope: Scope, x: s.Expr) -> Item:
        """The value of an expression."""


def tensor_of(evaluator: Evaluator, scope: Scope, x: s.Formula) -> Value:
    """The tensor that a formula defines; reductions that are part of its value come first, as
    tensors of their own."""
    try:
        if isinstance(x.value, s.Reduction):
            value: s.Expr = replace(x.value, value=_apart(evaluator, scope, x, x.value.value))
        else:
            value = _apart(evaluator, scope, x, x.value)
        return _Formula(evaluator, scope, replace(x, value=value)).tensor()
    finally:
        for name in [n for n in scope.names if n.startswith(f"{x.name}.")]:
            del scope.names[name]


def _apart(evaluator: Evaluator, scope: Scope, x: s.Formula, value: s.Expr) -> s.Expr:
    """`value` with the names of tensors in the place of the reductions in it."""
    match value:
        case s.Reduction():
            return _tensor_of_reduction(evaluator, scope, x, value)
        case s.Binary():
            a, b = (_apart(evaluator, scope, x, v) for v in (value.a, value.b))
            return replace(value, a=a, b=b)
        case s.Unary():
            return replace(value, a=_apart(evaluator, scope, x, value.a))
        case s.Choice():
            cond, a, b = (_apart(evaluator, scope, x, v) for v in (value.cond, value.a, value.b))
            return replace(value, cond=cond, a=a, b=b)
        case s.Call():
            return replace(value, args=tuple(_apart(evaluator, scope, x, v) for v in value.args))
        case _:
            return value


def _tensor_of_reduction(
    evaluator: Evaluator, scope: Scope, x: s.Formula, value: s.Reduction
) -> s.Expr:
    """An element of a new tensor: the reduction, for each of the indices around that it reads."""
    around = [*x.indices, *(x.value.indices if isinstance(x.value, s.Reduction) else ())]
    own = {_index_name(i) for i in value.indices}
    read = _names(value.value) | {n for i in value.indices for n in _names(i)}
    indices = tuple(i for i in around if _index_name(i) in read - own)
    name = f"{x.name}.{value.combiner}{len(scope.names)}"  # no name that a person may write
    scope.names[name] = tensor_of(evaluator, scope, s.Formula(value.at, name, indices, value))
    places = tuple(s.Name(value.at, _index_name(i)) for i in indices)
    return s.Index(value.at, s.Name(value.at, name), places) if places else s.Name(value.at, name)


def _index_name(i: s.Expr | s.Slice | s.Ranged) -> str:
    """The name of an index; what is none has none."""
    return i.name if isinstance(i, s.Ranged) else i.text if isinstance(i, s.Name) else ""


def _names(x: object) -> set[str]:
    """Every name in an expression."""
    if isinstance(x, s.Name):
        return {x.text}
    if isinstance(x, tuple):
        return set().union(*map(_names, x))
    if is_dataclass(x) and not isinstance(x, Loc):
        return set().union(*(_names(getattr(x, f.name)) for f in fields(x)))
    return set()


class _Formula:
    """One formula. `extents`: of each index, with where it starts; `operands`: a buffer for each
    tensor, whose sizes have names of their own."""

    def __init__(self, evaluator: Evaluator, scope: Scope, x: s.Formula) -> None:
        self.evaluator, self.scope, self.x, self.em = evaluator, scope, x, scope.em
        value = x.value
        self.combiner = ""
        inner: Sequence[s.Expr | s.Slice | s.Ranged] = ()
        if isinstance(value, s.Reduction):
            if value.combiner not in COMBINERS:
                raise unknown("reduction", value.combiner, COMBINERS, value.at)
            self.combiner, inner, value = value.combiner, value.indices, value.value
        self.value = value
        self.extents: dict[str, tuple[int, Dim] | None] = {}
        self.outer, self.inner = self._indices(x.indices), self._indices(inner)
        self.operands: dict[Value, Buffer] = {}
        self.sizes: dict[Dim, Poly] = {}

    # -- ranges ------------------------------------------------------------------------------
    def _indices(self, items: Sequence[s.Expr | s.Slice | s.Ranged]) -> list[str]:
        names = []
        for i in items:
            if not isinstance(i, s.Name | s.Ranged):
                raise misfit("an index is a name: y[i, j] = …", at=i.at)
            name = i.text if isinstance(i, s.Name) else i.name
            if name in self.extents:
                raise misfit(f"there are two indices '{name}'", at=i.at)
            self.extents[name] = self._range(i) if isinstance(i, s.Ranged) else None
            names.append(name)
        return names

    def _range(self, i: s.Ranged) -> tuple[int, Dim]:
        low, high = (self.evaluator.expr(self.scope, b) for b in (i.low, i.high))
        if not isinstance(low, int) or isinstance(low, bool):
            raise misfit(f"a range begins with a whole number, got {shown(low)}", at=i.at)
        size = statics.binary("sub", high, low, i.at) if not isinstance(high, Value) else high
        return low, statics.as_size(size, i.at)

    def _find_ranges(self, x: s.Expr) -> None:
        """Indices that stand for a whole axis have its size."""
        for access in _accesses(x):
            value = self._tensor(access)
            if value is None:
                continue
            for axis, item in enumerate(access.items[: value.type.rank]):
                if not isinstance(item, s.Name) or item.text not in self.extents:
                    continue
                size, known = value.type.shape[axis], self.extents[item.text]
                if known is None:
                    self.extents[item.text] = 0, size
                elif known[0] == 0 and decide("==", known[1], size) is None:
                    self._assume(access, axis, known[1])

    def _assume(self, access: s.Index, axis: int, size: Dim) -> None:
        """Two axes that one index stands for have one size, which the run tests."""
        assert isinstance(access.of, s.Name), "a tensor's name"
        value = self._tensor(access)
        assert value is not None, "a tensor"
        shape = [size if k == axis else d for k, d in enumerate(value.type.shape)]
        self.scope.names[access.of.text] = self.em.assume(value, shape)

    def _tensor(self, access: s.Index) -> Value | None:
        if not isinstance(access.of, s.Name) or access.of.text in self.extents:
            return None
        found = self.evaluator.expr(self.scope, access.of)
        return found if isinstance(found, Value) else None

    def _extent(self, name: str) -> Dim:
        found = self.extents[name]
        if found is None:
            hint = f"say it: {name} in 0..n"
            raise misfit(f"the range of '{name}' is not known", hint, at=self.x.at)
        return found[1]

    # -- building ----------------------------------------------------------------------------
    def tensor(self) -> Value:
        """The operator over the tensors of the formula."""
        self._find_ranges(self.value)
        sizes = [self._extent(n) for n in (*self.outer, *self.inner)]
        shape, extents = sizes[: len(self.outer)], sizes[len(self.outer) :]
        iters = {n: Var(f"index_{n}") for n in (*self.outer, *self.inner)}
        value = self._scalar(self.value, iters, None)
        self._require_fit(value.dtype)
        narrow = value.dtype.is_float and value.dtype.bits < 32 and self.combiner in _SUMS
        result = value.dtype
        if narrow:  # as built-in sums are: in f32, rounded once
            value = cast(value, dtypes.f32)
        local = [self._local(d) for d in shape]
        within = [self._local(d) for d in extents]
        out = buffer("result", value.dtype, tuple(local), "output")
        cb = ComputeBuilder()

        def at(points: Sequence[Var]) -> Expr:
            names = (*self.outer, *self.inner)
            return substitute(value, {iters[n]: p for n, p in zip(names, points, strict=True)})

        combiner = "sum" if self.combiner == "mean" else self.combiner
        if combiner:
            cb.reduce(out, within, combiner, lambda i, r: at((*i, *r)), "formula")
        else:
            cb.map(out, lambda *i: at(i), "formula")
        params = (*self.operands.values(), out)
        names = sorted({x.name for b in params for d in b.shape for x in symbols(d)})
        body = print_ir(cb.func("formula", params, tuple(map(Var, names))))
        self.em.loc = replace(self.x.at, parent=self.scope.parent)
        made = self.em.op("index", *self.operands, body=body)
        if self.combiner == "mean":
            made = self._mean(made, extents)
        return self.em.cast(made, result)

    def _require_fit(self, dtype: DType) -> None:
        """A formula reads tensors, and reduces what its combiner takes."""
        if not self.operands:
            hint = "iota(shape=[n]) numbers places"
            raise misfit("a formula reads a tensor at least", hint, at=self.x.at)
        logical = self.combiner in ("all", "any")
        if self.combiner and logical != (dtype is dtypes.boolean):
            raise misfit(f"{self.combiner} does not take {dtype}", "cast it", at=self.value.at)

    def _mean(self, total: Value, extents: Sequence[Dim]) -> Value:
        count: Dim = 1
        for d in extents:
            count = count * d
        size = operators.as_tensor(self.em, count, total.type.dtype, self.x.at)
        return self.em.op("div", total, self.em.cast(size, total.type.dtype))

    def _local(self, size: Dim) -> Dim:
        """A size in the words of the formula: a symbol that some axis of an operand is."""
        if isinstance(size, int):
            return size
        if size in self.sizes:
            return self.sizes[size]
        raise misfit(f"the range {size} is no size of an axis", "nor a number", at=self.x.at)

    def _buffer(self, value: Value) -> Buffer:
        if value not in self.operands:
            for d in value.type.shape:
                if isinstance(d, Poly) and d not in self.sizes:
                    own = sole_symbol(d)
                    self.sizes[d] = symbol(own.name if own else f"size{len(self.sizes)}")
            shape = tuple(d if isinstance(d, int) else self.sizes[d] for d in value.type.shape)
            name = f"x{len(self.operands)}"
            self.operands[value] = buffer(name, value.type.dtype, shape, "input")
        return self.operands[value]

    # -- expressions -------------------------------------------------------------------------
    def _scalar(self, x: s.Expr, iters: dict[str, Var], like: DType | None) -> Expr:
        """The value of an expression at a point; numbers take the type `like`."""
        if self._is_apart(x):
            return self._known(self.evaluator.expr(self.scope, x), like, x.at)
        match x:
            case s.Index():
                return self._element(x, iters, None)
            case s.Outside() if isinstance(x.element, s.Index):
                return self._element(x.element, iters, x.value)
            case s.Binary():
                return self._operator(x.op, (x.a, x.b), {}, iters, x.at)
            case s.Unary():
                return self._operator(x.op, (x.a,), {}, iters, x.at)
            case s.Choice():
                return self._operator("where", (x.cond, x.a, x.b), {}, iters, x.at)
            case s.Call():
                given = {k: self.evaluator.expr(self.scope, v) for k, v, _ in x.keywords}
                return self._operator(x.name, x.args, given, iters, x.at)
            case s.Name() if x.text in iters:
                low, _ = self.extents[x.text] or (0, 0)
                return iters[x.text] + low
            case _:
                raise misfit("this does not stand in a formula", "elements and numbers do", at=x.at)

    def _known(self, item: Item, like: DType | None, at: Loc) -> Expr:
        if isinstance(item, Value):
            if item.type.rank:
                raise misfit(f"an element of {item.type} is needed", "index it", at=at)
            return Load(self._buffer(item), ())
        if isinstance(item, Poly) and item in self.sizes:
            return cast(of_dim(self.sizes[item]), like or dtypes.i64)
        if isinstance(item, bool | int | float):
            return const(item, like or operators.dtype_of(item))
        raise misfit(f"a number is expected, got {shown(item)}", at=at)

    def _operator(
        self,
        name: str,
        args: Sequence[s.Expr],
        given: dict[str, Item],
        iters: dict[str, Var],
        at: Loc,
    ) -> Expr:
        """An elementwise operator at a point."""
        if name == "not_equal":
            return self._scalar(s.Unary(at, "not", s.Binary(at, "equal", *args)), iters, None)
        op = opdef.get(name) if opdef.exists(name) else None
        if op is None or op.scalar is None:
            hint = "only those stand in formulas"
            raise misfit(f"{name} is no elementwise operator", hint, at=at)
        if len(args) != len(op.inputs):
            raise misfit(f"{name} takes {len(op.inputs)} values, got {len(args)}", at=at)
        skipped = 1 if name == "where" else 0
        numbers = [self._is_number(a) for a in args]
        found = [None if n else self._scalar(a, iters, None)
                 for n, a in zip(numbers, args, strict=True)]  # fmt: skip
        like = next((v.dtype for v in found[skipped:] if v is not None), None)
        values = [v if v is not None else self._scalar(a, iters, like)
                  for v, a in zip(found, args, strict=True)]  # fmt: skip
        types = tuple(TensorType((), v.dtype) for v in values)
        attrs = {k: v for k, v in given.items() if isinstance(v, bool | int | float | str | DType)}
        full = opdef.complete_attrs(op, attrs, at)
        call = opdef.OpCall(op, types, full, (None,) * len(types), at)
        op.infer(call)
        return op.scalar(call, values)

    def _is_apart(self, x: object) -> bool:
        """Whether an expression has nothing to do with indices: it has one value."""
        match x:
            case s.Name():
                return x.text not in self.extents
            case s.Literal() | None:
                return True
            case s.Attribute():
                return self._is_apart(x.of)
            case s.Unary():
                return self._is_apart(x.a)
            case s.Binary():
                return self._is_apart(x.a) and self._is_apart(x.b)
            case s.Choice():
                return all(map(self._is_apart, (x.a, x.cond, x.b)))
            case s.ListOf():
                return all(map(self._is_apart, x.items))
            case s.Slice():
                return all(map(self._is_apart, (x.start, x.stop, x.step)))
            case s.Index():
                return all(map(self._is_apart, (x.of, *x.items)))
            case s.Call():
                return all(map(self._is_apart, (*x.args, *(v for _, v, _ in x.keywords))))
            case _:
                return False

    def _is_number(self, x: s.Expr) -> bool:
        """Whether an expression is a number, whose type others decide."""
        if not self._is_apart(x):
            return False
        found = self.evaluator.expr(self.scope, x)
        return isinstance(found, int | float | Poly) and not isinstance(found, bool)

    def _element(self, x: s.Index, iters: dict[str, Var], outside: s.Expr | None) -> Expr:
        """An element of a tensor, or another value where its place may be outside."""
        value = self._tensor(x)
        if value is None:
            return self._known(self.evaluator.expr(self.scope, x), None, x.at)
        if len(x.items) != value.type.rank:
            raise misfit(f"{len(x.items)} indices for {value.type}", at=x.at)
        b, indices, guard = self._buffer(value), list[Expr](), None
        for axis, item in enumerate(x.items):
            terms, rest = self._affine(item, x.at)
            place = self._place(terms, rest, iters)
            indices.append(place)
            if not self._is_inside(terms, rest, value.type.shape[axis]):
                if outside is None:
                    what = f"index {axis} may lie outside of {value.type}"
                    raise misfit(what, "give a value for there: (x[i - 1] else 0)", at=item.at)
                size = of_dim(b.shape[axis])
                here = logical_and(place >= 0, place < size)
                guard = here if guard is None else logical_and(guard, here)
        element = Load(b, tuple(indices))
        if guard is None or outside is None:
            return element
        return select(guard, element, self._scalar(outside, iters, value.type.dtype))

    def _place(self, terms: dict[str, int], rest: Dim, iters: dict[str, Var]) -> Expr:
        found: Expr = of_dim(rest) if isinstance(rest, int) else of_dim(self._local(rest))
        for name, factor in terms.items():
            low, _ = self.extents[name] or (0, 0)
            found = (iters[name] + low) * factor + found
        return found

    def _is_inside(self, terms: dict[str, int], rest: Dim, size: Dim) -> bool:
        least, most = rest, rest
        for name, factor in terms.items():
            low, extent = self.extents[name] or (0, 0)
            ends = low * factor, (extent + (low - 1)) * factor
            first, last = ends if factor > 0 else ends[::-1]
            least, most = least + first, most + last
        return decide("<=", 0, least) is True and decide("<=", most + 1, size) is True

    def _affine(self, x: s.Expr | s.Slice | s.Ranged, at: Loc) -> Affine:
        """A place as multiples of indices and a rest."""
        match x:
            case s.Name() if x.text in self.extents:
                return {x.text: 1}, 0
            case s.Binary() if x.op in ("add", "sub"):
                (a, u), (b, v) = self._affine(x.a, at), self._affine(x.b, at)
                sign = 1 if x.op == "add" else -1
                terms = {n: a.get(n, 0) + sign * b.get(n, 0) for n in (*a, *b)}
                return {n: c for n, c in terms.items() if c}, u + v * sign
            case s.Binary() if x.op == "mul":
                (a, u), (b, v) = self._affine(x.a, at), self._affine(x.b, at)
                if (a and b) or (a and not isinstance(v, int)) or (b and not isinstance(u, int)):
                    raise misfit("an index is multiplied by whole numbers only", at=x.at)
                if a or b:
                    factor = v if a else u
                    assert isinstance(factor, int), "tested above"
                    terms = {n: c * factor for n, c in (a or b).items()}
                    return terms, (u if a else v) * factor
                return {}, u * v
            case s.Unary() if x.op == "neg":
                a, u = self._affine(x.a, at)
                return {n: -c for n, c in a.items()}, -1 * u
            case s.Slice() | s.Ranged():
                raise misfit("a place is a sum of indices", at=x.at)
            case _:
                found = self.evaluator.expr(self.scope, x)
                if isinstance(found, int | Poly) and not isinstance(found, bool):
                    return {}, found
                raise misfit(f"a place is a sum of indices, got {shown(found)}", at=x.at)


def _accesses(x: s.Expr) -> list[s.Index]:
    """Every element in an expression, those of places aside."""
    match x:
        case s.Index():
            return [x]
        case s.Binary():
            return [*_accesses(x.a), *_accesses(x.b)]
        case s.Unary():
            return _accesses(x.a)
        case s.Choice():
            return [y for part in (x.cond, x.a, x.b) for y in _accesses(part)]
        case s.Call():
            return [y for part in x.args for y in _accesses(part)]
        case s.Outside():
            return [*_accesses(x.element), *_accesses(x.value)]
        case _:
            return []

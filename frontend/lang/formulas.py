"""Index notation: ``y[i, j] = sum[k](a[i, k] * b[k, j])`` becomes the operator ``index``.

An element whose place may lie outside of its tensor needs a value for there; places that come from
data are tested by the run. After Vasilache et al., Tensor Comprehensions, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.frontend.lang import operators
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.nested import inner_names, without_reductions
from aisc.frontend.lang.ranges import Evaluator, Indices
from aisc.frontend.lang.scope import Item, Scope, misfit, shown, unknown
from aisc.ir import dtypes
from aisc.ir.arith.poly import (
    Dim,
    Poly,
    of_symbol,
    product,
    sole_symbol,
    substitute,
    symbol,
    symbols,
)
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    Expr,
    Load,
    Unary,
    Var,
    binary,
    cast,
    const,
    logical_and,
    of_dim,
    select,
    within,
)
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.inside import Known
from aisc.ir.tensor.visitor import substitute as substitute_vars
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

REDUCTIONS = ("sum", "prod", "max", "min", "all", "any", "mean", "argmax", "argmin")
_SUMS = ("sum", "prod", "mean")


def tensor_of(evaluator: Evaluator, scope: Scope, x: s.Formula) -> Value:
    """The tensor that a formula defines; reductions that are part of its value come first, as
    tensors of their own."""
    simple = without_reductions(scope, x, lambda inner: tensor_of(evaluator, scope, inner))
    value = simple.value
    if isinstance(value, s.Reduction) and value.combiner in ("argmax", "argmin"):
        made = _places(evaluator, scope, simple, value)
    else:
        made = _Formula(evaluator, scope, simple).tensor()
    for name in inner_names(simple):
        del scope.names[name]
    return made


def _places(evaluator: Evaluator, scope: Scope, x: s.Formula, value: s.Reduction) -> Value:
    """Where the greatest or least value is: its number among those that are compared."""
    every = replace(x, indices=(*x.indices, *value.indices), value=value.value)
    compared = _Formula(evaluator, scope, every).tensor()
    kept = compared.type.shape[: len(x.indices)]
    count = product(compared.type.shape[len(x.indices) :])
    rows = scope.em.reshape(compared, (*kept, count))
    return scope.em.op(value.combiner, rows, axis=len(kept), keepdims=False)


class _Formula:
    """One formula. `operands`: a buffer for each tensor, whose sizes have names of their own."""

    def __init__(self, evaluator: Evaluator, scope: Scope, x: s.Formula) -> None:
        self.evaluator, self.scope, self.x, self.em = evaluator, scope, x, scope.em
        value = x.value
        self.combiner = ""
        inner: Sequence[s.Expr | s.Slice | s.Ranged] = ()
        if isinstance(value, s.Reduction):
            if value.combiner not in REDUCTIONS:
                raise unknown("reduction", value.combiner, REDUCTIONS, value.at)
            self.combiner, inner, value = value.combiner, value.indices, value.value
        self.value = value
        self.indices = Indices(evaluator, scope, x, inner, value)
        self.operands: dict[Value, Buffer] = {}
        self.sizes: dict[Dim, Poly] = {}

    # -- building ----------------------------------------------------------------------------
    def tensor(self) -> Value:
        """The operator over the tensors of the formula."""
        outer, inner = self.indices.outer, self.indices.inner
        shape, extents = ([self.indices.extent(n) for n in names] for names in (outer, inner))
        iters = {n: Var(f"index_{n}") for n in (*outer, *inner)}
        self._require_ends()
        value = self._scalar(self.value, iters, None)
        self._require_fit(value.dtype)
        narrow = value.dtype.is_float and value.dtype.bits < 32 and self.combiner in _SUMS
        result = value.dtype
        if narrow:  # as built-in sums are: in f32, rounded once
            value = cast(value, dtypes.f32)
        value = self._ended(value, iters)
        local = [self._local(d) for d in shape]
        out = buffer("result", value.dtype, tuple(local), "output")
        cb = ComputeBuilder()

        def at(points: Sequence[Var]) -> Expr:
            pairs = zip((*outer, *inner), points, strict=True)
            return substitute_vars(value, {iters[n]: p for n, p in pairs})

        combiner = "sum" if self.combiner == "mean" else self.combiner
        if combiner:
            ranges = [self._local(d) for d in extents]
            cb.reduce(out, ranges, combiner, lambda i, r: at((*i, *r)), "formula")
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

    def _ended(self, value: Expr, iters: dict[str, Var]) -> Expr:
        """The value, or what counts for nothing where an index is past an end that others set."""
        for name, end in self.indices.ends.items():
            (nothing,) = COMBINERS[self.combiner].identity([value.dtype])
            here = iters[name] + self.indices.low(name) < self._place(*end, iters)
            value = select(here, value, nothing)
        return value

    def _require_ends(self) -> None:
        """Only a reduction whose terms may be fewer has ranges that end at another index."""
        for name in self.indices.ends:
            if name in self.indices.outer:
                raise misfit(f"the range of '{name}' ends at another index", at=self.x.at)
            if self.combiner not in COMBINERS:
                hint = "divide a sum by the number of its terms"
                message = f"{self.combiner} over a range that ends at an index"
                raise misfit(message, hint, at=self.x.at)

    def _require_fit(self, dtype: DType) -> None:
        """A formula reads tensors, and reduces what its combiner takes."""
        if not self.operands:
            hint = "iota(shape=[n]) numbers places"
            raise misfit("a formula reads a tensor at least", hint, at=self.x.at)
        logical = self.combiner in ("all", "any")
        if self.combiner and logical != (dtype is dtypes.boolean):
            raise misfit(f"{self.combiner} does not take {dtype}", "cast it", at=self.value.at)

    def _mean(self, total: Value, extents: Sequence[Dim]) -> Value:
        count = product(tuple(extents))
        size = operators.as_tensor(self.em, count, total.type.dtype, self.x.at)
        return self.em.op("div", total, self.em.cast(size, total.type.dtype))

    def _local(self, size: Dim) -> Dim:
        """A size in the words of the formula: of symbols that axes of operands have."""
        if isinstance(size, int):
            return size
        if size in self.sizes:
            return self.sizes[size]
        for x in symbols(size):
            if of_symbol(x) not in self.sizes:  # an operand brings it, whose elements nobody reads
                self._buffer(self.em.op("iota", shape=(of_symbol(x),)))
        return substitute(size, {x.name: self.sizes[of_symbol(x)] for x in symbols(size)})

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
        if self.indices.is_apart(x):
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
                return iters[x.text] + self.indices.low(x.text)
            case _:
                raise misfit("this does not stand in a formula", "elements and numbers do", at=x.at)

    def _known(self, item: Item, like: DType | None, at: Loc) -> Expr:
        if isinstance(item, Value):
            if item.type.rank:
                raise misfit(f"an element of {item.type} is needed", "index it", at=at)
            return Load(self._buffer(item), ())
        if isinstance(item, Poly):
            return cast(of_dim(self._local(item)), like or dtypes.i64)
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
        if name in ("floordiv", "mod", "pow") and len(args) == 2:
            special = self._division_or_power(name, args[0], args[1], iters, at)
            if special is not None:
                return special
        op = opdef.get(name) if opdef.exists(name) else None
        if op is None or op.scalar is None:
            hint = "only those stand in formulas"
            if name in REDUCTIONS:
                hint = f"a reduction names its indices: {name}[k](x[i, k])"
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

    def _is_number(self, x: s.Expr) -> bool:
        """Whether an expression is a number, whose type others decide."""
        if not self.indices.is_apart(x):
            return False
        found = self.evaluator.expr(self.scope, x)
        return isinstance(found, int | float | Poly) and not isinstance(found, bool)

    def _division_or_power(
        self, name: str, a: s.Expr, b: s.Expr, iters: dict[str, Var], at: Loc
    ) -> Expr | None:
        """``a // b``, ``a % b`` of floats, ``a ** 2``; nothing for what is an operator."""
        if name == "pow":
            number = self._is_number(b) and self.evaluator.expr(self.scope, b)
            return self._operator("mul", (a, a), {}, iters, at) if number == 2 else None
        if name == "floordiv":
            x, y = self._alike(a, b, iters)
            return binary("floordiv", x, y) if x.dtype.is_integer else Unary("floor", x / y)
        x, y = self._alike(a, b, iters)
        return None if x.dtype.is_integer else x - Unary("floor", x / y) * y

    def _alike(self, a: s.Expr, b: s.Expr, iters: dict[str, Var]) -> tuple[Expr, Expr]:
        """Two operands of one type."""
        x = None if self._is_number(a) else self._scalar(a, iters, None)
        y = self._scalar(b, iters, x.dtype if x is not None else None)
        x = self._scalar(a, iters, y.dtype) if x is None else x
        if x.dtype is not y.dtype:
            raise misfit(f"operands are {x.dtype} and {y.dtype}", "cast one of them", at=b.at)
        return x, y

    # -- elements ----------------------------------------------------------------------------
    def _element(self, x: s.Index, iters: dict[str, Var], outside: s.Expr | None) -> Expr:
        """An element of a tensor, or another value where its place may be outside."""
        value = self.indices.tensor(x)
        if value is None:
            return self._known(self.evaluator.expr(self.scope, x), None, x.at)
        if len(x.items) != value.type.rank:
            raise misfit(f"{len(x.items)} indices for {value.type}", at=x.at)
        b, places, guards = self._buffer(value), list[Expr](), list[Expr]()
        for axis, item in enumerate(x.items):
            place, inside = self._placed(item, value.type.shape[axis], b.shape[axis], iters, x.at)
            tested = not self.indices.is_affine(item)  # by the run, which ends where it is not
            size = of_dim(b.shape[axis])
            if not inside and outside is None and not tested:
                what = f"index {axis} may lie outside of {value.type}"
                raise misfit(what, "give a value for there: (x[i - 1] else 0)", at=item.at)
            if not inside and outside is not None:
                guards += [place >= 0, place < size]
            places.append(within(place, size) if tested and not inside else place)
        element = Load(b, tuple(places))
        if not guards or outside is None:
            return element
        return select(logical_and(*guards), element, self._scalar(outside, iters, value.type.dtype))

    def _placed(
        self,
        x: s.Expr | s.Slice | s.Ranged,
        size: Dim,
        local: Dim,
        iters: dict[str, Var],
        at: Loc,
    ) -> tuple[Expr, bool]:
        """A place along an axis, and whether it is inside for sure."""
        if self.indices.is_affine(x) or isinstance(x, s.Slice | s.Ranged):
            place = self.indices.place(x, at)
            return self._place(*place, iters), self.indices.is_inside(place, size)
        found = self._scalar(x, iters, dtypes.i64)
        if not found.dtype.is_integer:
            raise misfit(f"a place is a whole number, got {found.dtype}", "cast it", at=x.at)
        found = cast(found, dtypes.i64)
        known = Known(dims={v.name: v for d in self.sizes.values() for v in symbols(d)})
        for name, var in iters.items():
            known = known.bind(var, const(0), of_dim(self._local(self.indices.extent(name))))
        low, high = known.range(found)
        inside = any(map(known.holds, low)) and any(known.holds(local - 1 - h) for h in high)
        return found, inside

    def _place(self, terms: dict[str, int], rest: Dim, iters: dict[str, Var]) -> Expr:
        found: Expr = of_dim(self._local(rest))
        for name, factor in terms.items():
            found = (iters[name] + self.indices.low(name)) * factor + found
        return found

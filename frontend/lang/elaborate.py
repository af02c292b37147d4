"""From the syntax tree of a file to a graph: layers are expanded, types inferred on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aisc.frontend.building.regions import Inline, RanksDiffer, Region, either
from aisc.frontend.building.report import Report
from aisc.frontend.lang import loops, operators, requirements, statics
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.formulas import tensor_of
from aisc.frontend.lang.indexing import indexed
from aisc.frontend.lang.parameters import STARTS, Parameters
from aisc.frontend.lang.scope import (
    Item,
    Poison,
    Poisoned,
    Scope,
    Static,
    expanded_at,
    misfit,
    require_alike,
    shown,
    unknown,
)
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.location import Loc
from aisc.ir.types import TensorType

MAX_CALLS = 64  # layers in each other
MAX_TURNS = 10_000  # of a repetition that is unrolled
_SCALARS: Mapping[str, tuple[type, ...]] = {
    "int": (int, Poly), "float": (float, int), "bool": (bool,), "text": (str,),
}  # fmt: skip


class Elaborator:
    """Builds the graph of one model. Faults of a statement are recorded; what it would have made
    is poisoned, so that one fault is told once."""

    def __init__(self, module: s.Module, parameters: Parameters, report: Report) -> None:
        self.layers = {layer.name: layer for layer in module.layers}
        self.parameters, self.report = parameters, report
        self.depth = 0
        self.names: dict[Value, str] = {}  # variables that values were first

    # -- statements --------------------------------------------------------------------------
    def block(self, scope: Scope, statements: Sequence[s.Statement]) -> None:
        """Run statements until one returns."""
        for statement in statements:
            if scope.returned is not None:
                break
            scope.em.loc = self._placed(scope, statement.at)
            try:
                self._statement(scope, statement)
            except Poisoned:
                self._poison(scope, statement)
            except BoundNeeded:  # the graph is built again, with a bound
                raise
            except CompileError as fault:
                self.report.add(expanded_at(fault, scope.parent))
                self._poison(scope, statement)

    def _poison(self, scope: Scope, statement: s.Statement) -> None:
        for name in s.assigned((statement,)):
            scope.names[name] = Poison()
        if isinstance(statement, s.Return):
            scope.returned = []
        around: Scope | None = scope
        while around is not None:
            around.poisoned, around = True, around.outer

    def bind(self, scope: Scope, names: Iterable[str], items: Iterable[Item]) -> None:
        """Variables stand for values, which are called after them."""
        for name, item in zip(names, items, strict=True):
            scope.names[name] = item
            if isinstance(item, Value):
                self.names.setdefault(item, name)

    @staticmethod
    def _placed(scope: Scope, at: Loc) -> Loc:
        return Loc(at.file, at.line, at.column, parent=scope.parent)

    def _statement(self, scope: Scope, x: s.Statement) -> None:
        match x:
            case s.Param():
                self._param(scope, x)
            case s.Assign():
                self._assign(scope, x)
            case s.Formula():
                self.bind(scope, (x.name,), (tensor_of(self, scope, x),))
            case s.Return():
                found = [self.expr(scope, v) for v in x.values]
                scope.returned = operators.tensors(scope.em, found, x.at)
            case s.For():
                self._repeat(scope, x)
            case s.While() | s.Scan():
                loops.repeat(self, scope, x)
            case s.Collect():
                loops.collect(self, scope, x)
            case s.Again():
                loops.again(self, scope, x)
            case s.Require():
                requirements.require(self, scope, x)
            case s.If():
                self._if(scope, x)

    def _param(self, scope: Scope, x: s.Param) -> None:
        t = self.tensor_type(scope, x.type)
        start = None if x.start is None else self._start(scope, x.start)
        array = self.parameters.make(".".join((*scope.path, x.name)), t, start, x.at)
        self.bind(scope, (x.name,), (scope.em.constant(array),))

    def _start(self, scope: Scope, x: s.Expr) -> tuple[str, Sequence[float]]:
        if not isinstance(x, s.Call) or x.name not in STARTS:
            known = ", ".join(STARTS)
            raise misfit("a parameter starts with a call", f"there are {known}", at=x.at)
        defaults, _ = STARTS[x.name]
        given = [self.expr(scope, a) for a in x.args]
        if len(given) > len(defaults) or x.keywords:
            raise misfit(f"{x.name} takes {len(defaults)} numbers", at=x.at)
        values = [*given, *defaults[len(given) :]]
        numbers = [float(v) for v in values if isinstance(v, int | float)]
        if len(numbers) < len(values):
            raise misfit(f"{x.name} takes {len(defaults)} numbers", at=x.at)
        return x.name, numbers

    def _assign(self, scope: Scope, x: s.Assign) -> None:
        found: Sequence[Item]
        if isinstance(x.value, s.Call):
            found = self._call(scope, x.value)
        else:
            found = [self.expr(scope, x.value)]
        if len(found) != len(x.names):
            raise misfit(f"{len(x.names)} names for {len(found)} results", at=x.at)
        self.bind(scope, x.names, found)

    def _repeat(self, scope: Scope, x: s.For) -> None:
        low, high = (self.expr(scope, b) for b in (x.low, x.high))
        if not isinstance(low, int) or not isinstance(high, int):
            raise misfit(f"how often is not known: {shown(low)}..{shown(high)}", at=x.at)
        if high - low > MAX_TURNS:
            raise misfit(f"{high - low} turns are too many", f"at most {MAX_TURNS}", at=x.at)
        for turn in range(low, high):
            scope.names[x.name] = turn
            self.block(scope, x.body)

    def _if(self, scope: Scope, x: s.If) -> None:
        cond = self.expr(scope, x.cond)
        if isinstance(cond, bool):
            self.block(scope, x.then if cond else x.other)
            return
        flag = operators.flag(scope.em, cond, x.cond.at)
        ways = s.assigned(x.then), s.assigned(x.other)
        names = [n for n in dict.fromkeys((*ways[0], *ways[1]))
                 if all(n in w or scope.find(n) is not None for w in ways)]  # fmt: skip

        ends: list[Sequence[Value]] = []

        def arm(region: Region | Inline, here: bool) -> Sequence[Value]:
            inner = scope.inside(region)
            self.block(inner, x.then if here else x.other)
            ends.append(self.values(inner, names, x.at))
            return ends[-1]

        try:
            found = either(scope.em, flag, arm)
        except RanksDiffer:
            require_alike(names, ends[0], ends[1], "in one branch and {} in the other", x.at)
            raise
        self.bind(scope, names, found)

    def values(self, scope: Scope, names: Sequence[str], at: Loc) -> list[Value]:
        """Variables as tensors, at the end of a block that the run decides about."""
        if scope.returned is not None:
            raise misfit("a block that the run decides about cannot return", at=at)
        found = [self._found(scope, n, at) for n in names]
        return [operators.as_tensor(scope.em, v, None, at) for v in found]

    # -- expressions -------------------------------------------------------------------------
    def expr(self, scope: Scope, x: s.Expr) -> Item:
        """The value of an expression."""
        match x:
            case s.Name():
                return self._found(scope, x.text, x.at)
            case s.Literal():
                return _literal(x)
            case s.ListOf():
                return [self._static(scope, i) for i in x.items]
            case s.Unary():
                a = self.expr(scope, x.a)
                if not isinstance(a, Value):
                    return statics.unary(x.op, a, x.at)
                scope.em.loc = self._placed(scope, x.at)
                return scope.em.op(x.op, a)
            case s.Binary():
                return self._binary(scope, x)
            case s.Choice():
                return self._choice(scope, x)
            case s.Attribute():
                return self._attribute(scope, x)
            case s.Index():
                of, places = self.expr(scope, x.of), self._subscripts(scope, x)
                scope.em.loc = self._placed(scope, x.at)
                return indexed(scope.em, of, places, x.at)
            case s.Reduction() | s.Outside():
                raise misfit("this belongs into a formula: y[i] = sum[k](x[i, k])", at=x.at)
            case s.Call():
                found = self._call(scope, x)
                if len(found) != 1:
                    raise misfit(f"{x.name} gives {len(found)} results", "name them first", at=x.at)
                return found[0]

    def _found(self, scope: Scope, name: str, at: Loc) -> Item:
        found = scope.find(name)
        if found is None:
            raise unknown("name", name, scope.known(), at)
        if isinstance(found, Poison):
            raise Poisoned
        return found

    def _static(self, scope: Scope, x: s.Expr) -> Static:
        found = self.expr(scope, x)
        if isinstance(found, Value):
            hint = "tensors are no items of lists: concat(a, b, axis=0)"
            raise misfit(
                f"what is known here is expected, got a tensor {found.type}", hint, at=x.at
            )
        return found

    def _binary(self, scope: Scope, x: s.Binary) -> Item:
        """Chains lean to the left and may be long: they are walked, not recursed into."""
        chain: list[s.Binary] = []
        first: s.Expr = x
        while isinstance(first, s.Binary):
            chain.append(first)
            first = first.a
        value = self.expr(scope, first)
        for b in reversed(chain):
            other = self.expr(scope, b.b)
            scope.em.loc = self._placed(scope, b.at)
            if isinstance(value, Value) or isinstance(other, Value):
                value = operators.binary(scope.em, b.op, value, other, b.at)
                continue
            try:
                value = statics.binary(b.op, value, other, b.at)
            except statics.Undecided:
                value = operators.binary(scope.em, b.op, value, other, b.at)
        return value

    def _choice(self, scope: Scope, x: s.Choice) -> Item:
        cond = self.expr(scope, x.cond)
        if isinstance(cond, bool):
            return self.expr(scope, x.a if cond else x.b)
        a, b = operators.tensors(scope.em, [self.expr(scope, y) for y in (x.a, x.b)], x.at)
        return scope.em.op("where", operators.flag(scope.em, cond, x.cond.at, scalar=False), a, b)

    def _attribute(self, scope: Scope, x: s.Attribute) -> Item:
        of = self.expr(scope, x.of)
        known: dict[str, Callable[[Value], Static]] = {
            "shape": lambda v: list(v.type.shape), "rank": lambda v: v.type.rank,
            "dtype": lambda v: v.type.dtype,
        }  # fmt: skip
        if not isinstance(of, Value):
            raise misfit(f"{shown(of)} has no '{x.name}'", "tensors have", at=x.at)
        if x.name not in known:
            raise unknown("property", x.name, known, x.at, "tensors have shape, rank and dtype")
        return known[x.name](of)

    def _subscripts(self, scope: Scope, x: s.Index) -> list[Item | tuple[Item | None, ...]]:
        found: list[Item | tuple[Item | None, ...]] = []
        for i in x.items:
            if isinstance(i, s.Ranged):
                raise misfit("a range belongs into a formula", at=i.at)
            if isinstance(i, s.Slice):
                parts = (
                    None if p is None else self.expr(scope, p) for p in (i.start, i.stop, i.step)
                )
                found.append(tuple(parts))
            else:
                found.append(self.expr(scope, i))
        return found

    # -- calls -------------------------------------------------------------------------------
    def _call(self, scope: Scope, x: s.Call) -> Sequence[Item]:
        if x.name in self.layers:
            return self._expand(scope, x)
        if x.name not in statics.FUNCTIONS and not operators.exists(x.name):
            raise unknown("layer or operator", x.name, (*self.layers, *operators.names()), x.at)
        if x.path:
            raise misfit(f"{x.name} is an operator, which has no parameters to name", at=x.at)
        args = [self.expr(scope, a) for a in x.args]
        given = {k: (self.expr(scope, v), at) for k, v, at in x.keywords}
        scope.em.loc = self._placed(scope, x.at)
        if statics.is_function(x.name, args) and (not given or x.name not in operators.names()):
            return [statics.function(x.name, args, x.at)]
        if x.name == "bind_dims":
            return operators.bind_dims(scope.em, args, given, x.at)
        return operators.call(scope.em, x.name, args, given, x.at)

    def _expand(self, scope: Scope, x: s.Call) -> list[Value]:
        """A layer in the place of its call, its parameters under a path of their own."""
        layer = self.layers[x.name]
        args = [(self.expr(scope, a), a.at) for a in x.args]
        given = {k: (self.expr(scope, v), at) for k, v, at in x.keywords}
        path = (*scope.path, *self._path(scope, x))
        inner = Scope(scope.em, path, parent=self._placed(scope, x.at))
        if self.depth >= MAX_CALLS:
            raise misfit(f"layers are called in each other more than {MAX_CALLS} deep", at=x.at)
        self.bind_formals(inner, layer, args, given, x.at)
        self.depth += 1
        try:
            return self.body(inner, layer)
        finally:
            self.depth -= 1

    def _path(self, scope: Scope, x: s.Call) -> list[str]:
        if x.path:
            return [p if isinstance(p, str) else shown(self._static(scope, p)) for p in x.path]
        count = scope.blocks[x.name] = scope.blocks.get(x.name, -1) + 1
        return [f"{x.name}_{count}" if count else x.name]

    def bind_formals(
        self,
        scope: Scope,
        layer: s.Layer,
        args: Sequence[tuple[Item, Loc]],
        given: Mapping[str, tuple[Item, Loc]],
        at: Loc,
    ) -> None:
        """Formal parameters get their values; sizes that they name are bound on the way."""
        names = [f.name for f in layer.formals]
        if len(args) > len(names):
            raise misfit(
                f"{layer.name} takes {', '.join(names) or 'nothing'}, got {len(args)}", at=at
            )
        for name, (_, where) in given.items():
            if name not in names:
                raise unknown(f"parameter of {layer.name}", name, names, where)
        for k, f in enumerate(layer.formals):
            value = args[k] if k < len(args) else given.get(f.name)
            if value is None and f.default is None:
                raise misfit(
                    f"{layer.name} needs '{f.name}'", f"it takes {', '.join(names)}", at=at
                )
            if value is None:
                assert f.default is not None, "tested above"
                value = self.expr(scope, f.default), f.at
            scope.names[f.name] = self._fitted(scope, f, *value)

    def _fitted(self, scope: Scope, f: s.Formal, item: Item, at: Loc) -> Item:
        if f.type.dims is None and f.type.dtype in _SCALARS:
            kinds = _SCALARS[f.type.dtype]
            if not isinstance(item, kinds) or (isinstance(item, bool) and bool not in kinds):
                raise misfit(f"'{f.name}' is of type {f.type.dtype}, got {shown(item)}", at=at)
            return float(item) if f.type.dtype == "float" and isinstance(item, int) else item
        value = operators.as_tensor(scope.em, item, self._dtype_for(scope, f.type, item), at)
        return self.of_type(scope, value, f.type, f"'{f.name}'", at)

    def of_type(self, scope: Scope, value: Value, t: s.Type, what: str, at: Loc) -> Value:
        """`value` as a tensor of a written type: sizes that are new names are bound to its own,
        others must be equal."""
        dims, shape = t.dims or (), value.type.shape
        dtype = self._dtype_for(scope, t, value)
        if value.type.dtype is not dtype or len(dims) != len(shape):
            wanted = f"{dtype} with {len(dims)} axes"
            raise misfit(f"{what} must be {wanted}, got {value.type}", at=at)
        wanted_shape: list[Dim] = []
        for d, own in zip(dims, shape, strict=True):
            if isinstance(d, s.Ranged):
                raise misfit("only inputs of a model have bounds of sizes", at=d.at)
            if isinstance(d, s.Name) and scope.find(d.text) is None:
                scope.names[d.text] = own
            size = self._size(scope, d)
            if decide("==", own, size) is False:
                raise misfit(f"{what}: a size must be {size}, got {own} in {value.type}", at=at)
            wanted_shape.append(size)
        return scope.em.assume(value, wanted_shape)

    def body(self, scope: Scope, layer: s.Layer) -> list[Value]:
        """The results of a layer whose parameters are bound."""
        outer = scope.em.loc
        self.block(scope, layer.body)
        scope.em.loc = outer
        if scope.poisoned:
            raise Poisoned
        if scope.returned is None:
            raise misfit(f"{layer.kind} {layer.name} returns nothing", at=layer.at)
        found = scope.returned
        if not layer.results:
            return found
        if len(layer.results) != len(found):
            count = len(layer.results)
            raise misfit(
                f"{layer.name} returns {len(found)} values and declares {count}", at=layer.at
            )
        what = f"result of {layer.name}"
        pairs = zip(found, layer.results, strict=True)
        return [self.of_type(scope, v, t, what, t.at) for v, t in pairs]

    def _size(self, scope: Scope, d: s.Expr | s.Ranged) -> Dim:
        value = self._found(scope, d.name, d.at) if isinstance(d, s.Ranged) else self.expr(scope, d)
        return statics.as_size(value, d.at)

    def tensor_type(self, scope: Scope, t: s.Type) -> TensorType:
        """A type whose sizes are known."""
        sizes = [self._size(scope, d) for d in t.dims or ()]
        return TensorType(tuple(sizes), self._dtype_for(scope, t, None))

    def _dtype_for(self, scope: Scope, t: s.Type, item: Item | None) -> DType:
        """The element type that is written, or that a name stands for: a new one for that of the
        tensor at hand."""
        if dtypes.exists(t.dtype) or t.dtype in _SCALARS:
            return _dtype(t)
        if scope.find(t.dtype) is None and isinstance(item, Value):
            scope.names[t.dtype] = item.type.dtype
        found = self._found(scope, t.dtype, t.at)
        if not isinstance(found, DType):
            raise misfit(f"'{t.dtype}' is no element type, but {shown(found)}", at=t.at)
        return found


def _dtype(t: s.Type) -> DType:
    try:
        return dtypes.dtype(t.dtype)
    except KeyError:
        raise misfit(f"a tensor has no elements of type {t.dtype}", at=t.at) from None


def _literal(x: s.Literal) -> Static:
    if isinstance(x.value, s.TypeName):
        return _dtype(s.Type(x.at, str(x.value), None))
    if isinstance(x.value, bool | int | float | str) and not (
        isinstance(x.value, int) and abs(x.value) > 1 << 62
    ):
        return x.value
    raise misfit("the number is too large", at=x.at)

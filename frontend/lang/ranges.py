"""Indices of a formula: their ranges, and places as sums of their multiples.

The range of an index is said (``r in 0..3``), or that of the axis that it stands for, or as many
values from 0 on as keep every place inside that it is part of, whatever the other indices are
(Vasilache et al., Tensor Comprehensions, 2018, section 3.2). It may end at an index around:
``sum[j in 0..i + 1](x[j])``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from aisc.frontend.lang import statics
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.nested import names_in
from aisc.frontend.lang.scope import Item, Scope, misfit, shown
from aisc.ir.arith.poly import Dim, Poly, floordiv, maximum, minimum
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.location import Loc

# A place as a sum: multiples of indices, and what is added to them.
Affine = tuple[dict[str, int], Dim]


class Evaluator(Protocol):
    """What evaluates expressions that are known, or tensors."""

    def expr(self, scope: Scope, x: s.Expr) -> Item:
        """The value of an expression."""


class Indices:
    """The indices of one formula. `outer`: of the result, `inner`: that are reduced; `extents`:
    where each starts and how many values it has; `ends`: where those end that end at another."""

    def __init__(
        self,
        evaluator: Evaluator,
        scope: Scope,
        x: s.Formula,
        inner: Sequence[s.Expr | s.Slice | s.Ranged],
        value: s.Expr,
    ) -> None:
        self.evaluator, self.scope, self.x = evaluator, scope, x
        self.extents: dict[str, tuple[int, Dim] | None] = {}
        self.ends: dict[str, Affine] = {}
        self.places: dict[str, Loc] = {}
        self._ranged: list[s.Ranged] = []  # that end at another index
        self.outer = self._declared(x.indices)
        self.inner = self._declared(inner)
        for access, _ in accesses(value):
            if isinstance(access.of, s.Name) and access.of.text in self.extents:
                name = access.of.text
                raise misfit(f"'{name}' is an index here, and no tensor", at=access.at)
        self._find_ranges(value)

    # -- ranges ------------------------------------------------------------------------------
    def extent(self, name: str) -> Dim:
        """How many values an index has."""
        return self._range_of(name)[1]

    def low(self, name: str) -> int:
        """The first value of an index."""
        return self._range_of(name)[0]

    def _range_of(self, name: str) -> tuple[int, Dim]:
        found = self.extents[name]
        if found is None:
            hint = f"say it: {name} in 0..n"
            raise misfit(f"the range of '{name}' is not known", hint, at=self.places[name])
        return found

    def _declared(self, items: Sequence[s.Expr | s.Slice | s.Ranged]) -> list[str]:
        names: list[str] = []
        for i in items:
            if not isinstance(i, s.Name | s.Ranged):
                raise misfit("an index is a name: y[i, j] = …", at=i.at)
            name = i.text if isinstance(i, s.Name) else i.name
            if name in self.extents:
                raise misfit(f"there are two indices '{name}'", at=i.at)
            self.extents[name], self.places[name] = None, i.at
            names.append(name)
        for i in items:
            if isinstance(i, s.Ranged) and not names_in(i.high) & set(self.extents):
                self.extents[i.name] = self._said(i)
        self._ranged += [i for i in items if isinstance(i, s.Ranged) and not self.extents[i.name]]
        return names

    def _said(self, i: s.Ranged) -> tuple[int, Dim]:
        low, high = self._first(i), self.evaluator.expr(self.scope, i.high)
        size = statics.binary("sub", high, low, i.at) if not isinstance(high, Value) else high
        return low, statics.as_size(size, i.at)

    def _first(self, i: s.Ranged) -> int:
        low = self.evaluator.expr(self.scope, i.low)
        if not isinstance(low, int) or isinstance(low, bool):
            raise misfit(f"a range begins with a whole number, got {shown(low)}", at=i.at)
        return low

    def _find_ranges(self, value: s.Expr) -> None:
        """Ranges of axes first, then what they imply, until nothing more is."""
        self._stand_for_axes(value)
        before: object = None
        while before != (before := dict(self.extents)):
            for name in (*self.outer, *self.inner):
                if self.extents[name] is None and not self._end_of(name):
                    self._fit(name, value)
            for i in self._ranged:
                self._end(i)

    def _end_of(self, name: str) -> s.Ranged | None:
        """The declaration of an index that ends at another one."""
        return next((i for i in self._ranged if i.name == name), None)

    def _end(self, i: s.Ranged) -> None:
        """An index that ends at others has as many values as it has for any of theirs."""
        others = names_in(i.high) & set(self.extents)
        if self.extents[i.name] is None and all(self.extents[n] for n in others):
            low, end = self._first(i), self.place(i.high, i.at)
            self.ends[i.name] = end
            self.extents[i.name] = low, maximum(0, self.ends_of(end)[1] - low)

    def _stand_for_axes(self, value: s.Expr) -> None:
        """Indices that stand for a whole axis have its size, unless other places keep them from its
        end."""
        found: dict[str, list[tuple[s.Index, int, Dim]]] = {}
        for access, guarded in accesses(value):
            tensor = self.tensor(access)
            pairs = zip(access.items, tensor.type.shape if tensor else (), strict=False)
            for axis, (item, size) in enumerate(pairs):
                name = item.text if isinstance(item, s.Name) else ""
                free = name in self.extents and not self._end_of(name)
                if free and not (guarded and self.extents[name]):
                    found.setdefault(name, []).append((access, axis, size))
        for name, axes in found.items():
            known = self.extents[name]
            if known is None:
                self._fit(name, value)
                known = self.extents[name]
                size = axes[0][2]
                if known is None or decide("<=", known[1], size) is not True:
                    known = self.extents[name] = 0, size
            for access, axis, size in axes:
                if known[0] == 0 and decide("<=", known[1], size) is None:
                    self._assume(access, axis, known[1])

    def _assume(self, access: s.Index, axis: int, size: Dim) -> None:
        """Two axes that one index stands for have one size, which the run tests."""
        assert isinstance(access.of, s.Name), "a tensor's name"
        value = self.tensor(access)
        assert value is not None, "a tensor"
        shape = [size if k == axis else d for k, d in enumerate(value.type.shape)]
        self.scope.names[access.of.text] = self.scope.em.assume(value, shape)

    def _fit(self, name: str, value: s.Expr) -> None:
        """As many values as keep each place inside that has the index in it, alone of those that
        are not known."""
        found = [
            floordiv(size - 1 - self.ends_of((others, rest))[1], factor) + 1
            for factor, others, rest, size in self._places_of(name, value)
        ]
        if found:
            count = minimum(*found)
            if isinstance(count, int) and count < 0:
                raise misfit(f"no value of '{name}' keeps every place inside", at=self.x.at)
            self.extents[name] = 0, count

    def _places_of(
        self, name: str, value: s.Expr
    ) -> Iterator[tuple[int, dict[str, int], Dim, Dim]]:
        """Places that must be inside and grow with an index: its factor, the rest of the sum, and
        the size of the axis. The end of a range is one behind the last place of its index."""
        for access, guarded in accesses(value):
            tensor = None if guarded else self.tensor(access)
            for item, size in zip(access.items, tensor.type.shape if tensor else (), strict=False):
                behind = self._end_of(item.text) if isinstance(item, s.Name) else None
                whole, less = (item, 0) if behind is None else (behind.high, 1)
                if not self.is_affine(whole) or name not in names_in(whole):
                    continue
                terms, rest = self.place(whole, access.at)
                others = {n: c for n, c in terms.items() if n != name}
                if terms.get(name, 0) < 1 or any(self.extents[n] is None for n in others):
                    continue
                if terms != {name: 1} or rest != 0 or less:  # else it stands for the axis
                    yield terms[name], others, rest - less, size

    # -- places ------------------------------------------------------------------------------
    def tensor(self, access: s.Index) -> Value | None:
        """The tensor that an element is of; nothing for what is none."""
        if not isinstance(access.of, s.Name) or access.of.text in self.extents:
            return None
        found = self.evaluator.expr(self.scope, access.of)
        return found if isinstance(found, Value) else None

    def ends_of(self, place: Affine) -> tuple[Dim, Dim]:
        """The least and the greatest value of a place."""
        terms, rest = place
        least, most = rest, rest
        for name, factor in terms.items():
            low, extent = self._range_of(name)
            ends = low * factor, (extent + (low - 1)) * factor
            first, last = ends if factor > 0 else ends[::-1]
            least, most = least + first, most + last
        return least, most

    def is_inside(self, place: Affine, size: Dim) -> bool:
        """Whether a place is inside of an axis for all values of its indices."""
        least, most = self.ends_of(place)
        return decide("<=", 0, least) is True and decide("<=", most + 1, size) is True

    def is_affine(self, x: s.Expr | s.Slice | s.Ranged) -> bool:
        """Whether a place is a sum of multiples of indices and of what is known: no element of a
        tensor, quotient or choice that depends on an index."""
        match x:
            case s.Binary() if x.op in ("add", "sub"):
                return self.is_affine(x.a) and self.is_affine(x.b)
            case s.Binary() if x.op == "mul":
                apart = self.is_apart(x.a) or self.is_apart(x.b)
                return apart and self.is_affine(x.a) and self.is_affine(x.b)
            case s.Unary() if x.op == "neg":
                return self.is_affine(x.a)
            case s.Name():
                return True
            case _:
                return self.is_apart(x)

    def place(self, x: s.Expr | s.Slice | s.Ranged, at: Loc) -> Affine:
        """A place as multiples of indices and a rest."""
        match x:
            case s.Name() if x.text in self.extents:
                return {x.text: 1}, 0
            case s.Binary() if x.op in ("add", "sub"):
                (a, u), (b, v) = self.place(x.a, at), self.place(x.b, at)
                sign = 1 if x.op == "add" else -1
                terms = {n: a.get(n, 0) + sign * b.get(n, 0) for n in (*a, *b)}
                return {n: c for n, c in terms.items() if c}, u + v * sign
            case s.Binary() if x.op == "mul":
                return self._times(self.place(x.a, at), self.place(x.b, at), x.at)
            case s.Unary() if x.op == "neg":
                a, u = self.place(x.a, at)
                return {n: -c for n, c in a.items()}, -1 * u
            case s.Slice() | s.Ranged():
                raise misfit("a place is a sum of indices", at=x.at)
            case _:
                found = self.evaluator.expr(self.scope, x)
                if isinstance(found, int | Poly) and not isinstance(found, bool):
                    return {}, found
                raise misfit(f"a place is a sum of indices, got {shown(found)}", at=x.at)

    @staticmethod
    def _times(one: Affine, other: Affine, at: Loc) -> Affine:
        (a, u), (b, v) = one, other
        assert not (a and b), "such a place is no sum of indices"
        terms, factor = (a, v) if a else (b, u)
        if isinstance(factor, int):
            return {n: c * factor for n, c in terms.items()}, u * v
        if terms:
            raise misfit("an index is multiplied by whole numbers only", at=at)
        return {}, u * v

    def is_apart(self, x: object) -> bool:
        """Whether an expression has nothing to do with indices: it has one value."""
        match x:
            case s.Name():
                return x.text not in self.extents
            case s.Literal() | None:
                return True
            case s.Attribute():
                return self.is_apart(x.of)
            case s.Unary():
                return self.is_apart(x.a)
            case s.Binary():
                return self.is_apart(x.a) and self.is_apart(x.b)
            case s.Choice():
                return all(map(self.is_apart, (x.a, x.cond, x.b)))
            case s.ListOf():
                return all(map(self.is_apart, x.items))
            case s.Slice():
                return all(map(self.is_apart, (x.start, x.stop, x.step)))
            case s.Index():
                return all(map(self.is_apart, (x.of, *x.items)))
            case s.Call():
                return all(map(self.is_apart, (*x.args, *(v for _, v, _ in x.keywords))))
            case _:
                return False


def accesses(x: object, guarded: bool = False) -> Iterator[tuple[s.Index, bool]]:
    """Every element in an expression, with whether a value stands for it outside; those in places
    of others too."""
    match x:
        case s.Index():
            yield x, guarded
            for item in x.items:
                yield from accesses(item)
        case s.Outside():
            yield from accesses(x.element, True)
            yield from accesses(x.value)
        case s.Binary():
            yield from accesses(x.a)
            yield from accesses(x.b)
        case s.Unary():
            yield from accesses(x.a)
        case s.Choice():
            for part in (x.cond, x.a, x.b):
                yield from accesses(part)
        case s.Call():
            for part in x.args:
                yield from accesses(part)
        case _:
            pass

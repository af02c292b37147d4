"""Reductions that are part of a larger value: tensors of their own, which come first.

``y[i] = x[i] / sum[k](x[k])`` becomes ``t = sum[k](x[k])`` and ``y[i] = x[i] / t``. What they
read of the indices around becomes their result's indices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace

from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.scope import Scope
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

# What makes the tensor of a formula.
Make = Callable[[s.Formula], Value]


def without_reductions(scope: Scope, x: s.Formula, make: Make) -> s.Formula:
    """A formula with at most one reduction, which is all of its value; others are in `scope`,
    under names that :func:`inner_names` finds in it."""
    if isinstance(x.value, s.Reduction):
        value = replace(x.value, value=_apart(scope, x, x.value.value, make))
        return replace(x, value=value)
    return replace(x, value=_apart(scope, x, x.value, make))


def _apart(scope: Scope, x: s.Formula, value: s.Expr, make: Make) -> s.Expr:
    """`value` with the names of tensors in the place of the reductions in it."""
    match value:
        case s.Reduction():
            return _tensor(scope, x, value, make)
        case s.Binary():
            a, b = (_apart(scope, x, v, make) for v in (value.a, value.b))
            return replace(value, a=a, b=b)
        case s.Unary():
            return replace(value, a=_apart(scope, x, value.a, make))
        case s.Choice():
            cond, a, b = (_apart(scope, x, v, make) for v in (value.cond, value.a, value.b))
            return replace(value, cond=cond, a=a, b=b)
        case s.Call():
            return replace(value, args=tuple(_apart(scope, x, v, make) for v in value.args))
        case _:
            return value


def _tensor(scope: Scope, x: s.Formula, value: s.Reduction, make: Make) -> s.Expr:
    """An element of a new tensor: the reduction, for each of the indices around that it reads."""
    around = [*x.indices, *(x.value.indices if isinstance(x.value, s.Reduction) else ())]
    own = {index_name(i) for i in value.indices}
    read = names_in(value.value) | {n for i in value.indices for n in names_in(i)}
    indices = tuple(i for i in around if index_name(i) in read - own)
    name = f"{x.name}.{value.combiner}{len(scope.names)}"  # no name that a person may write
    scope.names[name] = make(s.Formula(value.at, name, indices, value))
    places = tuple(s.Name(value.at, index_name(i)) for i in indices)
    return s.Index(value.at, s.Name(value.at, name), places) if places else s.Name(value.at, name)


def inner_names(x: s.Formula) -> set[str]:
    """Names of tensors that stand for reductions inside: no person may write such."""
    return {n for n in names_in(x.value) if "." in n}


def index_name(i: s.Expr | s.Slice | s.Ranged) -> str:
    """The name of an index; what is none has none."""
    return i.name if isinstance(i, s.Ranged) else i.text if isinstance(i, s.Name) else ""


def names_in(x: object) -> set[str]:
    """Every name in an expression."""
    if isinstance(x, s.Name):
        return {x.text}
    if isinstance(x, tuple):
        return set().union(*map(names_in, x))
    if is_dataclass(x) and not isinstance(x, Loc):
        return set().union(*(names_in(getattr(x, f.name)) for f in fields(x)))
    return set()

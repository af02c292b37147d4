"""The syntax tree of the model language: what a file says, each node with its place."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.location import UNKNOWN, Loc


class TypeName(str):
    """The name of an element type, which is no text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Name:
    """A variable, dimension or hyper-parameter."""

    at: Loc
    text: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, text, truth value or element type."""

    at: Loc
    value: object


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[a, b]``."""

    at: Loc
    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """``-a`` or ``not a``."""

    at: Loc
    op: str
    a: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """``a op b``, named by the graph's operator."""

    at: Loc
    op: str
    a: Expr
    b: Expr


@dataclass(frozen=True, slots=True)
class Choice:
    """``a if cond else b``."""

    at: Loc
    a: Expr
    cond: Expr
    b: Expr


@dataclass(frozen=True, slots=True)
class Attribute:
    """``x.shape``."""

    at: Loc
    of: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Slice:
    """``start:stop:step`` between brackets; absent parts are nothing."""

    at: Loc
    start: Expr | None
    stop: Expr | None
    step: Expr | None


@dataclass(frozen=True, slots=True)
class Ranged:
    """``i in low..high``: an index and its range."""

    at: Loc
    name: str
    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class Reduction:
    """``sum[k](a)``: of a formula."""

    at: Loc
    combiner: str
    indices: tuple[Expr | Slice | Ranged, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Outside:
    """``(x[i - 1] else 0)``: an element, or a value where its place is outside of the tensor."""

    at: Loc
    element: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class Index:
    """``x[i, a:b]`` by numpy's rules."""

    at: Loc
    of: Expr
    items: tuple[Expr | Slice | Ranged, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """``name(a, key=b) as path``: of a layer or an operator."""

    at: Loc
    name: str
    args: tuple[Expr, ...]
    keywords: tuple[tuple[str, Expr, Loc], ...]
    path: tuple[str | Expr, ...] = ()


Plain = Name | Literal | ListOf | Unary | Binary | Choice | Attribute | Index | Call
Expr = Plain | Reduction | Outside


@dataclass(frozen=True, slots=True)
class Type:
    """``f32[n, 3]``, or the type of a hyper-parameter (`dims` is nothing). A size that an input of
    a model names may have bounds: ``f32[n in 1..65, 3]``."""

    at: Loc
    dtype: str
    dims: tuple[Expr | Ranged, ...] | None


@dataclass(frozen=True, slots=True)
class Param:
    """``param w: f32[k, n] = normal(0.02)``."""

    at: Loc
    name: str
    type: Type
    start: Expr | None


@dataclass(frozen=True, slots=True)
class Assign:
    """``a, b = expr``. `places`: of the names."""

    at: Loc
    names: tuple[str, ...]
    value: Expr
    places: tuple[Loc, ...] = ()


@dataclass(frozen=True, slots=True)
class Formula:
    """``y[i, j] = sum[k](a[i, k] * b[k, j])``: index notation."""

    at: Loc
    name: str
    indices: tuple[Expr | Slice | Ranged, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Return:
    """``return a, b``."""

    at: Loc
    values: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class For:
    """``for i in low..high { … }``: repetition while the network is built."""

    at: Loc
    name: str
    low: Expr
    high: Expr
    body: tuple[Statement, ...]
    name_at: Loc = UNKNOWN


@dataclass(frozen=True, slots=True)
class While:
    """``while cond { … }``: repetition while the network runs."""

    at: Loc
    cond: Expr
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Over:
    """``row in x``: in each turn one place of a tensor's first axis."""

    at: Loc
    name: str
    of: Expr


@dataclass(frozen=True, slots=True)
class Count:
    """``t in low..high``: the number of the turn; without an end (``0..``) as long as the loop's
    condition holds."""

    at: Loc
    name: str
    low: Expr
    high: Expr | None


@dataclass(frozen=True, slots=True)
class Scan:
    """``scan row in x, t in 0..n while cond { … }``: a turn for each place, while the network
    runs."""

    at: Loc
    over: tuple[Over | Count, ...]
    cond: Expr | None
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Collect:
    """``collect ys = y``: the values of all turns are stacked."""

    at: Loc
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Again:
    """``again cond``: whether another turn follows this one."""

    at: Loc
    cond: Expr


@dataclass(frozen=True, slots=True)
class If:
    """``if cond { … } else { … }``: decided when the network is built where that is known."""

    at: Loc
    cond: Expr
    then: tuple[Statement, ...]
    other: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Require:
    """``require n == 2 * m, "pairs"``: what must hold, and what is told where it does not."""

    at: Loc
    cond: Expr
    message: str


Statement = Param | Assign | Formula | Return | For | While | Scan | Collect | Again | Require | If


@dataclass(frozen=True, slots=True)
class Formal:
    """A parameter of a layer: a tensor, or a hyper-parameter with or without a default."""

    at: Loc
    name: str
    type: Type
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer or a model."""

    at: Loc
    kind: str
    name: str
    formals: tuple[Formal, ...]
    results: tuple[Type, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """A file. `imports`: files whose layers it uses, and their places; `weights`: the file of
    parameters and its place; `seed`: of those that none gives."""

    layers: tuple[Layer, ...]
    imports: tuple[tuple[str, Loc], ...] = ()
    weights: tuple[str, Loc] | None = None
    seed: int = 0


def assigned(statements: Sequence[Statement]) -> list[str]:
    """Names that statements assign in the block where they stand, in order."""
    found: dict[str, None] = {}
    for x in statements:
        match x:
            case Assign():
                found.update(dict.fromkeys(x.names))
            case Param() | Formula():
                found[x.name] = None
            case For():
                found.update(dict.fromkeys((x.name, *assigned(x.body))))
            case While():
                found.update(dict.fromkeys((*assigned(x.body), *collected(x.body))))
            case Scan():
                own = {o.name for o in x.over}
                kept = (n for n in assigned(x.body) if n not in own)
                found.update(dict.fromkeys((*kept, *collected(x.body))))
            case If():
                found.update(dict.fromkeys((*assigned(x.then), *assigned(x.other))))
            case _:
                pass
    return list(found)


def collected(statements: Sequence[Statement]) -> list[str]:
    """Names under which a turn of a loop with this body collects values."""
    found: dict[str, None] = {}
    for x in statements:
        match x:
            case Collect():
                found[x.name] = None
            case For():
                found.update(dict.fromkeys(collected(x.body)))
            case If():
                found.update(dict.fromkeys((*collected(x.then), *collected(x.other))))
            case _:
                pass
    return list(found)

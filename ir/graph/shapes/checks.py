"""What the sizes of a run must satisfy for an operator, where inference cannot decide it.

A type rule asks :func:`require`. Sizes that satisfy a relation whatever the values of their symbols
pass, sizes that cannot are E201; what is left becomes a :class:`SizeCheck` of the node. The graph
interpreter evaluates the checks of a node, lowering turns each into a ``require`` statement before
the kernel that relies on it, and the verifier of the tensor IR takes them for granted inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from aisc.ir.arith.poly import Dim, bounds, evaluate, symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import Expr, binary, equal, logical_or, of_dim

if TYPE_CHECKING:
    from aisc.ir.graph.opdef import OpCall

# equal; at most; equal, or the left one is 1 (it is broadcast)
Relation = Literal["==", "<=", "1=="]
_WORDS: dict[Relation, str] = {"==": "must equal", "<=": "must be at most", "1==": "must be 1 or"}


@dataclass(frozen=True, slots=True)
class SizeCheck:
    """``left relation right``; `what` names the two sizes. `sizes`: see
    :class:`aisc.ir.tensor.stmt.Require`."""

    relation: Relation
    left: Dim
    right: Dim
    what: str
    sizes: tuple[str, ...] = ()

    @property
    def condition(self) -> Expr:
        """The relation over index expressions."""
        a, b = of_dim(self.left), of_dim(self.right)
        if self.relation == "<=":
            return binary("le", a, b)
        same = equal(a, b)
        return same if self.relation == "==" else logical_or(equal(a, 1), same)

    @property
    def text(self) -> str:
        """A message with a place for the value of each symbolic size."""
        return f"{self.what}: {_named(self.left)} {_WORDS[self.relation]} {_named(self.right)}"

    @property
    def values(self) -> tuple[Expr, ...]:
        """What the places of the message stand for."""
        return tuple(of_dim(d) for d in (self.left, self.right) if not isinstance(d, int))

    def fault(self, dims: Mapping[str, int]) -> str:
        """The message, if values of the dimensions break the relation; else nothing."""
        a, b = evaluate(self.left, dims), evaluate(self.right, dims)
        if decide(self.relation, a, b):
            return ""
        found = [n for d, n in ((self.left, a), (self.right, b)) if not isinstance(d, int)]
        return self.text.format(*found)


def _named(d: Dim) -> str:
    """A size in a message, with the model's own names where it has some."""
    if isinstance(d, int):
        return str(d)
    if all(s.kind == "input" for s in symbols(d)):
        return f"{str(d).replace('{', '{{').replace('}', '}}')} = {{}}"
    return "a size of {}"


_TESTS: dict[Relation, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "<=": lambda a, b: a <= b,
    "1==": lambda a, b: a in (1, b),
}


def decide(relation: Relation, a: Dim, b: Dim) -> bool | None:
    """Whether two sizes satisfy a relation; ``None`` where that depends on the run."""
    if isinstance(a, int) and isinstance(b, int):
        return _TESTS[relation](a, b)
    if a == b or (relation == "1==" and a == 1):
        return True
    low, high = bounds(b - a)
    if relation == "<=":
        return True if low >= 0 else False if high < 0 else None
    apart = low > 0 or high < 0
    if relation == "1==":
        least, most = bounds(a)
        apart = apart and (least > 1 or most < 1)
    return False if apart else None


def no_size_below_zero(call: OpCall, shape: Iterable[Dim]) -> None:
    """Let sizes that an attribute gives be sizes: E203 where one is negative, a check of the run
    where only that can tell."""
    shape = tuple(shape)
    for size in shape:
        if decide("<=", 0, size) is False:
            raise call.fail(f"negative size in [{', '.join(map(str, shape))}]", code="E203")
        require(call, "<=", 0, size, "a size")


def require(
    call: OpCall, relation: Relation, a: Dim, b: Dim, what: str, sizes: tuple[str, ...] = ()
) -> None:
    """Let the sizes of a node satisfy a relation: E201 where they cannot, a check of the run where
    only that can tell."""
    verdict = decide(relation, a, b)
    if verdict is False:
        raise call.fail(f"{what}: {a} {_WORDS[relation]} {b}")
    if verdict is None and call.checks is not None:
        check = SizeCheck(relation, a, b, f"{call.op.name}: {what}", sizes)
        if check not in call.checks:
            call.checks.append(check)

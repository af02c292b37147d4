"""What a layer asks of sizes and values: ``require n == 2 * m, "pairs of rows"``.

What is known holds or is refused while the network is built. Equal sizes are one from there on,
which the run tests where a call begins; other conditions end a run where they do not hold.
"""

from __future__ import annotations

from aisc.frontend.lang import operators
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.ranges import Evaluator
from aisc.frontend.lang.scope import Scope, misfit, shown
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide


def require(evaluator: Evaluator, scope: Scope, x: s.Require) -> None:
    """Let a condition hold from here on; E109 where it cannot."""
    text = x.message or "a requirement of the model does not hold"
    if isinstance(x.cond, s.Binary) and x.cond.op == "equal":
        a, b = (evaluator.expr(scope, v) for v in (x.cond.a, x.cond.b))
        if isinstance(a, int | Poly) and isinstance(b, int | Poly):
            verdict = decide("==", a, b)
            if verdict is False:
                raise misfit(text, f"{shown(a)} is not {shown(b)}", at=x.at)
            if verdict is True or _equate(scope, a, b) or _equate(scope, b, a):
                return
    found = evaluator.expr(scope, x.cond)
    if isinstance(found, bool):
        if not found:
            raise misfit(text, at=x.at)
        return
    _expect(scope, operators.flag(scope.em, found, x.at), text, x)


def _equate(scope: Scope, a: Dim, b: Dim) -> bool:
    """Let every tensor with an axis of size `a` have `b` there; whether there is one."""
    tensors = {n: v for n, v in scope.names.items() if isinstance(v, Value)}
    having = {n: v for n, v in tensors.items() if isinstance(a, Poly) and a in v.type.shape}
    for name, v in having.items():
        shape = tuple(b if d == a else d for d in v.type.shape)
        scope.names[name] = scope.em.assume(v, shape)
    for name, item in scope.names.items():
        if having and isinstance(item, Poly) and item == a:
            scope.names[name] = b
    return bool(having)


def _expect(scope: Scope, flag: Value, text: str, x: s.Require) -> None:
    """Let the tensors that are known here be those of a run in which a condition holds."""
    tensors = {n: v for n, v in scope.names.items() if isinstance(v, Value) and v is not flag}
    if not tensors:
        raise misfit("there is no tensor here whose use would test this", at=x.at)
    for name, v in tensors.items():
        made = scope.em.builder.add("expect", (v, flag), {"message": text}, loc=scope.em.loc)
        scope.names[name] = made

"""Exact integer sets of iterations and accesses, by isl.

Most questions are decided without: isl is loaded when it is first asked. Expressions are written as
isl text. A sub-expression that is not affine raises
:class:`NotAffine`; callers then refuse with E304 unless a cheaper test has decided already.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import Binary, Const, Expr, Unary, Var

if TYPE_CHECKING:
    import islpy as isl

MAX_OPERATIONS = 2_000_000
_COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=", "ne": "!="}
_local = threading.local()


class NotAffine(Exception):
    """The expression cannot be written as a quasi-affine form."""


class Undecided(Exception):
    """isl gave up within its bound of operations."""


def _context() -> isl.Context:
    import islpy as isl

    ctx = getattr(_local, "ctx", None)
    if ctx is None:
        ctx = _local.ctx = isl.Context()
    return ctx


def affine(expr: Expr, rename: dict[Var, str]) -> str:
    """isl text of an index expression; variables are renamed by the table."""
    if isinstance(expr, Const):
        number = int(expr.value)
        return str(number) if number >= 0 else f"(-{-number})"
    if isinstance(expr, Var):
        return rename[expr] if expr in rename else _param(expr)
    if isinstance(expr, Unary) and expr.op == "neg":
        return f"(-{affine(expr.a, rename)})"
    if isinstance(expr, Binary):
        return _binary(expr, rename)
    raise NotAffine(str(type(expr).__name__))


def _param(var: Var) -> str:
    return f"p_{''.join(c if c.isalnum() else '_' for c in var.name)}"


def _binary(expr: Binary, rename: dict[Var, str]) -> str:
    a, b = affine(expr.a, rename), affine(expr.b, rename)
    if expr.op in ("add", "sub"):
        return f"({a} {'+' if expr.op == 'add' else '-'} {b})"
    if expr.op == "mul" and (isinstance(expr.a, Const) or isinstance(expr.b, Const)):
        factor, value = (expr.a, b) if isinstance(expr.a, Const) else (expr.b, a)
        assert isinstance(factor, Const), "one factor is constant"
        number = int(factor.value)  # isl takes literal factors only
        return f"{number}*({value})" if number >= 0 else f"(-({-number}*({value})))"
    if expr.op in ("floordiv", "mod") and isinstance(expr.b, Const) and int(expr.b.value) > 0:
        d = int(expr.b.value)
        return f"floor({a}/{d})" if expr.op == "floordiv" else f"({a} mod {d})"
    if expr.op in ("min", "max"):
        return f"{expr.op}({a}, {b})"
    raise NotAffine(expr.op)


def condition(expr: Expr, rename: dict[Var, str]) -> str:
    """isl text of a boolean expression over indices."""
    if isinstance(expr, Const):
        return "true" if expr.value else "false"
    if isinstance(expr, Binary):
        if expr.op in _COMPARE:
            return f"{affine(expr.a, rename)} {_COMPARE[expr.op]} {affine(expr.b, rename)}"
        if expr.op in ("and", "or"):
            return f"({condition(expr.a, rename)} {expr.op} {condition(expr.b, rename)})"
    if isinstance(expr, Unary) and expr.op == "not":
        return f"(not ({condition(expr.a, rename)}))"
    raise NotAffine(type(expr).__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """Points of a problem for which `names` exist that fulfil the constraints."""

    names: tuple[str, ...]
    constraints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Is there an integer point outside of all parts `without`? `names` are the set's dimensions,
    `params` its parameters."""

    names: tuple[str, ...]
    params: tuple[str, ...]
    constraints: tuple[str, ...]
    without: tuple[Part, ...] = ()

    def sample(self) -> dict[str, int] | None:
        """A point of the set, or ``None`` when it is empty; :class:`Undecided` at the bound."""
        import islpy as isl

        ctx = _context()
        ctx.set_max_operations(MAX_OPERATIONS)
        ctx.reset_operations()
        try:
            found = self._set(ctx, " and ".join(self.constraints) or "true")
            for part in self.without:
                body = " and ".join(part.constraints) or "true"
                exists = f"exists ({', '.join(part.names)} : {body})" if part.names else body
                found = found.subtract(self._set(ctx, exists))
            if found.is_empty():
                return None
            point = found.sample_point()
            values = {
                n: point.get_coordinate_val(isl.dim_type.set, k).to_python()
                for k, n in enumerate(self.names)
            }
            for k, n in enumerate(self.params):
                values[n] = point.get_coordinate_val(isl.dim_type.param, k).to_python()
            return values
        except isl.Error as fault:
            raise Undecided(str(fault)) from fault
        finally:
            ctx.set_max_operations(0)

    def _set(self, ctx: isl.Context, body: str) -> isl.Set:
        import islpy as isl

        head = f"[{', '.join(self.params)}] -> " if self.params else ""
        return isl.Set.read_from_str(ctx, f"{head}{{ [{', '.join(self.names)}] : {body} }}")

"""Type rules of tensor expressions: operands, dtypes, ranks, names in scope."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping

from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    BINARY_OPS,
    COMPARISONS,
    MATH_CALLS,
    UNARY_OPS,
    WITHIN,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    const,
    result_of,
)
from aisc.ir.tensor.func import Buffer

Report = Callable[[str], None]
_LOGICAL = ("and", "or", "xor")
_INTEGRAL = ("floordiv", "mod", "truncdiv", "truncmod", "shl", "shr")


class ExprRules:
    """Checks expressions against the variables and buffers in scope; `report` hears faults.

    functions: names that a ``Call`` may have beside ``MATH_CALLS``; ``None`` allows any.
    """

    def __init__(
        self,
        variables: Mapping[str, Var],
        buffers: Mapping[str, Buffer],
        functions: Container[str] | None,
        report: Report,
    ) -> None:
        self.variables = variables
        self.buffers = buffers
        self.functions = functions
        self.report = report
        self.loads: list[Buffer] = []  # every buffer that was read

    def typed(self, e: Expr, wanted: DType, what: str) -> None:
        """Check `e` and that it has a dtype."""
        if self.expr(e) and e.dtype is not wanted:
            self.report(f"{what} has dtype {e.dtype}, expected {wanted}")

    def index(self, e: Expr, what: str) -> None:
        """Check an index: i64."""
        self.typed(e, dtypes.i64, what)

    def expr(self, e: Expr) -> bool:
        """Check an expression; false once something below it is wrong."""
        if isinstance(e, Const):
            return self._const(e)
        if isinstance(e, Var):
            return self._var(e)
        if isinstance(e, Load):
            return self._load(e)
        if isinstance(e, Binary):
            return self.expr(e.a) and self.expr(e.b) and self._binary(e)
        if isinstance(e, Unary):
            return self.expr(e.a) and self._unary(e)
        if isinstance(e, Cast):
            return self.expr(e.a)
        if isinstance(e, Select):
            return all([self.expr(e.cond), self.expr(e.then), self.expr(e.other)]) and (
                self._need(e.cond.dtype is dtypes.boolean, "the condition of a select is not bool")
                and self._need(e.then.dtype is e.other.dtype, "arms of a select differ in dtype")
            )
        if isinstance(e, Call):
            return all(self.expr(a) for a in e.args) and self._call(e)
        return self._need(False, f"{type(e).__name__} is no expression")

    def access(self, b: Buffer, indices: tuple[Expr, ...]) -> bool:
        """Check that a buffer is declared as used, and its indices."""
        for n, i in enumerate(indices):
            self.index(i, f"index {n} of {b.name}")
        return self.declared(b) and self._need(
            len(indices) == b.rank, f"{b.name} of rank {b.rank} has {len(indices)} indices"
        )

    def declared(self, b: Buffer) -> bool:
        """Check that a buffer is in scope and the same as its declaration."""
        known = self.buffers.get(b.name)
        if known is None:
            return self._need(False, f"buffer {b.name} is not declared here")
        return self._need(known == b, f"buffer {b.name} differs from its declaration")

    def _need(self, holds: bool, message: str) -> bool:
        if not holds:
            self.report(message)
        return holds

    def _const(self, e: Const) -> bool:
        kind = float if e.dtype.is_float else bool if e.dtype.kind == "bool" else int
        ok = isinstance(e.value, kind) and const(e.value, e.dtype) == e
        return self._need(ok, f"{e.value!r} is no value of {e.dtype}")

    def _var(self, e: Var) -> bool:
        bound = self.variables.get(e.name)
        if bound is None:
            return self._need(False, f"variable {e.name} is not bound here")
        same = bound.dtype is e.dtype
        return self._need(same, f"variable {e.name} is bound as {bound.dtype}, used as {e.dtype}")

    def _load(self, e: Load) -> bool:
        self.loads.append(e.buffer)
        return self.access(e.buffer, e.indices)

    def _binary(self, e: Binary) -> bool:
        t = e.a.dtype
        if e.op not in BINARY_OPS:
            return self._need(False, f"unknown operator '{e.op}'")
        if t is not e.b.dtype:
            return self._need(False, f"'{e.op}' of {t} and {e.b.dtype}")
        if e.op in COMPARISONS or e.op in ("min", "max"):
            allowed = True
        elif e.op in _LOGICAL:
            allowed = not t.is_float
        elif e.op in _INTEGRAL:
            allowed = t.is_integer
        else:
            allowed = t.is_float if e.op == "div" else t.kind != "bool"
        return self._need(allowed, f"'{e.op}' is not defined on {t}")

    def _unary(self, e: Unary) -> bool:
        t = e.a.dtype
        if e.op not in UNARY_OPS:
            return self._need(False, f"unknown operator '{e.op}'")
        allowed = {"not": not t.is_float, "sqrt": t.is_float}.get(e.op, t.kind != "bool")
        return self._need(allowed, f"'{e.op}' is not defined on {t}")

    def _call(self, e: Call) -> bool:
        if e.name == WITHIN:
            whole = len(e.args) == 2 and all(x.dtype is dtypes.i64 for x in (*e.args, e))
            return self._need(whole, f"'{WITHIN}' takes two numbers of i64")
        if e.name not in MATH_CALLS:
            known = self.functions is None or e.name in self.functions
            return self._need(known, f"unknown function '{e.name}'")
        count = 3 if e.name == "fma" else 1
        if len(e.args) != count:
            return self._need(False, f"'{e.name}' takes {count} operands, got {len(e.args)}")
        t = e.args[0].dtype
        if not t.is_float or any(a.dtype is not t for a in e.args):
            return self._need(False, f"'{e.name}' needs floats of one dtype")
        result = result_of(e.name, t)
        return self._need(e.dtype is result, f"'{e.name}' of {t} gives {result}, not {e.dtype}")

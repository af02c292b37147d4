"""Folding the expressions of the tensor IR: operators, literals, calls by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lark import Token

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    MATH_CALLS,
    UNARY_OPS,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    result_of,
)
from aisc.ir.tensor.func import Buffer
from aisc.ir.text.lexical import FUNCTION_BINARY
from aisc.ir.text.parsing import Folder, TextError, to_int

_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
_DTYPES = {t.name: t for t in (*dtypes.ALL, *dtypes.CODED)}


def _infix(op: str) -> Any:
    def fold(self: object, c: list[Expr]) -> Expr:
        return Binary(op, c[0], c[1])

    fold.__doc__ = f"The operator `{op}`."
    return fold


class ExprFolder(Folder):
    """Folds expressions. Nothing is simplified: what was printed is what is made."""

    def __init__(self, blobs: Mapping[str, Blob]) -> None:
        super().__init__(blobs)
        self.buffers: dict[str, Buffer] = {}

    or_, xor_, and_ = _infix("or"), _infix("xor"), _infix("and")
    shl, shr, add, sub = _infix("shl"), _infix("shr"), _infix("add"), _infix("sub")
    mul, div, floordiv, mod = _infix("mul"), _infix("div"), _infix("floordiv"), _infix("mod")

    def compare_sign(self, c: list[Token]) -> str:
        """The operator of a comparison."""
        return _COMPARE[str(c[0])]

    def compare(self, c: list[Any]) -> Expr:
        """A comparison."""
        return Binary(c[1], c[0], c[2])

    def known_buffer(self, name: Token) -> Buffer:
        """A declared buffer."""
        found = self.buffers.get(str(name))
        if found is None:
            raise TextError(name, f"buffer '{name}' is not declared")
        return found

    def variable(self, c: list[Any]) -> Var:
        """A variable."""
        return Var(str(c[0]), c[1] if len(c) > 1 else dtypes.i64)

    def int_literal(self, c: list[Any]) -> Const:
        """An integer literal."""
        return Const(to_int(c[0]), c[1] if len(c) > 1 else dtypes.i64)

    def float_literal(self, c: list[Any]) -> Const:
        """A float literal; the printer leaves out the dtype i64 only."""
        return Const(float(c[0]), c[1] if len(c) > 1 else dtypes.i64)

    def true_literal(self, c: list[DType]) -> Const:
        """True."""
        return Const(True, c[0] if c else dtypes.boolean)

    def false_literal(self, c: list[DType]) -> Const:
        """False."""
        return Const(False, c[0] if c else dtypes.boolean)

    def index(self, c: list[Expr]) -> tuple[Expr, ...]:
        """Indices."""
        return tuple(c)

    def load(self, c: list[Any]) -> Expr:
        """A load."""
        return Load(self.known_buffer(c[0]), c[1])

    def call(self, c: list[Any]) -> Expr:
        """A call with its dtype, e.g. of a target's intrinsic."""
        return Call(str(c[0]), tuple(c[1:-1]), c[-1])

    def apply(self, c: list[Any]) -> Expr:
        """An operator, a cast or a function, by name."""
        name, args = str(c[0]), tuple(c[1:])
        wanted = _arity(name)
        if wanted is None:
            raise TextError(
                c[0], f"unknown function '{name}'", "calls of intrinsics begin with '@'"
            )
        if wanted != len(args) and not (wanted < 0 and args):
            raise TextError(c[0], f"'{name}' takes {wanted} operands, got {len(args)}")
        if name in UNARY_OPS:
            return Unary(name, *args)
        if name in FUNCTION_BINARY:
            return Binary(name, *args)
        if name in _DTYPES:
            return Cast(args[0], _DTYPES[name])
        if name == "select":
            return Select(*args)
        return Call(name, args, result_of(name, args[0].dtype))


def _arity(name: str) -> int | None:
    """Number of operands; -1: one or more; ``None``: no such function."""
    if name in UNARY_OPS or name in _DTYPES:
        return 1
    if name in FUNCTION_BINARY:
        return 2
    if name == "select":
        return 3
    return -1 if name in MATH_CALLS else None

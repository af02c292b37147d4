"""Operators and comparisons of Python: known values by Python itself, others by numpy's rules."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from aisc.frontend.arrays import arithmetic
from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.products import matmul
from aisc.frontend.arrays.values import (
    Tensor,
    is_number,
    is_size,
    misfit,
    refused,
    shown,
)
from aisc.ir.arith.poly import Poly
from aisc.ir.diagnostics import AiscError
from aisc.ir.graph.shapes.checks import decide

CONTAINERS = (list, tuple, str, dict)
MAX_LENGTH = 1 << 16  # of a sequence of Python's that is built


class Operating(Context):
    """Combines and compares values."""

    def sequence(self, x: Any, node: ast.AST | None) -> list[Any]:
        """The items of what is known to have so many."""
        raise NotImplementedError

    def combine(self, op: ast.operator, a: Any, b: Any) -> Any:
        """``a op b``."""
        name = type(op).__name__
        if name == "MatMult":
            return matmul(self, a, b)
        if not of_the_run(a) and not of_the_run(b):
            return self._plainly(name, a, b)
        if is_size(a) and is_size(b):
            found = arithmetic.of_sizes(name, a, b)
            if found is not None:
                return found
        for x, other in ((a, b), (b, a)):
            if isinstance(x, CONTAINERS) and not isinstance(other, Tensor):
                return self._plainly(name, a, b)
            self._require_array(x, other)
        if name == "Pow":
            return arithmetic.power(self, a, b)
        return elementwise(self, arithmetic.BINARY[name], a, b)

    def _require_array(self, x: Any, other: Any) -> None:
        """Python's numbers, unlike numpy's, have no operators with lists."""
        if isinstance(x, CONTAINERS) and isinstance(other, Tensor) and other.weak:
            kind = type(x).__name__
            hint = "make it an array: np.array(…)"
            raise misfit(f"a number of Python's and a {kind} in one operator", hint, loc=self.loc)

    def _plainly(self, name: str, a: Any, b: Any) -> Any:
        """An operator of values that Python has."""
        if isinstance(a, np.ndarray | np.generic) or isinstance(b, np.ndarray | np.generic):
            return elementwise(self, arithmetic.BINARY[name], a, b)
        if name == "Pow" and isinstance(b, int) and abs(b) > 1 << 12:
            return arithmetic.power(self, float(a), float(b))
        big = isinstance(a, list | tuple | str) and isinstance(b, int) and len(a) * b > MAX_LENGTH
        if big or (name == "LShift" and isinstance(b, int) and b > 1 << 12):
            raise refused(f"a result of more than {MAX_LENGTH} parts", loc=self.loc)
        return self.natively(_PLAIN[name], a, b)

    def natively(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What Python's own function gives for values that are known; its errors are the user's."""
        try:
            found = fn(*args, **kwargs)
        except AiscError:
            raise
        except Exception as fault:
            raise misfit(f"{type(fault).__name__}: {fault}", loc=self.loc) from None
        return self.tensor(found) if isinstance(found, np.ndarray) else found

    def both(self, a: Any, b: Any) -> Any:
        """``a and b`` of comparisons."""
        if isinstance(b, bool):
            return a if b else False
        return elementwise(self, "logical_and", a, b)

    def compared(self, op: ast.cmpop, a: Any, b: Any) -> Any:
        """``a op b``, known where it can be."""
        name = type(op).__name__
        if name in ("Is", "IsNot"):
            if (isinstance(a, Tensor) and is_number(b)) or (isinstance(b, Tensor) and is_number(a)):
                raise refused(
                    "whether numbers of the run are the same object", "compare by ==", loc=self.loc
                )
            return (a is b) == (name == "Is")
        if name in ("In", "NotIn"):
            return self._contained(a, b, name == "In")
        if isinstance(a, Poly) or isinstance(b, Poly):
            if is_size(a) and is_size(b):
                known = _decided(name, a, b)
                if known is not None:
                    return known
        elif not of_the_run(a) and not of_the_run(b):
            if isinstance(a, np.ndarray | np.generic) or isinstance(b, np.ndarray | np.generic):
                return elementwise(self, arithmetic.COMPARE[name], a, b)
            return self.natively(_COMPARED[name], a, b)
        if a is None or b is None or isinstance(a, str) or isinstance(b, str):
            return self._never_equal(name, a, b)
        if isinstance(a, list | tuple) and isinstance(b, list | tuple):
            return self._sequences_equal(name, a, b)
        for x, other in ((a, b), (b, a)):
            if isinstance(x, CONTAINERS) and isinstance(other, Tensor) and other.weak:
                if name in ("Eq", "NotEq"):
                    return name == "NotEq"
                self._require_array(x, other)
        return elementwise(self, arithmetic.COMPARE[name], a, b)

    def _never_equal(self, name: str, a: Any, b: Any) -> bool:
        """A number of the run and what is none."""
        if name not in ("Eq", "NotEq"):
            raise misfit(f"{shown(a)} and {shown(b)} have no order", loc=self.loc)
        if any(isinstance(x, Tensor) and self.value(x).type.rank for x in (a, b)):
            raise refused("an array and what is no number are compared", loc=self.loc)
        return name == "NotEq"

    def _sequences_equal(self, name: str, a: Any, b: Any) -> Any:
        if name not in ("Eq", "NotEq"):
            raise refused("the order of lists of the run is not supported", loc=self.loc)
        same: Any = len(a) == len(b)
        for x, y in zip(a, b, strict=False):
            same = self.both(self.compared(ast.Eq(), x, y), same)
        if name == "Eq":
            return same
        return not same if isinstance(same, bool) else elementwise(self, "logical_not", same)

    def _contained(self, a: Any, b: Any, wanted: bool) -> Any:
        if isinstance(b, Tensor):
            raise refused("'in' of an array is not supported", "np.any(x == value)", loc=self.loc)
        parts = b if isinstance(b, list | tuple) else ()
        if isinstance(b, dict | str) or not any(map(of_the_run, (a, *parts))):
            found: bool = self.natively(lambda: a in b)
            return found is wanted
        flags = [self.compared(ast.Eq(), a, x) for x in self.sequence(b, None)]
        found_any: Any = False
        for f in flags:
            found_any = (
                f
                if found_any is False
                else True
                if f is True
                else (found_any if f is False else elementwise(self, "logical_or", found_any, f))
            )
        if wanted:
            return found_any
        return (
            not found_any
            if isinstance(found_any, bool)
            else elementwise(self, "logical_not", found_any)
        )


def of_the_run(x: Any) -> bool:
    """Whether only the run, or its sizes, give a value."""
    return isinstance(x, Tensor | Poly)


def _decided(name: str, a: Any, b: Any) -> bool | None:
    """A comparison of sizes, where it has one answer."""
    match name:
        case "Eq":
            return decide("==", a, b)
        case "NotEq":
            same = decide("==", a, b)
            return None if same is None else not same
        case "LtE":
            return decide("<=", a, b)
        case "GtE":
            return decide("<=", b, a)
        case "Lt":
            over = decide("<=", b, a)
        case _:
            over = decide("<=", a, b)
    return None if over is None else not over


def _operators() -> tuple[dict[str, Any], dict[str, Any]]:
    import operator as o

    plain = {
        "Add": o.add,
        "Sub": o.sub,
        "Mult": o.mul,
        "Div": o.truediv,
        "FloorDiv": o.floordiv,
        "Mod": o.mod,
        "Pow": o.pow,
        "BitAnd": o.and_,
        "BitOr": o.or_,
        "BitXor": o.xor,
        "LShift": o.lshift,
        "RShift": o.rshift,
    }
    return plain, {"Eq": o.eq, "NotEq": o.ne, "Lt": o.lt, "LtE": o.le, "Gt": o.gt, "GtE": o.ge}


_PLAIN, _COMPARED = _operators()

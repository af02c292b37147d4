"""Scalar expressions of the tensor IR.

Grammar::

    Expr = Const(value, dtype) | Var(name, dtype) | Binary(op, a, b) | Unary(op, a)
         | Cast(a, dtype) | Select(cond, then, other) | Load(buffer, indices)
         | Call(name, args, dtype)

Integer ``floordiv`` and ``mod`` round towards minus infinity; ``truncdiv`` and ``truncmod`` round
towards zero. Integer overflow wraps. ``min`` and ``max`` propagate NaN and take the first of equal
ones. ``Select`` evaluates only the arm it takes, so a load may be guarded by it. Indices have dtype
i64; one that comes from data is tested by the run, and says what against (:func:`within`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, TypeVar, Union
from typing import cast as cast_to

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, DimCall, Poly, SymDim
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.node import Node, children, hash_once

if TYPE_CHECKING:
    from aisc.ir.tensor.func import Buffer

T = TypeVar("T")

ARITHMETIC = ("add", "sub", "mul", "div", "min", "max", "pow")
INTEGER = ("floordiv", "mod", "truncdiv", "truncmod", "and", "or", "xor", "shl", "shr")
COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
_COMPARISONS = frozenset(COMPARISONS)
BINARY_OPS = ARITHMETIC + INTEGER + COMPARISONS
UNARY_OPS = ("neg", "not", "abs", "floor", "ceil", "trunc", "round", "sqrt")
# Functions of floats with our own vector code; `fma` takes three arguments. `ordinal` gives an
# integer of as many bits, in the order of the floats: NaN is the greatest, and -0 is 0.
MATH_CALLS = (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "fma", "isnan", "isinf", "rsqrt",
    "ordinal", "sigmoid",
)  # fmt: skip

# ``within(value, size)``: the value, of dtype i64; one below 0 or not below `size` ends the run
# with an error, as an index from data that is outside of its axis does.
WITHIN = "within"


class Expr(Node):
    """Base of expressions; Python operators build new ones (integer ``//``, ``%`` floor).

    Besides its fields an expression keeps what was asked of it: its hash, :func:`variables`,
    :func:`loaded`, :func:`is_tested`, how many nodes it has (:func:`~aisc.ir.tensor.visitor.size`),
    its place among other expressions (:func:`~aisc.ir.tensor.linear.sort_key`)."""

    __slots__ = ("_buffers", "_hash", "_size", "_sort_key", "_tested", "_variables")
    _buffers: frozenset[Buffer]
    _size: int
    _sort_key: str
    _tested: bool
    _variables: frozenset[Var]

    @property
    def dtype(self) -> DType:
        """Element type of the value."""
        raise NotImplementedError

    def __add__(self, other: ExprLike) -> Expr:
        return binary("add", self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return binary("add", other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return binary("sub", self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return binary("sub", other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return binary("mul", self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return binary("mul", other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return binary("div", self, other)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return binary("floordiv", self, other)

    def __mod__(self, other: ExprLike) -> Expr:
        return binary("mod", self, other)

    def __neg__(self) -> Expr:
        return Unary("neg", self)

    def __lt__(self, other: ExprLike) -> Expr:
        return binary("lt", self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return binary("le", self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return binary("gt", self, other)

    def __ge__(self, other: ExprLike) -> Expr:
        return binary("ge", self, other)


ExprLike = Union[Expr, int, float, Poly]


@hash_once
@dataclass(frozen=True, slots=True)
class Const(Expr):
    """A literal; floats are held as Python floats already rounded to the dtype."""

    value: int | float | bool
    dtype: DType = dtypes.i64

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Const) or self.dtype is not other.dtype:
            return False
        a, b = self.value, other.value
        if isinstance(a, float) or isinstance(b, float):
            return _bits(a) == _bits(b)
        return a == b

    def __hash__(self) -> int:
        return hash((_bits(self.value), self.dtype.name))


def _bits(value: int | float | bool) -> object:
    return value.hex() if isinstance(value, float) else int(value)


@hash_once
@dataclass(frozen=True, slots=True)
class Var(Expr):
    """A loop variable, block iterator, dimension or let-bound scalar; unique within its Func."""

    name: str
    dtype: DType = dtypes.i64


@hash_once
@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """``a op b`` over operands of one dtype; comparisons give ``bool``."""

    op: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:
        """bool for comparisons, else the operands' dtype."""
        expr: Expr = self
        while isinstance(expr, Binary):  # a sum of many terms is a long chain
            if expr.op in _COMPARISONS:
                return dtypes.boolean
            expr = expr.a
        return expr.dtype


@hash_once
@dataclass(frozen=True, slots=True)
class Unary(Expr):
    """``op a``; the dtype is the operand's. ``round`` rounds half to even."""

    op: str
    a: Expr

    @property
    def dtype(self) -> DType:
        """The operand's dtype."""
        return self.a.dtype


@hash_once
@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """Conversion of a value: a float truncates to an integer, the nearest one where it does not
    fit, 0 for NaN; integers wrap; bool is ``!= 0``."""

    a: Expr
    dtype: DType


@hash_once
@dataclass(frozen=True, slots=True)
class Select(Expr):
    """``then`` if ``cond`` else ``other``; only the arm taken is evaluated."""

    cond: Expr
    then: Expr
    other: Expr

    @property
    def dtype(self) -> DType:
        """The arms' dtype."""
        return self.then.dtype


@hash_once
@dataclass(frozen=True, slots=True)
class Load(Expr):
    """An element of a buffer; one index per dimension."""

    buffer: Buffer
    indices: tuple[Expr, ...]

    @property
    def dtype(self) -> DType:
        """The buffer's dtype."""
        return self.buffer.dtype


@hash_once
@dataclass(frozen=True, slots=True)
class Call(Expr):
    """A pure function from :data:`MATH_CALLS` or an intrinsic of the target."""

    name: str
    args: tuple[Expr, ...]
    dtype: DType


def variables(expr: Expr) -> frozenset[Var]:
    """The variables that occur in an expression, in indices of its loads too."""
    try:
        return expr._variables
    except AttributeError:
        if isinstance(expr, Var):
            found = frozenset((expr,))
        else:
            found = _union(map(variables, _operands(expr)))
        object.__setattr__(expr, "_variables", found)
        return found


def has_loads(expr: Expr) -> bool:
    """Whether an expression depends on the contents of a buffer."""
    try:
        return bool(expr._buffers)
    except AttributeError:
        return bool(loaded(expr))


def loaded(expr: Expr) -> frozenset[Buffer]:
    """The buffers whose contents an expression depends on."""
    try:
        return expr._buffers
    except AttributeError:
        found = _union(map(loaded, _operands(expr)))
        if isinstance(expr, Load):
            found |= {expr.buffer}
        object.__setattr__(expr, "_buffers", found)
        return found


def _union(sets: Iterable[frozenset[T]]) -> frozenset[T]:
    """The union; one of the sets where it is equal to that."""
    whole: frozenset[T] = frozenset()
    for some in sets:
        if not some <= whole:
            whole = whole | some if whole else some
    return whole


def is_tested(index: Expr) -> bool:
    """Whether an index of an access is tested by the run: it comes from data, or says so itself
    (:func:`within`)."""
    try:
        return index._tested
    except AttributeError:
        own = isinstance(index, Load) or (isinstance(index, Call) and index.name == WITHIN)
        found = own or any(map(is_tested, _operands(index)))
        object.__setattr__(index, "_tested", found)
        return found


_operands = cast_to("Callable[[Expr], tuple[Expr, ...]]", children)


def wrap(value: ExprLike, like: DType = dtypes.i64) -> Expr:
    """`value` as an expression; Python numbers take the dtype `like`, dimensions are i64."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, Poly):
        return of_dim(value)
    return const(value, like)


def const(value: int | float | bool, dtype: DType = dtypes.i64) -> Const:
    """A literal converted to `dtype` (floats rounded, integers wrapped)."""
    if dtype.is_float:  # zeros are equal, but not the same
        return Const(float(value) if value == 0 else _rounded(value, dtype), dtype)
    if dtype.kind == "bool":
        return Const(bool(value), dtype)
    number = int(value) & ((1 << dtype.bits) - 1)
    if dtype.kind == "int" and number >> (dtype.bits - 1):
        number -= 1 << dtype.bits
    return Const(number, dtype)


@lru_cache(maxsize=1 << 10)
def _rounded(value: int | float, dtype: DType) -> float:
    """The nearest number of a float dtype; what is too large is infinite."""
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.asarray(value).astype(dtype.numpy))


def binary(op: str, a: ExprLike, b: ExprLike) -> Expr:
    """A ``Binary`` whose plain-number operand takes the other's dtype; trivial integer forms
    (``x+0``, ``x*1``, two constants) are folded so that naive builders stay small."""
    if isinstance(a, Expr):
        x, dtype = a, a.dtype
        y = b if isinstance(b, Expr) else wrap(b, dtype)
    else:
        y = wrap(b)
        x, dtype = wrap(a, y.dtype), y.dtype
    assert x.dtype is y.dtype, f"{op} of {x.dtype} and {y.dtype}"
    if dtype is dtypes.i64 and (isinstance(x, Const) or isinstance(y, Const)):
        folded = _fold_index(op, x, y)
        if folded is not None:
            return folded
    return Binary(op, x, y)


def _fold_index(op: str, x: Expr, y: Expr) -> Expr | None:
    xv = x.value if isinstance(x, Const) else None
    yv = y.value if isinstance(y, Const) else None
    if isinstance(xv, int) and isinstance(yv, int):
        return _fold_ints(op, xv, yv)
    if op == "add" and (xv == 0 or yv == 0):
        return y if xv == 0 else x
    if op == "sub" and yv == 0:
        return x
    if op == "mul" and (xv == 1 or yv == 1):
        return y if xv == 1 else x
    if op == "mul" and (xv == 0 or yv == 0):
        return Const(0)
    if op == "floordiv" and yv == 1:
        return x
    if op == "mod" and yv == 1:
        return Const(0)
    return None


def _fold_ints(op: str, x: int, y: int) -> Expr | None:
    if op in ("floordiv", "mod", "truncdiv", "truncmod", "div", "pow", "shl", "shr"):
        if op == "floordiv" and y:
            return const(x // y)
        return const(x % y) if op == "mod" and y else None
    if op in COMPARISONS:
        table = {"lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y, "eq": x == y, "ne": x != y}
        return const(table[op], dtypes.boolean)
    values = {
        "add": x + y, "sub": x - y, "mul": x * y, "min": min(x, y), "max": max(x, y),
        "and": x & y, "or": x | y, "xor": x ^ y,
    }  # fmt: skip
    return const(values[op])


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """The lesser value; NaN if either is NaN."""
    return binary("min", a, b)


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The greater value; NaN if either is NaN."""
    return binary("max", a, b)


def equal(a: ExprLike, b: ExprLike) -> Expr:
    """``a == b`` as an expression (``==`` itself compares structure)."""
    return binary("eq", a, b)


def logical_and(*conds: Expr) -> Expr:
    """Conjunction; true for none."""
    kept = [c for c in conds if c != TRUE]
    return reduce(lambda x, y: Binary("and", x, y), kept) if kept else TRUE


def logical_or(*conds: Expr) -> Expr:
    """Disjunction; false for none."""
    kept = [c for c in conds if c != FALSE]
    return reduce(lambda x, y: Binary("or", x, y), kept) if kept else FALSE


def select(cond: Expr, then: ExprLike, other: ExprLike) -> Expr:
    """A ``Select``; a constant condition picks its arm."""
    arm = then if isinstance(then, Expr) else other
    assert isinstance(arm, Expr), "one arm must be an expression"
    like = arm.dtype
    if isinstance(cond, Const):
        return wrap(then, like) if cond.value else wrap(other, like)
    return Select(cond, wrap(then, like), wrap(other, like))


def cast(a: Expr, dtype: DType) -> Expr:
    """A ``Cast`` unless the dtype is already right."""
    return a if a.dtype is dtype else Cast(a, dtype)


def within(value: Expr, size: ExprLike) -> Expr:
    """A number from data that must be at least 0 and below `size`."""
    return Call(WITHIN, (value, wrap(size)), dtypes.i64)


def cast_dim(dim: Dim, dtype: DType) -> Expr:
    """A dimension as a value of `dtype`; a constant when it is static."""
    return const(dim, dtype) if isinstance(dim, int) else cast(of_dim(dim), dtype)


def math(name: str, *args: Expr) -> Expr:
    """A call of one of :data:`MATH_CALLS`; the predicates isnan and isinf give bool."""
    assert name in MATH_CALLS, f"unknown function {name}"
    return Call(name, args, result_of(name, args[0].dtype))


def result_of(name: str, operand: DType) -> DType:
    """The dtype that a call of one of :data:`MATH_CALLS` gives for floats of dtype `operand`."""
    if name in ("isnan", "isinf"):
        return dtypes.boolean
    if name == "ordinal":
        return {16: dtypes.i16, 32: dtypes.i32}.get(operand.bits, dtypes.i64)
    return operand


def of_dim(dim: Dim) -> Expr:
    """A dimension as an index expression: symbolic dimensions become variables of their name."""
    return Const(dim) if isinstance(dim, int) else _of_poly(dim)


@lru_cache(maxsize=1 << 10)
def _of_poly(dim: Poly) -> Expr:
    total: Expr = Const(0)
    for mono, coeff in dim.terms:
        term: Expr = Const(1)
        for atom, power in mono:
            for _ in range(power):
                term = term * _of_atom(atom)
        total = total + term * coeff
    return total


def _of_atom(atom: SymDim | DimCall) -> Expr:
    if isinstance(atom, SymDim):
        return Var(atom.name)
    args = [of_dim(a) for a in atom.args]
    if atom.op == "ceildiv":
        return Const(0) - binary("floordiv", Const(0) - args[0], args[1])
    return reduce(lambda x, y: binary(atom.op, x, y), args)


TRUE = Const(True, dtypes.boolean)
FALSE = Const(False, dtypes.boolean)
ZERO = Const(0)
ONE = Const(1)

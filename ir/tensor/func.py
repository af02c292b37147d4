"""Buffers, functions and programs of the tensor IR.

A :class:`Program` is a module: kernels, each a :class:`Func`, and an entry ``Func`` whose body is
made of ``CallKernel, HostCall, Copy, Alloc, Barrier, If, While``. Every ``Func`` is SPMD: it is
run by `nthreads` threads, each with its own ``tid``; loops of kind *parallel* divide their
iterations statically, and a ``Barrier`` separates sibling parallel loops that depend on each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Literal

from aisc.ir.arith.poly import Dim, product
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.node import hash_once
from aisc.ir.tensor.expr import Expr, Var
from aisc.ir.tensor.stmt import Seq, Stmt
from aisc.ir.types import TensorType

Role = Literal["input", "output", "weight", "state", "scratch"]
Attribute = int | float | str | bool


class _Hashed:
    """The slot of a kept hash."""

    __slots__ = ("_hash",)


@hash_once
@dataclass(frozen=True, slots=True)
class Buffer(_Hashed):
    """A typed region of memory.

    strides: in elements, one per dimension (row-major when built by :func:`buffer`).
    space: where it lives, e.g. global, shared, register, or a target's own scratchpad.
    base, offset: after planning, the segment (``arena``, ``weights``, …) and byte offset in it.
    alignment: guaranteed alignment of the first element in bytes.
    alias_set: buffers of different sets never overlap; the same set may (LLVM's ``noalias`` is
    derived from this and from nothing else).
    most: what the absolute value of no element exceeds, 0 where that is not known.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    space: str = "global"
    base: str = ""
    offset: Dim = 0
    alignment: int = 64
    alias_set: str = ""
    role: Role = "scratch"
    most: int = 0

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def type(self) -> TensorType:
        """Shape and element type."""
        return TensorType(self.shape, self.dtype)

    @property
    def is_dense(self) -> bool:
        """True when the strides are those of a row-major array without gaps."""
        return self.strides == row_major(self.shape)

    @property
    def bytes(self) -> Dim:
        """Size in bytes of a dense buffer of this shape."""
        return product(self.shape) * self.dtype.bytes

    def with_(self, **changes: object) -> Buffer:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


def row_major(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Strides in elements of a dense row-major array."""
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.append(step)
        step = step * d
    return tuple(reversed(strides))


def buffer(
    name: str,
    dtype: DType,
    shape: tuple[Dim, ...],
    role: Role = "scratch",
    space: str = "global",
) -> Buffer:
    """A dense row-major buffer in an alias set of its own (its name)."""
    if not isinstance(dtype, DType):
        raise error("E301", f"buffer '{name}' needs an element type", f"got {dtype!r}",
                    "those of aisc.tensor: f32, i64, …")  # fmt: skip
    return Buffer(name, dtype, shape, row_major(shape), space, alias_set=name, role=role)


@dataclass(frozen=True, slots=True)
class Func:
    """A kernel or an entry. `dims` are the symbolic dimensions it takes as i64 arguments;
    buffers that are not parameters are declared by ``Alloc``. `target` names a back end kind.
    `requires` are conditions on dimensions that hold in every call: its accesses may rely on them,
    whoever calls it tests them before."""

    name: str
    params: tuple[Buffer, ...]
    dims: tuple[Var, ...]
    body: Stmt
    attrs: tuple[tuple[str, Attribute], ...] = ()
    target: str = "cpu"
    loc: Loc = field(default=UNKNOWN, compare=False)
    requires: tuple[Expr, ...] = ()

    def attr(self, name: str, default: Attribute | None = None) -> Attribute | None:
        """The attribute called `name`, or `default`."""
        return dict(self.attrs).get(name, default)

    def with_attrs(self, **attrs: Attribute) -> Func:
        """A copy with attributes added or replaced."""
        return replace(self, attrs=tuple({**dict(self.attrs), **attrs}.items()))


@dataclass(frozen=True, slots=True)
class Program:
    """Kernels, the entry, the contents of the weight buffers, and what prepares them.

    `weights` maps names of weight buffers to their contents. `prepare` is an entry that is run
    once, before the first call of `entry`: it computes packed weights (its parameters of role
    *output*) from others; `entry` takes them as weights by name.
    """

    name: str
    kernels: tuple[Func, ...]
    entry: Func
    weights: Mapping[str, Blob] = field(default_factory=dict)
    prepare: Func | None = None

    @property
    def functions(self) -> tuple[Func, ...]:
        """Kernels, what prepares weights, and the entry."""
        return (*self.kernels, *((self.prepare,) if self.prepare else ()), self.entry)

    def kernel(self, name: str) -> Func:
        """The kernel called `name`; ``KeyError`` when there is none."""
        for k in self.kernels:
            if k.name == name:
                return k
        raise KeyError(name)


def empty_body() -> Stmt:
    """A statement that does nothing."""
    return Seq(())

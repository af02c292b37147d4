"""Parsing the text form of functions and programs of the tensor IR."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lark import Token

from aisc.ir.blob import Blob
from aisc.ir.node import MAX_DEPTH, deeper_than
from aisc.ir.tensor.expr import ONE, ZERO, Binary, Const, Var
from aisc.ir.tensor.func import Buffer, Func, Program, row_major
from aisc.ir.tensor.stmt import (
    Alloc,
    Await,
    Barrier,
    Bind,
    Block,
    CallKernel,
    Copy,
    For,
    Handover,
    HostCall,
    If,
    Invoke,
    Iter,
    Let,
    Prefetch,
    Region,
    Require,
    Reserve,
    Seq,
    Slot,
    Stmt,
    Store,
    While,
    region,
)
from aisc.ir.text.fold_expr import ExprFolder
from aisc.ir.text.parsing import TextError, parse_text, to_int, unquote
from aisc.ir.text.source import Source


def parse_func(text: str, blobs: Mapping[str, Blob] | None = None, file: str = "") -> Func:
    """The function in `text`; E107 on any fault."""
    found = parse_text("tensor", text, _TensorFolder(blobs or {}), file)
    if isinstance(found, Func):
        return found
    raise Source(text, file).error(1, 1, "expected a function, got a program")


def parse_program(text: str, blobs: Mapping[str, Blob] | None = None, file: str = "") -> Program:
    """The program in `text`. `blobs` gives weights by SHA-256; E107 on any fault."""
    found = parse_text("tensor", text, _TensorFolder(blobs or {}), file)
    if isinstance(found, Program):
        return found
    raise Source(text, file).error(1, 1, "expected a program, got a function")


class _Part:
    """A clause of a construct, by keyword."""

    def __init__(self, key: str, value: object) -> None:
        self.key, self.value = key, value


class _OpenLet:
    """A ``let`` without braces: its body is what follows."""

    def __init__(self, var: Var, value: Any) -> None:
        self.var, self.value = var, value


def _parts(c: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Plain children, and the clauses by keyword."""
    plain = [x for x in c if not isinstance(x, _Part)]
    return plain, {x.key: x.value for x in c if isinstance(x, _Part)}


def _part(key: str) -> Any:
    def fold(self: object, c: list[Any]) -> _Part:
        return _Part(key, c[0])

    fold.__doc__ = f"The clause `{key}`."
    return fold


def _rest_of(items: list[Any]) -> list[Stmt]:
    """Statements with each open ``let`` given what follows it."""
    done: list[Stmt] = []  # from the last to the first
    for item in reversed(items):
        if isinstance(item, _OpenLet):
            done = [Let(item.var, item.value, _join(done[::-1]))]
        else:
            done.append(item)
    return done[::-1]


def _join(stmts: list[Stmt]) -> Stmt:
    return stmts[0] if len(stmts) == 1 else Seq(tuple(stmts))


class _Body(list[Any]):
    """Statements between braces, open lets included."""

    @property
    def stmt(self) -> Stmt:
        """They as one statement."""
        return _join(_rest_of(self))


class _TensorFolder(ExprFolder):
    """Folds functions and programs."""

    strides = _part("strides")
    space = _part("space")
    base = _part("base")
    offset = _part("offset")
    align = _part("align")
    alias = _part("alias")
    role = _part("role")
    most = _part("most")
    with_ = _part("with")
    reads = _part("reads")
    writes = _part("writes")
    combiner = _part("combiner")
    init = _part("init")
    else_ = _part("else")
    prepare = _part("prepare")

    def func_head(self, c: list[Any]) -> Token:
        """A function begins: its buffers and symbols are its own."""
        self.buffers = {}
        self.declare(c)
        return c[0]  # type: ignore[no-any-return]

    def parameters(self, c: list[Buffer]) -> tuple[Buffer, ...]:
        """Parameters."""
        return tuple(c)

    def func_dims(self, c: list[Var]) -> _Part:
        """Dimensions that a function takes."""
        return _Part("dims", tuple(c))

    def buffer(self, c: list[Any]) -> Buffer:
        """A declaration; the buffer is known from here on."""
        (name, dtype, shape), parts = _parts(c)
        text = str(name)
        made = Buffer(
            text,
            dtype,
            shape,
            parts.get("strides", row_major(shape)),
            str(parts.get("space", "global")),
            str(parts.get("base", "")),
            parts.get("offset", 0),
            to_int(parts["align"]) if "align" in parts else 64,
            unquote(parts["alias"]) if "alias" in parts else text,
            str(parts.get("role", "scratch")),  # type: ignore[arg-type]
            to_int(parts["most"]) if "most" in parts else 0,
        )
        known = self.buffers.setdefault(text, made)
        if known is not made and (known != made or made.role != "output"):
            raise TextError(name, f"buffer '{text}' is declared twice")
        return known

    def body(self, c: list[Any]) -> _Body:
        """Statements between braces."""
        return _Body(c)

    def alloc(self, c: list[Buffer]) -> Stmt:
        """An allocation."""
        return Alloc(c[0])

    def loop_kind(self, c: list[Token]) -> str:
        """The kind of a loop."""
        return str(c[0])

    def span_to(self, c: list[Any]) -> tuple[Any, Any]:
        """Low and extent of ``in low .. high``."""
        low, high = c
        if low == ZERO:
            return low, high
        if isinstance(low, Const) and isinstance(high, Const):
            return low, Const(int(high.value - low.value))
        return low, Binary("sub", high, low)

    def span_extent(self, c: list[Any]) -> tuple[Any, Any]:
        """Low and extent of ``from low extent n``."""
        return c[0], c[1]

    def loop(self, c: list[Any]) -> Stmt:
        """A loop."""
        (kind, var, (low, extent), body), parts = _parts(c)
        return For(var, low, extent, kind, body.stmt, parts.get("with", ()))

    def while_(self, c: list[Any]) -> Stmt:
        """A ``while``."""
        return While(c[0], c[1].stmt)

    def branch(self, c: list[Any]) -> Stmt:
        """An ``if``."""
        (cond, then), parts = _parts(c)
        return If(cond, then.stmt, parts["else"].stmt if "else" in parts else None)

    def let_rest(self, c: list[Any]) -> _OpenLet:
        """A ``let`` over the rest of its sequence."""
        return _OpenLet(c[0], c[1])

    def let_body(self, c: list[Any]) -> Stmt:
        """A ``let`` with braces."""
        return Let(c[0], c[1], c[2].stmt)

    def sequence(self, c: list[_Body]) -> Stmt:
        """A sequence inside another."""
        return Seq(tuple(_rest_of(c[0])))

    def barrier_scope(self, c: list[Token]) -> str:
        """Who waits."""
        return str(c[0])

    def barrier(self, c: list[Any]) -> Stmt:
        """A barrier."""
        return Barrier(c[0])

    def handover(self, c: list[str]) -> Stmt:
        """A token from one unit to another."""
        return Handover(c[0], c[1])

    def await_(self, c: list[Token]) -> Stmt:
        """A wait for asynchronous copies."""
        return Await(int(c[0]))

    def iterator_kind(self, c: list[Token]) -> str:
        """The kind of a block iterator."""
        return str(c[0])

    def iterator(self, c: list[Any]) -> tuple[Iter, Any]:
        """An iterator and its binding."""
        var, kind, extent, value = c
        return Iter(var, extent, kind), value

    def regions(self, c: list[Region]) -> tuple[Region, ...]:
        """Regions."""
        return tuple(c)

    def region(self, c: list[Any]) -> Region:
        """A part of a buffer."""
        low, extent, step = (tuple(x[k] for x in c[1:]) for k in range(3))
        return region(self.known_buffer(c[0]), low, extent, step)

    def extent(self, c: list[Any]) -> tuple[Any, Any, int]:
        """Low, extent and step in one dimension."""
        return (c[0], c[1], to_int(c[2]) if len(c) > 2 else 1) if len(c) > 1 else (c[0], ONE, 0)

    def block(self, c: list[Any]) -> Stmt:
        """A block."""
        plain, parts = _parts(c)
        pairs, init = plain[1:-1], parts.get("init")
        return Block(
            str(plain[0]),
            tuple(p[0] for p in pairs),
            tuple(p[1] for p in pairs),
            parts.get("reads", ()),
            parts.get("writes", ()),
            None if init is None else init.stmt,
            plain[-1].stmt,
            str(parts.get("combiner", "")),
        )

    def store(self, c: list[Any]) -> Stmt:
        """A store."""
        return Store(self.known_buffer(c[0]), c[1], c[2])

    def stream(self, c: list[Any]) -> Stmt:
        """A store past the caches."""
        return Store(self.known_buffer(c[0]), c[1], c[2], stream=True)

    def access(self, c: list[Token]) -> bool:
        """Whether a hint is about writing."""
        return str(c[0]) == "write"

    def prefetch(self, c: list[Any]) -> Stmt:
        """A hint about a cache line."""
        return Prefetch(self.known_buffer(c[1]), c[2], c[0])

    def scalars(self, c: list[Any]) -> _Part:
        """Scalar arguments."""
        return _Part("scalars", tuple(c))

    def invoke(self, c: list[Any]) -> Stmt:
        """An intrinsic."""
        (name, regions), parts = _parts(c)
        return Invoke(str(name), regions, parts.get("scalars", ()))

    def buffer_use(self, c: list[Token]) -> Buffer:
        """A buffer by name."""
        return self.known_buffer(c[0])

    def buffer_names(self, c: list[Any]) -> tuple[Any, ...]:
        """Buffers by name, some absent."""
        return tuple(c)

    def call_kernel(self, c: list[Any]) -> Stmt:
        """A call of a kernel."""
        (name, buffers), parts = _parts(c)
        if None in buffers:
            raise TextError(name, "a kernel has no absent arguments")
        return CallKernel(str(name), buffers, parts.get("scalars", ()))

    def copy(self, c: list[Token]) -> Stmt:
        """A copy."""
        return Copy(self.known_buffer(c[0]), self.known_buffer(c[1]))

    def host_call(self, c: list[Any]) -> Stmt:
        """An operator on the host."""
        if None in c[2]:
            raise TextError(c[0], "a host operator has no absent results")
        name, inputs, outputs, *attrs = c
        return HostCall(str(name), inputs, outputs, attrs[0] if attrs else ())

    def measured(self, c: list[Buffer]) -> tuple[Buffer, ...]:
        """Results of which only the sizes are asked."""
        return tuple(c)

    def host_sizes(self, c: list[Any]) -> Stmt:
        """An operator on the host that gives sizes."""
        (name, inputs, outputs, *attrs), parts = _parts(c)
        return HostCall(str(name), inputs, outputs, attrs[0] if attrs else (), parts["binds"])

    def host_binds(self, c: list[Var]) -> _Part:
        """Dimensions that an operator on the host binds."""
        return _Part("binds", tuple(c))

    def binding(self, c: list[Any]) -> tuple[Var, Any]:
        """A dimension and its value."""
        return c[0], c[1]

    def bind(self, c: list[tuple[Var, Any]]) -> Stmt:
        """Dimensions get values."""
        return Bind(tuple(v for v, _ in c), tuple(e for _, e in c))

    def require(self, c: list[Any]) -> Stmt:
        """A condition of the run."""
        return Require(c[0], *(c[1] if len(c) > 1 else ()))

    def said(self, c: list[Any]) -> tuple[str, tuple[Any, ...]]:
        """What is said where a condition does not hold."""
        return unquote(c[0]), c[1].value if len(c) > 1 else ()

    def keep(self, c: list[Any]) -> _Part:
        """Contents are kept."""
        return _Part("keep", True)

    def slot(self, c: list[Any]) -> Slot:
        """A place in a segment."""
        return Slot(c[0], c[1], to_int(c[2]), to_int(c[3]))

    def reserve(self, c: list[Any]) -> Stmt:
        """Memory of a segment."""
        (name, size, *slots), parts = _parts(c)
        return Reserve(str(name), size, tuple(slots), parts.get("keep", False))

    def func(self, c: list[Any]) -> Func:
        """A function."""
        (head, params, target, body), parts = _parts(c)
        made = body.stmt
        if deeper_than(made):
            raise TextError(head, f"the function is nested more than {MAX_DEPTH} deep")
        dims = parts.get("dims", ())
        attrs, needs = parts.get("with", ()), parts.get("requires", ())
        return Func(str(head), params, dims, made, attrs, str(target), requires=needs)

    def requires(self, c: list[Any]) -> _Part:
        """Conditions that hold in every call."""
        return _Part("requires", tuple(c))

    def weight(self, c: list[Any]) -> tuple[str, Blob]:
        """Contents of a weight."""
        return str(c[0]), c[1]

    def program(self, c: list[Any]) -> Program:
        """A program."""
        plain, parts = _parts(c)
        weights: dict[str, Blob] = dict(x for x in plain if isinstance(x, tuple))
        *kernels, entry = (x for x in plain if isinstance(x, Func))
        return Program(str(plain[0]), tuple(kernels), entry, weights, parts.get("prepare"))

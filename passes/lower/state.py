"""What is known while the entry of a Program is being built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from aisc.ir.arith.poly import Dim
from aisc.ir.blob import Blob
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.expr import Expr, Var, variables
from aisc.ir.tensor.func import Buffer, Func, Role, buffer
from aisc.ir.tensor.stmt import Alloc, Require, Stmt
from aisc.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class Lowered:
    """The kernel of a group: its name and dimensions, and the numbers of the nodes of the group
    that may report an error."""

    name: str
    dims: tuple[Var, ...]
    reporting: tuple[int, ...]


@dataclass(slots=True)
class State:
    """Buffers of values, statements so far (`body` is the sequence being appended to), kernels.

    lower_nodes: appends the statements of a region.
    """

    target: str
    lower_nodes: Callable[[State, Graph], None]
    buffers: dict[Value, Buffer] = field(default_factory=dict)
    views: list[Buffer] = field(default_factory=list)
    constants: dict[Value, Blob] = field(default_factory=dict)
    aliases: dict[Value, Value] = field(default_factory=dict)  # input of a region -> its capture
    weights: dict[str, Blob] = field(default_factory=dict)
    params: list[Buffer] = field(default_factory=list)
    dims: set[str] = field(default_factory=set)
    body: list[Stmt] = field(default_factory=list)
    kernels: dict[Func, str] = field(default_factory=dict)
    groups: dict[object, Lowered] = field(default_factory=dict)
    funcs: list[Func] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    given: dict[Value, Buffer] = field(default_factory=dict)  # results that are there already
    allocated: set[str] = field(default_factory=set)
    required: set[Expr] = field(default_factory=set)  # conditions of sizes tested before here
    shared: dict[Blob, Buffer] = field(default_factory=dict)  # weights by contents

    def fresh(self, hint: str) -> str:
        """A name that no buffer of the entry has."""
        name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in hint)
        name = name if name and not name[0].isdigit() else f"v{name}"
        count = self.names.get(name, 0)
        self.names[name] = count + 1
        return name if count == 0 else self.fresh(f"{name}_{count}")

    def declare(self, v: Value, role: Role) -> Buffer:
        """A buffer for a value."""
        b = buffer(self.fresh(v.name), v.type.dtype, v.type.shape, role=role)
        self.buffers[v] = b
        return b

    def allocate(self, b: Buffer) -> None:
        """Declare a buffer here, unless it has its storage already."""
        given = b.role == "output" and all(s.name in self.dims for s in b.type.symbols)
        if not given and b.name not in self.allocated:
            self.allocated.add(b.name)
            self.body.append(Alloc(b))

    def result(self, v: Value) -> Buffer:
        """The buffer that a value is about to be written to."""
        b = self.buffers.get(v) or self.declare(v, "scratch")
        self.allocate(b)
        return b

    def sized(self, v: Value) -> Buffer:
        """A buffer that only tells the type of a value."""
        return buffer(self.fresh(f"{v.name}_size"), v.type.dtype, v.type.shape)

    def use(self, v: Value) -> Buffer:
        """The buffer of a value; a constant becomes a weight parameter when it is first used."""
        v = self.source(v)
        if v not in self.buffers:
            blob = self.constants[v]
            b = self.shared.get(blob)
            if b is None:
                b = self.shared[blob] = self.declare(v, "weight")
                self.params.append(b)
                self.weights[b.name] = blob
            self.buffers[v] = b
        return self.buffers[v]

    def require(self, node: GraphNode) -> None:
        """Test what the sizes of the run must satisfy for a node, once for sizes of inputs."""
        for check in opdef.size_checks(node):
            cond = check.condition
            if cond in self.required:
                continue
            if all(v.name in self.dims for v in variables(cond)):
                self.required.add(cond)
            self.body.append(Require(cond, check.text, check.values, node.loc, check.sizes))

    def source(self, v: Value) -> Value:
        """The value that an input of a region stands for."""
        while v in self.aliases and v not in self.buffers:
            v = self.aliases[v]
        return v

    def is_weight(self, v: Value) -> bool:
        """Whether a value is known at compile time."""
        v = self.source(v)
        return v in self.constants or (v in self.buffers and self.buffers[v].role == "weight")

    def view(self, source: Buffer, t: TensorType, hint: str, offset: Dim = 0) -> Buffer:
        """A buffer of type `t` over the storage of `source`, from byte `offset` of it on."""
        shaped = buffer(self.fresh(hint), t.dtype, t.shape, role=source.role)
        at = source.offset + offset
        view = replace(
            shaped, base=source.base or source.name, alias_set=source.alias_set, offset=at
        )
        if at != 0:
            whole = isinstance(at, int) and at % shaped.alignment == 0
            view = replace(view, alignment=shaped.alignment if whole else t.dtype.bytes)
        self.views.append(view)
        self.allocated.add(view.name)
        self.body.append(Alloc(view))
        return view

    @contextmanager
    def block(self) -> Iterator[list[Stmt]]:
        """Statements appended inside go to the list that is yielded."""
        outer, self.body = self.body, []
        known = set(self.required)
        yield self.body
        self.body, self.required = outer, known

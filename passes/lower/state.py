"""What is known while the entry of a Program is being built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.expr import Expr, Var, variables
from aisc.ir.tensor.func import Buffer, Func, Role, buffer
from aisc.ir.tensor.stmt import Alloc, Copy, Require, Stmt
from aisc.ir.types import TensorType
from aisc.passes.analysis.places import Places
from aisc.passes.lower.canonical import canonical


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

    host: the target of the entry. lower_nodes: appends the statements of a region.
    """

    host: str
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
    copies: dict[tuple[Value, str], Buffer] = field(default_factory=dict)  # in another memory
    elsewhere: list[Buffer] = field(default_factory=list)  # copies, and what devices make
    allocated: set[str] = field(default_factory=set)
    required: set[Expr] = field(default_factory=set)  # conditions of sizes tested before here
    shared: dict[tuple[Blob, str], Buffer] = field(default_factory=dict)  # weights by contents
    places: Places | None = None  # of the values of the graph, or of the region
    roots: dict[Value, Buffer] = field(default_factory=dict)  # storage of concats in frames

    def fresh(self, hint: str) -> str:
        """A name that no buffer of the entry has."""
        name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in hint)
        name = name if name and not name[0].isdigit() else f"v{name}"
        count = self.names.get(name, 0)
        self.names[name] = count + 1
        return name if count == 0 else self.fresh(f"{name}_{count}")

    def space(self, target: str) -> str:
        """The main memory of a target, as the entry names it."""
        return "global" if target in ("", self.host) else f"{target}.global"

    def declare(self, v: Value, role: Role, target: str = "") -> Buffer:
        """A buffer for a value, where it lies from now on."""
        space = self.space(target)
        b = buffer(self.fresh(v.name), v.type.dtype, v.type.shape, role=role, space=space)
        self.buffers[v] = b
        return b

    def allocate(self, b: Buffer) -> None:
        """Declare a buffer here, unless it has its storage already."""
        given = b.role == "output" and all(s.name in self.dims for s in b.type.symbols)
        if not given and b.name not in self.allocated:
            self.allocated.add(b.name)
            self.body.append(Alloc(b))

    def result(self, v: Value) -> Buffer:
        """The buffer that a value is about to be written to: a part of another one's, where that is
        its place."""
        place = None if v in self.buffers or self.places is None else self.places.get(v)
        if place is not None:
            root = self._root(place.root)
            start = place.start * v.type.dtype.bytes
            self.buffers[v] = self.view(root, v.type, v.name, start, place.strides)
            return self.buffers[v]
        b = self.buffers.get(v) or self.declare(v, "scratch")
        self.allocate(b)
        return b

    def _root(self, v: Value) -> Buffer:
        """The storage of a concat, which has room for more where it has a frame."""
        frame = None if self.places is None else self.places.frames.get(v)
        if frame is None:
            return self.result(v)
        if v not in self.roots:
            self.roots[v] = buffer(self.fresh(f"{v.name}_frame"), v.type.dtype, frame.shape)
            self.views.append(self.roots[v])
            self.allocate(self.roots[v])
        return self.roots[v]

    def sized(self, v: Value) -> Buffer:
        """A buffer that only tells the type of a value."""
        return buffer(self.fresh(f"{v.name}_size"), v.type.dtype, v.type.shape)

    def use(self, v: Value, target: str = "") -> Buffer:
        """The buffer of a value in the memory of a target, by default the host's: it is copied
        there when it lies elsewhere. A constant becomes a weight parameter, in the memory where it
        is used."""
        v, space = self.source(v), self.space(target)
        found = self.buffers.get(v)
        if found is None or (found.space != space and self._contents(v) is not None):
            return self._weight(v, target)
        if found.space == space:
            return found
        copied = self.copies.get((v, space))
        if copied is None:
            copied = self.copies[v, space] = self.made_by(v, target)
            self.body.append(Copy(found, copied))
        return copied

    def lies(self, v: Value) -> Buffer:
        """The buffer of a value, in whichever memory it is."""
        v = self.source(v)
        return self.buffers[v] if v in self.buffers else self._weight(v, "")

    def _contents(self, v: Value) -> Blob | None:
        """What a value holds that is known: a constant, or one that a loop hands on."""
        found = self.buffers.get(v)
        return self.constants.get(v) or (None if found is None else self.weights.get(found.name))

    def _weight(self, v: Value, target: str) -> Buffer:
        """A constant as a parameter in the memory of a target."""
        blob, space = self._contents(v), self.space(target)
        assert blob is not None, f"{v} is made before it is read"
        b = self.shared.get((blob, space))
        if b is None:
            b = buffer(self.fresh(v.name), v.type.dtype, v.type.shape, role="weight", space=space)
            self.shared[blob, space] = b
            self.params.append(b)
            self.weights[b.name] = blob
        self.buffers.setdefault(v, b)
        return b

    def made_by(self, v: Value, target: str) -> Buffer:
        """A buffer for a value in the memory of a target, beside the one where it lies. What a
        kernel of a device writes is then :meth:`deliver`ed."""
        space = self.space(target)
        b = buffer(self.fresh(v.name), v.type.dtype, v.type.shape, space=space)
        self.elsewhere.append(b)
        self.allocate(b)
        return b

    def deliver(self, v: Value, made: Buffer) -> None:
        """A value has been written: it lies there, and is copied to where it was to be."""
        wanted = self.buffers.get(v)
        if wanted is None:
            self.buffers[v] = made
            return
        self.allocate(wanted)
        self.body.append(Copy(made, wanted))
        self.copies[v, made.space] = made

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

    def is_short(self, v: Value) -> bool:
        """Whether a constant of signed bytes has half their range alone: products of two such
        neighbours with bytes then fit 16 bits together. Of a tighter range nothing would be made,
        and equal kernels would be several."""
        t, blob = v.type.dtype, self._contents(self.source(v))
        if t is not dtypes.i8 or blob is None or not blob.array.size:
            return False
        return bool(-t.half_range <= blob.array.min() and blob.array.max() <= t.half_range)

    def view(
        self,
        source: Buffer,
        t: TensorType,
        hint: str,
        offset: Dim = 0,
        strides: tuple[Dim, ...] | None = None,
    ) -> Buffer:
        """A buffer of type `t` over the storage of `source`, from byte `offset` of it on; dense
        unless there are `strides`."""
        shaped = buffer(self.fresh(hint), t.dtype, t.shape, source.role, source.space)
        at = source.offset + offset
        view = replace(
            shaped, base=source.base or source.name, alias_set=source.alias_set, offset=at
        )
        if strides is not None:
            view = replace(view, strides=strides)
        if at != 0:
            whole = isinstance(at, int) and at % shaped.alignment == 0
            view = replace(view, alignment=shaped.alignment if whole else t.dtype.bytes)
        self.views.append(view)
        self.allocated.add(view.name)
        self.body.append(Alloc(view))
        return view

    def kernel(self, func: Func, ops: Sequence[str]) -> str:
        """The name of a kernel: that of one which is equal up to names, or a new one, which tells
        its first operators."""
        form = canonical(func)
        if form not in self.kernels:
            self.kernels[form] = f"k{len(self.kernels)}_{'_'.join(ops[:3])}"
            self.funcs.append(replace(func, name=self.kernels[form]))
        return self.kernels[form]

    @contextmanager
    def block(self) -> Iterator[list[Stmt]]:
        """Statements appended inside go to the list that is yielded."""
        outer, self.body = self.body, []
        known, copies = set(self.required), dict(self.copies)
        yield self.body
        self.body, self.required, self.copies = outer, known, copies

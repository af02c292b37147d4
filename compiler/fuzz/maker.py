"""Building a random graph: values with what they hold for one binding, and nodes that the type
rules accept.

Every node is evaluated as it is added. So what fails on the data, or gives nothing but NaN, is not
kept, and numbers stay in a range in which a fault shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

import numpy as np

from aisc.fuzz.values import Fill, Style, filled
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, evaluate
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.interpret import run_node
from aisc.ir.graph.opdef import Array
from aisc.ir.location import UNKNOWN
from aisc.ir.types import TensorType

MAX_RANK = 5
MAX_ELEMENTS = 4096
LARGE = 1e6  # beyond it, numbers of a graph that is not meant to be extreme are not kept
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 16, 17, 33)
SIZE_WEIGHTS = (4, 5, 6, 5, 5, 3, 4, 2, 1, 2, 2, 1)
DTYPES: dict[DType, int] = {
    dtypes.f32: 40, dtypes.f64: 8, dtypes.f16: 7, dtypes.bf16: 7, dtypes.i32: 9, dtypes.i64: 9,
    dtypes.i8: 4, dtypes.i16: 3, dtypes.u8: 4, dtypes.u16: 3, dtypes.u32: 3, dtypes.u64: 3,
    dtypes.boolean: 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fresh:
    """An operand that does not exist yet: it becomes an input or a constant."""

    type: TensorType
    fill: Fill
    constant: bool | None = None


Operands = Sequence["Value | Fresh | None"]
Attrs = Mapping[str, AttrValue]


@dataclass
class Maker:
    """A graph under construction. A region has no inputs but those it is given."""

    rng: random.Random
    style: Style
    dims: dict[str, int]
    main: tuple[DType, ...]
    symbols: tuple[Dim, ...] = ()
    is_region: bool = False
    depth: int = 0
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    held: dict[Value, Array] = field(default_factory=dict)
    fills: dict[Value, Fill] = field(default_factory=dict)

    # -- choices -----------------------------------------------------------------------------
    def chance(self, p: float) -> bool:
        """Whether something of probability `p` happens."""
        return self.rng.random() < p

    def size(self) -> Dim:
        """A size: mostly small, often odd, seldom zero, sometimes symbolic."""
        if self.symbols and self.chance(0.25):
            return self.rng.choice(self.symbols)
        if self.chance(0.015):
            return 0
        return self.rng.choices(SIZES, SIZE_WEIGHTS)[0]

    def static_size(self) -> int:
        """A small size that is known."""
        return self.rng.choices(SIZES[:8], SIZE_WEIGHTS[:8])[0]

    def shape(self, low: int = 0, high: int = MAX_RANK) -> tuple[Dim, ...]:
        """A shape of few elements."""
        ranks = range(low, high + 1)
        rank = self.rng.choices(ranks, [(2, 5, 8, 7, 4, 1)[r] for r in ranks])[0]
        shape: list[Dim] = [self.size() for _ in range(rank)]
        while self.elements(shape) > MAX_ELEMENTS // 2:
            shape[self.rng.randrange(rank)] = self.rng.randint(1, 2)
        return tuple(shape)

    def elements(self, shape: Sequence[Dim]) -> int:
        """How many elements a shape has for the binding that nodes are evaluated with."""
        return int(np.prod([self.value_of(d) for d in shape], dtype=np.int64))

    def value_of(self, d: Dim) -> int:
        """A dimension for the binding that nodes are evaluated with."""
        return evaluate(d, self.dims)

    def dtype(self) -> DType:
        """An element type: mostly one of those that this graph is about."""
        if self.chance(0.8):
            return self.rng.choice(self.main)
        return self.rng.choices(list(DTYPES), list(DTYPES.values()))[0]

    def fill(self, positive: bool = False) -> Fill:
        """Contents in the style of the graph."""
        return Fill(self.style, positive)

    def fresh(self, shape: Sequence[Dim], dtype: DType, fill: Fill | None = None) -> Fresh:
        """An operand to be made."""
        return Fresh(TensorType(tuple(shape), dtype), fill or self.fill())

    def pick(self, ok: Callable[[TensorType], bool] = lambda t: True) -> Value | None:
        """A value, most often a recent one."""
        found = [v for v in self.held if ok(v.type)]
        if not found:
            return None
        return self.rng.choice(found[-5:] if self.chance(0.6) else found)

    def some(self, ok: Callable[[DType], bool] = lambda t: True, rank: int = 0) -> Value | Fresh:
        """A value of an element type and of at least a rank, or one to be made."""
        found = self.pick(lambda t: ok(t.dtype) and t.rank >= rank)
        if found is not None and not self.chance(0.08):
            return found
        for _ in range(20):
            dtype = self.dtype()
            if ok(dtype):
                break
        else:
            dtype = self.rng.choice([t for t in dtypes.ALL if ok(t)])
        return self.fresh(self.shape(rank), dtype)

    # -- building ----------------------------------------------------------------------------
    def put(self, op: str, operands: Operands, attrs: Attrs | None = None) -> Value | None:
        """The first result of a node, or ``None`` when it is not to be had."""
        found = self.put_all(op, operands, attrs)
        return found[0] if found else None

    def put_all(
        self,
        op: str,
        operands: Operands,
        attrs: Attrs | None = None,
        regions: tuple[Graph, ...] = (),
    ) -> tuple[Value, ...] | None:
        """The results of a new node; ``None`` when its type rule refuses it, or its result is not
        to be kept."""
        definition = opdef.get(op)
        made = [self._made(x) for x in operands]
        if any(m is None and x is not None for m, x in zip(made, operands, strict=True)):
            return None
        inputs = tuple(None if m is None else m[0] for m in made)
        try:
            full = opdef.complete_attrs(definition, attrs or {}, UNKNOWN)
            types = tuple(None if v is None else v.type for v in inputs)
            call = opdef.OpCall(definition, types, full, (None,) * len(types), UNKNOWN, regions)
            results = definition.infer(call)
        except CompileError:
            return None
        if any(t.rank > MAX_RANK or not self._fits(t) for t in results):
            return None
        outputs = tuple(Value(self.builder.fresh(op), t) for t in results)
        node = GraphNode(op, inputs, outputs, tuple(full.items()), regions)
        arrays = self._evaluated(node, [None if m is None else m[1] for m in made])
        if arrays is None:
            return None
        for operand, m in zip(operands, made, strict=True):
            if isinstance(operand, Fresh) and m is not None:
                self._declare(operand, *m)
        self.builder.append(node)
        self.held.update(zip(outputs, arrays, strict=True))
        return outputs

    def _fits(self, t: TensorType) -> bool:
        try:
            return self.elements(t.shape) <= MAX_ELEMENTS
        except KeyError:  # a size that only the run gives
            return True

    def _made(self, operand: Value | Fresh | None) -> tuple[Value, Array] | None:
        if operand is None:
            return None
        if isinstance(operand, Value):
            return operand, self.held[operand]
        if self.is_region and not operand.type.is_static:
            return None
        if any(s.kind != "input" for s in operand.type.symbols):
            return None  # a call cannot give it
        shape = tuple(self.value_of(d) for d in operand.type.shape)
        array = filled(self.rng, shape, operand.type.dtype, operand.fill, self.dims)
        return Value(self.builder.fresh("x"), operand.type), array

    def _declare(self, operand: Fresh, value: Value, array: Array) -> None:
        constant = operand.type.is_static and (
            self.is_region or operand.constant or (operand.constant is None and self.chance(0.4))
        )
        if constant:
            attrs = (("value", Blob(array)),)
            self.builder.append(GraphNode("constant", (), (value,), attrs))
        else:
            self.builder.inputs.append(value)
            self.fills[value] = operand.fill
        self.held[value] = array

    def _evaluated(self, node: GraphNode, inputs: list[Array | None]) -> list[Array] | None:
        """The results of a node; ``None`` when it fails, or nothing in them would show a fault."""
        try:
            results = run_node(node, inputs, self.dims)
        except ExecutionError:
            return None
        except (AssertionError, TypeError):  # of a reference: the type rule should have refused
            raise
        for array in results:
            if array.dtype.kind in "iub" or self.style == "special":
                continue
            with np.errstate(all="ignore"):
                wide = array.astype(np.float64)
                bad = ~np.isfinite(wide) | (np.abs(wide) > LARGE)
            if wide.size and np.mean(bad) > 0.25:
                return None
        return results

    def input(self, type_: TensorType, fill: Fill, name: str = "x") -> Value:
        """A new input of the graph."""
        value = Value(self.builder.fresh(name), type_)
        shape = tuple(self.value_of(d) for d in type_.shape)
        self._declare(
            Fresh(type_, fill, constant=False),
            value,
            filled(self.rng, shape, type_.dtype, fill, self.dims),
        )
        return value

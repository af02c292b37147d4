"""Operator definitions: one record per operator, one registry, everything else derived.

The verifier, the text form, the reference documentation, the operator tests and the coverage
matrix iterate over :func:`all_ops`. An operator lives in exactly one file of
``ir/graph/ops/<family>.py``, which registers it with :func:`register`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.types import TensorType

if TYPE_CHECKING:
    from aisc.ir.graph.builder import GraphBuilder
    from aisc.ir.graph.shapes.checks import SizeCheck
    from aisc.ir.tensor.builder import ComputeBuilder
    from aisc.ir.tensor.expr import Expr
    from aisc.ir.tensor.func import Buffer

Array = NDArray[Any]
Kind = Literal[
    "map", "reduction", "contraction", "window", "movement", "constant", "control", "opaque"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operand:
    """A declared input. A variadic operand must be the last and takes one or more values."""

    name: str
    optional: bool = False
    variadic: bool = False


@dataclass(frozen=True, slots=True)
class Attr:
    """A declared attribute. `type` is one of int, float, str, bool, dtype, blob, ints, floats,
    dims, strs. Without a default the attribute is required; `choices` bounds a str."""

    name: str
    type: str
    default: AttrValue | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpCall:
    """What type inference and compute definitions see of a node.

    `types` has ``None`` for absent optional inputs; `attrs` is complete, defaults included;
    `constants` holds the contents of inputs that are known at compile time; `dims` the values of
    symbolic dimensions, when a reference runs. Type rules append to `checks`, if it is there, what
    only a run can tell of sizes.
    """

    op: OpDef
    types: tuple[TensorType | None, ...]
    attrs: Mapping[str, Any]
    constants: tuple[Blob | None, ...] = ()
    loc: Loc = UNKNOWN
    regions: tuple[Graph, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict)
    checks: list[SizeCheck] | None = field(default=None, compare=False)

    def type(self, index: int) -> TensorType:
        """Type of a present input."""
        t = self.types[index]
        assert t is not None, f"input {index} of {self.op.name} is absent"
        return t

    def has(self, index: int) -> bool:
        """Whether an optional input is present."""
        return index < len(self.types) and self.types[index] is not None

    def fail(self, message: str, *notes: str, code: str = "E201") -> Exception:
        """A ``CompileError`` at this node: ``raise call.fail(...)``."""
        return error(code, f"{self.op.name}: {message}", *notes, loc=self.loc)


Arrays = Sequence["Array | None"]
Infer = Callable[[OpCall], tuple[TensorType, ...]]
Reference = Callable[[OpCall, Arrays], Sequence[Array]]
# compute(builder, call, inputs, outputs): appends the blocks that fill `outputs`.
Compute = Callable[["ComputeBuilder", OpCall, Sequence["Buffer | None"], Sequence["Buffer"]], None]
# scalar(call, operands): the value of one element of a map operator.
Scalar = Callable[[OpCall, Sequence["Expr"]], "Expr"]
Decompose = Callable[["GraphBuilder", OpCall, Sequence["Value | None"]], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Variant:
    """One algorithm for an operator. `error_bound` is relative to the plain definition
    (0: same operations in another order at most)."""

    compute: Compute
    error_bound: float = 0.0


@dataclass(frozen=True, slots=True)
class OpDef:
    """An operator. Exactly one of `scalar`, `variants`, `decompose` says how it is computed
    (``opaque`` operators may have none; they run through their reference).

    kind: ``map`` computes each output element from the elements at the same (broadcast) place;
    ``movement`` only rearranges; ``contraction``, ``reduction`` and ``window`` reduce; ``control``
    operators have regions or bind dimensions, and are lowered by the entry of a Program.
    An attribute called ``binds`` lists the symbolic dimensions that a node defines.
    traits: commutative, involution, idempotent, view (same elements in the same order).
    gradient: kept for differentiation, which nothing asks for yet: what it adds to a graph are the
    gradients of the operands, from the operands and the gradients of the results.
    """

    name: str
    doc: str
    inputs: tuple[Operand, ...]
    infer: Infer
    reference: Reference
    kind: Kind
    attrs: tuple[Attr, ...] = ()
    outputs: int = 1
    scalar: Scalar | None = None
    variants: Mapping[str, Variant] = field(default_factory=dict)
    decompose: Decompose | None = None
    traits: frozenset[str] = frozenset()
    gradient: Decompose | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return (get, (self.name,))


_REGISTRY: dict[str, OpDef] = {}
_CUSTOM: dict[str, OpDef] = {}  # those of users, which come and go


def register(op: OpDef) -> OpDef:
    """Add `op` to the registry; a second definition of a name is a fault."""
    assert op.name not in _REGISTRY, f"operator {op.name} is defined twice"
    _REGISTRY[op.name] = op
    return op


@cache
def _load_all() -> None:
    from aisc.ir.graph import ops

    for module in sorted(m.name for m in pkgutil.iter_modules(ops.__path__)):
        importlib.import_module(f"{ops.__name__}.{module}")


def get(name: str) -> OpDef:
    """The operator called `name`; ``KeyError`` when there is none."""
    _load_all()
    return _REGISTRY[name] if name in _REGISTRY else _CUSTOM[name]


def exists(name: str) -> bool:
    """Whether an operator is registered under `name`."""
    _load_all()
    return name in _REGISTRY or name in _CUSTOM


def all_ops() -> tuple[OpDef, ...]:
    """Every operator of the library, sorted by name."""
    _load_all()
    return tuple(_REGISTRY[n] for n in sorted(_REGISTRY))


def add_custom(op: OpDef) -> OpDef:
    """Register an operator of a user, in the place of an earlier one of its name; E203 where the
    library has one."""
    _load_all()
    if op.name in _REGISTRY:
        raise error("E203", f"there is an operator '{op.name}' already", "choose another name")
    _CUSTOM[op.name] = op
    _known_checks.cache_clear()
    return op


def remove_custom(name: str) -> None:
    """Forget an operator of a user."""
    _CUSTOM.pop(name, None)
    _known_checks.cache_clear()


def custom_ops() -> tuple[OpDef, ...]:
    """Operators of users, sorted by name."""
    return tuple(_CUSTOM[n] for n in sorted(_CUSTOM))


def uses_custom(graph: Graph) -> bool:
    """Whether an operator of a user stands in a graph or a region of it."""
    return bool(_CUSTOM) and any(
        n.op in _CUSTOM or any(map(uses_custom, n.regions)) for n in graph.nodes
    )


def present(arrays: Arrays) -> list[Array]:
    """The operands of a reference that must all be there."""
    found = [x for x in arrays if x is not None]
    assert len(found) == len(arrays), "a required operand is absent"
    return found


def complete_attrs(op: OpDef, given: Mapping[str, AttrValue], loc: Loc) -> dict[str, AttrValue]:
    """`given` with defaults filled in, in declaration order; E203 on unknown or missing ones."""
    known = {a.name for a in op.attrs}
    for name in given:
        if name not in known:
            raise error("E203", f"{op.name} has no attribute '{name}'", loc=loc)
    full: dict[str, AttrValue] = {}
    for a in op.attrs:
        if a.name in given:
            full[a.name] = given[a.name]
        elif a.default is not None:
            full[a.name] = a.default
        else:
            raise error("E203", f"{op.name} needs the attribute '{a.name}'", loc=loc)
        value = full[a.name]
        if a.choices and value not in a.choices:
            notes = (f"expected one of {', '.join(a.choices)}", f"got {value!r}")
            raise error("E203", f"{op.name}: bad value of '{a.name}'", *notes, loc=loc)
    return full


def call_of(node: GraphNode, constants: Mapping[Value, Blob] | None = None) -> OpCall:
    """The :class:`OpCall` of an existing node."""
    op = get(node.op)
    types = tuple(None if v is None else v.type for v in node.inputs)
    known = tuple(None if v is None or not constants else constants.get(v) for v in node.inputs)
    attrs = complete_attrs(op, node.attr_map, node.loc)
    return OpCall(op, types, attrs, known, node.loc, node.regions)


def size_checks(node: GraphNode) -> tuple[SizeCheck, ...]:
    """What the sizes of a run must satisfy for a node; regions have their own."""
    if all(v.type.is_static for v in (*node.input_values, *node.outputs)):
        return ()
    if node.regions:
        return _checks(call_of(node))
    types = tuple(None if v is None else v.type for v in node.inputs)
    return _known_checks(node.op, types, node.attrs)


@lru_cache(maxsize=1 << 12)
def _known_checks(
    op: str, types: tuple[TensorType | None, ...], attrs: tuple[tuple[str, AttrValue], ...]
) -> tuple[SizeCheck, ...]:
    """Those of a node without regions: layers repeat, and several passes ask."""
    found = get(op)
    known = (None,) * len(types)
    return _checks(OpCall(found, types, complete_attrs(found, dict(attrs), UNKNOWN), known))


def _checks(call: OpCall) -> tuple[SizeCheck, ...]:
    call = replace(call, checks=[])
    call.op.infer(call)
    return tuple(call.checks or ())


def run_reference(node: GraphNode, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """Evaluate a node with numpy; results have the node's result dtypes."""
    with np.errstate(all="ignore"):
        results = get(node.op).reference(call_of(node), inputs)
    return tuple(
        np.asarray(r).astype(v.type.dtype.numpy, copy=False)
        for r, v in zip(results, node.outputs, strict=True)
    )

"""Operators of one's own: a class with a decorator becomes one, as those of the library are.

    @aisc.operator
    class Blend:
        \"\"\"``alpha * a + (1 - alpha) * b``.\"\"\"

        alpha: float = 0.5

        def infer(self, a, b):
            return a

        def scalar(self, a, b):
            return a * self.alpha + b * (1 - self.alpha)

Annotations are its attributes, the parameters of ``infer`` its operands. One of three methods says
how it is computed: ``scalar``, for one element of an elementwise operator; ``compute``, which
writes loop nests; ``decompose``, of other operators. ``reference`` is what it is tested against;
without one, an interpreter runs what it is computed by.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, get_type_hints

import numpy as np

from aisc.ir.arith.poly import symbols
from aisc.ir.diagnostics import AiscError, error
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Value
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, Variant
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Expr, Load
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.types import TensorType

C = TypeVar("C", bound=type)
_ATTRIBUTES: dict[Any, str] = {
    int: "int", float: "float", bool: "bool", str: "str", DType: "dtype",
    tuple[int, ...]: "ints", tuple[float, ...]: "floats", tuple[str, ...]: "strs",
}  # fmt: skip
_WAYS = ("scalar", "compute", "decompose")


def operator(cls: C) -> C:
    """Register a class as the operator of its name; E203 where it does not say enough.

    ``infer(self, *types)`` gives the type of the result, or a tuple of them: as many as the class
    attribute ``results`` says, one without it. ``scalar(self, *elements)`` gives an expression,
    ``compute(self, build, *buffers)`` fills the last buffers, ``decompose(self, graph, *values)``
    gives values, ``reference(self, *arrays)`` arrays. ``gradient`` is kept for differentiation.
    """
    opdef.add_custom(_definition(cls))
    return cls


def _definition(cls: type) -> OpDef:
    ways = [w for w in _WAYS if callable(getattr(cls, w, None))]
    if len(ways) != 1 or not callable(getattr(cls, "infer", None)):
        raise error("E203", f"operator {cls.__name__}: it needs 'infer' and one of {list(_WAYS)}",
                    f"got {', '.join(ways) or 'none of them'}")  # fmt: skip
    maker = _Maker(cls)
    count = getattr(cls, "results", 1)
    if not isinstance(count, int) or count < 1 or (ways == ["scalar"] and count > 1):
        raise error("E203", f"operator {cls.__name__}: bad number of results: {count!r}")
    compute = {"direct": Variant(maker.compute)} if ways == ["compute"] else {}
    return OpDef(
        cls.__name__,
        inspect.getdoc(cls) or f"The operator {cls.__name__}.",
        _operands(cls),
        maker.infer,
        maker.reference,
        "map" if ways == ["scalar"] else "reduction",
        _attributes(cls),
        outputs=count,
        scalar=maker.scalar if ways == ["scalar"] else None,
        variants=compute,
        decompose=maker.decompose if ways == ["decompose"] else None,
        gradient=getattr(cls, "gradient", None),
    )


def _operands(cls: type) -> tuple[Operand, ...]:
    """The parameters of ``infer``: those with a default may be left out."""
    found = list(inspect.signature(cls.infer).parameters.values())[1:]  # type: ignore[attr-defined]
    return tuple(
        Operand(p.name, p.default is not p.empty, p.kind is p.VAR_POSITIONAL) for p in found
    )


def _attributes(cls: type) -> tuple[Attr, ...]:
    found = []
    for name, hint in get_type_hints(cls).items():
        if name == "results" or name.startswith("_"):
            continue
        if hint not in _ATTRIBUTES:
            known = ", ".join(getattr(t, "__name__", str(t)) for t in _ATTRIBUTES)
            raise error("E203", f"operator {cls.__name__}: '{name}' has the type {hint}",
                        f"an attribute is one of {known}")  # fmt: skip
        found.append(Attr(name, _ATTRIBUTES[hint], getattr(cls, name, None)))
    return tuple(found)


class _Maker:
    """The methods of a class in the forms that operators of the library have."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def _instance(self, call: OpCall) -> Any:
        made = self.cls()
        for name, value in call.attrs.items():
            setattr(made, name, value)
        return made

    def _ask(self, call: OpCall, method: str, *args: object) -> Any:
        """What a method gives; whatever it raises becomes a diagnostic at the node."""
        try:
            return getattr(self._instance(call), method)(*args)
        except AiscError:
            raise
        except Exception as fault:
            text = f"{type(fault).__name__}: {fault}".splitlines()[0]
            raise call.fail(f"'{method}' failed", text, code="E203") from fault

    def infer(self, call: OpCall) -> tuple[TensorType, ...]:
        """Types of the results."""
        found = self._ask(call, "infer", *call.types)
        results = found if isinstance(found, tuple) else (found,)
        if len(results) != call.op.outputs or not all(isinstance(t, TensorType) for t in results):
            wanted = f"expected {call.op.outputs} types"
            raise call.fail("'infer' gives no types", wanted, f"got {found!r}", code="E203")
        known = {s for t in call.types if t for d in t.shape for s in symbols(d)}
        if any(s not in known for t in results for d in t.shape for s in symbols(d)):
            raise call.fail("sizes of results must follow from those of operands", code="E203")
        return results

    def scalar(self, call: OpCall, args: Sequence[Expr]) -> Expr:
        """One element of the result."""
        found = self._ask(call, "scalar", *args)
        (wanted,) = call.op.infer(call)
        if not isinstance(found, Expr) or found.dtype is not wanted.dtype:
            got = f"got {found.dtype if isinstance(found, Expr) else repr(found)}"
            message = f"'scalar' must give an element of {wanted.dtype}"
            raise call.fail(message, got, code="E203")
        return found

    def compute(
        self,
        cb: ComputeBuilder,
        call: OpCall,
        ins: Sequence[Buffer | None],
        outs: Sequence[Buffer],
    ) -> None:
        """Loop nests that fill `outs`."""
        self._ask(call, "compute", cb, *ins, *outs)

    def decompose(
        self, graph: GraphBuilder, call: OpCall, inputs: Sequence[Value | None]
    ) -> Sequence[Value]:
        """The results by other operators."""
        found = self._ask(call, "decompose", graph, *inputs)
        results = [found] if isinstance(found, Value) else list(found)
        wanted = list(call.op.infer(call))
        if [v.type for v in results] != wanted:
            got = ", ".join(str(v.type) for v in results)
            expected = f"expected {', '.join(map(str, wanted))}"
            raise call.fail("'decompose' gives other types than 'infer'", expected, f"got {got}",
                            code="E203")  # fmt: skip
        return results

    def reference(self, call: OpCall, xs: Arrays) -> Sequence[Array]:
        """What the results are: by the class, or else by interpretation."""
        if callable(getattr(self.cls, "reference", None)):
            found = self._ask(call, "reference", *xs)
            return list(found) if isinstance(found, tuple | list) else [np.asarray(found)]
        return _interpreted(_at_run_time(call, xs), xs)


def _at_run_time(call: OpCall, xs: Arrays) -> OpCall:
    """The call with the sizes that arrays have."""
    types = tuple(None if x is None or t is None else TensorType(x.shape, t.dtype)
                  for t, x in zip(call.types, xs, strict=True))  # fmt: skip
    return replace(call, types=types)


def _interpreted(call: OpCall, xs: Arrays) -> Sequence[Array]:
    """What the operator is computed by, run on arrays by an interpreter."""
    arrays = [np.ascontiguousarray(x) for x in xs if x is not None]
    if call.op.decompose is not None:
        from aisc.ir.graph.interpret import interpret

        builder = GraphBuilder(call.op.name)
        inputs = [None if t is None else builder.input(f"x{k}", t)
                  for k, t in enumerate(call.types)]  # fmt: skip
        results = call.op.decompose(builder, call, inputs)
        names = [f"y{k}" for k in range(len(results))]
        return interpret(builder.finish(list(results), names), arrays)
    from aisc.ir.tensor.interpret import run_func

    func, types = _loops(call)
    found = [np.zeros(t.static_shape, t.dtype.numpy) for t in types]
    run_func(func, [*arrays, *found])
    return found


def _loops(call: OpCall) -> tuple[Func, tuple[TensorType, ...]]:
    """The loop nests that an operator is lowered to, and the types of its results."""
    cb, types = ComputeBuilder(), call.op.infer(call)
    ins = [None if t is None else buffer(f"x{k}", t.dtype, t.shape, "input")
           for k, t in enumerate(call.types)]  # fmt: skip
    outs = [buffer(f"y{k}", t.dtype, t.shape, "output") for k, t in enumerate(types)]
    operands, scalar = [b for b in ins if b is not None], call.op.scalar
    if scalar is None:
        call.op.variants["direct"].compute(cb, call, ins, outs)
    else:
        cb.map(outs[0], lambda *at: scalar(call, [_broadcast(b, at) for b in operands]), "map")
    return cb.func(call.op.name, [*operands, *outs]), types


def _broadcast(b: Buffer, at: Sequence[Expr]) -> Expr:
    own = at[len(at) - b.rank :]
    return Load(b, tuple(i if d != 1 else ZERO for d, i in zip(b.shape, own, strict=True)))

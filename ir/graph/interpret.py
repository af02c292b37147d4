"""The graph interpreter: runs every node's numpy reference, in order, on concrete arrays.

Symbolic dimensions are bound from the shapes of the inputs. This is the meaning that compiled code
is compared with, not a fast way to run a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aisc.ir.arith.poly import Poly, SymDim, evaluate, sole_symbol, symbols
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.graph import opdef
from aisc.ir.graph.core import DEFINITIONS, Graph, GraphNode, Value, defined_symbols
from aisc.ir.graph.opdef import Array, OpCall
from aisc.ir.types import TensorType

Inputs = Mapping[str, Array] | Sequence[Array]
Keep = Callable[[Value, Array], None]


def interpret(
    graph: Graph, inputs: Inputs, keep: Keep | None = None, dims: Mapping[str, int] | None = None
) -> list[Array]:
    """The outputs of `graph` for `inputs` (by name, or in order).

    `keep(value, array)` is called for every value computed; `dims` are dimensions bound outside,
    for regions. Raises ``ExecutionError`` E501 when the inputs do not fit the graph's signature,
    E502 when an operator fails on the data.
    """
    env: dict[Value, Array] = {}
    if not isinstance(graph, Graph):
        raise execution_error("E501", "a graph is interpreted", f"got {type(graph).__name__}",
                              "aisc.lower(model, to='graph') gives one")  # fmt: skip
    arrays = _ordered(graph, inputs)
    types = tuple(v.type for v in graph.inputs)
    dims = bind_dims(types, arrays, [v.name for v in graph.inputs], dims or {})
    for value, array in zip(graph.inputs, arrays, strict=True):
        env[value] = array
    last_use = _last_uses(graph)
    for place, node in enumerate(graph.nodes):
        args = [None if v is None else env[v] for v in node.inputs]
        if node.op == "bind_dims":
            bind_values(node, args[0], dims)
        for value, array in zip(node.outputs, run_node(node, args, dims), strict=True):
            env[value] = array
            if keep is not None:
                keep(value, array)
        for v in {*node.input_values, *node.outputs}:
            if last_use.get(v, -1) <= place:
                env.pop(v, None)
    return [env[v] for v in graph.outputs]


def _last_uses(graph: Graph) -> dict[Value, int]:
    """The last node that reads each value; outputs live to the end."""
    last = {v: place for place, node in enumerate(graph.nodes) for v in node.input_values}
    last.update(dict.fromkeys(graph.outputs, len(graph.nodes)))
    return last


def _ordered(graph: Graph, inputs: Inputs) -> list[Array]:
    names = [v.name for v in graph.inputs]
    if isinstance(inputs, Mapping):
        missing = [n for n in names if n not in inputs]
        extra = [str(n) for n in inputs if n not in names]
        if missing or extra:
            notes = (f"missing: {', '.join(missing)}" if missing else "",
                     f"unknown: {', '.join(extra)}" if extra else "")  # fmt: skip
            message = "the inputs do not fit the graph's names"
            raise execution_error("E501", message, *(n for n in notes if n))
        return [np.asarray(inputs[n]) for n in names]
    if len(inputs) != len(names):
        raise execution_error("E501", f"{len(inputs)} inputs given, the graph takes {len(names)}")
    return [np.asarray(x) for x in inputs]


def bind_dims(
    types: Sequence[TensorType],
    arrays: Sequence[Array],
    names: Sequence[str],
    known: Mapping[str, int],
) -> dict[str, int]:
    """Values of the symbolic dimensions, `known` ones included; ``ExecutionError`` E501 on any
    mismatch."""
    env = dict(known)
    for type_, array, name in zip(types, arrays, names, strict=True):
        if array.dtype != type_.dtype.numpy or array.ndim != type_.rank:
            raise _mismatch(name, type_, array)
        for d, size in zip(type_.shape, array.shape, strict=True):
            symbol = sole_symbol(d)
            if symbol is not None and symbol.name not in env:
                if size < symbol.lower or (symbol.upper is not None and size > symbol.upper):
                    raise _mismatch(name, type_, array)
                env[symbol.name] = size
    for type_, array, name in zip(types, arrays, names, strict=True):
        for d, size in zip(type_.shape, array.shape, strict=True):
            complete = all(s.name in env for s in symbols(d))
            if complete and evaluate(d, env) != size:
                raise _mismatch(name, type_, array)
    return env


def bind_values(node: GraphNode, values: Array | None, dims: dict[str, int]) -> None:
    """Give the dimensions of a ``bind_dims`` the values in a vector; E502 when one is outside its
    bounds."""
    assert values is not None, "the values are there"
    for s, size in zip(defined_symbols(node), values.tolist(), strict=True):
        if size < s.lower or (s.upper is not None and size > s.upper):
            message = f"a size computed at run time is {size}"
            raise execution_error("E502", message, *bound_note(s), loc=node.loc)
        dims[s.name] = size


def bound_note(s: SymDim) -> tuple[str, ...]:
    """What is said of the bounds that a size is outside of."""
    most = "any size" if s.upper is None else s.upper
    return (f"expected {s.lower} to {most}",)


def _mismatch(name: str, type_: TensorType, array: Array) -> ExecutionError:
    got = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    return execution_error("E501", f"input '{name}'", f"expected {type_}", f"got {got}")


def concrete(call: OpCall, dims: Mapping[str, int]) -> OpCall:
    """`call` with every symbolic dimension of its types and attributes replaced by its value."""
    types = tuple(
        None if t is None else TensorType(tuple(evaluate(d, dims) for d in t.shape), t.dtype)
        for t in call.types
    )
    attrs = {k: v if k in DEFINITIONS else _concrete_attr(v, dims) for k, v in call.attrs.items()}
    return OpCall(call.op, types, attrs, call.constants, call.loc, call.regions, dims)


def _concrete_attr(value: object, dims: Mapping[str, int]) -> object:
    if isinstance(value, Poly):
        return evaluate(value, dims)
    if isinstance(value, tuple):
        return tuple(evaluate(x, dims) if isinstance(x, Poly) else x for x in value)
    return value


def run_node(node: GraphNode, inputs: Sequence[Array | None], dims: dict[str, int]) -> list[Array]:
    """Evaluate one node; results have the node's result dtypes. Dimensions that it binds by the
    shapes of its results are added to `dims`."""
    for check in opdef.size_checks(node):
        if fault := check.fault(dims):
            raise execution_error("E502", fault, loc=node.loc)
    call = concrete(opdef.call_of(node), dims)
    try:
        with np.errstate(all="ignore"):
            results = call.op.reference(call, inputs)
    except (IndexError, ValueError, MemoryError, ZeroDivisionError) as fault:
        message = f"{node.op} failed on its operands"
        raise execution_error("E502", message, str(fault), loc=node.loc) from fault
    found = [np.asarray(r) for r in results]
    new = {s.name for s in defined_symbols(node)}
    for value, array in zip(node.outputs, found, strict=True):
        for d, size in zip(value.type.shape, array.shape, strict=False):
            symbol = sole_symbol(d)
            if symbol is not None and symbol.name in new:
                dims[symbol.name] = size
    for value, array in zip(node.outputs, found, strict=True):
        shape = tuple(evaluate(d, dims) for d in value.type.shape)
        if shape != array.shape:
            notes = (f"expected {shape}", f"got {array.shape}")
            message = f"{node.op} gave another shape than its type"
            raise execution_error("E502", message, *notes, loc=node.loc)
    types = [v.type.dtype.numpy for v in node.outputs]
    with np.errstate(all="ignore"):
        return [a.astype(t, copy=False) for t, a in zip(types, found, strict=True)]

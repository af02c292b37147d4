"""The loop interpreter: runs functions and programs of the tensor IR on numpy arrays.

It is the meaning of the tensor IR, made to be right first: every access is checked, fresh memory
is poisoned, and planned buffers share bytes so that wrong offsets give wrong results. About
0.5 µs for an arithmetic operation. Faults raise ``ExecutionError``: E501 for arguments that do
not fit, E502 for what goes wrong while running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aisc.ir.arith.poly import Poly, evaluate, sole_symbol
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.graph import opdef
from aisc.ir.graph.core import DEFINITIONS, GraphNode, Value
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.interpret_expr import layout_of
from aisc.ir.tensor.interpret_stmt import Compiled, Machine
from aisc.ir.tensor.stmt import HostCall
from aisc.ir.tensor.storage import (
    Array,
    Segments,
    Storage,
    allocate,
    as_array,
    copy_into,
    extent_of,
    of_array,
)
from aisc.ir.tensor.verify_func import deferred_outputs
from aisc.ir.types import TensorType

_NO_FUNCS: Mapping[str, Func] = {}


def run_func(
    func: Func,
    args: Sequence[Array],
    dims: Mapping[str, Any] | None = None,
    nthreads: int = 1,
    kernels: Mapping[str, Func] = _NO_FUNCS,
    intrinsics: Mapping[str, Func] = _NO_FUNCS,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> None:
    """Run a function on `args`, one array per parameter, written in place.

    dims: values of ``func.dims`` by name; those that are a dimension of a parameter may be left
    out. kernels, intrinsics: functions called by name; functions: scalar functions by name.
    """
    machine = Machine(kernels, intrinsics, functions or {}, nthreads)
    values = bind_dims(func, args, dims or {})
    compiled = machine.function(func, values, {})
    storages, written = [], []
    for param, array in zip(func.params, args, strict=True):
        layout = layout_of(param, values)
        if array.flags.c_contiguous and array.flags.writeable and param.is_dense:
            storages.append(of_array(array))
            continue
        data = allocate(param.dtype, extent_of(*layout))
        view = as_array(data, param.dtype, layout)
        copy_into(view, array, param.name)
        storages.append(data)
        if param.role not in ("input", "weight"):
            written.append((array, view))
    compiled.call(storages, [values[v.name] for v in func.dims])
    for array, view in written:
        array[...] = view


def run_program(
    program: Program,
    inputs: Sequence[Array],
    nthreads: int = 1,
    intrinsics: Mapping[str, Func] = _NO_FUNCS,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    dims: Mapping[str, int] | None = None,
    state: Mapping[str, Array] | None = None,
) -> list[Array]:
    """Run a program's entry; gives its *output* parameters in order.

    `inputs` are the entry's *input* parameters in order; weights come from the program; arrays of
    `state` by buffer name are read and updated in place (state without one starts at zero).
    """
    entry = program.entry
    given = [b for b in entry.params if b.role == "input"]
    if len(given) != len(inputs):
        raise execution_error("E501", f"{len(given)} inputs are needed, got {len(inputs)}")
    values = _solve_dims(entry, zip(given, inputs, strict=True), dims or {})
    kernels = {k.name: k for k in program.kernels}
    machine = Machine(kernels, intrinsics, functions or {}, nthreads, host_results)
    segments = Segments(prepared_weights(program, intrinsics, functions), state or {})
    feeds = {b.name: np.asarray(a) for b, a in zip(given, inputs, strict=True)}
    later = deferred_outputs(entry)
    compiled = Compiled(entry, values, {}, machine, segments)
    storages = [
        None if b in later else _parameter(b, segments, feeds, values) for b in entry.params
    ]
    frame = compiled.call(storages, [values[v.name] for v in entry.dims])
    for name, view in segments.states.items():
        if state and name in state:
            state[name][...] = view
    found = {**values, **compiled.scalars(frame)}  # data-dependent dimensions are known now
    return [
        as_array(frame[slot], b.dtype, layout_of(b, found)).copy()
        for b, slot in zip(entry.params, compiled.params, strict=True)
        if b.role == "output"
    ]


def prepared_weights(
    program: Program,
    intrinsics: Mapping[str, Func] = _NO_FUNCS,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> dict[str, Blob]:
    """Contents of all weights: the program's own and those that its `prepare` computes."""
    weights = dict(program.weights)
    if program.prepare is not None:
        source = replace(program, entry=program.prepare, prepare=None)
        names = [b.name for b in program.prepare.params if b.role == "output"]
        found = run_program(source, [], 1, intrinsics, functions)
        weights.update(zip(names, map(Blob, found), strict=True))
    return weights


def _parameter(
    b: Buffer, segments: Segments, feeds: Mapping[str, Array], dims: Mapping[str, int]
) -> Storage:
    """Storage of an entry parameter with its contents."""
    layout = layout_of(b, dims)
    data = segments.place(b, layout, evaluate(b.offset, dims))
    if b.role == "input":
        copy_into(as_array(data, b.dtype, layout), feeds[b.name], b.name)
    return data


def bind_dims(func: Func, args: Sequence[Array], dims: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the function's dimensions, given or read from shapes; E501 on a mismatch."""
    if len(args) != len(func.params):
        raise execution_error("E501", f"{func.name} takes {len(func.params)} arrays")
    return _solve_dims(func, zip(func.params, args, strict=True), dims)


def _solve_dims(func: Func, pairs: Any, dims: Mapping[str, Any]) -> dict[str, Any]:
    values, checks = dict(dims), list(pairs)
    for param, array in checks:
        if array.dtype != param.dtype.numpy or array.ndim != param.rank:
            raise _mismatch(param, array)
        for d, size in zip(param.shape, array.shape, strict=True):
            symbol = sole_symbol(d)
            if symbol is not None:
                values.setdefault(symbol.name, size)
    for v in func.dims:
        if v.name not in values:
            raise execution_error("E501", f"no value for dimension {v.name} of {func.name}")
    for param, array in checks:
        if tuple(evaluate(d, values) for d in param.shape) != array.shape:
            raise _mismatch(param, array)
    return values


def _mismatch(param: Buffer, array: Array) -> ExecutionError:
    got = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    return execution_error(
        "E501", f"'{param.name}' does not fit", f"expected {param.type}", f"got {got}"
    )


def host_results(call: HostCall, inputs: list[Any], dims: Mapping[str, int]) -> list[Any]:
    """Results of a graph operator's reference."""
    operands = tuple(
        None if b is None else Value(b.name, TensorType(tuple(a.shape), b.dtype))
        for b, a in zip(call.inputs, inputs, strict=True)
    )
    results = tuple(Value(b.name, b.type) for b in call.outputs)
    attrs = tuple((k, v if k in DEFINITIONS else _static(v, dims)) for k, v in call.attrs)
    return list(opdef.run_reference(GraphNode(call.op, operands, results, attrs), inputs))


def _static(value: Any, dims: Mapping[str, int]) -> Any:
    """An attribute with its symbolic dimensions replaced by their values."""
    if isinstance(value, Poly):
        return evaluate(value, dims)
    return tuple(_static(v, dims) for v in value) if isinstance(value, tuple) else value

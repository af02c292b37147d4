"""The verifier of programs: calls fit kernels, weights have contents, buffers have places."""

from __future__ import annotations

from collections.abc import Container, Mapping

from aisc.ir.arith.poly import Dim, substitute, symbol, symbols
from aisc.ir.diagnostics import Diagnostics
from aisc.ir.graph import opdef
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Expr, Var
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, CallKernel, HostCall
from aisc.ir.tensor.tested import untested
from aisc.ir.tensor.verify_func import (
    ENTRY,
    KERNEL,
    LEVELS,
    FuncChecker,
    Level,
    LevelName,
    check_func,
    verify_func,
)
from aisc.ir.types import TensorType


def verify_program(
    program: Program,
    level: LevelName = "scheduled",
    names: Mapping[str, Container[str]] | None = None,
) -> None:
    """Check kernels, entry and weights. `names` gives, by target, the intrinsics and functions
    that kernels may use (``None``: any). E301 on faults."""
    report, rules = Diagnostics(), LEVELS[level]
    all_names = [f.name for f in program.functions]
    for name in sorted({n for n in all_names if all_names.count(n) > 1}):
        report.add("E301", f"two functions of {program.name} are called {name}")
    for kernel in program.kernels:
        allowed = None if names is None else names.get(kernel.target, ())
        check_func(kernel, rules, KERNEL, allowed, report)
    prepared: dict[str, TensorType] = {}
    if program.prepare is not None:
        _entry(program.prepare, program, rules, prepared, report)
        prepared = {b.name: b.type for b in program.prepare.params if b.role == "output"}
    _entry(program.entry, program, rules, prepared, report)
    report.raise_if_errors()


def _entry(
    entry: Func,
    program: Program,
    level: Level,
    prepared: Mapping[str, TensorType],
    report: Diagnostics,
) -> None:
    checker = check_func(entry, level, ENTRY, None, report)
    for node in walk(entry.body):
        if isinstance(node, CallKernel):
            checker.at = node
            _call(node, program, entry.target, checker)
        elif isinstance(node, HostCall):
            checker.at = node
            checker.need(opdef.exists(node.op), f"unknown operator '{node.op}'")
    if level.blocks_only:
        _tests(entry, program, checker)
    checker.at = None
    known = {**{k: b.type for k, b in program.weights.items()}, **prepared}
    for b in entry_buffers(entry):
        if b.role == "weight" and not is_view(b, entry):
            found = known.get(b.name)
            checker.need(found is not None, f"weight {b.name} has no contents")
            fits = found is None or found == b.type
            checker.need(fits, f"weight {b.name}: {b.type} has contents {found}")
    _places(entry, level, checker)


def _call(call: CallKernel, program: Program, host: str, checker: FuncChecker) -> None:
    kernel = next((k for k in program.kernels if k.name == call.kernel), None)
    if kernel is None:
        checker.fault(f"unknown kernel '{call.kernel}'")
        return
    counts = (len(call.args), len(call.dims)), (len(kernel.params), len(kernel.dims))
    if counts[0] != counts[1]:
        checker.fault(f"{kernel.name} takes {counts[1]} buffers and dimensions, got {counts[0]}")
        return
    env = _environment(kernel, call.dims)
    for param, arg in zip(kernel.params, call.args, strict=True):
        fits = param.dtype is arg.dtype and param.rank == arg.rank
        if fits:
            sizes = list(zip(param.shape, arg.shape, strict=True))
            steps = [
                pair
                for pair, size in zip(
                    zip(param.strides, arg.strides, strict=True), arg.shape, strict=True
                )
                if size != 1
            ]
            fits = all(_equal(a, b, env) for a, b in sizes + steps)
        checker.need(fits, f"{arg.name} does not fit {_signature(param)} of {kernel.name}")
        space = param.space if kernel.target == host else f"{kernel.target}.{param.space}"
        checker.need(arg.space == space, f"{arg.name} lies in {arg.space}, not in {space}")
        if param.role == "output":
            checker.need(arg.role not in ("input", "weight"), f"{arg.role} {arg.name} is written")


def _tests(entry: Func, program: Program, checker: FuncChecker) -> None:
    """What kernels rely on is tested before they are called."""
    from aisc.ir.text.printer_tensor import expr_text

    for call, cond in untested(entry, {k.name: k for k in program.kernels}):
        checker.at = call
        checker.fault(f"{call.kernel} requires {expr_text(cond)}, which is not tested")


def _signature(param: Buffer) -> str:
    return f"parameter {param.name}: {param.type} strides {tuple(map(str, param.strides))}"


def _environment(kernel: Func, dims: tuple[Expr, ...]) -> dict[str, Dim]:
    """Dimensions of the call that are numbers or names; others are not compared."""
    env: dict[str, Dim] = {}
    for v, e in zip(kernel.dims, dims, strict=True):
        if isinstance(e, Const):
            env[v.name] = int(e.value)
        elif isinstance(e, Var):
            env[v.name] = symbol(e.name)
    return env


def _equal(of_param: Dim, of_arg: Dim, env: Mapping[str, Dim]) -> bool:
    """Equality of dimensions by the names of symbols, whatever their bounds."""
    if any(s.name not in env for s in symbols(of_param)):
        return True
    plain = {s.name: symbol(s.name) for s in symbols(of_arg)}
    return substitute(of_param, env) == substitute(of_arg, plain)


def is_view(b: Buffer, entry: Func) -> bool:
    """Whether an entry's buffer is another shape over the storage of a parameter."""
    return any(b.base and p.base == b.base and p.name != b.name for p in entry.params)


def entry_buffers(entry: Func) -> tuple[Buffer, ...]:
    """Parameters and allocated buffers."""
    inside = tuple(n.buffer for n in walk(entry.body) if isinstance(n, Alloc))
    return entry.params + inside


def _places(entry: Func, level: Level, checker: FuncChecker) -> None:
    if not level.placed:
        return
    for node in walk(entry.body):
        if isinstance(node, Alloc):
            b, checker.at = node.buffer, node
            checker.need(bool(b.base), f"buffer {b.name} has no place in a segment")
            if isinstance(b.offset, int):
                aligned = b.offset % b.alignment == 0
                checker.need(aligned, f"{b.name} at byte {b.offset} is not aligned as it says")
    checker.at = None


__all__ = ["entry_buffers", "verify_func", "verify_program"]

"""Instructions that a target declares: a name, a meaning in tensor IR, and a cost.

One declaration serves all: ``tensorize`` matches the meaning, the interpreter executes it, the
back end encodes it, the cost model and the simulator count its cycles.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.verify_func import verify_func

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
}
_CALLS: dict[str, Callable[..., int]] = {"min": min, "max": max}


# What may stand in the table of an instruction, and what it means.
KEYS: Mapping[str, str] = {
    "semantics": "what it means: a function of the tensor IR with one block, over its operands",
    "unit": "what executes it",
    "cost": "formula of the cycles for which it keeps its unit",
    "latency": "formula of the cycles from there until its results are there; 0 by default",
    "most": "a table of formulas: what dimensions of the meaning are at most",
    "strided": "operands whose elements may lie some steps apart",
    "needs": "features of the machine without which it does not exist",
    "llvm": "of a processor: its code",
    "temporaries": "of a processor: vector registers that its code needs beside its operands",
}


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """An instruction. `semantics` is a lowered Func whose parameters are the operands, in memory
    spaces of the target; `unit` executes it; `cost` is a formula of the cycles that it keeps the
    unit, over the target's parameters (`constants`) and the semantics' dims, and `latency` one of
    those from there to its results, which the next one on the unit does not wait for. A dim is at
    most what `most` says of it; elements of `strided` operands may lie some steps apart. It exists
    where a machine has the features that it `needs`; `llvm` is its code for back ends that print
    LLVM IR: lines over operands, each a vector of all its elements, and ``%result``, which the
    operand holds that is written; that code needs so many registers for `temporaries` beside the
    operands."""

    name: str
    semantics: Func
    unit: str
    cost: str
    constants: Mapping[str, int] = field(default_factory=dict, hash=False)
    needs: tuple[str, ...] = ()
    llvm: str = ""
    temporaries: int = 0
    latency: str = "0"
    most: Mapping[str, int] = field(default_factory=dict, hash=False)
    strided: tuple[str, ...] = ()

    def cycles(self, *args: int) -> int:
        """Cycles for which one execution keeps its unit, with these values of the semantics'
        dims."""
        return formula(self.cost, self._names(args))

    def latency_after(self, *args: int) -> int:
        """Cycles from there until its results are there."""
        return formula(self.latency, self._names(args))

    def _names(self, args: tuple[int, ...]) -> dict[str, int]:
        names = (v.name for v in self.semantics.dims)
        return {**self.constants, **dict(zip(names, args, strict=True))}


def formula(text: str, names: Mapping[str, int]) -> int:
    """The value of a cost formula: integers, names, ``+ - * //``, ``min`` and ``max``; E401 for
    anything else."""
    try:
        return _value(ast.parse(text, mode="eval").body, names)
    except (SyntaxError, ZeroDivisionError, RecursionError, ValueError) as fault:
        raise error("E401", f"bad cost formula '{text}'", str(fault)) from None


def _value(e: ast.expr, names: Mapping[str, int]) -> int:
    if isinstance(e, ast.Constant) and type(e.value) is int:
        return e.value
    if isinstance(e, ast.Name) and e.id in names:
        return names[e.id]
    if isinstance(e, ast.BinOp) and type(e.op) in _OPERATORS:
        return _OPERATORS[type(e.op)](_value(e.left, names), _value(e.right, names))
    if isinstance(e, ast.Call) and isinstance(e.func, ast.Name) and e.func.id in _CALLS and e.args:
        return _CALLS[e.func.id](*(_value(a, names) for a in e.args))
    known = ", ".join(sorted(names))
    raise error("E401", f"'{ast.unparse(e)}' is no part of a cost formula", f"names: {known}")


def from_table(
    name: str, data: Mapping[str, Any], constants: Mapping[str, int], spaces: frozenset[str]
) -> Intrinsic:
    """An instruction from its table of a target description; E401 with the key that is wrong.

    spaces: the memories of the target (``global`` always exists).
    """
    from aisc.ir.text.parser import parse_func  # most machines declare no instruction

    for key in ("semantics", "cost", "unit"):
        if not isinstance(data.get(key), str):
            notes = (f"expected text, got {data.get(key)!r}",)
            raise error("E401", f"instruction.{name}.{key} is missing or no text", *notes)
    for key in data:
        if key not in KEYS:
            known = f"known: {', '.join(KEYS)}"
            raise error("E401", f"unknown key instruction.{name}.{key}", known)
    needs, llvm = data.get("needs", []), data.get("llvm", "")
    if not isinstance(needs, list) or not all(isinstance(n, str) for n in [*needs, llvm]):
        raise error("E401", f"instruction.{name}: needs is a list of texts, llvm is text")
    temporaries = data.get("temporaries", 0)
    if type(temporaries) is not int or temporaries < 0:
        raise error("E401", f"instruction.{name}.temporaries is a number of registers")
    at = f"instruction.{name}"
    try:
        func = parse_func(data["semantics"], file=f"{at}.semantics")
        verify_func(func, "lowered")
    except CompileError as fault:
        raise error("E401", f"{at}.semantics is no valid function", str(fault)) from None
    if func.name != name:
        raise error("E401", f"{at}.semantics is a function called {func.name}")
    for p in func.params:
        if p.space != "global" and p.space not in spaces:
            raise error("E401", f"{at}.semantics: there is no memory '{p.space}'")
    latency = data.get("latency", "0")
    if not isinstance(latency, str):
        raise error("E401", f"{at}.latency is no text", f"expected a formula, got {latency!r}")
    most = _bounds(at, func, data.get("most", {}), constants)
    strided, operands = data.get("strided", []), [p.name for p in func.params]
    if not isinstance(strided, list) or any(s not in operands for s in strided):
        known = f"operands: {', '.join(operands)}"
        raise error("E401", f"{at}.strided is a list of operands", known, f"got {strided!r}")
    more = tuple(needs), llvm, temporaries, latency, most, tuple(strided)
    found = Intrinsic(name, func, data["unit"], data["cost"], dict(constants), *more)
    for key, cycles in (("cost", found.cycles), ("latency", found.latency_after)):
        try:
            cycles(*(1 for _ in func.dims))
        except CompileError as fault:
            raise error("E401", f"{at}.{key} is wrong", str(fault)) from None
    return found


def _bounds(at: str, func: Func, table: object, constants: Mapping[str, int]) -> dict[str, int]:
    """What the dims of an instruction are at most: formulas over the target's parameters."""
    dims = {v.name for v in func.dims}
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        notes = ("expected a table of formulas by dimension", f"got {table!r}")
        raise error("E401", f"{at}.most is wrong", *notes)
    if not dims.issuperset(table):
        name = min(set(table) - dims)
        known = f"dimensions: {', '.join(sorted(dims)) or 'none'}"
        raise error("E401", f"{at}.most: there is no dimension '{name}'", known)
    found = {}
    for name, text in table.items():
        try:
            found[name] = formula(text, constants)
        except CompileError as fault:
            raise error("E401", f"{at}.most.{name} is wrong", str(fault)) from None
    return found

"""What a vector unit computes on sums that leave an accelerator: any map of its operations.

An instruction of a description has one meaning. A vector unit executes programs: the meaning of
such an instruction is the nest that it stands for, and travels with the kernel, as an attribute of
it. From there on it is an instruction like those of the description (:func:`instructions_of`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from aisc.ir.accelerator import ACCUMULATOR, Accelerator
from aisc.ir.arith.poly import symbol as symbol
from aisc.ir.node import Node, children
from aisc.ir.target import Target
from aisc.ir.tensor.expr import ZERO, Binary, Call, Cast, Expr, Load, Select, Unary, Var
from aisc.ir.tensor.func import Buffer, Func, Role, buffer
from aisc.ir.tensor.intrinsic import Intrinsic, from_table
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, For, Iter, Stmt, Store
from aisc.ir.tensor.tree import places, with_regions
from aisc.ir.tensor.visitor import substitute, transform
from aisc.ir.text.printer import print_func

# How the attributes are called that hold programs.
PREFIX = "vector_"
AXES = ("p", "q", "n")


def instructions_of(func: Func, target: Target) -> Mapping[str, Intrinsic]:
    """The instructions of a kernel: those of its target, and programs of its own."""
    return with_own(target, programs_of(func))


def programs_of(func: Func) -> dict[str, str]:
    """The programs of a kernel as texts, by name."""
    return {n: str(v) for n, v in func.attrs if n.startswith(PREFIX)}


def with_own(target: Target, programs: Mapping[str, str]) -> Mapping[str, Intrinsic]:
    """The instructions of a target, and those of programs."""
    if not programs:
        return target.instructions
    own = {n: _made(n, json.loads(t), target) for n, t in programs.items()}
    return {**target.instructions, **own}


def _made(name: str, table: Mapping[str, object], target: Target) -> Intrinsic:
    chip = target.chip
    constants = {**target.limits, **(chip.parameters() if chip else {})}
    return from_table(name, table, constants, frozenset(m.name for m in target.memories))


def program(nest: For, name: str, target: Target) -> tuple[Intrinsic, str] | None:
    """The instruction of a vector unit for a nest, with the text of the attribute that holds it;
    nothing where the nest is no map of sums, or has operations that the unit lacks."""
    (place,) = places(nest)
    block, chip = place.block, target.chip
    if chip is None or block.combiner or block.init or len(place.loops) != len(AXES):
        return None
    if not isinstance(block.body, Store) or not any(
        r.buffer.space == ACCUMULATOR for r in block.reads
    ):
        return None
    if not chip.vector_operations.issuperset(_operations(block.body.value)):
        return None
    func = _meaning(name, block, [f.var for f in place.loops])
    if func is None:
        return None
    table = _table(func, block.body, chip)
    return _made(name, table, target), json.dumps(table)


def _operations(value: Node) -> Iterator[str]:
    """The operations of an expression; those of indices are the address generators'."""
    if isinstance(value, Load):
        return
    if isinstance(value, Binary | Unary):
        yield value.op
    elif isinstance(value, Call):
        yield value.name
    elif isinstance(value, Cast):
        yield "cast"
    elif isinstance(value, Select):
        yield "select"
    for child in children(value):
        yield from _operations(child)


def _meaning(name: str, block: Block, loops: list[Var]) -> Func | None:
    """The block as a function of its operands, over rows and columns of any number."""
    sizes = dict(zip(loops, map(Var, AXES), strict=True))
    inner = {v: Var(f"v{a}") for v, a in zip(loops, AXES, strict=True)}
    outer = {it.var: b for it, b in zip(block.iters, block.bindings, strict=True)}
    body = substitute(block.body, outer)
    params: dict[tuple[Buffer, tuple[Expr, ...]], Buffer] = {}
    assert isinstance(body, Store)

    def operand(n: Load | Store) -> tuple[Buffer, tuple[Expr, ...]] | None:
        axes: list[Var] = []
        for index in n.indices:
            found = [v for v in loops if mentions(index, v)]
            if len(found) > 1:
                return None
            axes += found
        key = n.buffer, n.indices
        if key not in params:
            shape = tuple(symbol(sizes[v].name) for v in axes)
            role: Role = "output" if n is body else "input"
            label = "dst" if n is body else f"a{len(params)}"
            params[key] = buffer(label, n.buffer.dtype, shape, role, n.buffer.space)
        return params[key], tuple(inner[v] for v in axes)

    refused = False

    def swap(n: Node) -> Node:
        nonlocal refused
        if isinstance(n, Load):
            found = operand(n)
            refused |= found is None
            return n if found is None else Load(*found)
        return n

    value = transform(body.value, swap)
    target = operand(body)
    if refused or target is None:
        return None
    iters = tuple(Iter(inner[v], sizes[v], "spatial") for v in loops)
    turns = tuple(Var(f"i{a}") for a in AXES)
    store = Store(target[0], target[1], value)
    made: Stmt = with_regions(Block("b", iters, turns, (), (), None, store))
    for v, a in zip(reversed(turns), reversed(AXES), strict=True):
        made = For(v, ZERO, Var(a), "serial", made)
    return Func(name, tuple(params.values()), tuple(map(Var, AXES)), made, target="dsa")


def _table(func: Func, body: Store, chip: Accelerator) -> dict[str, object]:
    """The table of a description for a program: the slowest of its streams decides."""
    passes = -(-max(1, sum(1 for _ in _operations(body.value))) // chip.vector_stages)
    terms = [f"{passes} * ((n + vector_width - 1) // vector_width)"]
    for role, engine in (("input", "load"), ("output", "store")):
        size = sum(
            p.dtype.bytes for p in func.params
            if p.role == role and p.space == "global" and p.rank == len(AXES)
        )  # fmt: skip
        if size and chip.dma(engine) is not None:
            terms.append(f"(n * {size} + {engine}_width - 1) // {engine}_width")
    late = "store_latency" if chip.dma("store") is not None else "0"
    cost = f"p * q * max({', '.join(terms)})" if len(terms) > 1 else f"p * q * {terms[0]}"
    strided = [p.name for p in func.params if p.space == "global" and p.rank]
    return {
        "semantics": print_func(func), "unit": "store", "cost": cost, "latency": late,
        "most": {"n": "columns"}, "strided": strided,
    }  # fmt: skip


def with_programs(func: Func, programs: Mapping[str, str]) -> Func:
    """A kernel with the programs that its instructions execute."""
    return replace(func, attrs=(*func.attrs, *programs.items()))

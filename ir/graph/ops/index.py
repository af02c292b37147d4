"""Index notation: an operator whose meaning is a function of the tensor IR.

The attribute `body` is the text of a Func with one block: its parameters stand for the operands and
the result, in order, its symbols for whatever sizes the operands have. So a formula takes part in
everything that operators do: types, references, fusion, and schedules by structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from aisc.ir.arith.poly import Dim, evaluate, sole_symbol, substitute
from aisc.ir.diagnostics import error
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    present,
    register,
)
from aisc.ir.graph.shapes.checks import decide, no_size_below_zero, require
from aisc.ir.node import walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.dims import as_dim
from aisc.ir.tensor.expr import Binary, Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.visitor import replace_buffers
from aisc.ir.tensor.visitor import substitute as substitute_vars
from aisc.ir.types import TensorType

# Combiners whose value joins the state by one operator.
SIMPLE = ("", "sum", "prod", "max", "min", "all", "any")


@lru_cache(maxsize=1 << 10)
def formula(text: str) -> Func:
    """The function of an attribute `body`; E107 where the text is none, E201 where it is no
    formula: one block, which stores one result."""
    from aisc.ir.text.parser import parse_func

    func = parse_func(text)
    blocks = [n for n in walk(func.body) if isinstance(n, Block)]
    results = [b for b in func.params if b.role == "output"]
    plain = len(blocks) == 1 and isinstance(blocks[0].body, Store) and len(results) == 1
    if not plain or blocks[0].combiner not in SIMPLE or not _is_in_order(blocks[0], results[0]):
        raise error("E201", "index: the function is no formula", "it needs one block and result")
    return func


def _is_in_order(block: Block, result: Buffer) -> bool:
    """Whether a block stores the whole result, the places of its axes being its first indices."""
    spatial = [it for it in block.iters if it.kind == "spatial"]
    store, extents = block.body, tuple(it.extent for it in spatial)
    assert isinstance(store, Store), "tested before"
    return (
        store.indices == tuple(it.var for it in spatial)
        and extents == tuple(map(of_dim, result.shape))
        and block.iters[: len(spatial)] == tuple(spatial)
        and all(it.kind == "reduce" for it in block.iters[len(spatial) :])
    )


def sizes_of(call: OpCall, func: Func) -> tuple[dict[str, Dim], bool]:
    """What the symbols of a formula are for the operands at hand, and whether it takes the run to
    tell that operands fit each other."""
    operands = [b for b in func.params if b.role == "input"]
    if len(operands) != len(call.types):
        raise call.fail(f"the formula takes {len(operands)} tensors, got {len(call.types)}")
    found: dict[str, Dim] = {}
    pairs: list[tuple[Dim, Dim, str]] = []
    for k, b in enumerate(operands):
        t = call.type(k)
        if t.dtype is not b.dtype or t.rank != b.rank:
            wanted = f"{b.dtype} with {b.rank} axes"
            raise call.fail(f"operand {k} must be {wanted}, got {t}")
        for own, size in zip(b.shape, t.shape, strict=True):
            symbol = sole_symbol(own)
            if symbol is not None and symbol.name not in found:
                found[symbol.name] = size
            else:
                pairs.append((own, size, f"an axis of operand {k}"))
    unsure = False
    for own, size, what in pairs:
        require(call, "==", size, substitute(own, found), what)
        unsure |= decide("==", size, substitute(own, found)) is None
    return found, unsure


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    func = formula(str(call.attrs["body"]))
    sizes, _ = sizes_of(call, func)
    (out,) = (b for b in func.params if b.role == "output")
    shape = tuple(substitute(d, sizes) for d in out.shape)
    no_size_below_zero(call, shape)
    return (TensorType(shape, out.dtype),)


def _reference(call: OpCall, xs: Arrays) -> Sequence[Array]:
    from aisc.ir.tensor.interpret import run_func

    func, arrays = formula(str(call.attrs["body"])), present(xs)
    operands = [b for b in func.params if b.role == "input"]
    known: dict[str, int] = {}
    for b, array in zip(operands, arrays, strict=True):
        for own, size in zip(b.shape, array.shape, strict=True):
            symbol = sole_symbol(own)
            if symbol is not None:
                known.setdefault(symbol.name, size)
    (out,) = (b for b in func.params if b.role == "output")
    result = np.zeros(tuple(evaluate(d, known) for d in out.shape), out.dtype.numpy)
    inputs = iter(arrays)
    run_func(func, [result if b.role == "output" else next(inputs) for b in func.params], known)
    return [result]


def block_of(func: Func) -> tuple[Block, Expr]:
    """The one block of a formula, and the value that each of its points gives or adds."""
    (block,) = (n for n in walk(func.body) if isinstance(n, Block))
    store = block.body
    assert isinstance(store, Store), "a formula stores"
    if not block.combiner:
        return block, store.value
    assert isinstance(store.value, Binary), "a simple combiner joins the state and a value"
    return block, store.value.b


def _compute(
    cb: ComputeBuilder, call: OpCall, xs: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    func = formula(str(call.attrs["body"]))
    sizes, _ = sizes_of(call, func)
    inputs = iter(x for x in xs if x is not None)
    table = {b: outs[0] if b.role == "output" else next(inputs) for b in func.params}
    block, value = block_of(func)
    names = {Var(name): of_dim(d) for name, d in sizes.items()}

    def at(points: Sequence[Var]) -> Expr:
        iters = dict(zip((it.var for it in block.iters), points, strict=True))
        store = Store(outs[0], (), substitute_vars(value, {**names, **iters}))
        moved = replace_buffers(store, table)
        assert isinstance(moved, Store), "a statement stays what it is"
        return moved.value

    if not block.combiner:
        cb.map(outs[0], lambda *i: at(i), "index")
        return
    extents = [extent_of(it, sizes) for it in block.iters if it.kind == "reduce"]
    cb.reduce(outs[0], extents, block.combiner, lambda i, r: at((*i, *r)), "index")


def extent_of(it: Iter, sizes: Mapping[str, Dim]) -> Dim:
    """A range, in sizes of the operands."""
    found = as_dim(it.extent, lambda v: sizes.get(v.name))
    assert found is not None, "ranges of formulas follow from sizes"
    return found


INDEX = register(
    OpDef(
        "index",
        "A formula over indices: `body` is the text of a function of the tensor IR with one block.",
        (Operand("xs", variadic=True),),
        _rule,
        _reference,
        "reduction",
        attrs=(Attr("body", "str"),),
        variants={"direct": Variant(_compute)},
    )
)

"""Equal blocks as calls of one layer, in a loop where that is possible."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.lang.printing.blocks import Repeat
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.forms import Form, joined
from aisc.frontend.lang.printing.function import Function
from aisc.frontend.lang.printing.names import Names, hint_of
from aisc.frontend.lang.printing.sizes import Sizes
from aisc.ir.arith.poly import SymDim, of_symbol, sole_symbol
from aisc.ir.graph.core import Value

_NAME = "\0layer\0"


def write_repeat(body: Body, r: Repeat) -> None:
    """The layer of blocks, and its calls."""
    arguments = [[body.named(v) for v in _outside(body, vector, r)] for vector in r.formals]
    body.flush()
    place = body.fn.names.fresh("blocks" if r.count > 1 else "block")
    layer, extra = _layer(body, r, place)
    sizes = [f"{name}={body.fn.sizes.text(of_symbol(s))}" for name, s in extra]
    (_loop if r.is_loop else _calls)(body, r, arguments, layer, place, sizes)


def _outside(body: Body, vector: Sequence[Value], r: Repeat) -> list[Value]:
    """What exists before the blocks, of an operand of theirs."""
    inside = {v for n in body.nodes[r.start : r.end] for v in n.outputs}
    return [v for v in vector if v not in inside]


# -- calls ---------------------------------------------------------------------------------------
def _loop(
    body: Body,
    r: Repeat,
    arguments: Sequence[Sequence[str]],
    layer: str,
    place: str,
    sizes: Sequence[str],
) -> None:
    """``for i in 0..12 { x = block(x, mask) as blocks[i] }``."""
    fn = body.fn
    given: list[str] = []
    variables: dict[tuple[int, int], str] = {}
    for vector, slot, names in zip(r.formals, r.carried, arguments, strict=True):
        if slot is None:
            given.append(names[0])
            continue
        name = names[0]
        if not _is_over(body, r, vector[0]) or name in variables.values():
            name = _variable(body, r, slot)
            body.lines.append(f"{name} = {names[0]}")
        variables[slot] = name
        given.append(name)
    for slot in r.results:
        if slot not in variables:
            variables[slot] = _variable(body, r, slot)
    results = ", ".join(variables[slot] for slot in r.results)
    turn = fn.names.fresh("i")
    call = f"{layer}({', '.join((*given, *sizes))}) as {place}[{turn}]"
    body.lines += [f"for {turn} in 0..{r.count} {{", f"{results} = {call}", "}"]
    for slot in r.results:
        v = _result(body, r, slot, r.count - 1)
        fn.texts[v] = variables[slot]
        wanted = body.wanted.get(v)
        if wanted is not None and wanted != variables[slot]:
            body.lines.append(f"{wanted} = {variables[slot]}")
            fn.texts[v] = wanted


def _is_over(body: Body, r: Repeat, first: Value) -> bool:
    """Whether nothing reads a value of this body but the first block, as what is carried."""
    once = first in body.makers and sum(first in v for v in r.formals) == 1
    return once and body.last[first] < r.start + r.length


def _variable(body: Body, r: Repeat, slot: tuple[int, int]) -> str:
    """A name for a result of the blocks: that which the last one must have, if nothing has it."""
    wanted = body.wanted.get(_result(body, r, slot, r.count - 1), "")
    if wanted and wanted not in body.fn.texts.values():
        return wanted
    return body.fn.names.fresh(hint_of(_result(body, r, slot, 0), "x"))


def prefer(body: Body, r: Repeat) -> None:
    """What blocks begin with has the name that their last result must have."""
    for vector, slot in zip(r.formals, r.carried, strict=True):
        if r.is_loop and slot is not None and _is_over(body, r, vector[0]):
            wanted = body.wanted.get(_result(body, r, slot, r.count - 1))
            if wanted is not None:
                body.wanted.setdefault(vector[0], wanted)


def _calls(
    body: Body,
    r: Repeat,
    arguments: Sequence[Sequence[str]],
    layer: str,
    place: str,
    sizes: Sequence[str],
) -> None:
    """One line for each block."""
    for b in range(r.count):
        given = [body.fn.texts[vector[b]] for vector in r.formals]
        found = [_result(body, r, slot, b) for slot in r.results]
        names = ", ".join(body.name(v) for v in found)
        call = f"{layer}({', '.join((*given, *sizes))}) as {place}[{b}]"
        body.lines.append(f"{names} = {call}")


def _result(body: Body, r: Repeat, slot: tuple[int, int], block: int) -> Value:
    return body.nodes[r.start + block * r.length + slot[0]].outputs[slot[1]]


# -- the layer -----------------------------------------------------------------------------------
def _layer(body: Body, r: Repeat, place: str) -> tuple[str, list[tuple[str, SymDim]]]:
    """Write the layer: its name, and the sizes that it takes beside its tensors."""
    module = body.fn.module
    aligned = [
        part[r.start + b * r.length : r.start + (b + 1) * r.length]
        for part in body.aligned for b in range(r.count)
    ]  # fmt: skip
    paths = [(*path, place, str(b)) for path in body.fn.paths for b in range(r.count)]
    names = Names()
    fn = Function(module, paths, names, Sizes(names))
    formals = [_formal(fn, vector[0]) for vector in r.formals]
    results = [_result(body, r, slot, 0) for slot in r.results]
    inner = Body(fn, aligned, results, body.write)
    body.write(inner)
    returned = inner.expression(Form(tuple(results), joined)).text
    inner.flush()
    extra = [(fn.sizes.texts[s.name], s) for s in fn.sizes.wanted]
    heads = ", ".join((*formals, *(f"{name}: int" for name, _ in extra)))
    lines = [f"layer {_NAME}({heads}) {{", *fn.rendered(inner.lines), f"return {returned}", "}"]
    return module.add_layer("\n".join(lines), _NAME), extra


def _formal(fn: Function, v: Value) -> str:
    """A tensor that a layer takes: sizes that it has first get their names by it."""
    dims: list[str] = []
    name = fn.names.fresh(hint_of(v, "x"))
    for d in v.type.shape:
        s = sole_symbol(d)
        if s is not None and s.name not in fn.sizes.texts:
            dims.append(fn.sizes.define(s))
        elif fn.sizes.knows(d):
            dims.append(fn.sizes.text(d))
        else:
            dims.append(fn.names.fresh("size"))
    fn.texts[v] = name
    return f"{name}: {v.type.dtype.name}[{', '.join(dims)}]"

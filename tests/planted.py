"""Faults to be planted in passes, rules, definitions and emitters, to see whether the fuzzer finds
them. Each is a small wrong change of one function; none makes compiled code touch memory that is
not its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from aisc.codegen.llvm.elementary import Elementary
from aisc.codegen.llvm.vector_math import MathEmitter
from aisc.ir import dtypes
from aisc.ir.graph import opdef
from aisc.ir.graph.ops import contraction, indexing, padding, reduction, transposed, window
from aisc.ir.graph.shapes.spatial import Window
from aisc.ir.tensor import combiner
from aisc.ir.tensor.expr import ZERO, Load, const
from aisc.ir.tensor.stmt import If
from aisc.passes.graph import affine, cse, fold, fuse, identities, layout, masks
from aisc.passes.lower import control, group
from aisc.passes.plan import arena
from aisc.passes.tensor import peel_tails


class Planting:
    """Sets attributes, of frozen records too, and puts the old ones back."""

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []

    def put(self, owner: Any, name: str, value: Any) -> None:
        frozen = is_dataclass(owner) and not isinstance(owner, type)
        setter = object.__setattr__ if frozen else setattr
        old = getattr(owner, name)
        self.undo.append(lambda: setter(owner, name, old))
        setter(owner, name, value)

    def item(self, table: dict[str, Any], key: str, value: Any) -> None:
        old = table[key]
        self.undo.append(lambda: table.__setitem__(key, old))
        table[key] = value

    def variant(self, op: str, compute: Callable[..., None]) -> None:
        """Another compute definition of an operator; it gets the true one first."""
        definition = opdef.get(op)
        true = next(iter(definition.variants.values()))
        made = opdef.Variant(lambda cb, call, ins, outs: compute(true.compute, cb, call, ins, outs))
        self.put(definition, "variants", {"direct": made})

    def with_attrs(self, op: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """A compute definition that sees other attributes."""

        def compute(true: Any, cb: Any, call: Any, ins: Any, outs: Any) -> None:
            true(cb, replace(call, attrs={**call.attrs, **change(dict(call.attrs))}), ins, outs)

        self.variant(op, compute)

    def decompose(self, op: str, change: Callable[..., Any]) -> None:
        """Another decomposition; it gets the true one first."""
        definition = opdef.get(op)
        true = definition.decompose
        self.put(definition, "decompose", lambda gb, call, xs: change(true, gb, call, xs))


Fault = Callable[[Planting], None]
FAULTS: dict[str, Fault] = {}


def fault(fn: Fault) -> Fault:
    FAULTS[fn.__name__] = fn
    return fn


@contextmanager
def planted(name: str) -> Iterator[None]:
    """With one fault in place."""
    p = Planting()
    FAULTS[name](p)
    try:
        yield
    finally:
        for undo in reversed(p.undo):
            undo()


# -- rules over graphs -----------------------------------------------------------------------------
@fault
def transposes_joined_in_the_wrong_order(p: Planting) -> None:
    def apply(m: Any) -> Any:
        inner = m.producer(m.input(0), "transpose")
        if inner is None:
            return None
        a, b = inner.attr("perm"), m.node.attr("perm")
        perm = tuple(b[k] for k in a)
        shape = tuple(inner.inputs[0].type.shape[k] for k in perm)
        if shape != m.node.output.type.shape:
            return None
        return (m.add("transpose", (inner.inputs[0],), {"perm": perm}, (inner,)),)

    p.put(identities.transpose_twice, "apply", apply)


@fault
def reversed_slices_dropped(p: Planting) -> None:
    true = identities.same_type_movement.apply

    def apply(m: Any) -> Any:
        if m.node.op == "slice" and m.input(0).type == m.node.output.type:
            return (m.input(0),)
        return true(m)

    p.put(identities.same_type_movement, "apply", apply)


@fault
def both_of_two_relus_dropped(p: Planting) -> None:
    def apply(m: Any) -> Any:
        inner = m.producer(m.input(0), "relu")
        return None if inner is None else (inner.inputs[0],)

    p.put(identities.relu_twice, "apply", apply)


@fault
def a_product_with_zero_is_its_operand(p: Planting) -> None:
    true = identities._neutral
    p.put(identities, "_neutral", lambda m, n: true(m, n) or (n == 1 and true(m, 0)))


@fault
def plus_one_dropped(p: Planting) -> None:
    true = identities._neutral
    p.put(identities, "_neutral", lambda m, n: true(m, n) or (n == 0 and true(m, 1)))


@fault
def cubes_are_squares(p: Planting) -> None:
    true = identities._neutral

    def apply(m: Any) -> Any:
        x = m.input(0)
        if not x.type.dtype.is_float or not (true(m, 2) or true(m, 3)):
            return None
        return (m.add("mul", (x, x)),)

    p.put(identities.small_power, "apply", apply)


@fault
def a_scale_leaves_the_bias(p: Planting) -> None:
    true = affine._again

    def again(m: Any, conv: Any, w: Any, b: Any) -> Any:
        return true(m, conv, w, affine._bias(m, conv) if m.node.op == "mul" else b)

    p.put(affine, "_again", again)


@fault
def a_shift_forgets_the_bias(p: Planting) -> None:
    true = affine._bias

    def bias(m: Any, conv: Any) -> Any:
        return true(m, conv) * (0 if m.node.op == "add" else 1)

    p.put(affine, "_bias", bias)


@fault
def a_square_transpose_is_a_reshape(p: Planting) -> None:
    def apply(m: Any) -> Any:
        x = m.input(0)
        if x.type.shape != m.node.output.type.shape:
            return None
        return (m.add("reshape", (x,), {"shape": m.node.output.type.shape}),)

    p.put(identities.transpose_is_reshape, "apply", apply)


@fault
def equal_whatever_the_attributes(p: Planting) -> None:
    def key(node: Any) -> object:
        if node.regions or node.op == "constant":
            return None
        types = tuple(str(v.type) for v in node.outputs)
        return node.op, tuple(None if v is None else id(v) for v in node.inputs), types

    p.put(cse, "_key", key)


@fault
def folding_swaps_operands(p: Planting) -> None:
    true = fold.run_reference

    def run(node: Any, arrays: Any) -> Any:
        types = [v.type for v in node.input_values]
        swap = len(types) == 2 and types[0] == types[1]
        return true(node, arrays[::-1] if swap else arrays)

    p.put(fold, "run_reference", run)


@fault
def axes_not_permuted_with_the_layout(p: Planting) -> None:
    p.put(layout, "_permuted", lambda values, perm: tuple(values))


@fault
def a_known_choice_taken_from_the_other_side(p: Planting) -> None:
    true = masks.where_known.apply

    def apply(m: Any) -> Any:
        found = true(m)
        a, b = m.input(1), m.input(2)
        if found is not None and a.type == b.type:
            return (b if found[0] is a else a,)
        return found

    p.put(masks.where_known, "apply", apply)


@fault
def fusion_swaps_operands(p: Planting) -> None:
    true = fuse._inside

    def inside(node: Any, inner: Any) -> Any:
        made = true(node, inner)
        return replace(made, inputs=made.inputs[::-1]) if node.op == "sub" else made

    p.put(fuse, "_inside", inside)


# -- decompositions --------------------------------------------------------------------------------
@fault
def batch_norm_takes_mean_for_bias(p: Planting) -> None:
    def change(true: Any, gb: Any, call: Any, xs: Sequence[Any]) -> Any:
        x, scale, bias, mean, variance = xs
        return true(gb, call, (x, scale, mean, bias, variance))

    p.decompose("batch_norm", change)


@fault
def no_square_root(p: Planting) -> None:
    def change(true: Any, gb: Any, call: Any, xs: Sequence[Any]) -> Any:
        return [reduction._squares(gb, call, xs[0])]

    p.decompose("reduce_l2", change)


@fault
def a_large_epsilon(p: Planting) -> None:
    def change(true: Any, gb: Any, call: Any, xs: Sequence[Any]) -> Any:
        return true(gb, replace(call, attrs={**call.attrs, "epsilon": 0.5}), xs)

    p.decompose("group_norm", change)


@fault
def a_kernel_not_turned(p: Planting) -> None:
    true = transposed._Form._flipped

    def flipped(form: Any, w: Any) -> Any:
        op, turned = form.op, copy(form)
        turned.op = lambda n, *a, **k: a[0] if n == "slice" else op(n, *a, **k)
        return true(turned, w)

    p.put(transposed._Form, "_flipped", flipped)


# -- definitions of loops --------------------------------------------------------------------------
@fault
def maxima_start_at_zero(p: Planting) -> None:
    wrong = replace(combiner.COMBINERS["max"], identity=lambda t: (const(0, t[0]),))
    p.item(combiner.COMBINERS, "max", wrong)


@fault
def minima_start_at_zero(p: Planting) -> None:
    wrong = replace(combiner.COMBINERS["min"], identity=lambda t: (const(0, t[0]),))
    p.item(combiner.COMBINERS, "min", wrong)


@fault
def a_triangle_off_by_one(p: Planting) -> None:
    p.with_attrs("trilu", lambda a: {"k": a["k"] + 1})


@fault
def a_reflection_with_the_edge(p: Planting) -> None:
    true = padding._pad_index

    def index(mode: str, at: Any, size: Any) -> Any:
        return true("edge" if mode == "reflect" else mode, at, size)

    p.put(padding, "_pad_index", index)


@fault
def negative_indices_not_wrapped(p: Planting) -> None:
    p.put(indexing, "wrapped", lambda index, size: indexing.e.cast(index, dtypes.i64))


@fault
def exclusive_sums_include(p: Planting) -> None:
    p.with_attrs("cumsum", lambda a: {"exclusive": False})


@fault
def the_padding_counts(p: Planting) -> None:
    def counts(self: Any, out: Any, t: Any) -> Any:
        return [const(int(np.prod(self.window.kernel)), t)]

    p.put(window._Pool, "counts", counts)


@fault
def dilation_ignored(p: Planting) -> None:
    def source(self: Any, axis: int, out: Any, tap: Any) -> Any:
        return out * self.strides[axis] + tap

    p.put(Window, "source", source)


@fault
def joined_the_other_way_round(p: Planting) -> None:
    def compute(true: Any, cb: Any, call: Any, ins: Any, outs: Any) -> None:
        same = len({b.shape for b in ins}) == 1
        true(cb, call, ins[::-1] if same else ins, outs)

    p.variant("concat", compute)


@fault
def the_other_gelu(p: Planting) -> None:
    definition = opdef.get("gelu")
    true = definition.scalar
    assert true is not None

    def scalar(call: Any, xs: Any) -> Any:
        other = "none" if call.attrs["approximate"] == "tanh" else "tanh"
        return true(replace(call, attrs={"approximate": other}), xs)

    p.put(definition, "scalar", scalar)


@fault
def a_coefficient_a_little_off(p: Planting) -> None:
    definition = opdef.get("hard_sigmoid")
    true = definition.scalar
    assert true is not None

    def scalar(call: Any, xs: Any) -> Any:
        attrs = {**call.attrs, "beta": call.attrs["beta"] + 1e-3}
        return true(replace(call, attrs=attrs), xs)

    p.put(definition, "scalar", scalar)


@fault
def ties_go_to_the_last(p: Planting) -> None:
    p.with_attrs("argmax", lambda a: {"select_last": True})


@fault
def a_mean_is_a_sum(p: Planting) -> None:
    p.variant("reduce_mean", lambda true, *args: reduction._plain("sum")(*args))


@fault
def every_batch_is_the_first(p: Planting) -> None:
    true = contraction._batch

    def batch(buf: Any, at: Any, matrix: Any) -> Any:
        found = true(buf, at, matrix)
        lead = buf.rank - len(matrix)
        return Load(buf, (*(ZERO for _ in range(lead)), *found.indices[lead:]))

    p.put(contraction, "_batch", batch)


# -- lowering and planning -------------------------------------------------------------------------
@fault
def arms_swapped(p: Planting) -> None:
    p.put(control, "If", lambda c, a, b: If(c, b, a))


@fault
def one_turn_less(p: Planting) -> None:
    true = control._test
    p.put(control, "_test", lambda st, i, trip, limit: true(st, i + 1, trip, limit))


@fault
def halves_not_exchanged(p: Planting) -> None:
    true = control._read
    p.put(control, "_read", lambda st, c, at: true(st, c, 0))


@fault
def a_vector_along_the_wrong_axis(p: Planting) -> None:
    true = group._broadcast

    def broadcast(b: Any, at: Any, out: Any) -> Any:
        square = b.rank == 1 and len(at) == 2 and out.shape[0] == out.shape[1] == b.shape[0]
        return Load(b, (at[0],)) if square else true(b, at, out)

    p.put(group, "_broadcast", broadcast)


@fault
def constants_lose_their_fractions(p: Planting) -> None:
    true = group.const

    def whole(value: Any, dtype: Any) -> Any:
        fraction = dtype.is_float and np.isfinite(value)
        return true(float(np.trunc(value)) if fraction else value, dtype)

    p.put(group, "const", whole)


@fault
def all_buffers_at_one_place(p: Planting) -> None:
    true = arena.first_fit

    def fit(items: Any) -> Any:
        _, total = true(items)
        return [0] * len(items), total

    p.put(arena, "first_fit", fit)


@fault
def the_last_turns_forgotten(p: Planting) -> None:
    true = peel_tails._divided

    def divided(loop: Any, index: Any, names: Any) -> Any:
        made = true(loop, index, names)
        return made if made is loop else made.stmts[0]

    p.put(peel_tails, "_divided", divided)


# -- emitters --------------------------------------------------------------------------------------
@fault
def unsigned_numbers_compared_as_signed(p: Planting) -> None:
    true = MathEmitter.compare

    def compare(self: Any, op: str, a: Any, b: Any) -> Any:
        if a.dtype.kind == "uint" and op not in ("eq", "ne"):
            return self.let(f"icmp s{op} {a.text}, {b.ref}", dtypes.boolean, a.lanes)
        return true(self, op, a, b)

    p.put(MathEmitter, "compare", compare)


@fault
def maxima_lose_nan(p: Planting) -> None:
    p.put(MathEmitter, "_float_extreme", lambda self, op, a, b: self._better(op, b, a))


@fault
def unsigned_numbers_keep_a_sign(p: Planting) -> None:
    true = MathEmitter._shift

    def shift(self: Any, op: str, a: Any, b: Any) -> Any:
        if op == "shr":
            return self.let(f"ashr {a.text}, {b.ref}", a.dtype, a.lanes)
        return true(self, op, a, b)

    p.put(MathEmitter, "_shift", shift)


@fault
def a_remainder_with_the_wrong_sign(p: Planting) -> None:
    true = MathEmitter._divide
    p.put(
        MathEmitter, "_divide",
        lambda self, op, a, b: true(self, "truncmod" if op == "mod" else op, a, b),
    )  # fmt: skip


@fault
def signed_numbers_become_unsigned_floats(p: Planting) -> None:
    true = MathEmitter.convert

    def convert(self: Any, v: Any, to: Any) -> Any:
        if v.dtype.kind == "int" and to.is_float:
            unsigned = {8: dtypes.u8, 16: dtypes.u16, 32: dtypes.u32, 64: dtypes.u64}
            v = replace(v, dtype=unsigned[v.dtype.bits])
        return true(self, v, to)

    p.put(MathEmitter, "convert", convert)


@fault
def a_function_a_little_off(p: Planting) -> None:
    true = Elementary.call

    def call(self: Any, name: str, x: Any) -> Any:
        found = true(self, name, x)
        if name != "tanh":
            return found
        return self.m.binary("mul", found, self.m.const(1.0005, found))

    p.put(Elementary, "call", call)


__all__ = ["FAULTS", "planted"]

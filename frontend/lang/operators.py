"""Operators in expressions and calls: of the graph IR, by name, and those that are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.sizes import what_is_left
from aisc.frontend.lang.scope import Item, Static, misfit, shown
from aisc.frontend.own import registry as own_operators
from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.location import Loc
from aisc.ir.types import MAX_SIZE

# Operators of the IR that have another form in the language, or that only passes make.
HIDDEN = frozenset({"constant", "fused", "if", "loop"})
# They test or name sizes of the run, and stay where they are written.
_STAYING = frozenset({"assume", "expect"})


def names() -> tuple[str, ...]:
    """Every operator that may be called by name."""
    known = (*opdef.all_ops(), *opdef.custom_ops())
    return tuple(o.name for o in known if o.name not in HIDDEN)


def exists(name: str) -> bool:
    """Whether there is an operator of this name to be called."""
    return name not in HIDDEN and (opdef.exists(name) or own_operators.find(name) is not None)


def tensors(em: Emitter, items: Sequence[Item], at: Loc) -> list[Value]:
    """Operands as tensors: numbers take the element type of the first tensor among them."""
    typed = next((v.type.dtype for v in items if isinstance(v, Value)), None)
    return [as_tensor(em, item, typed, at) for item in items]


def as_tensor(em: Emitter, item: Item, dtype: DType | None, at: Loc) -> Value:
    """A tensor, or a number as one; E109 for what is neither."""
    if isinstance(item, Value):
        return item
    if isinstance(item, Poly):
        return em.reshape(em.dims_value([item]), ())
    if isinstance(item, bool | int | float):
        whole = dtype is not None and not dtype.is_float and isinstance(item, float)
        if whole and not float(item).is_integer():
            raise misfit(f"{item} is no {dtype}", at=at)
        return em.constant(item, dtype or dtype_of(item))
    raise misfit(f"a tensor is expected, got {shown(item)}", at=at)


def flag(em: Emitter, item: Item, at: Loc, scalar: bool = True) -> Value:
    """A condition of the run; E109 for what is none."""
    value = as_tensor(em, item, None, at)
    if value.type.dtype is not dtypes.boolean or (scalar and value.type.rank > 0):
        wanted = "bool[]" if scalar else "a tensor of bool"
        many = scalar and value.type.rank > 0
        hint = ("of many values make one: reduce_max(x, axes=[0], keepdims=false)",) if many else ()
        raise misfit(f"a condition must be {wanted}, got {value.type}", *hint, at=at)
    return value


def dtype_of(number: bool | int | float) -> DType:
    """The element type of a number that stands alone."""
    if isinstance(number, bool):
        return dtypes.boolean
    return dtypes.i64 if isinstance(number, int) else dtypes.f32


def binary(em: Emitter, op: str, a: Item, b: Item, at: Loc) -> Value:
    """``a op b`` of which one is a tensor at least."""
    x, y = tensors(em, (a, b), at)
    if x.type.dtype is not y.type.dtype:
        raise misfit(f"{op} of {x.type} and {y.type}", "cast one of them: cast(x, to=f32)", at=at)
    if op == "not_equal":
        return em.op("not", em.op("equal", x, y))
    if op == "floordiv":
        rest = em.op("mod", x, y) if x.type.dtype.is_integer else None
        return em.op("floor", em.op("div", x, y)) if rest is None else em.op(
            "div", em.op("sub", x, rest), y
        )  # fmt: skip
    if op == "mod" and x.type.dtype.is_float:
        return em.op("sub", x, em.op("mul", em.op("floor", em.op("div", x, y)), y))
    return em.op(op, x, y)


def call(
    em: Emitter, name: str, args: Sequence[Item], given: Mapping[str, tuple[Item, Loc]], at: Loc
) -> list[Value]:
    """The results of an operator: tensors by place or name, attributes by name."""
    op = opdef.get(name)
    flat = [x for a in args for x in (a if isinstance(a, list) and op.inputs[:1] and
                                      op.inputs[-1].variadic else [a])]  # fmt: skip
    by_name = {k: v for k, (v, _) in given.items() if any(k == o.name for o in op.inputs)}
    needed = (a for a in op.attrs if a.default is None and a.name not in ("binds", *given))
    missing = next(needed, None)
    operands = _operands(op, flat, by_name, at)
    found = [x for x in operands if x is not None]
    made = iter(tensors(em, found, at))
    inputs = [None if x is None else next(made) for x in operands]
    attrs = {k: _attribute(op, k, v, inputs, where) for k, (v, where) in given.items()
             if k not in by_name}  # fmt: skip
    if missing is not None:
        raise misfit(f"{op.name} needs '{missing.name}'", _taken(op), at=at)
    if name == "sizes":
        values = opdef.complete_attrs(op, attrs, at)["values"]
        assert isinstance(values, tuple), "sizes"
        return [em.dims_value(list(values))]
    if name in _STAYING:
        return [em.builder.add(name, inputs, attrs, loc=em.loc)]
    if any(a.name == "binds" for a in op.attrs):  # how many results it finds is a new size
        attrs["binds"] = (em.names.fresh("d"),)
        return list(em.multi(name, *inputs, **attrs))
    if op.outputs == 1:
        return [em.op(name, *inputs, **attrs)]
    return list(em.multi(name, *inputs, **attrs))


def bind_dims(
    em: Emitter, args: Sequence[Item], given: Mapping[str, tuple[Item, Loc]], at: Loc
) -> list[Poly]:
    """``n, m = bind_dims(v)``: the elements of a vector as sizes. The run tests that they are
    from `least` to `most`, lists of numbers (0 and 2**31 where they are not given; inf: any)."""
    if len(args) != 1 or not isinstance(args[0], Value):
        raise misfit("bind_dims takes a vector of i64", at=at)
    vector = args[0]
    count = vector.type.shape[0] if vector.type.rank == 1 else None
    if vector.type.dtype is not dtypes.i64 or not isinstance(count, int):
        raise misfit(f"bind_dims takes i64[n] of a known length, got {vector.type}", at=at)
    ends: dict[str, list[float]] = {"least": [0.0] * count, "most": [float(MAX_SIZE)] * count}
    for name, (item, where) in given.items():
        if name not in ends:
            takes = "it takes values, least, most"
            raise misfit(f"bind_dims takes no '{name}'", takes, at=where)
        numbers = [x for x in item if isinstance(x, int | float)] if isinstance(item, list) else []
        if len(numbers) != count or not all(x >= 0 for x in numbers):
            raise misfit(f"'{name}' is a list of {count} numbers from 0 on", at=where)
        ends[name] = [float(x) for x in numbers]
    found = [em.names.fresh("d", int(low), None if math.isinf(high) else int(high))
             for low, high in zip(ends["least"], ends["most"], strict=True)]  # fmt: skip
    em.builder.add_multi("bind_dims", (vector,), {"binds": tuple(found)}, loc=em.loc)
    return found


def _operands(
    op: opdef.OpDef, args: Sequence[Item], by_name: Mapping[str, Item], at: Loc
) -> list[Item | None]:
    """The operands in order; nothing for optional ones that are left out."""
    if op.inputs and op.inputs[-1].variadic:
        return list(args)
    if len(args) > len(op.inputs):
        takes = ", ".join(o.name for o in op.inputs)
        raise misfit(f"{op.name} takes {len(op.inputs)} tensors ({takes}), got {len(args)}",
                     *_by_name(op), at=at)  # fmt: skip
    found: list[Item | None] = []
    for k, o in enumerate(op.inputs):
        value = args[k] if k < len(args) else by_name.get(o.name)
        if k < len(args) and o.name in by_name:
            raise misfit(f"{op.name} is given '{o.name}' twice", at=at)
        if value is None and not o.optional:
            raise misfit(f"{op.name} needs the tensor '{o.name}'", at=at)
        found.append(value)
    while found and found[-1] is None:
        found.pop()
    return found


def _attribute(
    op: opdef.OpDef, name: str, item: Item, inputs: Sequence[Value | None], at: Loc
) -> AttrValue:
    """A value in the form that an attribute has; E203 for an unknown one, E109 for another type."""
    known = {a.name: a for a in op.attrs}
    if name not in known:
        raise misfit(f"{op.name} takes no '{name}'", _taken(op), at=at)
    kind = known[name].type
    if kind == "dims" and isinstance(item, list):
        return _sizes(op, item, inputs, at)
    if isinstance(item, list):
        inner = {"ints": int, "floats": float, "strs": str}.get(kind)
        if inner is not None and all(isinstance(x, inner) for x in item):
            return tuple(item)
    kinds: dict[str, type | tuple[type, ...]] = {
        "int": int, "float": (int, float), "str": str, "bool": bool, "dtype": DType,
    }  # fmt: skip
    plain = kind in kinds and isinstance(item, kinds[kind])
    if not plain or (isinstance(item, bool) and kind != "bool"):
        hint = (f"a list: {name}=[{shown(item)}]",) if kind.endswith("s") else ()
        raise misfit(f"{op.name}: '{name}' is of type {kind}, got {shown(item)}", *hint, at=at)
    assert isinstance(item, bool | int | float | str | DType), "checked above"
    return float(item) if kind == "float" and isinstance(item, int) else item


def _taken(op: opdef.OpDef) -> str:
    """What an operator takes, in words."""
    attrs = (f"{a.name}: {' or '.join(a.choices) or a.type}" for a in op.attrs)
    return f"it takes {', '.join((*(o.name for o in op.inputs), *attrs)) or 'nothing'}"


def _by_name(op: opdef.OpDef) -> tuple[str, ...]:
    """How attributes are given, for the first one."""
    operands = ", ".join(o.name for o in op.inputs if not o.optional)
    example = f"{op.name}({operands}, {op.attrs[0].name}=…)" if op.attrs else ""
    return (f"attributes are given by name: {example}",) if op.attrs else ()


def _sizes(
    op: opdef.OpDef, item: list[Static], inputs: Sequence[Value | None], at: Loc
) -> tuple[object, ...]:
    sizes = list(item)
    wrong = next((x for x in sizes if not isinstance(x, int | Poly) or isinstance(x, bool)), None)
    if wrong is not None:
        raise misfit(f"{op.name}: a size must be a whole number, got {shown(wrong)}", at=at)
    open_ones = [k for k, x in enumerate(sizes) if x == -1]
    if op.name == "reshape" and len(open_ones) == 1 and inputs and inputs[0] is not None:
        others = [x for x in sizes if x != -1]
        rest = what_is_left(inputs[0].type.shape, others)  # type: ignore[arg-type]
        if rest is None:
            raise misfit(f"{inputs[0].type} has no whole size left for -1", at=at)
        sizes[open_ones[0]] = rest
    return tuple(sizes)

"""Expressions of Python: what is known now is computed by Python, what is not becomes nodes."""

from __future__ import annotations

import ast
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np

from aisc.frontend.arrays import arithmetic
from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.registry import method_of
from aisc.frontend.arrays.state import mapped
from aisc.frontend.arrays.subscripts import read_item
from aisc.frontend.arrays.values import (
    Frame,
    Maybe,
    Method,
    Partial,
    Record,
    Tensor,
    Unset,
    is_number,
    misfit,
    refused,
    shown,
)
from aisc.frontend.pyast.operations import CONTAINERS, MAX_LENGTH, Operating, of_the_run
from aisc.frontend.pyast.scope import Guard, Local, Scope
from aisc.frontend.pyast.source import Text
from aisc.ir.arith.poly import Poly
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

_SIGNS: Mapping[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Invert: operator.invert,
}
_LISTS = (
    "append",
    "extend",
    "insert",
    "pop",
    "reverse",
    "clear",
    "copy",
    "index",
    "count",
    "remove",
)
_DICTS = ("get", "keys", "values", "items", "update", "pop", "setdefault", "copy")
_TEXTS = ("upper", "lower", "startswith", "endswith", "format", "join", "split", "strip", "replace")


class Evaluator(Operating):
    """Evaluates expressions in a scope. Calls and statements are added by subclasses."""

    def __init__(self, frame: Frame, scope: Scope) -> None:
        super().__init__(frame)
        self.scope = scope
        self.parent: Loc | None = None
        self.guards: dict[tuple[int, str], Guard] = {}

    @property
    def text(self) -> Text:
        """The file of the function at hand."""
        return self.scope.text

    # --- names --------------------------------------------------------------------------------
    def lookup(self, name: str, node: ast.AST) -> Any:
        """What a name stands for; E108 where nothing is called so."""
        if name in self.state.names:
            item = self.state.names[name]
            if isinstance(item, Maybe):
                item = self.state.names[name] = self.surely(item, name, node)
            if isinstance(item, Partial):
                if isinstance(self.state.code, int) and self.state.code in item.codes:
                    return item.item
                raise refused(
                    f"'{name}' may have no value here: {item.why}",
                    "set it before",
                    loc=self.at(node),
                )
            if isinstance(item, Unset):
                raise refused(
                    f"'{name}' has no value here: {item.why}", "set it before", loc=self.at(node)
                )
            return item
        return self.scope.outside(name, self.at(node), self.guards)

    def surely(self, item: Maybe, name: str, node: ast.AST) -> Any:
        """A variable in runs in which it is set; the others end here."""
        self.loc = self.at(node)
        flag = self.read(item.flag)
        attrs: dict[str, Any] = {"message": f"'{name}' has no value: {item.why}"}

        def tested(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return self.new(
                self.em.builder.add("expect", (self.read(x), flag), attrs, loc=self.loc), x.weak
            )

        return mapped(item.item, tested)

    def at(self, node: ast.AST) -> Loc:
        """The place of a piece of syntax."""
        return self.text.loc(node, parent=self.parent)

    # --- expressions --------------------------------------------------------------------------
    def expr(self, node: ast.expr) -> Any:
        """The value of an expression; faults of the library get its place."""
        before, self.loc = self.loc, self.at(node)
        rule = _RULES.get(type(node))
        if rule is None:
            what = type(node).__name__
            raise refused(f"this expression ({what}) is not supported", loc=self.loc)
        found = rule(self, node)
        self.loc = before
        return found

    def _constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, complex | bytes):
            raise refused(f"{type(node.value).__name__} is not supported", loc=self.loc)
        return node.value

    def _name(self, node: ast.Name) -> Any:
        return self.lookup(node.id, node)

    def _tuple(self, node: ast.Tuple) -> Any:
        return tuple(self._items(node.elts))

    def _list(self, node: ast.List) -> Any:
        return self._items(node.elts)

    def _items(self, nodes: Iterable[ast.expr]) -> list[Any]:
        found: list[Any] = []
        for n in nodes:
            if isinstance(n, ast.Starred):
                found += self.sequence(self.expr(n.value), n)
            else:
                found.append(self.expr(n))
        return found

    def _dict(self, node: ast.Dict) -> Any:
        found: dict[Any, Any] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                found.update(self.expr(value))
            else:
                found[self._key(self.expr(key))] = self.expr(value)
        return found

    def _key(self, key: Any) -> Any:
        if isinstance(key, Tensor | Poly):
            raise refused("a key of a dict must be known now", f"got {shown(key)}", loc=self.loc)
        return key

    def _slice(self, node: ast.Slice) -> Any:
        parts = [None if n is None else self.expr(n) for n in (node.lower, node.upper, node.step)]
        return slice(*parts)

    def _joined(self, node: ast.JoinedStr) -> str:
        parts = []
        for n in node.values:
            found = self.expr(n.value if isinstance(n, ast.FormattedValue) else n)
            parts.append(str(found) if not isinstance(found, Tensor) else f"<{shown(found)}>")
        return "".join(parts)

    def _unary(self, node: ast.UnaryOp) -> Any:
        x = self.expr(node.operand)
        self.loc = self.at(node)
        if isinstance(node.op, ast.Not):
            flag = self.condition(x)
            return (
                not flag if isinstance(flag, bool) else self.new(self.em.op("not", flag), weak=True)
            )
        if isinstance(x, CONTAINERS):
            return self.natively(_SIGNS[type(node.op)], x)
        if isinstance(node.op, ast.USub):
            return arithmetic.minus(self, x)
        if isinstance(node.op, ast.UAdd):
            return x
        return ~x if isinstance(x, int) else elementwise(self, "invert", x)

    def _binary(self, node: ast.BinOp) -> Any:
        a, b = self.expr(node.left), self.expr(node.right)
        self.loc = self.at(node)
        return self.combine(node.op, a, b)

    def _compare(self, node: ast.Compare) -> Any:
        left = self.expr(node.left)
        found: Any = True
        for op, right in zip(node.ops, node.comparators, strict=True):
            x = self.expr(right)
            self.loc = self.at(node)
            one = self.compared(op, left, x)
            found = one if found is True else self.both(found, one)
            if found is False:
                return False
            left = x
        return found

    def _bool(self, node: ast.BoolOp) -> Any:
        """``a and b``: as Python, the last operand that was needed. Where only the run knows
        whether that is the first, both are numbers of truth."""
        is_and = isinstance(node.op, ast.And)
        found = self.expr(node.values[0])
        for k, n in enumerate(node.values[1:], 1):
            self.loc = self.at(node)
            flag = self.condition(found)
            if isinstance(flag, bool):
                if flag is not is_and:
                    return found
                found = self.expr(n)
                continue
            rest = node.values[k:]
            more = (
                ast.BoolOp(node.op, rest, lineno=n.lineno, col_offset=n.col_offset)
                if len(rest) > 1
                else n
            )
            rest_of = partial(self.expr, more)
            stays = partial(_itself, found)
            return self.either(flag, *((rest_of, stays) if is_and else (stays, rest_of)))
        return found

    def _if_expr(self, node: ast.IfExp) -> Any:
        flag = self.condition(self.expr(node.test))
        if isinstance(flag, bool):
            return self.expr(node.body if flag else node.orelse)
        return self.either(flag, lambda: self.expr(node.body), lambda: self.expr(node.orelse))

    def either(self, flag: Value, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        """The value of one of two expressions, as the run decides."""
        raise NotImplementedError

    def _subscript(self, node: ast.Subscript) -> Any:
        of, key = self.expr(node.value), self.expr(node.slice)
        self.loc = self.at(node)
        return self.item(of, key)

    def item(self, of: Any, key: Any) -> Any:
        """``of[key]``."""
        if isinstance(of, np.ndarray):
            of = self.array(of)
        if isinstance(of, Tensor):
            return read_item(self, of, key)
        if isinstance(of, list | tuple | str | range) and isinstance(key, Tensor | Poly):
            if (
                isinstance(of, list | tuple)
                and of
                and all(isinstance(x, Tensor) or is_number(x) for x in of)
            ):
                return read_item(self, self.stacked(of), key)
            key = self.int_of(key, "the index of a list")
        if isinstance(of, dict):
            self._key(key)
        if isinstance(of, Record):
            raise misfit(f"a {of.cls.__name__} has no elements", loc=self.loc)
        return self.natively(lambda: of[key])

    def _lambda(self, node: ast.Lambda) -> Local:
        defaults = tuple(self.expr(d) for d in node.args.defaults)
        more = {
            a.arg: self.expr(d)
            for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if d is not None
        }
        return Local("<lambda>", node, self.text, self.closure(), defaults, more)

    def closure(self) -> Any:
        """What a function that is defined here sees of this one."""
        return self.scope, self.state

    def _walrus(self, node: ast.NamedExpr) -> Any:
        found = self.expr(node.value)
        self.state.names[node.target.id] = found
        return found

    def _attribute(self, node: ast.Attribute) -> Any:
        of = self.expr(node.value)
        self.loc = self.at(node)
        return self.attribute_of(of, node.attr)

    def attribute_of(self, of: Any, name: str) -> Any:
        """``of.name``."""
        if isinstance(of, np.ndarray) and not isinstance(of, np.generic):
            of = self.array(of)
        if isinstance(of, Tensor):
            return self._of_array(of, name)
        if isinstance(of, Record):
            if name in of.fields:
                return of.fields[name]
            return self._of_class(of, name)
        if isinstance(of, list | dict | str | tuple | range) and not hasattr(of, "_fields"):
            known = {list: _LISTS, dict: _DICTS, str: _TEXTS}.get(type(of), ("index", "count"))
            if name in known:
                return Method(of, name)
            raise refused(f"'{name}' of a {type(of).__name__} is not supported", loc=self.loc)
        found: list[Any] = []  # which an array goes through as it is
        self.natively(lambda: found.append(getattr(of, name)))
        if not isinstance(of, types.ModuleType | type) and not callable(found[0]):
            self.guards[id(of), name] = Guard(of, name, found[0])
        return found[0]

    def _of_array(self, t: Tensor, name: str) -> Any:
        v = self.read(t)
        if t.weak and name != "real":
            raise misfit(f"a number of Python's has no '{name}' that is supported", loc=self.loc)
        match name:
            case "shape":
                return tuple(v.type.shape)
            case "ndim":
                return v.type.rank
            case "size":
                return v.type.size
            case "dtype":
                return v.type.dtype.numpy
            case "T":
                return self.new(self.em.transpose(v, tuple(range(v.type.rank))[::-1]))
            case "real":
                return t
            case "itemsize":
                return v.type.dtype.bytes
        if method_of(name) is None:
            known = "there are shape, T, sum, reshape, …"
            raise refused(f"'{name}' of an array is not supported", known, loc=self.loc)
        return Method(t, name)

    def _of_class(self, record: Record, name: str) -> Any:
        found = self.natively(getattr, record.cls, name)
        raw = record.cls.__dict__.get(name, found)
        if isinstance(raw, property):
            return self.call(raw.fget, [record], {})
        if isinstance(found, types.FunctionType) and not isinstance(raw, staticmethod):
            return Method(record, name)
        return found

    def call(self, fn: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of a call."""
        raise NotImplementedError

    # --- sequences ----------------------------------------------------------------------------
    def sequence(self, x: Any, node: ast.AST | None) -> list[Any]:
        """The items of what is known to have so many; an array of known length gives its rows."""
        if isinstance(x, Tensor):
            v = self.read(x)
            size = v.type.shape[0] if v.type.rank else None
            if isinstance(size, int) and size <= MAX_LENGTH:
                return [read_item(self, x, k) for k in range(size)]
            raise misfit(f"how many items {shown(x)} has is not known", loc=self.loc)
        if isinstance(
            x,
            list
            | tuple
            | str
            | range
            | dict
            | types.GeneratorType
            | zip
            | enumerate
            | reversed
            | map,
        ):
            if hasattr(x, "__len__") and len(x) > MAX_LENGTH:
                raise refused(
                    f"a sequence of {len(x)} items is too long to be unrolled", loc=self.loc
                )
            return list(x)
        if hasattr(x, "__iter__") and not of_the_run(x):
            return list(x)
        raise misfit(f"{shown(x)} has no items", loc=self.loc)

    def _comprehension(
        self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp
    ) -> Any:
        found: list[Any] = []
        hidden = dict(self.state.names)

        def turn(k: int) -> None:
            if k == len(node.generators):
                if isinstance(node, ast.DictComp):
                    found.append((self._key(self.expr(node.key)), self.expr(node.value)))
                else:
                    found.append(self.expr(node.elt))
                return
            g = node.generators[k]
            for item in self.sequence(self.expr(g.iter), g.iter):
                self.assign(g.target, item)
                flags = [self.condition(self.expr(test)) for test in g.ifs]
                if not all(isinstance(f, bool) for f in flags):
                    raise refused(
                        "a list whose length only the run knows",
                        "use np.where or a mask",
                        loc=self.loc,
                    )
                if all(flags):
                    turn(k + 1)

        turn(0)
        self.state.names = hidden
        return dict(found) if isinstance(node, ast.DictComp) else found

    def assign(self, target: ast.expr, item: Any) -> None:
        """Bind a target to a value."""
        raise NotImplementedError


def _itself(x: Any) -> Any:
    return x


_RULES: dict[type, Callable[[Any, Any], Any]] = {
    ast.Constant: Evaluator._constant, ast.Name: Evaluator._name, ast.Tuple: Evaluator._tuple,
    ast.List: Evaluator._list, ast.Dict: Evaluator._dict, ast.Slice: Evaluator._slice,
    ast.JoinedStr: Evaluator._joined, ast.UnaryOp: Evaluator._unary, ast.BinOp: Evaluator._binary,
    ast.Compare: Evaluator._compare, ast.BoolOp: Evaluator._bool, ast.IfExp: Evaluator._if_expr,
    ast.Subscript: Evaluator._subscript, ast.Lambda: Evaluator._lambda,
    ast.NamedExpr: Evaluator._walrus, ast.Attribute: Evaluator._attribute,
    ast.ListComp: Evaluator._comprehension, ast.GeneratorExp: Evaluator._comprehension,
    ast.DictComp: Evaluator._comprehension,
    ast.Call: lambda self, node: self.call_expr(node),
}  # fmt: skip

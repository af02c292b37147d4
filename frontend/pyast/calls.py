"""Calls: of the library, of functions that become part of this one, of what Python can do now."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.creation import dtype_of
from aisc.frontend.arrays.registry import handler_of, method_of, ufunc_of
from aisc.frontend.arrays.state import RETURN, State, leaves
from aisc.frontend.arrays.values import Method, Record, Tensor, misfit, refused, shown
from aisc.frontend.pyast.evaluate import Evaluator
from aisc.frontend.pyast.operations import MAX_LENGTH
from aisc.frontend.pyast.scope import Local, Scope, assigned_in, scope_of
from aisc.frontend.pyast.source import capture
from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly
from aisc.ir.diagnostics import CompileError

MAX_CALLS = 64  # functions in each other
# How many arguments classes of Python's own take.
_ARITIES: Mapping[type, tuple[int, int]] = {
    list: (0, 1), tuple: (0, 1), range: (1, 3), enumerate: (1, 2), reversed: (1, 1),
    map: (2, 1 << 16), filter: (2, 2), zip: (0, 1 << 16), dict: (0, 1),
}  # fmt: skip
_PURE = frozenset({"math", "builtins", "operator", "numpy", "_operator", "itertools", "functools"})
_IMPURE = frozenset({
    "print", "input", "open", "exec", "eval", "compile", "globals", "locals", "vars", "setattr",
    "delattr", "id", "hash", "iter", "next", "breakpoint", "__import__", "memoryview", "super",
    "dir",
})  # fmt: skip
_HINTS = {
    "print": "look at values with the interpreter: function.interpret(…)",
    "next": "loop with for", "iter": "loop with for", "eval": "write the expression itself",
}  # fmt: skip


class Caller(Evaluator):
    """Evaluates calls."""

    depth = 0
    open: tuple[Any, ...] = ()  # the functions at whose calls we are

    def call_expr(self, node: ast.Call) -> Any:
        """The value of a call."""
        fn = self.expr(node.func)
        args: list[Any] = self._items(node.args)
        kwargs: dict[str, Any] = {}
        for k in node.keywords:
            if k.arg is None:
                kwargs.update(self.expr(k.value))
            else:
                kwargs[k.arg] = self.expr(k.value)
        before, self.loc = self.loc, self.at(node)
        found = self.call(fn, args, kwargs)
        self.loc = before
        return found

    def call(self, fn: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of calling what is known to be called."""
        if isinstance(fn, Local):
            return self._inlined(fn, fn.node, self._local_scope(fn), args, kwargs, fn)
        if isinstance(fn, Method):
            return self._method(fn, args, kwargs)
        if isinstance(fn, Tensor | Poly) or not callable(fn):
            raise misfit(f"{shown(fn)} cannot be called", loc=self.loc)
        handler = handler_of(fn)
        if handler is not None and self._needs_handler(fn, args, kwargs):
            return self._handled(handler, getattr(fn, "__name__", str(fn)), args, kwargs)
        ufunc = ufunc_of(fn)
        if ufunc and (isinstance(fn, np.ufunc) or any(isinstance(x, Tensor | Poly) for x in args)):
            return self._ufunc(fn, ufunc, args, kwargs)
        if isinstance(fn, type):
            return self._constructed(fn, args, kwargs)
        if _is_written(fn):
            return self._function(fn, args, kwargs)
        return self._by_python(fn, args, kwargs)

    @staticmethod
    def _needs_handler(fn: Any, args: list[Any], kwargs: Mapping[str, Any]) -> bool:
        """Functions of Python's own are Python's where all is known."""
        if not isinstance(fn, type) and getattr(fn, "__module__", "") != "builtins":
            return True
        return any(isinstance(x, Tensor | Poly | Record) for x in leaves([args, dict(kwargs)]))

    def _handled(
        self, handler: Callable[..., Any], name: str, args: list[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        try:
            inspect.signature(handler).bind(self, *args, **kwargs)
        except TypeError as fault:
            raise misfit(f"{name}: {fault}", loc=self.loc) from None
        return handler(self, *args, **kwargs)

    def _ufunc(self, fn: Any, name: str, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        if fn is math.log and len(args) == 2:
            return elementwise(self, "true_divide", *(elementwise(self, "log", x) for x in args))
        extra = {k: v for k, v in kwargs.items() if not (k == "dtype" or v is None)}
        if extra or len(args) != getattr(np, name).nin:
            wrong = next(iter(extra), "")
            raise misfit(
                f"{name} takes {getattr(np, name).nin} arrays"
                + (f", no '{wrong}'" if wrong else ""),
                loc=self.loc,
            )
        made = elementwise(self, name, *args)
        wanted = kwargs.get("dtype")
        if wanted is not None:
            made = self.new(self.em.cast(self.read(made), dtype_of(self, wanted, dtypes.f64)))
        return made

    # --- methods ------------------------------------------------------------------------------
    def _method(self, m: Method, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(m.of, Tensor):
            if m.name in ("sort", "fill", "put", "itemset", "resize", "partition"):
                hints = {"sort": "x = np.sort(x)", "fill": "x[...] = value"}
                raise refused(
                    f"x.{m.name}() changes an array in place",
                    hints.get(m.name, "write to x[…]"),
                    loc=self.loc,
                )
            handler = method_of(m.name)
            assert handler is not None, "it was looked up"
            return self._handled(handler, m.name, [m.of, *args], kwargs)
        if isinstance(m.of, Record):
            found = getattr(m.of.cls, m.name)
            return self.call(found, [m.of, *args], kwargs)
        if isinstance(m.of, str) and any(
            isinstance(x, Tensor | Poly) for x in leaves([args, dict(kwargs)])
        ):
            raise refused("a text of the run's numbers", loc=self.loc)
        if m.name in ("index", "count", "remove") and any(
            isinstance(x, Tensor) for x in [*m.of, *args]
        ):
            raise refused(
                f"'{m.name}' compares values of the run", "np.argmax(x == value)", loc=self.loc
            )
        found = self.natively(getattr(m.of, m.name), *args, **kwargs)
        return list(found) if m.name in ("keys", "values", "items") else found

    # --- classes ------------------------------------------------------------------------------
    def _constructed(self, cls: type, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """An instance: of a dataclass its fields, of a type of numpy's a number of that type."""
        if issubclass(cls, np.generic):
            given = args[0] if args else 0
            return self.new(self.em.cast(self.value(given), dtype_of(self, cls, dtypes.f64)))
        if dataclasses.is_dataclass(cls):
            return self._record(cls, args, kwargs)
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return self.natively(cls, *args, **kwargs)
        least, most = _ARITIES.get(cls, (0, len(args)))
        if not least <= len(args) <= most:
            return self.natively(cls, *args, **kwargs)  # which says what is wrong
        if cls in (list, tuple):
            items = self.sequence(args[0], None) if args else []
            return items if cls is list else tuple(items)
        if cls is dict:
            return self.natively(dict, *args, **kwargs)
        if cls is range:
            return range(*(self.int_of(x, "an end of a range") for x in args))
        if cls is zip:
            return list(zip(*(self.sequence(x, None) for x in args), strict=False))
        if cls is enumerate:
            start = kwargs.get("start", args[1] if len(args) > 1 else 0)
            return list(enumerate(self.sequence(args[0], None), start))
        if cls is reversed:
            return self.sequence(args[0], None)[::-1]
        if cls in (map, filter) and len(args) > 1:
            rows = zip(*(self.sequence(x, None) for x in args[1:]), strict=False)
            found = [(row, self.call(args[0], list(row), {})) for row in rows]
            if cls is map:
                return [y for _, y in found]
            return [row[0] for row, y in found if self._told(y)]
        if cls in (int, float, bool, str, slice, np.dtype):
            return self.natively(cls, *args, **kwargs)
        if issubclass(cls, BaseException):
            return self.natively(
                cls, *(str(shown(x)) if isinstance(x, Tensor) else x for x in args)
            )
        raise refused(
            f"objects of {cls.__name__} cannot be made",
            "make them outside, or use a dataclass",
            loc=self.loc,
        )

    def _told(self, x: Any) -> bool:
        found = self.condition(x)
        if not isinstance(found, bool):
            raise refused("a list whose length only the run knows", "use a mask", loc=self.loc)
        return found

    def _record(self, cls: type, args: list[Any], kwargs: Mapping[str, Any]) -> Record:
        if "__post_init__" in dir(cls):
            raise refused(f"{cls.__name__} has a __post_init__", "make it outside", loc=self.loc)
        bound = self.natively(inspect.signature(cls).bind, *args, **kwargs)
        bound.apply_defaults()
        return Record(cls, dict(bound.arguments))

    # --- functions ----------------------------------------------------------------------------
    def _function(self, fn: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """A function that somebody wrote in Python: it becomes part of this one."""
        if not isinstance(fn, types.FunctionType | types.MethodType) and not hasattr(
            fn, "__wrapped__"
        ):
            fn = types.MethodType(type(fn).__call__, fn)
        try:
            captured = capture(fn)
        except CompileError as fault:
            raise refused(
                f"'{getattr(fn, '__name__', fn)}' cannot be read: {fault.diagnostics[0].message}",
                *fault.diagnostics[0].notes,
                loc=self.loc,
            ) from None
        defaults = captured.function.__defaults__ or ()
        local = Local(
            captured.name,
            captured.definition,
            captured.text,
            None,
            defaults,
            captured.function.__kwdefaults__ or {},
        )
        given = [*captured.first, *args]
        return self._inlined(
            captured.function, captured.definition, scope_of(captured), given, kwargs, local
        )

    @staticmethod
    def _local_scope(fn: Local) -> Scope:
        outer = fn.scope[0]
        return Scope(fn.text, outer.names, assigned_in(fn.node), outer.cells, fn.scope)

    def _inlined(
        self,
        identity: Any,
        node: ast.FunctionDef | ast.Lambda,
        scope: Scope,
        args: list[Any],
        kwargs: Mapping[str, Any],
        local: Local,
    ) -> Any:
        if identity in self.open:
            raise refused(f"'{local.name}' calls itself", "write a loop", loc=self.loc)
        if len(self.open) > MAX_CALLS:
            raise refused(f"more than {MAX_CALLS} calls in each other", loc=self.loc)
        names = self.bound(local, args, kwargs)
        saved = self.scope, self.state, self.parent, self.open, self.loc
        state = State(names, self.state.contents, self.state.writes)
        self.parent, self.open = self.loc, (*self.open, identity)
        self.scope, self.state = scope, state
        try:
            return self.body(node)
        finally:
            contents, writes = self.state.contents, self.state.writes
            self.scope, self.state, self.parent, self.open, self.loc = saved
            self.state.contents, self.state.writes = contents, writes

    def body(self, node: ast.FunctionDef | ast.Lambda) -> Any:
        """What a function returns for the names at hand."""
        if isinstance(node, ast.Lambda):
            return self.expr(node.body)
        if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in _own_nodes(node)):
            raise refused(
                "a generator cannot be compiled", "return a list or an array", loc=self.at(node)
            )
        self.block(node.body)
        return self.returned(node)

    def returned(self, node: ast.FunctionDef) -> Any:
        """The result of a body that has ended, ``None`` where nothing was returned."""
        may = self.state.may
        if may == frozenset({RETURN}):
            return self.state.result
        if RETURN not in may:
            return None
        if self.state.result is None:
            return None
        raise refused(
            f"'{node.name}' returns a value on some ways only",
            "return one at the end as well",
            loc=self.at(node),
        )

    def block(self, statements: list[ast.stmt]) -> None:
        """Run statements."""
        raise NotImplementedError

    def bound(self, fn: Local, args: list[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters by name, as Python binds them."""
        a = fn.node.args
        plain = [p.arg for p in (*a.posonlyargs, *a.args)]
        only = [p.arg for p in a.kwonlyargs]
        names: dict[str, Any] = dict(
            zip(plain[len(plain) - len(fn.defaults) :], fn.defaults, strict=True)
        )
        names.update(fn.keyword_defaults)
        if len(args) > len(plain) and a.vararg is None:
            raise misfit(f"'{fn.name}' takes {len(plain)} arguments, got {len(args)}", loc=self.loc)
        names.update(zip(plain, args, strict=False))
        more = dict(kwargs)
        for name in (*plain[len(a.posonlyargs) :], *only):
            if name in more:
                if name in plain[: len(args)]:
                    raise misfit(f"'{fn.name}' is given '{name}' twice", loc=self.loc)
                names[name] = more.pop(name)
        if a.vararg is not None:
            names[a.vararg.arg] = tuple(args[len(plain) :])
        if a.kwarg is not None:
            names[a.kwarg.arg] = more
        elif more:
            raise misfit(f"'{fn.name}' takes no '{next(iter(more))}'", loc=self.loc)
        missing = [n for n in (*plain, *only) if n not in names]
        if missing:
            raise misfit(f"'{fn.name}' needs '{missing[0]}'", loc=self.loc)
        return names

    # --- Python -------------------------------------------------------------------------------
    def _by_python(self, fn: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
        """What Python itself gives for values that are known, from modules without a memory."""
        name = getattr(fn, "__name__", type(fn).__name__)
        module = (getattr(fn, "__module__", None) or type(fn).__module__ or "").partition(".")[0]
        if name in _IMPURE and module in ("builtins", "io", "_io"):
            more_of = (_HINTS[name],) if name in _HINTS else ()
            raise refused(f"{name}() cannot be compiled", *more_of, loc=self.loc)
        random = "random" in str(getattr(fn, "__module__", "")) or "random" in str(
            getattr(fn, "__self__", "")
        )
        if (module not in _PURE and not _is_pure_method(fn)) or random:
            hint = (
                "give its result as an argument"
                if random
                else "write it in Python, or call it outside"
            )
            raise refused(f"'{name}' cannot be compiled", hint, loc=self.loc)
        known = [self._known_array(x) for x in args]
        more = {k: self._known_array(x) for k, x in kwargs.items()}
        if any(isinstance(x, Tensor | Poly | Record | Local) for x in leaves([known, more])):
            what = f"np.{name}" if module == "numpy" else f"'{name}'"
            raise refused(f"{what} of values of the run is not supported", loc=self.loc)
        if name == "range" or len(known) > MAX_LENGTH:
            raise refused("too many values", loc=self.loc)
        return self.natively(fn, *known, **more)

    def _known_array(self, x: Any) -> Any:
        """An array whose contents are known, for Python to compute with."""
        if isinstance(x, list | tuple):
            items = [self._known_array(i) for i in x]
            return items if isinstance(x, list) else tuple(items)
        if not isinstance(x, Tensor):
            return x
        found = self.em.array(self.read(x))
        return x if found is None else np.array(found)


def _is_written(fn: Any) -> bool:
    """Whether a callable is a function of Python's language, and not of numpy's."""
    while not isinstance(fn, types.FunctionType):
        if isinstance(fn, types.MethodType):
            fn = fn.__func__
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        elif isinstance(vars(type(fn)).get("__call__"), types.FunctionType):
            fn = vars(type(fn))["__call__"]
        else:
            return False
    return fn.__module__.partition(".")[0] not in (
        "numpy",
        "math",
        "itertools",
        "functools",
        "random",
    )


def _is_pure_method(fn: Any) -> bool:
    """A method of a number, text or other value that cannot change."""
    return isinstance(
        getattr(fn, "__self__", None), int | float | str | tuple | np.dtype | np.generic
    )


def _own_nodes(node: ast.FunctionDef) -> list[ast.AST]:
    """The pieces of a function without those of functions inside it."""
    found: list[ast.AST] = []
    todo: list[ast.AST] = list(node.body)
    while todo:
        n = todo.pop()
        if not isinstance(n, ast.FunctionDef | ast.Lambda | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(n)
            todo += list(ast.iter_child_nodes(n))
    return found

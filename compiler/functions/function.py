"""``@aisc.function``: a Python function with numpy's names that is compiled when it is called.

    @aisc.function
    def norm(x):
        return np.sqrt(np.sum(x * x))

For each combination of element types and numbers of axes it is captured once; sizes, and numbers
that are arguments, are open. What must be known, such as an axis, is a guard: another value of it is
another version.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aisc.codegen.run.executable import Executable
from aisc.driver.api import Level, Targets
from aisc.driver.api import compile as compile_model
from aisc.driver.api import lower as lower_model
from aisc.frontend.pyast.arguments import Argument, Result, is_leaf_array, tree_map
from aisc.frontend.pyast.capture import Model, graph_of
from aisc.frontend.pyast.source import Captured, capture
from aisc.frontend.pyast.values import Known, of_numpy
from aisc.ir import dtypes
from aisc.ir.diagnostics import error
from aisc.ir.graph.interpret import interpret

_WEAK = {bool: dtypes.boolean, int: dtypes.i64, float: dtypes.f64}
_MISSING = object()


@dataclass(slots=True)
class Version:
    """The function for arguments of some types. known: paths of numbers that are guards."""

    model: Model
    known: frozenset[str]
    outside: list[tuple[Mapping[str, Any], str, Any]]
    executable: Executable | None = None


@dataclass(eq=False)
class Function:
    """A compiled Python function."""

    python: Callable[..., Any]
    options: dict[str, Any] = field(default_factory=dict)
    _captured: Captured | None = None
    _signature: inspect.Signature | None = None
    _known: dict[Any, frozenset[str]] = field(default_factory=dict)
    _versions: dict[Any, Version] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        functools.update_wrapper(self, self.python)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """A method of the instance that holds the parameters."""
        if instance is None:
            return self
        name = f"_aisc_{self.python.__name__}"
        try:
            known = instance.__dict__.get(name)
        except AttributeError:
            known = None
        if known is None:
            known = Function(self.python.__get__(instance, owner), dict(self.options))
            if hasattr(instance, "__dict__"):
                instance.__dict__[name] = known
        return known

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result for arguments, from native code that is made when it is first needed."""
        version, arrays = self._version(args, kwargs)
        if version.executable is None:
            with self._lock:
                if version.executable is None:
                    version.executable = compile_model(version.model.graph, **self.options)
        return _rebuilt(version.model.result, version.executable(*arrays))

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """The result by the interpreter of graphs: what compiled code is compared with."""
        version, arrays = self._version(args, kwargs)
        return _rebuilt(version.model.result, interpret(version.model.graph, arrays))

    def compile(self, *args: Any, **kwargs: Any) -> Executable:
        """The executable for arguments like these."""
        version, _ = self._version(args, kwargs)
        if version.executable is None:
            version.executable = compile_model(version.model.graph, **self.options)
        return version.executable

    def lower(self, *args: Any, to: Level = "program", target: Targets = "cpu", **kwargs: Any) -> Any:
        """What the compiler makes of the function at a level, for arguments like these."""
        version, _ = self._version(args, kwargs)
        return lower_model(version.model.graph, to, target)

    def graph(self, *args: Any, **kwargs: Any) -> Any:
        """The graph that was captured, for arguments like these."""
        return self._version(args, kwargs)[0].model.graph

    @property
    def guards(self) -> list[str]:
        """What the versions so far rely on, in words."""
        found = []
        for key, version in self._versions.items():
            types = ", ".join(_words(path, leaf) for path, leaf in key)
            names = ", ".join(f"{name} is as it was" for _, name, _ in version.outside)
            found.append(types + (f"; {names}" if names else ""))
        return found

    # --- versions -----------------------------------------------------------------------------
    def _version(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Version, list[Any]]:
        if self._captured is None:
            with self._lock:
                self._captured = capture(self.python)
                self._signature = inspect.signature(self.python)
        assert self._signature is not None, "it is set with the syntax"
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as fault:
            raise error("E501", f"{self.python.__name__}: {fault}", loc=self._captured.loc) from None
        leaves: list[tuple[str, Any]] = []
        trees = {
            name: tree_map(x, lambda v, path: leaves.append((path, v)) or v, name, unfold=True)  # type: ignore[func-returns-value]
            for name, x in bound.arguments.items()
        }
        kinds = tuple((path, _kind(x)) for path, x in leaves)
        known = self._known.get(kinds, frozenset())
        while True:
            key = tuple((p, _kind(x) if p not in known else (type(x), x)) for p, x in leaves)
            version = self._versions.get(key)
            if version is None or not _still(version):
                try:
                    version = self._made(bound, trees, known)
                except Known as need:
                    known = known | {need.argument}
                    self._known[kinds] = known
                    continue
                self._versions[key] = version
            arrays = dict(leaves)
            return version, [_as_array(arrays[path]) for path in version.model.inputs]

    def _made(self, bound: inspect.BoundArguments, trees: Mapping[str, Any], known: frozenset[str]) -> Version:
        assert self._captured is not None, "it was read"
        given: dict[str, Any] = {}
        for name, x in bound.arguments.items():
            made = tree_map(x, lambda v, path: v if path in known else _argument(v), name, unfold=True)
            kind = self._signature.parameters[name].kind  # type: ignore[union-attr]
            if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                raise error("E111", f"'{self.python.__name__}' takes any number of arguments",
                            "name them, or take a tuple", loc=self._captured.loc)  # fmt: skip
            given[name] = made
        model = graph_of(self._captured, given)
        outside = [(table, name, x) for scope, read in model.outside for name, x in read.items()
                   for table in (scope.names,) if name in table and table[name] is x]  # fmt: skip
        return Version(model, known, outside)


def _still(version: Version) -> bool:
    """Whether the names of outside mean what they meant."""
    return all(table.get(name, _MISSING) is x for table, name, x in version.outside)


def _kind(x: Any) -> Any:
    """What a version depends on of an argument."""
    if isinstance(x, np.ndarray):
        return x.dtype, x.ndim
    if type(x) in _WEAK:
        return type(x)
    if is_leaf_array(x):
        x = _as_array(x)
        return x.dtype, x.ndim
    try:
        hash(x)
    except TypeError:
        return id(x)
    return type(x), x


def _argument(x: Any) -> Any:
    if type(x) in _WEAK:
        return Argument(_WEAK[type(x)], (), weak=True)
    if is_leaf_array(x):
        x = _as_array(x)
        from aisc.ir.location import Loc

        return Argument(of_numpy(x.dtype, Loc()), (None,) * x.ndim)
    return x


def _as_array(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x
    return np.asarray(x) if not hasattr(x, "__dlpack__") or isinstance(x, np.generic) else np.from_dlpack(x)


def _words(path: str, leaf: Any) -> str:
    if isinstance(leaf, type):
        return f"{path}: {leaf.__name__}"
    if isinstance(leaf, tuple) and isinstance(leaf[0], np.dtype):
        return f"{path}: {leaf[0]}, {leaf[1]} axes"
    return f"{path} = {leaf[1]!r}" if isinstance(leaf, tuple) else f"{path} is the same object"


def _rebuilt(shape: Any, outputs: Any) -> Any:
    """What the function returns, of the results of its graph."""
    found = outputs if isinstance(outputs, list | tuple) else [outputs]
    if isinstance(shape, Result):
        return _number(found[0], shape)
    return tree_map(shape, lambda x, _: _number(found[x.at], x) if isinstance(x, Result) else x, "", unfold=False)


def _number(x: Any, r: Result) -> Any:
    if r.weak:
        return x.item()
    return x[()] if x.ndim == 0 else x


def function(python: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a Python function when it is called: as a decorator, with or without options, which are
    those of :func:`aisc.compile` (``target``, ``threads``, ``level``, …).

    Raises ``CompileError`` at the first call, with the place in the function: E108 unknown names,
    E110 no source, E111 what is not captured, E112 what does not fit.
    """
    if python is None:
        return functools.partial(function, **options)
    if isinstance(python, Function):
        return replace(python, options={**python.options, **options})
    return Function(python, options)

"""``@aisc.function``: a Python function with numpy's names that is compiled when it is called.

    @aisc.function
    def norm(x):
        return np.sqrt(np.sum(x * x))

For each combination of element types and numbers of axes it is captured once; sizes, and numbers
that are arguments, are open. What must be known, such as an axis, is a guard, and so is what the
function reads of outside: where it has changed, the function is captured again.
"""

from __future__ import annotations

import functools
import html
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aisc.codegen.run.executable import Executable
from aisc.driver.api import Level, Targets
from aisc.driver.api import compile as compile_model
from aisc.driver.api import lower as lower_model
from aisc.frontend.arrays.values import Known
from aisc.frontend.pyast.arguments import tree_map
from aisc.frontend.pyast.capture import graph_of
from aisc.frontend.pyast.source import Captured, capture
from aisc.functions.version import (
    Key,
    Version,
    argument_for,
    as_array,
    is_told_by_type,
    kind_of,
)
from aisc.ir.diagnostics import ExecutionError, error
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.text.source import with_carets

NOTHING: Mapping[str, int] = {}
MAX_BOUND = 64  # instances whose methods are kept
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Function:
    """A Python function that is compiled when it is called. `python` is the function itself."""

    def __init__(
        self, python: Callable[..., Any], options: Mapping[str, Any] | None = None
    ) -> None:
        self.python, self.options = python, dict(options or {})
        functools.update_wrapper(self, python)
        self._captured: Captured | None = None
        self._signature: inspect.Signature | None = None
        self._known: dict[Key, frozenset[str]] = {}
        self._versions: dict[Key, Version] = {}
        self._quick: dict[Key, tuple[Version, Callable[[Sequence[Any]], Any]]] = {}
        self._bound: dict[int, tuple[Any, Function]] = {}
        self._lock = threading.RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Function:
        """As a method: of an instance, which holds the parameters."""
        if instance is None:
            return self
        known = self._bound.get(id(instance))
        if known is None:
            if len(self._bound) == MAX_BOUND:
                del self._bound[next(iter(self._bound))]
            known = instance, Function(self.python.__get__(instance, owner), self.options)
            self._bound[id(instance)] = known
        return known[1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result for arguments, from native code that is made when it is first needed."""
        if not kwargs:
            key = tuple([(x.dtype, x.ndim) if type(x) is np.ndarray else type(x) for x in args])
            quick = self._quick.get(key)
            if quick is not None and quick[0].holds:
                return quick[1](args)
        version, arrays, plain = self._version(args, kwargs)
        self._compiled(version)
        if plain and not kwargs and not version.known and all(map(is_told_by_type, args)):
            self._quick[key] = version, version.plain_calls()
        return version.run(arrays)

    def interpret(self, *args: Any, **kwargs: Any) -> Any:
        """The result by the interpreter of graphs: what compiled code is compared with."""
        version, arrays, _ = self._version(args, kwargs, ones=True)
        try:
            outputs = interpret(version.model.graph, arrays)
        except ExecutionError as fault:
            raise with_carets(fault) from None
        return version.rebuilt(outputs)

    def compile(self, *args: Any, **kwargs: Any) -> Executable:
        """The executable for arguments like these."""
        return self._compiled(self._version(args, kwargs)[0])

    def lower(
        self, *args: Any, to: Level = "program", target: Targets = "cpu", **kwargs: Any
    ) -> Any:
        """What the compiler makes of the function at a level, for arguments like these."""
        return lower_model(self.graph(*args, **kwargs), to, target)

    def graph(self, *args: Any, **kwargs: Any) -> Graph:
        """The graph that was captured, for arguments like these."""
        return self._version(args, kwargs)[0].model.graph

    def __repr__(self) -> str:
        count = len(self._versions)
        names = ", ".join(inspect.signature(self.python).parameters)
        versions = "1 version" if count == 1 else f"{count} versions"
        return f"<Function {self.python.__name__}({names}); {versions}>"

    def _repr_html_(self) -> str:
        """The graph of the version that was made last, for notebooks."""
        name = html.escape(self.python.__name__)
        if not self._versions:
            return f"<code>{name}</code>: it has not been called yet"
        from aisc.pictures.picture import frame

        *_, last = self._versions.values()
        target = self.options.get("target", "cpu")
        return f"<code>{name}</code>{frame(last.model.graph, target, {})}"

    @property
    def guards(self) -> list[str]:
        """What each version so far relies on, in words."""
        return [v.words(key) for key, v in self._versions.items()]

    def clear(self) -> None:
        """Forget all versions: arrays outside that were written in place are read again."""
        with self._lock:
            for table in (self._versions, self._quick, self._known, self._bound):
                table.clear()

    # --- versions -----------------------------------------------------------------------------
    def _compiled(self, version: Version) -> Executable:
        if version.executable is None:
            with self._lock:
                if version.executable is None:
                    version.executable = self._executable(version)
        return version.executable

    def _executable(self, version: Version, known: Mapping[str, int] = NOTHING) -> Executable:
        """Native code, of which some sizes are known; those that are 1 and must broadcast make
        another one when they come."""

        def with_sizes(names: tuple[str, ...], sizes: Mapping[str, int]) -> Executable:
            return self._executable(version, {**known, **sizes})

        captured, _ = self._syntax()
        model = graph_of(captured, version.arguments, known) if known else version.model
        made = compile_model(model.graph, **self.options)
        made.compile_again_with(with_sizes)
        return made

    def _syntax(self) -> tuple[Captured, inspect.Signature]:
        if self._captured is None or self._signature is None:
            with self._lock:
                self._captured, self._signature = (
                    capture(self.python),
                    inspect.signature(self.python),
                )
        return self._captured, self._signature

    def _version(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], ones: bool = False
    ) -> tuple[Version, list[Any], bool]:
        """The version for arguments, its inputs, and whether these are the arguments in order.
        ones: sizes that are 1 are known, so that they broadcast."""
        captured, signature = self._syntax()
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as fault:
            raise error("E501", f"{captured.name}: {fault}", loc=captured.loc) from None
        for name in bound:
            if signature.parameters[name].kind in _MANY:
                raise error(
                    "E111",
                    f"'{captured.name}' takes any number of arguments",
                    "name them, or take a tuple",
                    loc=captured.loc,
                )
        leaves: dict[str, Any] = {}

        def note(x: Any, path: str) -> Any:
            leaves[path] = x
            return x

        for name, x in bound.items():
            tree_map(x, note, name, unfold=True)
        with self._lock:
            version = self._found(captured, bound, leaves, ones)
        plain = list(leaves) == list(bound) == list(version.model.inputs)
        return version, [as_array(leaves[path]) for path in version.model.inputs], plain

    def _found(
        self, captured: Captured, bound: Mapping[str, Any], leaves: Mapping[str, Any], ones: bool
    ) -> Version:
        kinds: Key = tuple((path, kind_of(x, ones)) for path, x in leaves.items())
        known = self._known.get(kinds, frozenset())
        while True:
            key: Key = tuple(
                (p, (type(leaves[p]), leaves[p]) if p in known else k) for p, k in kinds
            )
            version = self._versions.get(key)
            if version is not None and version.holds:
                return version
            given = _arguments(bound, known, ones)
            try:
                version = Version(graph_of(captured, given), known, given)
            except Known as need:
                known = self._known[kinds] = known | {need.argument}
            else:
                self._versions[key] = version
                return version


def _arguments(bound: Mapping[str, Any], known: frozenset[str], ones: bool) -> dict[str, Any]:
    """What a version is captured for; numbers that are `known` stay what they are."""

    def leaf(x: Any, path: str) -> Any:
        return x if path in known else argument_for(x, ones)

    return {name: tree_map(x, leaf, name, unfold=True) for name, x in bound.items()}


def function(python: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a Python function when it is called: as a decorator, with or without options, which
    are those of :func:`aisc.compile` (``target``, ``threads``, ``level``, …).

    Raises ``CompileError`` at the first call, with the place in the function: E108 unknown names,
    E110 no source, E111 what is not captured, E112 what does not fit.
    """
    if python is None:
        return functools.partial(function, **options)
    if isinstance(python, Function):
        return Function(python.python, {**python.options, **options})
    return Function(python, options)

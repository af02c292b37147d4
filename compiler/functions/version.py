"""A Python function for arguments of some types: its graph, its code, and what it relies on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aisc.codegen.arrays import Array
from aisc.codegen.run.bound import Bound
from aisc.codegen.run.executable import Executable
from aisc.frontend.arrays.values import of_numpy
from aisc.frontend.pyast.arguments import Argument, Result, is_leaf_array, tree_map
from aisc.frontend.pyast.capture import Model
from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.location import Loc

Key = tuple[Any, ...]
WEAK = {bool: dtypes.boolean, int: dtypes.i64, float: dtypes.f64}
_TYPES = {t: WEAK[t].numpy for t in WEAK}


@dataclass(slots=True, eq=False)
class Version:
    """One version. known: paths of numbers that are guards; arguments: what it was captured for."""

    model: Model
    known: frozenset[str]
    arguments: Mapping[str, Any]
    executable: Executable | None = None

    @property
    def holds(self) -> bool:
        """Whether the names of outside mean what they meant."""
        for guard in self.model.guards:  # noqa: SIM110 (a generator costs as much as a short call)
            if not guard.holds:
                return False
        return True

    def run(self, arrays: Sequence[Any]) -> Any:
        """What the function returns."""
        assert self.executable is not None, "it is compiled"
        return self.rebuilt(self.executable(*arrays))

    def run_plainly(self, args: Sequence[Any]) -> Any:
        """What the function returns for arguments that are arrays or numbers of Python's."""
        return self.run([x if type(x) is np.ndarray else as_array(x) for x in args])

    def plain_calls(self) -> Callable[[Sequence[Any]], Any]:
        """What runs it on arguments that are arrays or numbers of Python's."""
        exe = self.executable
        assert exe is not None, "it is compiled"
        numbers = not any(port.type.shape for port in (*exe.inputs, *exe.outputs))
        return NumberCalls(self, exe) if numbers and exe.inputs else self.run_plainly

    def rebuilt(self, outputs: Any) -> Any:
        """The result of the function, of those of its graph."""
        found = outputs if isinstance(outputs, list | tuple) else [outputs]
        shape = self.model.result
        if isinstance(shape, Result):
            return _number(found[0], shape)
        return tree_map(
            shape,
            lambda x, _: _number(found[x.at], x) if isinstance(x, Result) else x,
            "",
            unfold=False,
        )

    def words(self, key: Key) -> str:
        """What it relies on."""
        types = [_words(path, leaf) for path, leaf in key]
        return ", ".join((*types, *map(str, self.model.guards)))


class NumberCalls:
    """Calls whose arguments and results are all numbers: they are written into arrays that stay
    bound, which takes half the time of making arrays for them. Each thread uses its own."""

    def __init__(self, version: Version, exe: Executable) -> None:
        self._version, self._exe = version, exe
        self._idle: list[tuple[list[Array], Bound]] = []

    def __call__(self, args: Sequence[Any]) -> Any:
        """What the function returns."""
        try:
            space = self._idle.pop()
        except IndexError:  # none was made yet, or other threads have taken all
            inputs = [np.zeros((), t) for t in self._exe.input_dtypes]
            space = inputs, self._exe.bind(*inputs)
        try:
            inputs, bound = space
            for array, x in zip(inputs, args):  # noqa: B905 (as many, for the version takes them)
                array[()] = x
            return self._version.rebuilt(bound())
        finally:
            self._idle.append(space)


def kind_of(x: Any, ones: bool) -> Any:
    """What a version depends on of an argument."""
    if type(x) in WEAK:
        return type(x)
    if is_leaf_array(x):
        x = as_array(x)
        return (x.dtype, x.ndim, tuple(d == 1 for d in x.shape)) if ones else (x.dtype, x.ndim)
    try:
        hash(x)
    except TypeError:
        return id(x)
    return type(x), x


def is_told_by_type(x: Any) -> bool:
    """Whether what a version depends on of an argument is told by its type alone, or is an array's
    element type and number of axes."""
    return type(x) is np.ndarray or type(x) in WEAK or isinstance(x, np.generic)


def argument_for(x: Any, ones: bool) -> Any:
    """An argument of the run for an array or number; anything else is what it is."""
    if type(x) in WEAK:
        return Argument(WEAK[type(x)], (), weak=True)
    if is_leaf_array(x):
        x = as_array(x)
        return Argument(
            of_numpy(x.dtype, Loc()), tuple(1 if ones and d == 1 else None for d in x.shape)
        )
    return x


def as_array(x: Any) -> Any:
    """An array of numpy's over what an argument holds."""
    if isinstance(x, np.ndarray):
        return x
    if type(x) in WEAK:
        return np.asarray(x, _TYPES[type(x)])
    return (
        np.asarray(x)
        if isinstance(x, np.generic) or not hasattr(x, "__dlpack__")
        else np.from_dlpack(x)
    )


def _words(path: str, leaf: Any) -> str:
    if isinstance(leaf, type):
        return f"{path}: {leaf.__name__}"
    if isinstance(leaf, tuple) and isinstance(leaf[0], np.dtype):
        return f"{path}: {leaf[0]}, {leaf[1]} axes"
    return f"{path} = {leaf[1]!r}" if isinstance(leaf, tuple) else f"{path} is the same object"


def _number(x: Any, r: Result) -> Any:
    if r.weak:
        return x.item()
    return x[()] if x.ndim == 0 else x

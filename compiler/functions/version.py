"""A Python function for arguments of some types: its graph, its code, and what it relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
        return all(g.holds for g in self.model.guards)

    def run(self, arrays: Sequence[Any]) -> Any:
        """What the function returns."""
        assert self.executable is not None, "it is compiled"
        return self.rebuilt(self.executable(*arrays))

    def run_plainly(self, args: Sequence[Any]) -> Any:
        """What the function returns for arguments that are arrays or numbers of Python's."""
        return self.run([x if type(x) is np.ndarray else as_array(x) for x in args])

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

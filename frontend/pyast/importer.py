"""The importer of Python functions: ``module.py:function``, or the function itself.

The types of its arguments are those of its annotations, as the model language writes them:
``x: "f32[n, 3]"``. The module is run to find the function, as an import would.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import AiscError, error
from aisc.ir.graph.core import Graph
from aisc.ir.location import Loc


class PyImporter:
    """Functions in files of Python."""

    @staticmethod
    def accepts(source: object) -> bool:
        """Functions, methods, and what a decorator has made of them."""
        return isinstance(source, types.FunctionType | types.MethodType) or (
            callable(source) and hasattr(source, "__wrapped__")
        )

    @staticmethod
    def parts(path: Path) -> Sequence[str] | None:
        """What a module imports cannot be told."""
        return None

    def __call__(
        self, source: Any, shapes: Mapping[str, Extent], *, overridable: Sequence[str] = ()
    ) -> Graph:
        """The graph of a function for the types of its annotations."""
        from aisc.frontend.arrays.values import Known
        from aisc.frontend.pyast.capture import annotated, graph_of
        from aisc.frontend.pyast.source import capture

        if overridable:
            raise error("E106", "arguments of a function are inputs without defaults")
        text = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
        function = capture(_found(text) if text else source)
        arguments = annotated(function)
        try:
            model = graph_of(function, arguments, shapes)
        except Known as need:
            message = f"'{need.argument}' must be known when the function is compiled"
            hint = f"give it a default and no type: {need.argument}=0"
            raise error("E106", message, hint, loc=function.loc) from None
        unknown = [name for name in shapes if name not in model.sizes]
        if unknown:
            known = ", ".join(model.sizes) or "none left open"
            message = f"the function has no dimension '{unknown[0]}'"
            raise error("E106", message, f"dimensions: {known}", loc=function.loc)
        return model.graph


def _found(text: str) -> Any:
    """The function that ``module.py:name`` says; E101 where there is none."""
    file, _, name = text.partition(".py:")
    path = Path(f"{file}.py" if name else text)
    if not name:
        hint = f"say which function: {path}:name"
        raise error("E101", "a file of Python is no model", hint, loc=Loc(str(path)))
    if not path.is_file():
        raise error("E101", "no such file", loc=Loc(str(path)))
    found: Any = _module(path)
    for part in name.split("."):
        if not hasattr(found, part):
            known = [n for n, x in vars(found).items() if callable(x) and not n.startswith("_")]
            hint = f"there are {', '.join(known[:8])}" if known else "it has no functions"
            raise error("E101", f"{path.name} has no '{part}'", hint, loc=Loc(str(path)))
        found = getattr(found, part)
    return found


def _module(path: Path) -> types.ModuleType:
    """The module of a file, run once; its folder is where it finds others, as for a script."""
    name = f"aisc_model_{path.resolve().stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None, "a file of Python"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except AiscError:
        raise
    except Exception as fault:
        line = _line_of(fault, str(path.resolve()))
        message = f"running the module fails: {type(fault).__name__}: {fault}"
        raise error("E101", message, loc=Loc(str(path), line)) from None
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _line_of(fault: Exception, file: str) -> int:
    """The last line of a file that an exception went through."""
    if isinstance(fault, SyntaxError):
        return fault.lineno or 0
    line, trace = 0, fault.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


IMPORTER = PyImporter()

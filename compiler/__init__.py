"""aisc: a multi-level AI compiler toolchain, from models to native code.

The API is loaded on first use, so that importing a sub-package costs little.
"""

if __name__ != "aisc":
    raise ImportError(f"import this package as aisc, not as {__name__}")

from typing import TYPE_CHECKING, Any

from aisc.ir.version import VERSION

__version__ = VERSION
__all__ = [
    "AiscError",
    "AiscWarning",
    "CompileError",
    "Executable",
    "ExecutionError",
    "GraphBuilder",
    "InternalError",
    "Schedule",
    "Target",
    "build",
    "compile",
    "function",
    "interpret",
    "load",
    "load_operators",
    "lower",
    "operator",
    "quantize",
    "save",
    "show",
    "targets",
    "tensor",
    "tune",
]

if TYPE_CHECKING:
    from aisc import tensor
    from aisc.artifact.loading import load, save
    from aisc.codegen.run.executable import Executable
    from aisc.driver.api import compile, lower
    from aisc.driver.functions import build
    from aisc.frontend.own.classes import operator
    from aisc.frontend.own.registry import load_operators
    from aisc.functions.function import function
    from aisc.ir import target as targets
    from aisc.ir.diagnostics import (
        AiscError,
        AiscWarning,
        CompileError,
        ExecutionError,
        InternalError,
    )
    from aisc.ir.graph.builder import GraphBuilder
    from aisc.ir.graph.interpret import interpret
    from aisc.ir.target import Target
    from aisc.passes.schedule.schedule import Schedule
    from aisc.pictures.picture import show
    from aisc.quantization.quantize import quantize
    from aisc.tuning.tune import tune

_HOMES = {
    "compile": "aisc.driver.api",
    "lower": "aisc.driver.api",
    "load": "aisc.artifact.loading",
    "save": "aisc.artifact.loading",
    "build": "aisc.driver.functions",
    "function": "aisc.functions.function",
    "interpret": "aisc.ir.graph.interpret",
    "load_operators": "aisc.frontend.own.registry",
    "operator": "aisc.frontend.own.classes",
    "GraphBuilder": "aisc.ir.graph.builder",
    "Schedule": "aisc.passes.schedule.schedule",
    "Executable": "aisc.codegen.run.executable",
    "AiscError": "aisc.ir.diagnostics",
    "AiscWarning": "aisc.ir.diagnostics",
    "CompileError": "aisc.ir.diagnostics",
    "ExecutionError": "aisc.ir.diagnostics",
    "InternalError": "aisc.ir.diagnostics",
    "Target": "aisc.ir.target",
    "show": "aisc.pictures.picture",
    "quantize": "aisc.quantization.quantize",
    "tune": "aisc.tuning.tune",
}
_MODULES = {"targets": "aisc.ir.target", "tensor": "aisc.tensor"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'aisc' has no attribute '{name}'")
    import importlib

    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", "__doc__", "__file__", "__name__", "__path__"})

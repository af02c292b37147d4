"""aisc: a multi-level AI compiler toolchain, from models to native code.

The API is loaded on first use, so that importing a sub-package costs little.
"""

if __name__ != "aisc":
    raise ImportError(f"import this package as aisc, not as {__name__}")

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "AiscError",
    "AiscWarning",
    "CompileError",
    "Executable",
    "ExecutionError",
    "InternalError",
    "Target",
    "compile",
    "load",
    "lower",
    "save",
]

if TYPE_CHECKING:
    from aisc.api import compile, lower
    from aisc.codegen.executable import Executable
    from aisc.ir.diagnostics import (
        AiscError,
        AiscWarning,
        CompileError,
        ExecutionError,
        InternalError,
    )
    from aisc.ir.target import Target
    from aisc.loading import load, save

_HOMES = {
    "compile": "aisc.api",
    "lower": "aisc.api",
    "load": "aisc.loading",
    "save": "aisc.loading",
    "Executable": "aisc.codegen.executable",
    "AiscError": "aisc.ir.diagnostics",
    "AiscWarning": "aisc.ir.diagnostics",
    "CompileError": "aisc.ir.diagnostics",
    "ExecutionError": "aisc.ir.diagnostics",
    "InternalError": "aisc.ir.diagnostics",
    "Target": "aisc.ir.target",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aisc' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)

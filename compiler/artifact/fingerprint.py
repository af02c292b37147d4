"""The identity of the compiler itself: its version and the contents of its sources.

Part of every cache key, so that a changed compiler never meets code it would not make.
"""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from aisc.ir.version import VERSION

_PACKAGES = ("aisc", "aisc.ir", "aisc.frontend", "aisc.passes", "aisc.codegen")


@cache
def fingerprint() -> str:
    """Version and hash of the sources that decide what a model becomes."""
    sha = hashlib.sha256()
    folders: list[Path] = []
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{name} is not installed"
        assert spec.origin is not None, f"{name} is not a package of files"
        folder = Path(spec.origin).parent
        if any(seen in folder.parents for seen in folders):
            continue  # installed, the packages lie in each other
        folders.append(folder)
        for path in sorted((*folder.rglob("*.py"), *folder.rglob("*.lark"))):
            sha.update(str(path.relative_to(folder)).encode())
            sha.update(path.read_bytes())
    return f"{VERSION}+{sha.hexdigest()[:16]}"

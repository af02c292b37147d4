"""Whole models in the cache: a model that was compiled before is opened as a bundle, its weights
mapped; nothing is imported, packed or compiled again.

The key is the contents of the model, the options that affect what it becomes, the target, and the
versions of the compiler and of the libraries that take part: those that compute constants and
those that generate code. Only models that consist of one file, or of bytes, are kept, and none in
which an operator of a user stands, whose meaning the key does not hold.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from aisc.artifact.cache import Cache, cache_of, key_of
from aisc.artifact.fingerprint import fingerprint
from aisc.artifact.loading import executable_of
from aisc.codegen.backend import backend_of
from aisc.codegen.run import bundle
from aisc.codegen.run.executable import Executable
from aisc.driver.options import Options
from aisc.frontend.registry import is_whole
from aisc.ir.diagnostics import AiscError
from aisc.ir.target import Target

_PIECE = 1 << 24  # bytes of a model that are hashed at once
_LIBRARIES = ("numpy", "ml_dtypes", "onnx")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a compiled model is kept. `stamp`: of the model's file when its contents were read."""

    store: Cache
    key: str
    source: Path | None
    stamp: tuple[int, ...]

    def open(self, threads: int) -> Executable | None:
        """The executable, if it is there and undamaged."""
        path = self.store.path(self.key)
        if not path.is_file():
            return None
        try:
            found = executable_of(bundle.read(path), path, threads)
        except AiscError:
            return None
        self.store.touch(self.key)
        return found

    def keep(self, executable: Executable) -> None:
        """Store what the model was compiled to; models of more than half of the limit are not."""
        image = executable.image
        if 2 * sum(w.nbytes for w in image.weights) > self.store.limit:
            return
        if self.source is not None and not (is_whole(self.source) and self._is_unchanged()):
            return
        self.store.write(self.key, bundle.encode(image, bundle.about()))
        self.store.prune()

    def _is_unchanged(self) -> bool:
        return self.source is not None and _stamp(self.source) == self.stamp


def place_of(model: Any, machines: Sequence[Target], options: Options) -> Place | None:
    """Where `model` is kept; ``None`` for one that cannot be, or when steps are looked at."""
    looked_at = (
        options.stop_after or options.dump_dir or options.verify or options.profile or options.apart
    )
    if not options.use_cache or looked_at:
        return None
    store = cache_of(options.cache_dir, "images")
    source: Path | None = None
    stamp: tuple[int, ...] = ()
    try:
        if isinstance(model, bytes):
            kind, contents = "bytes", _digest(memoryview(model), options.threads)
        elif isinstance(model, str | Path):
            source = Path(model)
            if not source.is_file() or 2 * source.stat().st_size > store.limit:
                return None
            kind, stamp = source.suffix.lower(), _stamp(source)
            with open(source, "rb") as f, mmap(f.fileno(), 0, access=ACCESS_READ) as data:
                contents = _digest(memoryview(data), options.threads)
        else:
            return None
    except (OSError, ValueError):  # the importer says what is wrong with the file
        return None
    versions = (backend_of(t).version for t in machines)
    libraries = ",".join(f"{name}-{version(name)}" for name in _LIBRARIES)
    key = key_of(
        "image", contents, kind, options.key, f"host={options.host}",
        *(t.key for t in machines), *versions, fingerprint(), libraries,
    )  # fmt: skip
    return Place(store, key, source, stamp)


def stamp(model: Any) -> tuple[int, ...] | None:
    """What tells versions of a model's file apart; ``None`` for what is no file."""
    try:
        return _stamp(Path(model)) if isinstance(model, str | Path) else None
    except (OSError, ValueError):
        return None


def _stamp(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(data: memoryview, threads: int) -> str:
    """SHA-256 of the SHA-256 of pieces, which threads share."""
    with data:
        pieces = [data[k : k + _PIECE] for k in range(0, len(data), _PIECE)]
        try:
            with ThreadPoolExecutor(min(threads, len(pieces)) or 1) as pool:
                hashes = list(pool.map(lambda p: hashlib.sha256(p).digest(), pieces))
        finally:
            for piece in pieces:
                piece.release()
    return hashlib.sha256(b"".join(hashes)).hexdigest()

"""Folders of records on disk: one file per key, written whole or not at all.

A key is the hash of everything that affects the code. A record is a small JSON head (sizes and a
checksum) and sections of bytes; a damaged or truncated record counts as absent. The cache stays
below a size limit by dropping the records that were used least recently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aisc.codegen.files import write_whole
from aisc.ir.diagnostics import CompileError

LIMIT_BYTES = 1 << 30
IMAGE_LIMIT_BYTES = 1 << 31
_ABANDONED = 3600.0  # seconds after which a file that was never finished is nobody's
_MAGIC = b"AISC1\n"


def default_folder() -> Path:
    """``AISC_CACHE_DIR``, else ``aisc`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("AISC_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aisc"


def cache_of(folder: str, kind: str = "") -> Cache:
    """The cache in a folder, or in the user's own: of kernels, or of whole ``images``."""
    base = Path(folder) if folder else default_folder()
    if kind == "images":
        return Cache(base / "images", IMAGE_LIMIT_BYTES, "aisc")
    return Cache(base)


def key_of(*parts: str) -> str:
    """A key from texts."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little") + part.encode())
    return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of records. Faults of the file system never stop a compilation."""

    folder: Path
    limit: int = LIMIT_BYTES
    suffix: str = "bin"

    def path(self, key: str) -> Path:
        """The file of a record."""
        return self.folder / key[:2] / f"{key}.{self.suffix}"

    def get(self, key: str) -> dict[str, bytes] | None:
        """The sections stored under `key`; ``None`` when absent or damaged."""
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        record = _decode(data)
        if record is not None:
            self.touch(key)
        return record

    def touch(self, key: str) -> None:
        """Count a record as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(key))

    def put(self, key: str, sections: Mapping[str, bytes]) -> None:
        """Store sections under `key`."""
        self.write(key, (_encode(sections),))

    def write(self, key: str, pieces: Iterable[bytes | memoryview]) -> None:
        """Store the contents of a record, atomically."""
        path = self.path(key)
        with contextlib.suppress(OSError, CompileError):  # the cache is only a convenience
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, pieces, durable=False)

    def files(self) -> list[Path]:
        """All records."""
        return sorted(self.folder.glob(f"??/*.{self.suffix}")) if self.folder.is_dir() else []

    def size(self) -> int:
        """Bytes in the cache."""
        return sum(p.stat().st_size for p in self.files())

    def clear(self) -> int:
        """Remove every record; gives their number."""
        found = self.files()
        for p in found:
            p.unlink(missing_ok=True)
        return len(found)

    def prune(self) -> None:
        """Drop the least recently used records until the limit holds, and what a process that
        ended while it wrote has left."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob("??/*.tmp"):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
            stats = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self.files())
            total = sum(s for _, s, _ in stats)
            for _, size, path in stats:
                if total <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size


def _encode(sections: Mapping[str, bytes]) -> bytes:
    body = b"".join(sections.values())
    head = {
        "sections": [[k, len(v)] for k, v in sections.items()],
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return _MAGIC + json.dumps(head).encode() + b"\n" + body


def _decode(data: bytes) -> dict[str, bytes] | None:
    if not data.startswith(_MAGIC):
        return None
    end = data.find(b"\n", len(_MAGIC))
    try:
        head = json.loads(data[len(_MAGIC) : end])
        body = data[end + 1 :]
        if hashlib.sha256(body).hexdigest() != head["sha256"]:
            return None
        found, at = {}, 0
        for name, size in head["sections"]:
            found[name] = body[at : at + size]
            at += size
        return found
    except (ValueError, KeyError, TypeError):
        return None

"""The cache of compiled kernels on disk: one file per key, written whole or not at all.

A key is the hash of everything that affects the code. A record is a small JSON head (sizes and a
checksum) and sections of bytes; a damaged or truncated record counts as absent. The cache stays
below a size limit by dropping the records that were used least recently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT_BYTES = 1 << 30
_MAGIC = b"AISC1\n"


def default_folder() -> Path:
    """``AISC_CACHE_DIR``, else ``aisc`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    own = os.environ.get("AISC_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aisc"


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

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.bin"

    def get(self, key: str) -> dict[str, bytes] | None:
        """The sections stored under `key`; ``None`` when absent or damaged."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        record = _decode(data)
        if record is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
        return record

    def put(self, key: str, sections: Mapping[str, bytes]) -> None:
        """Store sections under `key`, atomically."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as f:
                f.write(_encode(sections))
            Path(name).replace(path)
        except OSError:
            return

    def files(self) -> list[Path]:
        """All records."""
        return sorted(self.folder.glob("??/*.bin")) if self.folder.is_dir() else []

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
        """Drop the least recently used records until the limit holds."""
        with contextlib.suppress(OSError):
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

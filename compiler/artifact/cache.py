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
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aisc.codegen.files import whole_file
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.measured import default_folder

LIMIT_BYTES = 1 << 30
IMAGE_LIMIT_BYTES = 1 << 31  # or a part of the file system, where that is more
IMAGE_SHARE = 0.1
FACT_LIMIT_BYTES = 1 << 24
_FREE_SHARE = 0.05  # of a file system that stays free
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_ABANDONED = 3600.0  # seconds after which a file that was never finished is nobody's
_FRESH = 60.0  # seconds in which what was seen of a folder is believed
_MAGIC = b"AISC1\n"


def cache_of(folder: str, kind: str = "") -> Cache:
    """The cache in a folder, or in the user's own: of kernels, of whole ``images``, or of ``facts``
    about files."""
    base = Path(folder) if folder else default_folder()
    if kind == "images":
        return Cache(base / "images", _image_limit(base), "aisc")
    if kind == "facts":
        return Cache(base / "facts", FACT_LIMIT_BYTES)
    return Cache(base)


def _image_limit(folder: Path) -> int:
    """``AISC_CACHE_LIMIT``, bytes with a unit (K, M, G, T) or none, else what suits the disk; E401
    for another text."""
    text = os.environ.get("AISC_CACHE_LIMIT", "").strip().upper().removesuffix("B")
    if text:
        number, unit = (text[:-1], text[-1]) if text[-1] in _UNITS else (text, "")
        try:
            return int(float(number) * _UNITS[unit])
        except (ValueError, OverflowError):
            hint = "bytes, or a number with K, M, G or T: 20G"
            raise error("E401", f"AISC_CACHE_LIMIT={text} is no size", hint) from None
    usage = _usage(folder)
    return max(IMAGE_LIMIT_BYTES, int(usage.total * IMAGE_SHARE) if usage else 0)


def shown(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _usage(folder: Path) -> shutil._ntuple_diskusage | None:
    """Sizes of the file system in which a folder is, or would be."""
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), None)
    try:
        return None if there is None else shutil.disk_usage(there)
    except OSError:
        return None


def key_of(*parts: str) -> str:
    """A key from texts."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little") + part.encode())
    return sha.hexdigest()


@dataclass(slots=True)
class _Account:
    """What this process knows of a folder: bytes when it last looked, when that was, and what it
    has written since."""

    size: int
    looked: float
    written: int = 0

    def suffices(self, limit: int, more: int) -> bool:
        """Whether the limit holds for sure with `more` bytes, but for what other processes may have
        written in a short while: looking takes as long as there are records."""
        if time.monotonic() - self.looked > _FRESH or self.written > limit // 16:
            return False
        return self.size + self.written + more <= limit - limit // 8


_ACCOUNTS: dict[tuple[Path, str], _Account] = {}


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
        """Count a record as used now. Its time is a full one, which no change of it would give it:
        those are as coarse as the clock of the file system."""
        now = time.time_ns()
        with contextlib.suppress(OSError):
            os.utime(self.path(key), ns=(now, now))

    def put(self, key: str, sections: Mapping[str, bytes]) -> None:
        """Store sections under `key`."""
        with contextlib.suppress(OSError, CompileError), self.writing(key) as file:
            file.write(_encode(sections))  # the cache is only a convenience

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """A record in the making, which is there when the block ends; nothing is left of it when
        the block fails. Raises ``OSError``, or ``CompileError`` E503."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, durable=False) as file:
            yield file
            file.flush()
            written = os.fstat(file.fileno()).st_size
        if (account := self._account) is not None:
            account.written += written

    @property
    def _account(self) -> _Account | None:
        return _ACCOUNTS.get((self.folder, self.suffix))

    def room_for(self, size: int) -> str:
        """Make room for a record, so that the limit holds with it; why there cannot be any, or
        nothing."""
        if size > self.limit:
            return f"the limit of the cache is {shown(self.limit)}, set AISC_CACHE_LIMIT"
        self.trim(size)
        usage = _usage(self.folder)
        if usage is not None and usage.free - size < usage.total * _FREE_SHARE:
            return f"the disk of {self.folder} has only {shown(usage.free)} left"
        return ""

    def files(self) -> list[Path]:
        """All records."""
        return sorted(self.folder.glob(f"??/*.{self.suffix}")) if self.folder.is_dir() else []

    def size(self) -> int:
        """Bytes in the cache."""
        return sum(p.stat().st_size for p in self.files())

    def known_size(self) -> int:
        """Bytes in the cache when this process last looked, and what it has written since."""
        account = self._account
        return self.size() if account is None else account.size + account.written

    def clear(self) -> int:
        """Remove every record; gives their number."""
        found = self.files()
        for p in found:
            p.unlink(missing_ok=True)
        _ACCOUNTS.pop((self.folder, self.suffix), None)
        return len(found)

    def trim(self, more: int = 0) -> None:
        """Prune, unless it is known that the limit holds with `more` bytes."""
        account = self._account
        if account is None or not account.suffices(self.limit, more):
            self.prune(more)

    def prune(self, more: int = 0) -> None:
        """Drop the least recently used records until the limit holds with `more` bytes, and what a
        process that ended while it wrote has left."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob("??/*.tmp"):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink(missing_ok=True)
            stats = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in self.files())
            total = sum(s for _, s, _ in stats)
            for _, size, path in stats:
                if total + more <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size
            _ACCOUNTS[self.folder, self.suffix] = _Account(total, time.monotonic())


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

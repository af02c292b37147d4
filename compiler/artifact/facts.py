"""What is known of files, so that those of any size need not be read again.

A fact is kept under the path of a file and its *stamp*: device, number, size and times. Whoever
changes a file changes its stamp, unless it was changed a moment before already, for clocks of file
systems are coarse: of a file that has just been changed, nothing is remembered.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from aisc.artifact.cache import Cache, cache_of, key_of
from aisc.ir.dataclass import dataclass

Stamp = tuple[int, ...]
_SETTLED_NS = 2_000_000_000  # the coarsest clock of a common file system: FAT's


def stamp_of(path: Path) -> Stamp:
    """What tells the versions of a file apart; ``OSError`` where there is none."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_settled(stamp: Stamp) -> bool:
    """Whether a change of the file from now on would give it another stamp."""
    return max(stamp[3:]) + _SETTLED_NS < time.time_ns()


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of one kind in the user's cache."""

    store: Cache
    kind: str

    @staticmethod
    def of(folder: str, kind: str) -> Facts:
        """Those of the cache in a folder, or of the user's own."""
        return Facts(cache_of(folder, "facts"), kind)

    def get(self, path: Path, stamp: Stamp) -> Any:
        """What is known of a file with this stamp, or ``None``."""
        record = self.store.get(self._key(path))
        try:
            known = json.loads(record["fact"]) if record is not None else None
        except (ValueError, KeyError):
            return None
        if not isinstance(known, dict) or known.get("stamp") != list(stamp):
            return None
        return known.get("fact")

    def put(self, path: Path, stamp: Stamp, fact: Any) -> None:
        """Remember a fact that JSON can hold."""
        text = json.dumps({"stamp": stamp, "fact": fact})
        self.store.put(self._key(path), {"fact": text.encode()})

    def _key(self, path: Path) -> str:
        return key_of("fact", self.kind, os.path.realpath(path))

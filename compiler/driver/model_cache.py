"""Whole models in the cache: a model that was compiled before is opened as a bundle, its weights
mapped; nothing is imported, packed or compiled again.

The key is the contents of the model and of the files that hold its weights, or all that a graph
says, such as that of a Python function; the options that affect what it becomes; the target, and
the versions of the compiler and of the libraries that take part:
those that compute constants and those that generate code. No model is kept whose files its importer
cannot name, and none in which an operator of a user stands, whose meaning the key does not hold.

What a file contains is remembered under its stamp (:mod:`aisc.artifact.facts`), and so is that an
image was found whole since this machine was started. So opening a model reads none of its weights.
A model that is not there yet is packed into its place in the cache and then opened like any other;
what it packs like another model there is not stored again (:mod:`aisc.artifact.shelf`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aisc.artifact.cache import Cache, cache_of, key_of, shown
from aisc.artifact.facts import Facts, Stamp, is_settled, stamp_of
from aisc.artifact.fingerprint import fingerprint
from aisc.artifact.loading import executable_of
from aisc.artifact.shelf import ImageShelf, NoRoom, is_key
from aisc.codegen.arrays import Array
from aisc.codegen.backend import backend_of
from aisc.codegen.image import Image
from aisc.codegen.run import bundle
from aisc.codegen.run.bundle_writer import size_of, write_into
from aisc.codegen.run.executable import Executable
from aisc.codegen.run.threads import default_threads
from aisc.codegen.weights import WeightSource
from aisc.driver.options import Options
from aisc.frontend import registry
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, CompileError, execution_error
from aisc.ir.graph.core import Graph
from aisc.ir.mapped import Bytes, give_back, mapped
from aisc.ir.target import Target
from aisc.records.paths import state_of

_PIECE = 1 << 22  # bytes of a model that are hashed at once
_LIBRARIES = ("numpy", "ml_dtypes", "onnx")
_LOG = logging.getLogger("aisc")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a compiled model is kept. `files`: those of the model, with the stamps that they had
    when their contents were read; `facts`: which images are whole."""

    store: Cache
    key: str
    files: tuple[tuple[Path, Stamp], ...]
    facts: Facts

    def open(self, threads: int) -> Executable | None:
        """The executable, if it is there and undamaged."""
        path = self.store.path(self.key)
        try:
            found = bundle.read(path, verify=not self._is_whole(self.key), lend=self._lend)
            executable = executable_of(found, path, threads)
        except (AiscError, OSError):
            return None
        self._use(self.key, whole=True)
        return executable

    def keep(self, image: Image, source: WeightSource) -> tuple[Array, ...] | None:
        """Store what the model was compiled to, its weights as they are packed; gives those of the
        stored image. ``None`` where it is not kept; if for lack of room, the user is told."""
        size = size_of(image) + sum(map(len, (image.runtime, *image.objects)))
        shelf = ImageShelf(self.store, self.facts.store, self.key, self._use)
        try:
            shelf.grow(max(0, size - self.store.known_size()))  # the rest may be there already
            with self.store.writing(self.key) as file:
                write_into(file, image, source, bundle.about(), shelf)
                if not all(stamp_of(p) == stamp for p, stamp in self.files):
                    raise OSError(errno.ESTALE, "the model has changed meanwhile")
            path = self.store.path(self.key)
            weights = bundle.read(path, verify=False, lend=self._lend).image.weights
        except (OSError, AiscError) as fault:
            cause = fault if isinstance(fault, OSError) else fault.__context__
            if isinstance(cause, NoRoom):
                _tell(size, str(cause))
            elif isinstance(cause, OSError) and cause.errno in _FULL:
                _tell(size, "the disk is full")
            return None
        shelf.publish()
        self._use(self.key, whole=True)
        self.store.trim()
        self.facts.store.trim()
        return weights

    def _lend(self, name: str, total: str) -> Bytes:
        """The weights of another image, if it is the one that is meant. A damaged one is dropped,
        lest it is asked again."""
        if not is_key(name):
            raise execution_error("E504", "an image has weights of no image")
        path = self.store.path(name)
        try:
            weights, found = bundle.own_weights(path, not self._is_whole(name))
        except AiscError:
            path.unlink(missing_ok=True)
            raise
        if found != total:
            raise execution_error("E504", "an image has weights of another one, which has changed")
        self._use(name, whole=True)
        return weights

    def _is_whole(self, key: str) -> bool:
        """Whether the weights of an image were found undamaged since the machine was started."""
        path, boot = self.store.path(key), _boot()
        try:
            return bool(boot) and self.facts.get(path, stamp_of(path)) == boot
        except OSError:
            return False

    def _use(self, key: str, whole: bool = False) -> None:
        """An image is used now, and known to be whole, or as it was."""
        whole = whole or self._is_whole(key)
        self.store.touch(key)
        path, boot = self.store.path(key), _boot()
        with contextlib.suppress(OSError):
            stamp = stamp_of(path)
            if whole and boot:
                self.facts.put(path, stamp, boot)


def _tell(size: int, reason: str) -> None:
    _LOG.warning(
        "aisc: the compiled model (%s) is not kept for the next time: %s", shown(size), reason
    )


def _boot() -> str:
    """Since when this machine runs: what was written before it stopped may not have reached the
    disk. Nothing where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def place_of(model: Any, machines: Sequence[Target], options: Options) -> Place | None:
    """Where `model` is kept; ``None`` for one that cannot be, or when steps are looked at."""
    looked_at = (
        options.stop_after or options.dump_dir or options.verify or options.profile or options.apart
    )
    if not options.use_cache or looked_at:
        return None
    files: tuple[tuple[Path, Stamp], ...] = ()
    try:
        if isinstance(model, bytes):
            kind, contents = "bytes", [_digest(memoryview(model))]
        elif isinstance(model, Graph):
            from aisc.artifact.graph_digest import graph_digest  # the others open without it

            kind, contents = "graph", graph_digest(model)
        elif isinstance(model, str | Path):
            source = Path(model)
            if not source.is_file():
                return None
            kind = source.suffix.lower()
            contents, files = _contents(source, Facts.of(options.cache_dir, "contents"))
        else:
            return None
    except (OSError, ValueError, CompileError):  # the importer says what is wrong with the file
        return None
    if not contents:
        return None
    versions = (backend_of(t).version for t in machines)
    tuned = filter(None, [state_of(options.records, machines)])
    libraries = ",".join(map(_installed, _LIBRARIES))
    key = key_of(
        "image", *contents, kind, options.key, f"host={options.host}",
        *(t.key for t in machines), *versions, fingerprint(), libraries, *tuned,
    )  # fmt: skip
    store, facts = cache_of(options.cache_dir, "images"), Facts.of(options.cache_dir, "whole")
    return Place(store, key, files, facts)


def stamp(model: Any) -> Stamp | None:
    """What tells versions of a model's file apart; ``None`` for what is no file."""
    try:
        return stamp_of(Path(model)) if isinstance(model, str | Path) else None
    except (OSError, ValueError):
        return None


def _contents(source: Path, facts: Facts) -> tuple[list[str], tuple[tuple[Path, Stamp], ...]]:
    """Digests of a model's files, the names of the parts before theirs, and their stamps; none when
    the files cannot be told."""
    own = stamp_of(source)
    known = facts.get(source, own)
    if known is None:
        known = [_digest_of(source), registry.parts(source)]
        if is_settled(own) and stamp_of(source) == own:
            facts.put(source, own, known)
    digest, parts = known
    if parts is None:
        return [], ()
    found, files = [digest], [(source, own)]
    for name in parts:
        path = source.parent / name
        if not path.resolve().is_relative_to(source.parent.resolve()):
            return [], ()  # the importer refuses it
        stamp = stamp_of(path)
        part = facts.get(path, stamp)
        if part is None:
            part = [_digest_of(path), None]
            if is_settled(stamp) and stamp_of(path) == stamp:
                facts.put(path, stamp, part)
        found += [name, part[0]]
        files.append((path, stamp))
    return found, tuple(files)


def _digest_of(path: Path) -> str:
    """The digest of a file, which may be empty."""
    return _digest(mapped(path).data if path.stat().st_size else memoryview(b""))


@cache
def _installed(package: str) -> str:
    """Name and version of a package, as its installer wrote them: importing what asks for the
    version of any package takes longer than opening a model."""
    found = find_spec(package)
    if found is not None and found.origin is not None:
        for folder in Path(found.origin).parent.parent.glob(f"{package}-*.dist-info"):
            return folder.stem
    from importlib.metadata import version

    return f"{package}-{version(package)}"


def _digest(data: memoryview) -> str:
    """SHA-256 of the SHA-256 of pieces, which threads share. Pages of a file are given back."""
    pieces = [data[k : k + _PIECE] for k in range(0, len(data), _PIECE)]

    def digest(piece: memoryview) -> bytes:
        found = hashlib.sha256(piece).digest()
        give_back(np.frombuffer(piece, np.uint8))
        return found

    with ThreadPoolExecutor(min(default_threads(), len(pieces)) or 1) as pool:
        hashes = list(pool.map(digest, pieces))
    return hashlib.sha256(b"".join(hashes)).hexdigest()

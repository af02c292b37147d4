"""Images that share weights: where two models of the cache have the same large packed weight, as
two exports of one network have, the later one has it from the file of the earlier one.

Which image holds a weight is remembered under the weight's sketch, and found out by comparing all
of it. An image whose lender is gone counts as absent, and is made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import field

import numpy as np

from aisc.artifact.cache import Cache, key_of
from aisc.codegen.arrays import Array
from aisc.codegen.run import bundle
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError
from aisc.ir.mapped import LARGE_BYTES, Bytes, give_back

_COMPARED = 1 << 24  # bytes of two files that are compared at once


class NoRoom(OSError):
    """An image is too large for the cache or its disk."""


@dataclass(slots=True)
class ImageShelf:
    """The images of a cache, for one of them that is being written under `key`. `holders`: records
    of what holds a weight. `use` counts an image as used."""

    images: Cache
    holders: Cache
    key: str
    use: Callable[[str], None]
    _opened: dict[str, tuple[Bytes, str] | None] = field(default_factory=dict)
    _stored: list[tuple[str, int]] = field(default_factory=list)

    def find(self, array: Array) -> tuple[str, str, int] | None:
        """The image that holds a large array, its checksum and the place there."""
        if array.nbytes < LARGE_BYTES:
            return None
        record = self.holders.get(_key(array))
        if record is None:
            return None
        try:
            known = json.loads(record["holder"])
            name, place = known["image"], known["place"]
        except (ValueError, KeyError, TypeError):
            return None
        lender = self._weights(name) if is_key(name) and name != self.key else None
        if lender is None or not isinstance(place, int) or not _holds(lender[0], place, array):
            return None
        return name, lender[1], place

    def grow(self, size: int) -> None:
        """:class:`NoRoom` where an image of this size, or more, has no room."""
        if reason := self.images.room_for(size):
            raise NoRoom(reason)

    def stored(self, array: Array, place: int) -> None:
        """Remember a large array for :meth:`publish`."""
        if array.nbytes >= LARGE_BYTES:
            self._stored.append((_key(array), place))

    def publish(self) -> None:
        """The image is there: others may have its weights."""
        for key, place in self._stored:
            text = json.dumps({"image": self.key, "place": place})
            self.holders.put(key, {"holder": text.encode()})

    def _weights(self, name: str) -> tuple[Bytes, str] | None:
        """What another image holds, and its checksum; nothing where it is gone."""
        if name not in self._opened:
            try:
                self._opened[name] = bundle.own_weights(self.images.path(name), verify=False)
            except AiscError:
                self._opened[name] = None
            else:
                self.use(name)  # it shall not be the next to go
        return self._opened[name]


def is_key(name: object) -> bool:
    """Whether this may be the key of a record."""
    return isinstance(name, str) and len(name) == 64 and set(name) <= set("0123456789abcdef")


def _key(array: Array) -> str:
    blob = Blob(array)
    return key_of("holder", str(blob.type), f"{blob.sketch:x}")


def _holds(section: Bytes, place: int, array: Array) -> bool:
    """Whether an array lies at a place of a section."""
    there, here = section[place : place + array.nbytes], array.reshape(-1).view(np.uint8)
    if place < 0 or there.size != here.size:
        return False
    for k in range(0, here.size, _COMPARED):
        part = there[k : k + _COMPARED]
        same = np.array_equal(part, here[k : k + _COMPARED])
        give_back(part)
        if not same:
            return False
    return True

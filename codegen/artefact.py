"""What a module of code becomes; a module of its own so that a process which only generates code
loads nothing else."""

from __future__ import annotations

from aisc.ir.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a module was assembled to: bytes, and a listing for people only if it was asked for."""

    object: bytes
    listing: str = ""

"""Images: compiled programs as data. An executable is made from an image, whether the pipeline has
just built it or it was read from a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from aisc.codegen.signature import Signature


@dataclass(frozen=True, slots=True)
class Machine:
    """What code was generated for: kind of target, LLVM's names of system, CPU and features."""

    kind: str
    triple: str
    arch: str
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """Machine code and packed weights with their signature.

    objects: kernels and entry. runtime: the object of the run time (barrier, pool).
    weights: in the signature's order, read-only; possibly mapped from a file.
    """

    signature: Signature
    machine: Machine
    runtime: bytes
    objects: tuple[bytes, ...]
    weights: tuple[NDArray[Any], ...]

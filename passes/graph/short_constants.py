"""Constants of f32 in types of 16 bits, and the nodes of a model whose constants stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.mapped import give_back
from aisc.ir.rewrite.rules import Match
from aisc.passes.graph.fold import AGAIN_BYTES


def is_kept(node: GraphNode, keep: Sequence[str]) -> bool:
    """Whether a node comes from one of the model's nodes `keep`."""
    return any(name in keep for name in node.loc.nodes)


def shortened(blob: Blob | None, to: DType) -> Blob | None:
    """Contents in a type of 16 bits, rounded to nearest; ``None`` for what is none of f32, or has
    finite numbers for which the type has none."""
    if blob is None or blob.dtype is not dtypes.f32:
        return None
    make = partial(_rounded, blob, to)
    short = make()
    if not (np.isfinite(short.astype(np.float32)) == np.isfinite(blob.array)).all():
        return None
    again = make if short.nbytes >= AGAIN_BYTES else None
    return Blob(short, make=again)


def short_constant(m: Match, value: Value, to: DType) -> Value | None:
    """A constant in a type of 16 bits, where it is one that :func:`shortened` takes."""
    blob = shortened(m.constant(value), to)
    return None if blob is None else m.add("constant", (), {"value": blob})


def _rounded(blob: Blob, to: DType) -> np.ndarray:
    """Contents in another type: as cheap to compute once more as to keep."""
    wide = blob.array
    with np.errstate(over="ignore"):
        short = wide.astype(to.numpy)
    give_back(wide)
    return short

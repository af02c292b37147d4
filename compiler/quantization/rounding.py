"""Weights of 4 bits in groups: nearest numbers, or those that the outputs move least with.

The second is that of Frantar et al. (GPTQ, 2023): rows of weights are rounded one after the other,
those whose inputs are largest first, and what rounding one of them moves the outputs by, on inputs
with the products ``h``, those that are still to come take over as well as they can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.quantization.affine import LEAST
from aisc.quantization.network import Array

LOWEST, HIGHEST = -8, 7
# Rows that are rounded before the others hear of it.
BLOCK = 128
# What is added to the diagonal, as a part of its mean, so that it can be inverted.
DAMPING = 0.01
# Parts of the range of a group that are tried as its scale.
_PARTS = np.linspace(0.7, 1.0, 13)
# Bytes of sums of products that are kept at a time.
MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class Few:
    """Weights ``[K, N]`` in 4 bits, with a scale for every `group` of K."""

    q: Array
    scale: Array
    group: int

    def widened(self) -> Array:
        """What they stand for."""
        wide = np.repeat(self.scale, self.group, axis=0)[: len(self.q)]
        return np.asarray(self.q * wide)


@dataclass(slots=True)
class Products:
    """Sums of products of the channels of values: ``x^T x`` over all rows."""

    of: dict[str, Array] = field(default_factory=dict)

    def see(self, name: str, value: Array) -> None:
        """Add the rows of a value."""
        rows = np.asarray(value, np.float32).reshape(-1, value.shape[-1])
        rows = rows[np.isfinite(rows).all(axis=1)]
        found = (rows.T @ rows).astype(np.float64)
        self.of[name] = self.of[name] + found if name in self.of else found


def in_memory(sizes: Iterable[tuple[str, int]], most: int = MEMORY) -> Iterator[list[str]]:
    """Names of values, with so many channels each, of which the products fit into memory."""
    some, used = list[str](), 0
    for name, size in sizes:
        if some and used + size * size * 8 > most:
            yield some
            some, used = [], 0
        some.append(name)
        used += size * size * 8
    if some:
        yield some


def nearest(w: Array, group: int) -> Few:
    """Each weight as the nearest number, the greatest of a group as the greatest number."""
    scale = _scales(_grouped(w, group))
    return Few(_rounded(w, np.repeat(scale, group, axis=0)[: len(w)]), scale, group)


def with_least_error(w: Array, h: Array, group: int) -> Few:
    """The numbers that move products with inputs of the sums of products `h` least."""
    h = h.astype(np.float64)
    size = np.diag(h).copy()
    scale = _weighed_scales(_grouped(w, group), _grouped(size[:, None], group))
    unseen = size <= 0
    h[unseen, unseen] = 1.0
    h[np.diag_indices_from(h)] += DAMPING * np.diag(h).mean()
    order = np.argsort(-size, kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    wide = np.repeat(scale, group, axis=0)[: len(w)][order]
    q = np.empty(w.shape, np.int8)
    q[order] = _one_after_the_other(w[order].astype(np.float64), upper, wide)
    return Few(q, scale, group)


def _one_after_the_other(w: Array, upper: Array, scale: Array) -> Array:
    """Rows rounded in order, each error divided among the rows behind it; `upper` is the triangle
    whose product with itself is the inverse of the sums of products."""
    q = np.empty(w.shape, np.int8)
    for start in range(0, len(w), BLOCK):
        end = min(start + BLOCK, len(w))
        errors = np.empty((end - start, w.shape[1]))
        for k in range(start, end):
            q[k] = _rounded(w[k], scale[k])
            error = (w[k] - q[k] * scale[k].astype(np.float64)) / upper[k, k]
            w[k + 1 : end] -= upper[k, k + 1 : end, None] * error
            errors[k - start] = error
        w[end:] -= upper[start:end, end:].T @ errors
    return q


def _grouped(w: Array, group: int) -> Array:
    """Rows in groups ``[groups, group, N]``, the last filled up with zeros."""
    more = -len(w) % group
    padded = np.pad(w, ((0, more), (0, 0)))
    return np.asarray(padded.reshape(-1, group, w.shape[1]))


def _scales(groups: Array) -> Array:
    """The scale of each group for its greatest weight."""
    most = np.abs(groups).max(axis=1, initial=0.0)
    return np.asarray(np.maximum(most / HIGHEST, LEAST), np.float32)


def _weighed_scales(groups: Array, sizes: Array) -> Array:
    """The scale of each group with the least squared error, where each row counts as its inputs."""
    base = _scales(groups)
    best, least = base, np.full(base.shape, np.inf)
    for part in _PARTS[::-1]:
        scale = (base * part).astype(np.float32)[:, None]
        error = (sizes * (_rounded(groups, scale) * scale - groups) ** 2).sum(axis=1)
        better = error < least
        best, least = np.where(better, scale[:, 0], best), np.where(better, error, least)
    return np.asarray(best, np.float32)


def _rounded(w: Array, scale: Array) -> Array:
    return np.clip(np.rint(w / scale), LOWEST, HIGHEST).astype(np.int8)

"""A builder of ONNX graphs whose large weights stream to a file of external data.

Several models may have their weights in one file: a weight that the file has under its name and
with its shape is used again, so that the parts of a model (its first run over a prompt, its runs
for a token each) are made from the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from zoo.net import Net

EXTERNAL_BYTES = 1 << 16  # smaller constants stay in the model
ALIGNMENT = 4096  # of a weight in the file: that of pages
BLOCK = 1 << 22  # elements that are drawn at once


class WeightFile:
    """A file of weights that grows: name -> place and shape."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self.size = 0
        path.write_bytes(b"")

    def add(self, name: str, shape: tuple[int, ...], blocks: Iterator[NDArray[np.float32]]) -> int:
        """The place of a weight, which is written unless it is there."""
        if name in self.places:
            place, known = self.places[name]
            if known != shape:
                raise ValueError(f"{name} has shape {known} in {self.path}, not {shape}")
            return place
        place = -(-self.size // ALIGNMENT) * ALIGNMENT
        with open(self.path, "ab") as f:
            f.write(bytes(place - self.size))
            for block in blocks:
                f.write(block.data)
        self.size = place + 4 * prod(shape)
        self.places[name] = place, shape
        return place


class StreamedNet(Net):
    """A graph under construction whose large weights are drawn block by block into a file."""

    def __init__(self, name: str, seed: int, weights: WeightFile) -> None:
        super().__init__(name, seed)
        self.file = weights
        self.seed = seed

    def normal(self, shape: Sequence[int], scale: float, hint: str = "w") -> str:
        """Normally distributed numbers, which depend on the seed and the name of the weight."""
        sizes = tuple(shape)
        if 4 * prod(sizes) < EXTERNAL_BYTES:
            return super().normal(sizes, scale, hint)
        name = self.fresh(hint)
        place = self.file.add(name, sizes, self._blocks(name, prod(sizes), scale))
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=sizes)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", self.file.path.name), ("offset", place), ("length", 4 * prod(sizes)),
        ):  # fmt: skip
            tensor.external_data.add(key=key, value=str(value))
        self.weights.append(tensor)
        return name

    def _blocks(self, name: str, count: int, scale: float) -> Iterator[NDArray[np.float32]]:
        rng = np.random.Generator(np.random.SFC64([self.seed, *name.encode()]))
        for start in range(0, count, BLOCK):
            block = rng.standard_normal(min(BLOCK, count - start), np.float32)
            block *= np.float32(scale)
            yield block

    def save(self, path: Path) -> None:
        """Write the model beside its weights."""
        onnx.save(self.model(), path)

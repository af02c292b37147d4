"""Models of a chosen size: a chain of products, and a decoder for prompts and for single tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo.text import gpt2

from large.streamed import StreamedNet, WeightFile

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes of a decoder."""

    layers: int
    hidden: int
    heads: int
    vocab: int = 50257
    positions: int = 1024

    @property
    def parameters(self) -> int:
        """How many numbers it has, norms and biases aside."""
        return self.hidden * (12 * self.hidden * self.layers + self.vocab + self.positions)


TINY = Decoder(2, 64, 4, 512, 128)
TWO_BILLION = Decoder(24, 2560, 32)


def chain(folder: Path, size: int, width: int = 4096) -> Path:
    """Products with square matrices of `width`, of about `size` bytes together, with a map between
    each two; the number of rows is symbolic."""
    net = StreamedNet("chain", 0, WeightFile(folder / "chain.data"))
    x = net.input("x", ("n", width))
    for _ in range(max(1, round(size / (4 * width * width)))):
        x = net.op("Relu", net.op("MatMul", x, net.normal((width, width), (2 / width) ** 0.5)))
    net.output(x, "y", ("n", width))
    net.save(folder / "chain.onnx")
    return folder / "chain.onnx"


def decoder(folder: Path, sizes: Decoder) -> Path:
    """A decoder over new tokens after those whose keys and values are given, of which there may be
    none: it reads prompts and single tokens with the same weights."""
    net = StreamedNet("decoder", 0, WeightFile(folder / "decoder.data"))
    gpt2(net, sizes.layers, sizes.hidden, sizes.heads, sizes.vocab, sizes.positions)
    net.save(folder / "decoder.onnx")
    return folder / "decoder.onnx"


MODELS: dict[str, Callable[[Path], Path]] = {
    "chain1": lambda folder: chain(folder, GIB),
    "chain4": lambda folder: chain(folder, 4 * GIB),
    "chain8": lambda folder: chain(folder, 8 * GIB),
    "decoder2b": lambda folder: decoder(folder, TWO_BILLION),
    "tiny": lambda folder: decoder(folder, TINY),
}

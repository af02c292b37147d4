"""Instruments: what watches a compilation without being part of it: timing, dumping, verifying.

The pipeline announces every step's product; each instrument does one thing with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Protocol

from aisc.driver.options import Options
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Program

Product = Graph | Program | str


class Instrument(Protocol):
    """Called around every step. `needs_products`: whether kernels must be made in full, and not be
    taken from the cache as signatures and objects."""

    needs_products: ClassVar[bool]

    def before(self, step: str) -> None:
        """A step begins."""

    def after(self, step: str, product: Product | None) -> None:
        """A step has made `product` (``None`` when it is not printable)."""


@dataclass(slots=True)
class Timer:
    """Seconds per step, in order."""

    needs_products: ClassVar[bool] = False
    seconds: dict[str, float] = field(default_factory=dict)
    _start: float = 0.0

    def before(self, step: str) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def after(self, step: str, product: Product | None) -> None:
        """Stop the clock."""
        elapsed = time.perf_counter() - self._start
        self.seconds[step] = self.seconds.get(step, 0.0) + elapsed


@dataclass(slots=True)
class Dumper:
    """Writes ``NN-step.txt`` into a folder after every step that has a printable product."""

    needs_products: ClassVar[bool] = True
    folder: Path
    count: int = 0

    def before(self, step: str) -> None:
        """Nothing to do."""

    def after(self, step: str, product: Product | None) -> None:
        """Write the product."""
        self.count += 1
        if product is None:
            return
        from aisc.ir.text.printer import print_ir

        self.folder.mkdir(parents=True, exist_ok=True)
        text = product if isinstance(product, str) else print_ir(product)
        (self.folder / f"{self.count:02d}-{step}.txt").write_text(text, encoding="utf-8")


@dataclass(slots=True)
class Verifier:
    """Verifies every product; a violation is raised as a ``CompileError`` naming the step."""

    needs_products: ClassVar[bool] = True

    def before(self, step: str) -> None:
        """Nothing to do."""

    def after(self, step: str, product: Product | None) -> None:
        """Check the product."""
        if isinstance(product, Graph):
            from aisc.ir.graph.verify import verify

            verify(product)
        elif isinstance(product, Program):
            from aisc.ir.tensor.verify import verify_program

            verify_program(product)


@dataclass(slots=True)
class Collector:
    """Keeps the products by step, for ``aisc.lower`` and for tests."""

    needs_products: ClassVar[bool] = True
    products: dict[str, Product] = field(default_factory=dict)

    def before(self, step: str) -> None:
        """Nothing to do."""

    def after(self, step: str, product: Product | None) -> None:
        """Keep the product."""
        if product is not None:
            self.products[step] = product


@dataclass(slots=True)
class Progress:
    """Tells a callback which step runs, and how far it is."""

    needs_products: ClassVar[bool] = False
    report: Callable[[str], None]

    def before(self, step: str) -> None:
        """Announce the step."""
        self.report(step)

    def after(self, step: str, product: Product | None) -> None:
        """Nothing to do."""


@dataclass(slots=True)
class Instruments:
    """All instruments of one compilation."""

    items: tuple[Instrument, ...] = ()

    @property
    def need_products(self) -> bool:
        """Whether one of them looks at what the steps make."""
        return any(i.needs_products for i in self.items)

    @contextmanager
    def step(self, name: str) -> Iterator[Callable[[Product | None], None]]:
        """Announce a step; call what is yielded with its product."""
        for i in self.items:
            i.before(name)
        made: list[Product | None] = []
        yield made.append
        for i in self.items:
            i.after(name, made[-1] if made else None)


def instruments_for(options: Options, *more: Instrument) -> Instruments:
    """The instruments that the options ask for."""
    items: list[Instrument] = list(more)
    if options.verify:
        items.append(Verifier())
    if options.dump_dir:
        items.append(Dumper(Path(options.dump_dir)))
    return Instruments(tuple(items))

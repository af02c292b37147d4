"""What a pass is: a frozen dataclass that takes valid IR and gives valid IR.

Passes have a `name` and a ``run``; their fields are their options. They know nothing of dumping,
timing and verifying: those are instruments of :mod:`aisc.instruments`.
"""

from __future__ import annotations

from typing import Protocol

from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Func


class GraphPass(Protocol):
    """A transformation of graphs; returning the same object means nothing changed."""

    @property
    def name(self) -> str:
        """Name in dumps, timings and ``--passes``."""

    def run(self, graph: Graph) -> Graph:
        """The transformed graph."""


class FuncPass(Protocol):
    """A transformation of functions."""

    @property
    def name(self) -> str:
        """Name in dumps, timings and ``--passes``."""

    def run(self, func: Func) -> Func:
        """The transformed function."""

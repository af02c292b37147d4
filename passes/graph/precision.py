"""Models in float with constants of 16 bits, where products read them.

before: ``%y = matmul(%x, constant f32)``
after:  ``%w = widen(constant bf16); %y = matmul(%x, %w)``

The rule: what a product or a convolution multiplies by, and the tables of which rows are gathered,
are stored in bf16 (or f16); every value that is computed stays f32, and so do sums, norms, softmax
and products of two activations. So each weight is rounded once, to 8 (or 11) bits, and nothing else
is; the last layer is no exception, as what it reads and gives is not rounded. A matrix stays as it
is where a node of it is to be kept, where a weight does not fit the range of the type, and where
its kernel would be another one (Winograd's convolutions transform their weights).

A device that multiplies the type reads both factors of its products in it
(:mod:`.short_products`); these alone round what is computed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.rewrite.driver import rewrite
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.base import map_regions
from aisc.passes.graph import short_products
from aisc.passes.graph.short_constants import is_kept, short_constant
from aisc.passes.graph.stored import is_product
from aisc.passes.policy import Policy

TYPES = {"bf16": dtypes.bf16, "f16": dtypes.f16}
# Elements of a table below which its rows are gathered as they are.
SMALL_TABLE = 1 << 12


@dataclass(frozen=True, slots=True)
class Precision:
    """The pass: constants in the type `to`, and whole products where one of the `devices`
    multiplies it; those of the nodes `keep` of the model stay."""

    to: DType
    keep: tuple[str, ...] = ()
    devices: tuple[Policy, ...] = ()
    name: str = "precision"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and its regions; E401 for nodes that there are not."""
        names = dict.fromkeys(_names(graph))
        for name in self.keep:
            if name not in names:
                near = difflib.get_close_matches(name, names, 3, 0.3)
                notes = [f"has {', '.join(near)}"] if near else []
                raise error("E401", f"the model has no node '{name}'", *notes)
        return self._run(graph)

    def _run(self, graph: Graph) -> Graph:
        products = short_products.rules(self.to, self.devices, self.keep)
        graph = rewrite(map_regions(graph, self._run), products)
        return rewrite(graph, rules(self.to, self.keep))


def _names(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        yield from node.loc.nodes
        for region in node.regions:
            yield from _names(region)


def rules(to: DType, keep: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules for one type."""

    @rule("matmul", "conv")
    def shorter_weights(m: Match) -> Sequence[Value] | None:
        """``matmul(x, w) -> matmul(x, widen(w in 16 bits))`` for constants: weights rounded."""
        w = m.input(1)
        product = w is not None and (is_product(m.node, w) or _is_dense(m.node))
        if w is None or not product or is_kept(m.node, keep):
            return None
        short = short_constant(m, w, to)
        if short is None:
            return None
        wide = m.add("widen", (short,))
        return (m.add(m.node.op, (m.input(0), wide, *m.node.inputs[2:]), m.node.attr_map),)

    @rule("gather")
    def shorter_tables(m: Match) -> Sequence[Value] | None:
        """``gather(t, i) -> cast(gather(t in 16 bits, i), f32)`` for a large constant."""
        table = m.input(0)
        if table is None or table.type.size < SMALL_TABLE or is_kept(m.node, keep):  # type: ignore[operator]
            return None
        short = short_constant(m, table, to)
        if short is None:
            return None
        rows = m.add("gather", (short, m.input(1)), m.node.attr_map)
        return (m.add("cast", (rows,), {"to": dtypes.f32}),)

    return shorter_weights, shorter_tables


def _is_dense(node: GraphNode) -> bool:
    """Whether a node is a convolution of which each result reads all channels of an image whose
    channels are last, and which is not one that Winograd's transforms make cheaper."""
    if node.op != "conv" or node.attr("group") != 1 or node.attr("accumulator"):
        return False
    shape, strides = node.input_values[1].type.shape, node.attr("strides")
    window = shape[:-2] if node.attr("data_layout") == "NHWC" else ()
    moves = isinstance(strides, tuple) and any(n != 1 for n in strides)
    return node.output.type.dtype is dtypes.f32 and bool(window) and (moves or 1 in window)

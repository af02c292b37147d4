"""Which writer is for which node."""

from __future__ import annotations

from aisc.frontend.lang.printing import regions, repeats
from aisc.frontend.lang.printing.blocks import repeats_in
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.formulas import write_formula
from aisc.ir.graph.core import GraphNode


def write(body: Body) -> None:
    """Write every node of a body, those of equal blocks as calls of one layer."""
    regions.prefer(body)
    blocks = {r.start: r for r in repeats_in(body)}
    for r in blocks.values():
        repeats.prefer(body, r)
    while body.place < len(body.nodes):
        block = blocks.get(body.place)
        if block is not None:
            repeats.write_repeat(body, block)
            body.place = block.end
        else:
            _write_node(body, body.nodes[body.place])
            body.place += 1


def _write_node(body: Body, node: GraphNode) -> None:
    match node.op:
        case "constant":
            body.constant(node.output)
        case "if":
            regions.write_if(body, node)
        case "loop":
            regions.write_loop(body, node)
        case "bind_dims":
            body.bind(node)
        case "index" if write_formula(body, node):
            pass
        case _:
            body.operator(node)

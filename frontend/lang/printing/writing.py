"""Which writer is for which node."""

from __future__ import annotations

from aisc.frontend.lang.printing import regions
from aisc.frontend.lang.printing.blocks import repeats_in
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.formulas import write_formula
from aisc.frontend.lang.printing.repeats import write_repeat
from aisc.ir.graph.core import GraphNode


def write(body: Body) -> None:
    """Write every node of a body, those of equal blocks as calls of one layer."""
    regions.prefer(body)
    repeats = {r.start: r for r in repeats_in(body)}
    while body.place < len(body.nodes):
        repeat = repeats.get(body.place)
        if repeat is not None:
            write_repeat(body, repeat)
            body.place = repeat.end
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

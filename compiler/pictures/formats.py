"""The stages of a model for other viewers: JSON, Graphviz, ONNX for Netron."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from aisc.pictures.stages import Item, Shown

DOMAIN = "aisc"


def as_json(s: Shown) -> str:
    """All that is known, as JSON."""
    return json.dumps(asdict(s), separators=(",", ":"))


def as_dot(s: Shown, stage: str) -> str:
    """A stage for Graphviz: blocks of the model are clusters."""
    items = s.stages[stage]
    lines = [f'digraph "{_quoted(s.name)}" {{', "  node [shape=box, fontname=Helvetica];"]
    lines += _cluster(items, (), "  ")
    lines += [f"  n{a} -> n{x.id};" for x in items for a in x.after]
    return "\n".join([*lines, "}", ""])


def _cluster(items: list[Item], block: tuple[str, ...], indent: str) -> list[str]:
    """The nodes that stand in a block, and its blocks."""
    depth = len(block)
    inside = [x for x in items if x.block[:depth] == block]
    lines = [f'{indent}n{x.id} [label="{_label(x)}"];' for x in inside if len(x.block) == depth]
    for name in dict.fromkeys(x.block[depth] for x in inside if len(x.block) > depth):
        inner = (*block, name)
        lines.append(f'{indent}subgraph "cluster_{_quoted("/".join(inner))}" {{')
        lines.append(f'{indent}  label="{_quoted(name)}";')
        lines += _cluster(inside, inner, indent + "  ")
        lines.append(f"{indent}}}")
    return lines


def _label(x: Item) -> str:
    """Operator, name and types, a line each."""
    return "\\n".join(map(_quoted, (x.op, x.kernel or x.name, ", ".join(x.types))))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def as_onnx(s: Shown, stage: str) -> Any:
    """A stage as an ``onnx.ModelProto`` whose operators are those of the compiler: for viewers,
    which show names, types and attributes; no runtime runs it."""
    from onnx import TensorProto, helper

    items = s.stages[stage]
    outs = {x.id: f"{x.name}:{x.id}" for x in items}
    nodes = []
    for x in items:
        if x.op in ("input", "output"):
            continue
        attrs: dict[str, Any] = {**x.attrs, "types": x.types, "sources": x.sources}
        attrs.update({"inside": x.inside, "kernel": x.kernel, "target": x.target})
        attrs.update({"variant": x.variant, "layouts": x.layouts})
        kept = {k: v for k, v in attrs.items() if v}
        nodes.append(
            helper.make_node(
                x.op.split(" ")[0] if not x.inside else "+".join(i.split(" ")[0] for i in x.inside),
                [outs[a] for a in x.after],
                [outs[x.id]],
                name="/".join((*x.block, x.name)),
                domain=DOMAIN,
                **kept,
            )
        )
    inputs = [
        helper.make_tensor_value_info(outs[x.id], TensorProto.UNDEFINED, None)
        for x in items
        if x.op == "input"
    ]
    outputs = [
        helper.make_tensor_value_info(outs[x.after[0]], TensorProto.UNDEFINED, None)
        for x in items
        if x.op == "output" and x.after
    ]
    graph = helper.make_graph(nodes, s.name, inputs, outputs)
    return helper.make_model(
        graph, producer_name="aisc", opset_imports=[helper.make_opsetid(DOMAIN, 1)]
    )

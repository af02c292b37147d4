"""The rewriter: forward sweeps over a graph until no rule fires, bounded and counted.

A sweep visits nodes in order and offers each, with its inputs already rewritten, to the rules of
its operator; the first that applies replaces it. New nodes are offered to rules in the next sweep.
A table that does not settle within the bound is a fault, reported with the rules that cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from aisc.ir.diagnostics import InternalError
from aisc.ir.graph.core import Graph, GraphNode, Value, defined_symbols, used_symbols
from aisc.ir.optional import attempt, is_strict
from aisc.ir.rewrite.rules import Match, RewriteGraph, Rule

MAX_SWEEPS = 64


def rewrite(graph: Graph, rules: Sequence[Rule], counts: Counter[str] | None = None) -> Graph:
    """`graph` with `rules` applied to a fixpoint; the same object when none fired.

    `counts` receives how often each rule fired.
    """
    table: dict[str, list[Rule]] = {}
    for r in rules:
        for op in r.ops:
            table.setdefault(op, []).append(r)
    for _ in range(MAX_SWEEPS):
        fired: Counter[str] = Counter()
        graph = _sweep(graph, table, fired)
        if counts is not None:
            counts.update(fired)
        if not fired:
            return graph
    names = ", ".join(f"{r.name} ({r.where})" for r in rules if r.name in fired)
    raise InternalError(f"rules do not settle after {MAX_SWEEPS} sweeps: {names}")


def _sweep(graph: Graph, table: dict[str, list[Rule]], fired: Counter[str]) -> Graph:
    out = RewriteGraph(graph.name)
    out.inputs = list(graph.inputs)
    for v in graph.values():
        out.fresh(v.name)
    used = use_counts(graph)
    mapped: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple(None if v is None else mapped.get(v, v) for v in node.inputs)
        moved = any(a is not b for a, b in zip(inputs, node.inputs, strict=True))
        current = replace(node, inputs=inputs) if moved else node
        results = _try_rules(out, current, table.get(node.op, ()), used, fired)
        if results is None:
            out.append(current)
        else:
            for old, new in zip(node.outputs, results, strict=True):
                mapped[old] = new
                used[new] = used.get(new, 0) + used.get(old, 0)
    if not fired:
        return graph
    outputs = tuple(mapped.get(v, v) for v in graph.outputs)
    result = replace(
        graph, nodes=tuple(out.nodes), outputs=outputs, output_names=graph.result_names
    )
    return eliminate_dead(result)


def _try_rules(
    out: RewriteGraph,
    node: GraphNode,
    rules: Sequence[Rule],
    used: dict[Value, int],
    fired: Counter[str],
) -> Sequence[Value] | None:
    for r in rules:
        mark = len(out.nodes)
        results = attempt(
            f"the rule {r.name} on {node.op}", partial(r.apply, Match(out, node, used)), _nothing
        )
        if results is None and len(out.nodes) > mark and not is_strict():
            out.forget(mark)  # what a rule has added that failed
        if results is None:
            assert len(out.nodes) == mark, f"rule {r.name} added nodes but did not apply"
            continue
        for old, new in zip(node.outputs, results, strict=True):
            assert old.type == new.type, f"rule {r.name} changed {old.type} to {new.type}"
        fired[r.name] += 1
        return results
    return None


def _nothing() -> None:
    """What a rule that failed gives."""


def use_counts(graph: Graph) -> dict[Value, int]:
    """How often each value is read, graph outputs included."""
    counts: dict[Value, int] = {}
    for node in graph.nodes:
        for v in node.input_values:
            counts[v] = counts.get(v, 0) + 1
    for v in graph.outputs:
        counts[v] = counts.get(v, 0) + 1
    return counts


def eliminate_dead(graph: Graph) -> Graph:
    """`graph` without the nodes that no output depends on, through values or through sizes; the
    same object if there are none."""
    live = set(graph.outputs)
    binders = {node: binds for node in graph.nodes if (binds := defined_symbols(node))}
    sizes = {s for v in graph.outputs for s in v.type.symbols}
    kept: list[GraphNode] = []
    for node in reversed(graph.nodes):
        if not live.isdisjoint(node.outputs) or not sizes.isdisjoint(binders.get(node, ())):
            kept.append(node)
            live.update(node.input_values)
            if binders:
                sizes |= used_symbols(node)
    if len(kept) == len(graph.nodes):
        return graph
    return replace(graph, nodes=tuple(reversed(kept)))

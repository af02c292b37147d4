"""Sameness of graphs: what counts, and which names do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aisc.frontend.lang.model import graph_of
from aisc.ir.dtypes import f32
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.rename import renamed
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.types import TensorType

BODY = """k = bind_dims(cast(x[0], to=i64)[0:1]{bounds})
y = expand(x[0, 0], shape=[k, {size}])
scan t in 0..{turns} {{
    x = x * {factor} + cast(t, to=f32)
    collect xs = x
}}
if x[0, 0] > 0 {{ z = y }} else {{ z = concat(y, y, axis=0) }}
return y, xs, z, unique(x[0])
"""


def graph(before: str = "", size: str = "k + 1", factor: str = "2", bounds: str = "",
          turns: str = "n") -> Graph:  # fmt: skip
    body = BODY.format(size=size, factor=factor, bounds=bounds, turns=turns)
    body = body.replace("unique(x[0])", "u").replace("return", "u, p, q, r = unique(x[0])\nreturn")
    return graph_of(f"model m(x: f32[n, 4]) {{\n{before}{body}}}", "m.aim", Path(), {})


def test_names_of_bound_dimensions_do_not_count() -> None:
    unused = "a = bind_dims(cast(x[1], to=i64)[0:1])\nb = expand(x[0, 0], shape=[a])\n"
    shifted = graph(unused + "scan s in 0..n { collect c = b * cast(s, to=f32) }\n")
    assert same(graph(), shifted)
    assert {str(d) for v in graph().values() for d in v.type.shape} != {
        str(d) for v in shifted.values() for d in v.type.shape
    }


@pytest.mark.parametrize(
    "other",
    [
        {"size": "k + 2"}, {"size": "k"}, {"size": "n"}, {"factor": "3"},
        {"bounds": ", most=[9]"}, {"turns": "n + 1"},
    ],
)  # fmt: skip
def test_what_counts(other: dict[str, str]) -> None:
    assert not same(graph(), graph(**other))


def test_names_of_results_count() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((3,), f32))
    y = b.add("relu", (x,))
    assert same(b.finish([y], ["a"]), b.finish([y], ["a"]))
    assert not same(b.finish([y], ["a"]), b.finish([y], ["b"]))
    assert not same(b.finish([y]), b.finish([x]))


def test_values_get_other_names() -> None:
    g = graph()
    names = {v: "same" for n in g.nodes for v in n.outputs}
    names |= {v: "inner" for n in g.nodes for r in n.regions for v in r.values()}
    other = renamed(g, names)
    verify(other)
    assert same(other, g)
    assert [v.name for v in other.inputs] == ["x"]
    found = [v.name for n in other.nodes for v in n.outputs]
    assert found[:2] == ["same", "same_1"] and len(set(found)) == len(found)
    assert {"inner", "inner_1"} <= {v.name for n in other.nodes for r in n.regions
                                    for v in r.values()}  # fmt: skip

"""A random graph and inputs for it, from a seed: the same on every machine."""

from __future__ import annotations

import random
import warnings
from functools import cache

import numpy as np

from aisc.fuzz import control
from aisc.fuzz.case import Case, Feed
from aisc.fuzz.maker import DTYPES, Maker
from aisc.fuzz.patterns import PATTERNS
from aisc.fuzz.proposals import EXCLUDED, propose
from aisc.fuzz.values import Fill, Style, filled
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, evaluate, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import TensorType

# How often a kind of operator is chosen; within a kind all are alike.
KIND_WEIGHTS = {
    "map": 8, "movement": 7, "reduction": 4, "contraction": 2, "window": 1, "opaque": 1,
    "pattern": 5, "control": 1,
}  # fmt: skip
BINARY = 0.45  # of the maps, those with two operands, which are fewer
BOUND_SIZES = (0, 1, 2, 3, 5, 8, 17)


@dataclass(frozen=True, slots=True)
class Shape:
    """What graphs are made: how many nodes at most, how many sets of inputs."""

    nodes: int = 12
    feeds: int = 3
    outside: float = 0.03  # how often an index is outside of its axis


@cache
def _by_kind() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for op in opdef.all_ops():
        if op.name not in EXCLUDED:
            kind = op.kind
            found.setdefault("binary" if kind == "map" and len(op.inputs) > 1 else kind, []).append(
                op.name
            )
    return {k: tuple(v) for k, v in found.items()}


def make(seed: int, wanted: Shape | None = None) -> Case:
    """The case of a seed."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return _made(seed, wanted or Shape())


def _made(seed: int, wanted: Shape) -> Case:
    rng = random.Random(seed)
    m = _maker(rng)
    count = rng.randint(1, wanted.nodes)
    while not m.builder.nodes:
        grow(m, count)
    graph = _finished(m)
    return Case(seed, graph, _feeds(m, graph, wanted))


def _maker(rng: random.Random) -> Maker:
    style: Style = rng.choices(["plain", "whole", "special"], [5, 5, 2])[0]  # type: ignore[assignment]
    main = rng.choices(list(DTYPES), list(DTYPES.values()), k=rng.randint(1, 2))
    symbols: tuple[Dim, ...] = ()
    dims: dict[str, int] = {}
    if rng.random() < 0.3:
        symbols = (symbol("n"),)
        dims["n"] = rng.choice([2, 3, 5, 6, 9])
    m = Maker(rng, style, dims, tuple(main), symbols)
    for _ in range(rng.randint(1, 2)):
        m.input(TensorType(m.shape(0, 4), m.rng.choice(m.main)), m.fill())
    return m


def grow(m: Maker, count: int) -> None:
    """Try to add some nodes."""
    for _ in range(count):
        kind = m.rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))[0]
        if kind == "control":
            if m.depth < 2 and m.held:
                m.rng.choice([control.branch, control.loop])(m, grow)
        elif kind == "pattern":
            m.rng.choice(PATTERNS)(m)
        else:
            if kind == "map" and m.chance(BINARY):
                kind = "binary"
            single(m, m.rng.choice(_by_kind()[kind]))


def single(m: Maker, name: str) -> None:
    """Try a few times to add one operator."""
    for _ in range(4):
        found = propose(m, name)
        if found is not None and m.put_all(name, *found) is not None:
            return


# -- results ---------------------------------------------------------------------------------------
def _finished(m: Maker) -> Graph:
    """The graph: what nobody reads is a result, up to a few; some that are read are, too."""
    read = {v for n in m.builder.nodes for v in n.input_values}
    made = [v for n in m.builder.nodes if n.op != "constant" for v in n.outputs]
    leaves = [v for v in made if v not in read][-6:]
    others = [v for v in made if v in read]
    chosen = leaves + m.rng.sample(others, min(len(others), m.rng.choice([0, 0, 1, 2])))
    if m.chance(0.03):
        chosen.append(m.rng.choice([*m.builder.inputs, *chosen]))
    _give_sizes(m)
    return m.builder.finish(chosen or made[-1:])


def _give_sizes(m: Maker) -> None:
    """An input for each symbolic size that none has, so that a call decides it."""
    for s in m.symbols:
        if not any(s in v.type.shape for v in m.builder.inputs):
            m.input(TensorType((s,), dtypes.boolean), m.fill(), "sized")


def _feeds(m: Maker, graph: Graph, wanted: Shape) -> tuple[Feed, ...]:
    """Inputs for several bindings of the symbolic sizes; the first is the one that nodes were
    evaluated with while the graph grew."""
    found: list[Feed] = [{v.name: m.held[v] for v in graph.inputs}]
    for _ in range(wanted.feeds - 1):
        dims = {name: m.rng.choice(BOUND_SIZES) for name in m.dims}
        if all(evaluate(d, dims) >= 0 for v in graph.inputs for d in v.type.shape):
            found.append({v.name: _array(m, v, dims) for v in graph.inputs})
    if m.chance(wanted.outside):
        found += _outside(m, graph, found[0])
    return tuple(found)


def _array(m: Maker, v: Value, dims: dict[str, int]) -> np.ndarray:
    shape = tuple(evaluate(d, dims) for d in v.type.shape)
    return filled(m.rng, shape, v.type.dtype, m.fills[v], dims)


def _outside(m: Maker, graph: Graph, feed: Feed) -> list[Feed]:
    """A feed with one index outside of its axis, if an input holds indices."""
    places = [
        v for v in graph.inputs
        if m.fills[v].index is not None and v.type.dtype.bits >= 32 and feed[v.name].size
    ]  # fmt: skip
    if not places:
        return []
    v = m.rng.choice(places)
    array = np.array(feed[v.name])
    limit = m.fills[v].index
    assert limit is not None, "chosen for it"
    array.reshape(-1)[m.rng.randrange(array.size)] = evaluate(limit, m.dims) + m.rng.randint(0, 9)
    return [{**feed, v.name: array}]


__all__ = ["Case", "Fill", "Shape", "grow", "make", "single"]

"""Small nets with a name: recurrent ones, chains of products whose weights come from memory, and
the smallest model there is, whose time is that of a call."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import aisc
from fuzzing.draft import Draft, Layer
from fuzzing.measuring import Plan, Row, Run, each, opened
from fuzzing.products import cells, drawn_lengths

# -- recurrent nets --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recurrent:
    """A stack of layers of cells over a sequence; `before`: linear_before_reset of a GRU."""

    kind: str
    hidden: int
    steps: int = 50
    batch: int = 1
    layers: int = 1
    both: bool = False
    lengths: bool = False
    before: int = 0

    @property
    def name(self) -> str:
        """What it is, in a few words."""
        told = [f"{self.kind} {self.hidden}", f"{self.steps} steps"]
        told += [f"batch {self.batch}"] * (self.batch > 1)
        told += [f"{self.layers} layers"] * (self.layers > 1)
        told += ["both ways"] * self.both + ["lengths"] * self.lengths
        return ", ".join(told + ["linear before reset"] * self.before)

    def layer(self) -> Layer:
        """The model; as many inputs as hidden numbers."""
        d, hidden = Draft("recurrent", self.name), self.hidden
        x, inner = d.array(self.steps, self.batch, hidden), hidden
        lengths = drawn_lengths(d, self.steps, self.batch) if self.lengths else ""
        for _ in range(self.layers):
            sizes = (self.steps, self.batch, inner, hidden)
            y = cells(d, self.kind, x, sizes, both=self.both, lengths=lengths,
                      linear_before_reset=self.before)  # fmt: skip
            # Steps, directions, batch, hidden: the directions' results side by side.
            turned, inner = d.op("Transpose", y, perm=[0, 2, 1, 3]), hidden * (1 + self.both)
            x = d.op("Reshape", turned, d.ints(self.steps, self.batch, inner))
        return d.layer([x], self.name)


RECURRENT = (
    Recurrent("LSTM", 64, steps=100),
    Recurrent("LSTM", 256),
    Recurrent("LSTM", 512, steps=30),
    Recurrent("LSTM", 1024, steps=20),
    Recurrent("LSTM", 128, layers=2),
    Recurrent("LSTM", 256, both=True),
    Recurrent("LSTM", 256, batch=8, lengths=True),
    Recurrent("LSTM", 128, batch=4, layers=2, both=True, lengths=True),
    Recurrent("GRU", 64, steps=100),
    Recurrent("GRU", 256),
    Recurrent("GRU", 256, before=1),
    Recurrent("GRU", 512, steps=30, before=1),
    Recurrent("GRU", 1024, steps=20),
    Recurrent("GRU", 128, layers=2, both=True, before=1),
    Recurrent("GRU", 256, batch=8, lengths=True),
    Recurrent("RNN", 256),
)

# -- chains ----------------------------------------------------------------------------------------
PAIRS, WIDTH, INNER = 12, 768, 3072
CHAIN_ROWS = (1, 16, 64, 128, 512)


def chain(
    kind: str, rows: int, pairs: int = PAIRS, width: int = WIDTH, inner: int = INNER
) -> Layer:
    """Pairs of products, each with weights of its own: wide, a map, narrow. ``plain`` has a relu
    between and no more, ``bert`` biases, gelu, the sum with what came in, and normalization."""
    d = Draft("chain", f"{kind} {rows}")
    x = d.array(rows, width)
    for _ in range(pairs):
        x = _pair(d, x, width, inner) if kind == "plain" else _feed_forward(d, x, width, inner)
    return d.layer([x], f"{kind} chain of {pairs} pairs, {rows} row{'s' * (rows > 1)}")


def _pair(d: Draft, x: str, width: int, inner: int) -> str:
    wide = d.op("Relu", d.op("MatMul", x, d.normal((width, inner), 1 / math.sqrt(width))))
    return d.op("MatMul", wide, d.normal((inner, width), math.sqrt(2 / inner)))


def _feed_forward(d: Draft, x: str, width: int, inner: int) -> str:
    wide = d.linear(x, width, inner)
    half = d.op("Mul", wide, d.number(0.5))
    bell = d.op("Erf", d.op("Mul", wide, d.number(math.sqrt(0.5))))
    gelu = d.op("Mul", half, d.op("Add", bell, d.number(1)))
    return d.norm(d.op("Add", x, d.linear(gelu, inner, width)), width)


# -- calls -----------------------------------------------------------------------------------------
CALLS, CALLS_IN_TURN = 10_000, 500


def smallest() -> Layer:
    """The relu of one number."""
    d = Draft("calls", "smallest")
    return d.layer([d.op("Relu", d.array(1))], "relu of one number")


def calls(plan: Plan, count: int = CALLS) -> Row:
    """Median microseconds of a call of the smallest model, by side: turns of some hundred calls,
    each call timed. ``aisc, called`` is ``exe(x)`` instead of ``exe.run(None, {"x": x})``."""
    layer = smallest()
    sides, left_out = opened(layer, plan)
    exe = aisc.compile(layer.model.SerializeToString(), threads=plan.threads, cache=False)
    feeds = dict(layer.feeds)
    runs: dict[str, Run] = {"aisc": lambda: exe.run(None, feeds), **sides}
    runs["aisc, called"] = partial(exe, *feeds.values())
    taken: dict[str, list[float]] = {name: [] for name in runs}
    while any(len(t) < count for t in taken.values()):
        for name, run in runs.items():
            run()
            taken[name] += each(run, min(count, CALLS_IN_TURN))
    us = {name: statistics.median(t) * 1e6 for name, t in taken.items()}
    ratios = {name: us[name] / us["aisc"] for name in sides}
    row: Row = {"family": layer.family, "what": layer.about, "left_out": left_out, "us": us}
    if ratios:
        best = min(ratios, key=ratios.__getitem__)
        row |= {"ratios": ratios, "best": best, "ratio": ratios[best]}
    return row


# -- all of a kind ---------------------------------------------------------------------------------
def makers(kind: str, small: bool = False) -> list[Callable[[], Layer]]:
    """What makes the nets of a kind, ``recurrent`` or ``chains``; `small`: for trying out."""
    if kind == "recurrent":
        nets = [replace(r, hidden=8, steps=3) for r in RECURRENT] if small else RECURRENT
        return [r.layer for r in nets]
    sizes = {"pairs": 2, "width": 16, "inner": 24} if small else {}
    rows = CHAIN_ROWS[:2] if small else CHAIN_ROWS
    return [partial(chain, k, n, **sizes) for k in ("plain", "bert") for n in rows]

"""Values of random ONNX programs, and moves that make new ones from those that there are.

Every float is a small whole number, so results are exact whatever the order of sums, and decisions
that data make are the same at every level. A shape is a tuple of numbers and of names: ``n`` is the
batch, ``?7`` a size that run time gives; values with equal names have equal sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from onnx_models import BOOL, I64, F, const, node

Size = int | str
Shape = tuple[Size, ...]
KINDS = {"f": F, "i": I64, "b": BOOL}
MAX_RANK = 3


@dataclass(frozen=True)
class Val:
    name: str
    kind: str
    shape: Shape


@dataclass
class Scope:
    """Nodes of one graph and the values it sees, those of graphs around it included."""

    values: list[Val]
    nodes: list[Any] = field(default_factory=list)
    depth: int = 0

    def inner(self, *own: Val) -> Scope:
        return Scope([*self.values, *own], [], self.depth + 1)


class Moves:
    """Moves that add a value to a scope, drawn from a seed."""

    def __init__(self, seed: int, host: bool = False) -> None:
        self.rng = Random(seed)
        self.host = host
        self.count = 0
        self.weights: list[Any] = []
        self.kept: dict[str, str] = {}

    # --- small parts --------------------------------------------------------------------------
    def fresh(self, hint: str = "v") -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def size(self) -> str:
        return f"?{self.fresh('')}"

    def weight(self, array: Any, key: str = "") -> str:
        if key and key in self.kept:
            return self.kept[key]
        name = self.fresh("w")
        self.weights.append(const(name, array))
        if key:
            self.kept[key] = name
        return name

    def ints(self, *items: int) -> str:
        return self.weight(np.array(items, np.int64), f"i{items}")

    def number(self, x: float) -> str:
        return self.weight(np.float32(x), f"f{x}")

    def integer(self, n: int) -> str:
        return self.weight(np.array(n, np.int64), f"s{n}")

    def emit(self, sc: Scope, op: str, inputs: str, **attrs: Any) -> str:
        name = self.fresh()
        sc.nodes.append(node(op, inputs, name, **attrs))
        return name

    def add(self, sc: Scope, name: str, kind: str, shape: Sequence[Size]) -> Val:
        v = Val(name, kind, tuple(shape))
        sc.values.append(v)
        return v

    def clipped(self, sc: Scope, name: str, shape: Sequence[Size]) -> Val:
        low, high = self.number(-8), self.number(8)
        return self.add(sc, self.emit(sc, "Clip", f"{name} {low} {high}"), "f", shape)

    def pick(self, sc: Scope, ok: Callable[[Val], bool] = lambda v: True) -> Val | None:
        """A float value, most often a recent one."""
        found = [v for v in sc.values if v.kind == "f" and ok(v)]
        if not found:
            return None
        return self.rng.choice(found[-6:] if self.rng.random() < 0.6 else found)

    def int_of_data(self, sc: Scope, low: int, high: int) -> str:
        """The name of a scalar between bounds that data decide."""
        given = [v for v in sc.values if v.kind == "i" and not v.shape]
        if given and self.rng.random() < 0.4:
            whole = self.rng.choice(given).name
        else:
            x = self.pick(sc)
            assert x is not None, "there are inputs"
            total = self.emit(sc, "ReduceSum", x.name, keepdims=0)
            whole = self.emit(sc, "Cast", total, to=I64)
        rest = self.emit(sc, "Mod", f"{whole} {self.integer(high - low + 1)}")
        return self.emit(sc, "Add", f"{rest} {self.integer(low)}") if low else rest

    def vector(self, sc: Scope, scalar: str) -> str:
        return self.emit(sc, "Unsqueeze", f"{scalar} {self.ints(0)}")

    def condition(self, sc: Scope) -> str:
        flags = [v for v in sc.values if v.kind == "b" and not v.shape]
        if flags and self.rng.random() < 0.3:
            return self.rng.choice(flags).name
        whole = self.int_of_data(sc, 0, self.rng.choice([1, 2, 4]))
        return self.emit(sc, "Greater", f"{whole} {self.integer(0)}")

    # --- elementwise --------------------------------------------------------------------------
    def unary(self, sc: Scope) -> None:
        x = self.pick(sc)
        if x is not None:
            op = self.rng.choice(["Relu", "Neg", "Abs", "Sign", "Identity", "Floor"])
            self.add(sc, self.emit(sc, op, x.name), "f", x.shape)

    def binary(self, sc: Scope) -> None:
        x = self.pick(sc)
        if x is None:
            return
        y = self.pick(sc, lambda v: v.shape in (x.shape, ()) or v.shape == x.shape[1:])
        other = self.number(self.rng.randint(-3, 3)) if y is None else y.name
        pair = [x.name, other]
        self.rng.shuffle(pair)
        op = self.rng.choice(["Add", "Sub", "Mul", "Min", "Max"])
        self.clipped(sc, self.emit(sc, op, " ".join(pair)), x.shape)

    def where(self, sc: Scope) -> None:
        x = self.pick(sc)
        y = None if x is None else self.pick(sc, lambda v: v.shape == x.shape)
        if x is not None and y is not None:
            c = self.emit(sc, "Greater", f"{x.name} {self.number(self.rng.randint(-2, 2))}")
            self.add(sc, self.emit(sc, "Where", f"{c} {x.name} {y.name}"), "f", x.shape)

    def constant(self, sc: Scope) -> None:
        shape = self.rng.choices([1, 2, 3], k=self.rng.randint(0, 2))
        self.add(sc, self.weight(self.floats(shape)), "f", shape)

    def floats(self, shape: Sequence[int]) -> Any:
        items = [self.rng.randint(-4, 4) for _ in range(int(np.prod(shape)))]
        return np.array(items, np.float32).reshape(tuple(shape))

    # --- contractions, reductions ---------------------------------------------------------------
    def matmul(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0 and isinstance(v.shape[-1], int))
        if x is not None:
            k, m = int(x.shape[-1]), self.rng.randint(1, 4)
            y = self.emit(sc, "MatMul", f"{x.name} {self.weight(self.floats((k, m)) % 3 - 1)}")
            self.clipped(sc, y, (*x.shape[:-1], m))

    def reduce(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis, keep = self.rng.randrange(len(x.shape)), self.rng.randint(0, 1)
        d = x.shape[axis]
        ops = ["ReduceSum"] + ["ReduceMax", "ReduceMin"] * (isinstance(d, int) and d > 0)
        y = self.emit(sc, self.rng.choice(ops), f"{x.name} {self.ints(axis)}", keepdims=keep)
        self.clipped(sc, y, (*x.shape[:axis], *(1,) * keep, *x.shape[axis + 1 :]))

    def cumsum(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is not None:
            axis = self.integer(self.rng.randrange(len(x.shape)))
            y = self.emit(sc, "CumSum", f"{x.name} {axis}", reverse=self.rng.randint(0, 1))
            self.clipped(sc, y, x.shape)

    # --- views and movement ---------------------------------------------------------------------
    def transpose(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 1)
        if x is not None:
            perm = list(range(len(x.shape)))
            self.rng.shuffle(perm)
            y = self.emit(sc, "Transpose", x.name, perm=perm)
            self.add(sc, y, "f", [x.shape[p] for p in perm])

    def reshape(self, sc: Scope) -> None:
        """To one axis; or with the first size computed by the graph from the shape."""
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is None:
            return
        rest = x.shape[1:]
        numbers = [d for d in rest if isinstance(d, int)]
        inner = int(np.prod(numbers)) if len(numbers) == len(rest) else None
        if inner is not None and self.rng.random() < 0.5:
            shape = self.emit(sc, "Shape", x.name)
            first = self.emit(sc, "Gather", f"{shape} {self.ints(0)}")
            target = self.emit(sc, "Concat", f"{first} {self.ints(inner)}", axis=0)
            self.add(sc, self.emit(sc, "Reshape", f"{x.name} {target}"), "f", (x.shape[0], inner))
            return
        flat = self.emit(sc, "Reshape", f"{x.name} {self.ints(-1)}")
        whole = inner is not None and isinstance(x.shape[0], int)
        one = int(x.shape[0]) * inner if whole else x.shape[0] if inner == 1 else self.size()  # type: ignore[operator]
        self.add(sc, flat, "f", (one,))

    def unsqueeze(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) < MAX_RANK)
        if x is not None:
            axis = self.rng.randint(0, len(x.shape))
            y = self.emit(sc, "Unsqueeze", f"{x.name} {self.ints(axis)}")
            self.add(sc, y, "f", (*x.shape[:axis], 1, *x.shape[axis:]))

    def slice(self, sc: Scope) -> None:
        """Between bounds that are known, or that data decide."""
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis = 0 if self.rng.random() < 0.6 else self.rng.randrange(len(x.shape))
        step = self.rng.choice([1, 1, 1, 2, -1])
        low, high = self.rng.randint(-3, 2), self.rng.choice([-1, 2, 4, 1 << 40])
        if step < 0:
            low, high = self.rng.choice([-1, 2, 4]), self.rng.choice([-(1 << 40), 0, -3])
        if self.rng.random() < 0.4:
            a = self.vector(sc, self.int_of_data(sc, -3, 3))
            b = self.vector(sc, self.int_of_data(sc, -3, 4))
        else:
            a, b = self.ints(low), self.ints(high)
        d = x.shape[axis]
        y = self.emit(sc, "Slice", f"{x.name} {a} {b} {self.ints(axis)} {self.ints(step)}")
        known = isinstance(d, int) and a in self.kept.values() and b in self.kept.values()
        size: Size = len(range(int(d))[slice(low, high, step)]) if known else self.size()
        self.add(sc, y, "f", (*x.shape[:axis], size, *x.shape[axis + 1 :]))

    def split(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: any(isinstance(d, int) and d > 1 for d in v.shape))
        if x is None:
            return
        axis = self.rng.choice([k for k, d in enumerate(x.shape) if isinstance(d, int) and d > 1])
        d = int(x.shape[axis])
        part = self.rng.randint(1, d - 1)
        names = [self.fresh(), self.fresh()]
        sizes = self.ints(part, d - part)
        sc.nodes.append(node("Split", f"{x.name} {sizes}", " ".join(names), axis=axis))
        for name, size in zip(names, (part, d - part), strict=True):
            self.add(sc, name, "f", (*x.shape[:axis], size, *x.shape[axis + 1 :]))

    def concat(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis = self.rng.randrange(len(x.shape))
        y = self.pick(sc, lambda v: self.joins(x, v, axis))
        assert y is not None, "x itself fits"
        name = self.emit(sc, "Concat", f"{x.name} {y.name}", axis=axis)
        a, b = x.shape[axis], y.shape[axis]
        both = a + b if isinstance(a, int) and isinstance(b, int) else self.size()
        if not isinstance(both, int) or both <= 8:
            self.add(sc, name, "f", (*x.shape[:axis], both, *x.shape[axis + 1 :]))

    @staticmethod
    def joins(x: Val, y: Val, axis: int) -> bool:
        if len(x.shape) != len(y.shape):
            return False
        return all(
            k == axis or a == b for k, (a, b) in enumerate(zip(x.shape, y.shape, strict=True))
        )

    def gather(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: any(isinstance(d, int) and d > 0 for d in v.shape))
        if x is None:
            return
        axis = self.rng.choice([k for k, d in enumerate(x.shape) if isinstance(d, int) and d > 0])
        at = self.int_of_data(sc, 0, int(x.shape[axis]) - 1)
        y = self.emit(sc, "Gather", f"{x.name} {at}", axis=axis)
        self.add(sc, y, "f", (*x.shape[:axis], *x.shape[axis + 1 :]))

    def pad(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is not None:
            axis, rank = self.rng.randrange(len(x.shape)), len(x.shape)
            pads = [0] * (2 * rank)
            pads[axis + rank * self.rng.randint(0, 1)] = 1
            d = x.shape[axis]
            size = d + 1 if isinstance(d, int) else self.size()
            y = self.emit(sc, "Pad", f"{x.name} {self.ints(*pads)}")
            self.add(sc, y, "f", (*x.shape[:axis], size, *x.shape[axis + 1 :]))

    # --- sizes that data decide -----------------------------------------------------------------
    def nonzero(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is not None:
            y = self.emit(sc, "Cast", self.emit(sc, "NonZero", x.name), to=F)
            self.clipped(sc, y, (len(x.shape), self.size()))

    def compress(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        if x is None:
            return
        axis, y = self.rng.randrange(len(x.shape)), x.name
        others = [k for k in range(len(x.shape)) if k != axis]
        if others:
            y = self.emit(sc, "ReduceSum", f"{y} {self.ints(*others)}", keepdims=0)
        c = self.emit(sc, "Greater", f"{y} {self.number(0)}")
        z = self.emit(sc, "Compress", f"{x.name} {c}", axis=axis)
        self.add(sc, z, "f", (*x.shape[:axis], self.size(), *x.shape[axis + 1 :]))

    def range(self, sc: Scope) -> None:
        high = self.int_of_data(sc, -1, 4)
        r = self.emit(sc, "Range", f"{self.integer(0)} {high} {self.integer(1)}")
        self.add(sc, self.emit(sc, "Cast", r, to=F), "f", (self.size(),))

    def topk(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0 and isinstance(v.shape[-1], int))
        if x is not None:
            k, names = self.int_of_data(sc, 0, int(x.shape[-1])), [self.fresh(), self.fresh()]
            ins = f"{x.name} {self.vector(sc, k)}"
            sc.nodes.append(node("TopK", ins, " ".join(names), largest=self.rng.randint(0, 1)))
            self.add(sc, names[0], "f", (*x.shape[:-1], self.size()))

    def expand(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) < 2)
        if x is not None:
            to = self.vector(sc, self.int_of_data(sc, 0, 3))
            if x.shape:
                to = self.emit(sc, "Concat", f"{to} {self.ints(1)}", axis=0)
            y = self.emit(sc, "Expand", f"{x.name} {to}")
            self.add(sc, y, "f", (self.size(), *x.shape))

    def unique(self, sc: Scope) -> None:
        x = self.pick(sc)
        if x is not None and self.host:
            y = self.emit(sc, "Unique", x.name, sorted=self.rng.randint(0, 1))
            self.add(sc, y, "f", (self.size(),))


PLAIN: list[Callable[[Moves, Scope], None]] = [
    Moves.unary, Moves.binary, Moves.binary, Moves.where, Moves.constant, Moves.matmul,
    Moves.reduce, Moves.cumsum, Moves.transpose, Moves.reshape, Moves.unsqueeze, Moves.slice,
    Moves.slice, Moves.split, Moves.concat, Moves.gather, Moves.pad, Moves.nonzero, Moves.compress,
    Moves.range, Moves.topk, Moves.expand, Moves.unique,
]  # fmt: skip

"""Random ONNX programs: branches, loops and scans over values whose sizes data may decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx_models import BOOL, I64, F, graph, model, node, value
from program_moves import KINDS, MAX_RANK, PLAIN, Moves, Scope, Shape, Val

VARYING = ("grows", "shrinks")


class Maker(Moves):
    """Builds one program from a seed."""

    def block(self, sc: Scope, most: int) -> None:
        """Some random moves."""
        for _ in range(self.rng.randint(1, most)):
            moves = CONTROL if sc.depth < 3 and self.rng.random() < 0.15 else PLAIN
            self.rng.choice(moves)(self, sc)

    def same_shape(self, sc: Scope, v: Val) -> str:
        """The name of a value that is made in this graph and has the shape of `v`."""
        shape = v.shape
        for _ in range(self.rng.randint(1, 3)):
            y = self.pick(sc, lambda o: o.shape in (shape, ()))
            other = self.number(self.rng.randint(-2, 2)) if y is None else y.name
            op = self.rng.choice(["Add", "Sub", "Max", "Mul"])
            v = self.clipped(sc, self.emit(sc, op, f"{v.name} {other}"), v.shape)
        return v.name

    def outside(self, shape: Shape, since: int) -> bool:
        """Whether a shape is known outside of a graph that was begun at `since`."""
        return all(isinstance(d, int) or d == "n" or int(d[1:]) <= since for d in shape)

    def branch(self, sc: Scope) -> None:
        count, c, since = self.rng.randint(1, 2), self.condition(sc), self.count
        first, second = sc.inner(), sc.inner()
        for arm in (first, second):
            self.block(arm, 3)
        results: list[tuple[Val, Val]] = []
        for _ in range(count):
            a = self.pick(first)
            rank = 0 if a is None else len(a.shape)
            b = self.pick(second, lambda v, rank=rank: len(v.shape) == rank)  # type: ignore[misc]
            if a is not None and b is not None:
                results.append((a, b))
        if not results:
            return
        arms = []
        for k, arm in enumerate((first, second)):
            names = [self.emit(arm, "Identity", pair[k].name) for pair in results]
            arms.append(graph(arm.nodes, [], [value(n) for n in names]))
        outs = [self.fresh() for _ in results]
        sc.nodes.append(node("If", c, " ".join(outs), then_branch=arms[0], else_branch=arms[1]))
        for out, (a, b) in zip(outs, results, strict=True):
            pairs = zip(a.shape, b.shape, strict=True)
            shape = [x if x == y and self.outside((x,), since) else self.size() for x, y in pairs]
            self.add(sc, out, "f", shape)

    def loop(self, sc: Scope) -> None:
        limit = self.rng.choice([self.integer(self.rng.randint(0, 4)), self.int_of_data(sc, 0, 3)])
        start = self.condition(sc) if self.rng.random() < 0.3 else "_"
        carried = [v for _ in range(self.rng.randint(1, 3)) if (v := self.pick(sc)) is not None]
        if self.rng.random() < 0.4:
            carried.append(carried[0])
        since, ways = self.count, [self.way(v) for v in carried]
        turn, going = Val(self.fresh("t"), "i", ()), Val(self.fresh("g"), "b", ())
        inside = [
            Val(self.fresh("c"), "f", (self.size(), *v.shape[1:]) if w in VARYING else v.shape)
            for v, w in zip(carried, ways, strict=True)
        ]
        body = sc.inner(turn, going, *inside)
        self.block(body, 3)
        nexts = [self.next(body, v, w, inside) for v, w in zip(inside, ways, strict=True)]
        scans = [v for _ in range(self.rng.randint(0, 2)) if (v := self.pick(body)) is not None]
        scans = [v for v in scans if self.outside(v.shape, since) and len(v.shape) < MAX_RANK]
        stacked = [self.emit(body, "Identity", v.name) for v in scans]
        # Every loop has a small limit, so a condition may be anything.
        again = self.condition(body) if self.rng.random() < 0.4 else going.name
        flag = self.emit(body, "Identity", again)
        inputs = [value(turn.name, I64, []), value(going.name, BOOL, [])]
        inputs += [value(v.name, F) for v in inside]
        outputs = [value(flag, BOOL, []), *(value(n) for n in (*nexts, *stacked))]
        outs = [self.fresh() for _ in (*nexts, *stacked)]
        given = " ".join([limit, start, *(v.name for v in carried)])
        sc.nodes.append(
            node("Loop", given, " ".join(outs), body=graph(body.nodes, inputs, outputs))
        )
        for out, v, w in zip(outs, carried, ways, strict=False):
            self.add(sc, out, "f", (self.size(), *v.shape[1:]) if w in VARYING else v.shape)
        for out, v in zip(outs[len(nexts) :], scans, strict=True):
            self.add(sc, out, "f", (self.size(), *v.shape))

    def way(self, v: Val) -> str:
        ways = ["computed", "computed", "exchanged", "passed", "fixed"]
        return self.rng.choice(ways + list(VARYING) * (len(v.shape) > 0))

    def next(self, body: Scope, v: Val, way: str, inside: Sequence[Val]) -> str:
        """The name of what a carried value becomes."""
        if way == "grows":
            y = self.pick(body, lambda o: self.joins(v, o, 0))
            assert y is not None, "v itself fits"
            both = self.emit(body, "Concat", f"{v.name} {y.name}", axis=0)
            end = [both, self.ints(0), self.ints(9), self.ints(0)]
            return self.emit(body, "Slice", " ".join(end))
        if way == "shrinks":
            y = self.pick(body, lambda o: self.joins(v, o, 0))
            assert y is not None, "v itself fits"
            low, high = self.ints(self.rng.randint(0, 1)), self.ints(self.rng.choice([9, 2, -1]))
            return self.emit(body, "Slice", f"{y.name} {low} {high} {self.ints(0)}")
        if way == "exchanged":
            others = [o for o in inside if o.shape == v.shape]
            return self.emit(body, "Identity", self.rng.choice(others).name)
        if way == "fixed":
            y = self.pick(body, lambda o: o.shape == v.shape)
            assert y is not None, "v itself fits"
            return self.emit(body, "Identity", y.name)
        return self.emit(body, "Identity", v.name if way == "passed" else self.same_shape(body, v))

    def scan(self, sc: Scope) -> None:
        x = self.pick(sc, lambda v: len(v.shape) > 0)
        state = self.pick(sc)
        if x is None or state is None:
            return
        axis, since = self.rng.randrange(len(x.shape)), self.count
        others = [v for v in sc.values if v.kind == "f" and v.shape == x.shape]
        scanned = [x, self.rng.choice(others)][: self.rng.randint(1, 2)]
        rest = x.shape[:axis] + x.shape[axis + 1 :]
        inside = [Val(self.fresh("c"), "f", state.shape)]
        inside += [Val(self.fresh("e"), "f", rest) for _ in scanned]
        body = sc.inner(*inside)
        self.block(body, 3)
        nxt = self.emit(body, "Identity", self.same_shape(body, inside[0]))
        found = self.pick(body, lambda v: self.outside(v.shape, since) and len(v.shape) < MAX_RANK)
        parts = [] if found is None else [self.emit(body, "Identity", found.name)]
        flips = [self.rng.randint(0, 1) for _ in (*scanned, *parts)]
        inner = graph(body.nodes, [value(v.name, F) for v in inside], map(value, [nxt, *parts]))  # type: ignore[arg-type]
        outs = [self.fresh() for _ in (nxt, *parts)]
        given = " ".join(v.name for v in (state, *scanned))
        sc.nodes.append(node(
            "Scan", given, " ".join(outs), body=inner, num_scan_inputs=len(scanned),
            scan_input_axes=[axis] * len(scanned), scan_input_directions=flips[: len(scanned)],
            scan_output_directions=flips[len(scanned) :],
        ))  # fmt: skip
        self.add(sc, outs[0], "f", state.shape)
        if found is not None:
            self.add(sc, outs[1], "f", (x.shape[axis], *found.shape))

    # --- programs -------------------------------------------------------------------------------
    def program(self) -> onnx.ModelProto:
        """A model of a few inputs and of results of every kind."""
        given = [
            Val("x", "f", ("n", 3)), Val("z", "f", ("n", 2, 2)), Val("u", "f", (2, 3)),
            Val("m", "i", ()), Val("c", "b", ()),
        ]  # fmt: skip
        sc = Scope(list(given))
        self.block(sc, 9)
        self.rng.choice(CONTROL)(self, sc)
        self.block(sc, 4)
        chosen = sc.values[-3:] + self.rng.sample(sc.values, 2)
        if self.rng.random() < 0.3:
            chosen.append(chosen[0])
        names = [(self.emit(sc, "Identity", v.name), v) for v in chosen]
        outputs = [value(n, KINDS[v.kind]) for n, v in names]
        inputs = [value(v.name, KINDS[v.kind], v.shape) for v in given]
        return model(sc.nodes, inputs, outputs, *self.weights)

    def feeds(self) -> list[dict[str, Any]]:
        """Inputs of several sizes: odd, one, none."""
        found = []
        for n in (3, 1, 0, 5):
            shapes = {"x": (n, 3), "z": (n, 2, 2), "u": (2, 3)}
            feed: dict[str, Any] = {k: self.floats(s) for k, s in shapes.items()}
            feed["m"] = np.array(self.rng.randint(0, 3), np.int64)
            feed["c"] = np.array(self.rng.random() < 0.7)
            found.append(feed)
        return found


CONTROL: list[Callable[[Maker, Scope], None]] = [Maker.branch, Maker.loop, Maker.scan]

"""Equal blocks that follow each other, such as the layers of a transformer, are found again.

Blocks are equal when their nodes are, but for the contents of parameters, and when each takes its
operands from the same place: of itself, of the block before, or of outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.kinds import kind_of
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import GraphNode, Value

LEAST_NODES = 2
LEAST_GAIN = 6  # nodes that need not be written, those of regions included
_INTERFACE = 1  # nodes that a parameter or result of a layer is worth

# A result of a block: which of its nodes, which of that one's results.
Slot = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`count` blocks of `length` nodes, which weigh `weight` each. `formals`: for each operand from
    outside what it is in each block; `results`: what is read outside of a block; `carried`: for a
    formal, the result of the block before that it is, if that is so. `is_loop`: whether blocks can
    be turns of one loop."""

    start: int
    length: int
    count: int
    weight: int
    formals: tuple[tuple[Value, ...], ...]
    results: tuple[Slot, ...]
    carried: tuple[Slot | None, ...]
    is_loop: bool

    @property
    def end(self) -> int:
        """The first node behind the blocks."""
        return self.start + self.length * self.count

    @property
    def gain(self) -> int:
        """How many nodes need not be written."""
        interface = len(self.formals) + len(self.results)
        calls = 0 if self.is_loop else self.count
        return (self.count - 1) * self.weight - _INTERFACE * interface - calls


def repeats_in(body: Body) -> list[Repeat]:
    """Blocks of a body, in order, that do not overlap; nested ones are found in the first."""
    if len(body.nodes) < 2 * LEAST_NODES:
        return []
    return list(_search(_Finder(body), 0, len(body.nodes)))


def _search(finder: _Finder, low: int, high: int) -> Iterator[Repeat]:
    best = finder.best(low, high)
    if best is not None:
        yield from _search(finder, low, best.start)
        yield best
        yield from _search(finder, best.end, high)


class _Finder:
    def __init__(self, body: Body) -> None:
        self.body, self.nodes = body, body.nodes
        self.blobs = body.fn.module.blobs
        self.places = {v: (k, j) for k, n in enumerate(self.nodes) for j, v in enumerate(n.outputs)}
        table: dict[object, int] = {}
        kinds = [table.setdefault(self._kind(n), len(table)) for n in self.nodes]
        self.kinds = np.asarray(kinds)
        self.weights = np.cumsum([0, *map(_weight, self.nodes)])
        self.readers: dict[Value, list[int]] = {}
        for k, n in enumerate(self.nodes):
            for v in n.input_values:
                self.readers.setdefault(v, []).append(k)
        for v in body.outputs:
            self.readers.setdefault(v, []).append(len(self.nodes))

    def _kind(self, n: GraphNode) -> object:
        """What equal nodes have in common."""
        if n.op == "constant":
            text = None if n.output.type.rank else self.body.fn.literal([n.output])
            return n.op, n.output.type, text
        constant = tuple(v in self.blobs and v not in self.places for v in n.input_values)
        return kind_of(n), constant

    def best(self, low: int, high: int) -> Repeat | None:
        """The blocks between two nodes that save the most."""
        runs = []
        for length in range(LEAST_NODES, (high - low) // 2 + 1):
            for start, size in _runs(self.kinds[low:high], length):
                first = low + start
                possible = int(self.weights[first + size] - self.weights[first])
                runs.append((possible, -length, first, size))
        best: Repeat | None = None
        for possible, length, start, size in sorted(runs, reverse=True)[:64]:
            if possible < LEAST_GAIN or (best is not None and possible < best.gain):
                break
            for found in self._placed(start, -length, size):
                if found.gain >= LEAST_GAIN and self._is_better(found, best):
                    best = found
        return best

    def _is_better(self, found: Repeat, best: Repeat | None) -> bool:
        """Of those that save the same, blocks begin where what they take is read most: where a
        residual connection begins."""
        if best is None or found.gain != best.gain:
            return best is None or found.gain > best.gain
        return self._reads(found) > self._reads(best)

    def _reads(self, r: Repeat) -> int:
        inside = range(r.start, r.start + r.length)
        return sum(k in inside for vector in r.formals for k in self.readers.get(vector[0], []))

    def _placed(self, start: int, length: int, size: int) -> Iterator[Repeat]:
        """The blocks of a run, wherever they may begin: `size` nodes equal those `length` on."""
        for first in range(start, start + min(size + 1, length)):
            count = (size - (first - start)) // length + 1
            found = self.repeat(first, length, count) if count > 1 else None
            if found is not None:
                yield found

    def repeat(self, start: int, length: int, count: int) -> Repeat | None:
        """Blocks at a place, if they take their operands in the same way."""
        vectors: dict[tuple[Value, ...], None] = {}
        for offset in range(length):
            fellows = [self.nodes[start + b * length + offset] for b in range(count)]
            for operands in zip(*(n.inputs for n in fellows), strict=True):
                found = self._vector(operands, start, length)
                if found is None:
                    return None
                if found:
                    vectors[found] = None
        results = self._results(start, length, count)
        carried = tuple(self._carried(v, start, length) for v in vectors)
        loop = self._is_loop(list(vectors), carried, results, (start, length, count))
        weight = int(self.weights[start + length] - self.weights[start])
        return Repeat(start, length, count, weight, tuple(vectors), tuple(results), carried, loop)

    def _vector(
        self, operands: Sequence[Value | None], start: int, length: int
    ) -> tuple[Value, ...] | None:
        """An operand in each block, if it comes from outside; empty where it does not, nothing
        where blocks differ."""
        values = tuple(v for v in operands if v is not None)
        if len(values) < len(operands):
            return None if values else ()
        inside = [self._slot(v, start + b * length, length) for b, v in enumerate(values)]
        if any(s is not None for s in inside):
            return () if len(set(inside)) == 1 else None
        if all(v in self.blobs and v not in self.places for v in values):
            return () if self._are_own(values, start, length) else values
        return values

    def _slot(self, v: Value, start: int, length: int) -> Slot | None:
        place = self.places.get(v)
        if place is None or not start <= place[0] < start + length:
            return None
        return place[0] - start, place[1]

    def _are_own(self, values: Sequence[Value], start: int, length: int) -> bool:
        """Whether constants are literals, or each belongs to its block."""
        if self.body.fn.literal(values) is not None:
            return True
        own = all(
            start + b * length <= k < start + (b + 1) * length
            for b, v in enumerate(values) for k in self.readers[v]
        )  # fmt: skip
        return own and len(set(values)) == len(values)

    def _results(self, start: int, length: int, count: int) -> list[Slot]:
        """What is read outside of the block that computes it."""
        found: list[Slot] = []
        for offset in range(length):
            for j in range(len(self.nodes[start + offset].outputs)):
                for b in range(count):
                    first = start + b * length
                    v = self.nodes[first + offset].outputs[j]
                    readers = self.readers.get(v, [])
                    if any(not first <= k < first + length for k in readers):
                        found.append((offset, j))
                        break
        return found

    def _carried(self, vector: Sequence[Value], start: int, length: int) -> Slot | None:
        slots = {self._slot(v, start + b * length, length) for b, v in enumerate(vector[1:])}
        return slots.pop() if len(slots) == 1 else None

    def _is_loop(
        self,
        vectors: Sequence[tuple[Value, ...]],
        carried: Sequence[Slot | None],
        results: Sequence[Slot],
        span: tuple[int, int, int],
    ) -> bool:
        """Whether operands are carried from block to block or all the same, and only the last
        block's results are read behind the blocks."""
        start, length, count = span
        pairs = zip(vectors, carried, strict=True)
        if not all(slot is not None or len(set(v)) == 1 for v, slot in pairs):
            return False
        used = [slot for slot in carried if slot is not None]
        if len(set(used)) < len(used):
            return False
        for offset, j in results:
            for b in range(count - 1):
                v = self.nodes[start + b * length + offset].outputs[j]
                after = start + (b + 2) * length
                if any(k >= after for k in self.readers.get(v, [])):
                    return False
                reads = [k for k in self.readers.get(v, []) if k >= after - length]
                if reads and (offset, j) not in used:
                    return False
        return True


def _weight(n: GraphNode) -> int:
    """How much there is to write for a node."""
    return 1 + sum(_weight(inner) for region in n.regions for inner in region.nodes)


def _runs(kinds: np.ndarray, length: int) -> Iterator[tuple[int, int]]:
    """Where nodes equal those `length` on, and for how many."""
    equal = np.concatenate(([False], kinds[:-length] == kinds[length:], [False]))
    edges = np.flatnonzero(equal[1:] != equal[:-1])
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if last - first >= length:
            yield first, last - first

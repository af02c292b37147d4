"""What the units of a described machine do over time, for viewers of Chrome traces.

A network is millions of instructions. Executions of one instruction that follow each other closely
are one span; how closely grows until a layer has few enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import field

from aisc.codegen.backend import Backend
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Program
from aisc.measure.cycles import LayerTime, layer_times

MOST_SPANS = 2000  # of a unit in a layer


@dataclass(slots=True)
class Span:
    """Executions of an instruction, from the start of the first to the end of the last, in cycles,
    and how many."""

    name: str
    start: int
    end: int
    count: int = 1


@dataclass(slots=True)
class Track:
    """The spans of a unit in a layer; those less than `slack` cycles apart are one."""

    spans: list[Span] = field(default_factory=list)
    slack: int = 1

    def add(self, name: str, start: int, end: int) -> None:
        """One more execution."""
        self._append(Span(name, start, end))
        if len(self.spans) > MOST_SPANS:
            self.slack *= 2
            old, self.spans = self.spans, []
            for span in old:
                self._append(span)

    def _append(self, new: Span) -> None:
        last = self.spans[-1] if self.spans else None
        if last is not None and last.name == new.name and new.start - last.end < self.slack:
            last.end, last.count = max(last.end, new.end), last.count + new.count
        else:
            self.spans.append(new)


@dataclass(slots=True)
class Timeline:
    """The tracks of all layers, by unit."""

    layers: list[tuple[LayerTime, dict[str, Track]]] = field(default_factory=list)

    def to_json(self) -> str:
        """A trace whose microseconds are cycles: layers, then a row for each unit."""
        return json.dumps({"traceEvents": list(self._events()), "displayTimeUnit": "ns"})

    def _events(self) -> Iterator[dict[str, object]]:
        units = ["layers", *dict.fromkeys(u for _, tracks in self.layers for u in tracks)]
        for number, unit in enumerate(units):
            yield {
                "ph": "M", "name": "thread_name", "pid": 0, "tid": number, "args": {"name": unit},
            }  # fmt: skip
        start = 0
        for layer, tracks in self.layers:
            cycles, used = layer.time.cycles, f"{layer.time.utilization:.1%}"
            yield _event(layer.name, start, cycles, 0, {"target": layer.target, "used": used})
            for unit, track in tracks.items():
                for s in track.spans:
                    args = {"layer": layer.name, "executions": s.count}
                    at = units.index(unit)
                    yield _event(s.name, start + s.start, s.end - s.start, at, args)
            start += cycles


def _event(name: str, start: int, cycles: int, row: int, args: object) -> dict[str, object]:
    return {
        "ph": "X", "name": name, "ts": start, "dur": cycles, "pid": 0, "tid": row, "args": args,
    }  # fmt: skip


def timeline(program: Program, devices: Sequence[Backend]) -> Timeline:
    """What the layers of a planned program do on devices that know their cycles; E402 as
    :func:`aisc.measure.cycles.layer_times`."""
    tracks: dict[str, dict[str, Track]] = {}

    def watch(kernel: str, unit: str, name: str, start: int, end: int) -> None:
        tracks.setdefault(kernel, {}).setdefault(unit, Track()).add(name, start, end)

    layers = layer_times(program, devices, watch)
    return Timeline([(x, tracks.get(x.kernel, {})) for x in layers])

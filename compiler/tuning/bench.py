"""The bench of one kernel: its configurations are scheduled and made by several processes at once,
then run by another one while these rest.

Making and running never overlap: a measurement has the machine for itself. What comes out as the
same code as the default is not run. A result that is wrong, a process that crashed or exceeded its
time or memory costs the one candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.picks import Choices, choices_to_json
from aisc.tuning.pairs import ratio_of
from aisc.tuning.space import Sketch, pick_from_json
from aisc.tuning.trial import Fate, Trial
from aisc.tuning.workers import Asked, Reply, ask_all


@dataclass(slots=True)
class Workshop:
    """The processes: `makers`, and `runners`, one for each machine. target: a name, or a
    description; threads: of the model; `stopped` says that the time is up."""

    makers: Sequence[Asked]
    runners: Sequence[Asked]
    target: str
    threads: int = 1
    stopped: Callable[[], bool] = lambda: False

    def close(self) -> None:
        """End the processes."""
        for worker in (*self.makers, *self.runners):
            worker.close()


@dataclass(slots=True)
class KernelBench:
    """Makes and runs configurations of a kernel. sizes: values of its dimensions, several of which
    count alike; moved: bytes that the model moves between two calls of it; exact: results must have
    the default's bits."""

    shop: Workshop
    func: Func
    sizes: Sequence[Mapping[str, int]] = ({},)
    moved: int = 0
    exact: bool = True
    _text: str = field(init=False)
    _standing: Reply | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._text = print_ir(self.func)

    def _common(self) -> dict[str, Any]:
        """What every request says."""
        return {
            "kernel": self._text, "target": self.shop.target, "threads": self.shop.threads,
            "sizes": list(map(dict, self.sizes)),
        }  # fmt: skip

    def _request(self, op: str, choices: Choices) -> dict[str, Any]:
        return {**self._common(), "op": op, "choices": choices_to_json(choices)}

    def sketches(self, several: Sequence[Choices]) -> list[Sketch | str]:
        """Each as the rules take it, or why they do not."""
        requests = [self._request("sketch", c) for c in several]
        replies = ask_all(self.shop.makers, requests, self.shop.stopped)
        return [_sketch(r) for r in replies]

    def trials(self, sketches: Sequence[Sketch], samples: int) -> list[Trial]:
        """Each made, and run in `samples` pairs with the default."""
        if self._standing is None:
            (self._standing,) = ask_all(self.shop.makers, [self._request("make", {})])
        if self._standing is None or "error" in self._standing:
            failed, self._standing = self._standing, None
            return [_failed(s, failed or {"error": "there is no maker"}) for s in sketches]
        requests = [self._request("make", s.choices) for s in sketches]
        made = ask_all(self.shop.makers, requests, self.shop.stopped)
        pairs = list(zip(sketches, made, strict=True))
        runs = [self._run(s, m, samples) for s, m in pairs]
        asked = [r for r in runs if r is not None]
        replies = iter(ask_all(self.shop.runners, asked, self.shop.stopped))
        return [
            self._trial(s, m, None if r is None else next(replies))
            for (s, m), r in zip(pairs, runs, strict=True)
        ]

    def _run(self, sketch: Sketch, made: Reply | None, samples: int) -> dict[str, Any] | None:
        """The request to run a candidate; ``None`` where there is nothing to run."""
        assert self._standing is not None, "the default is there"
        if made is None or "error" in made or self._is_default(sketch, made):
            return None
        records = [self._standing["record"]] + ([made["record"]] if sketch.choices else [])
        more = {"records": records, "exact": self.exact, "samples": samples, "moved": self.moved}
        return {**self._common(), **more}

    def _is_default(self, sketch: Sketch, made: Reply) -> bool:
        """Whether other choices have become the default's code."""
        assert self._standing is not None, "the default is there"
        return bool(sketch.choices) and made["digest"] == self._standing["digest"]

    def _trial(self, sketch: Sketch, made: Reply | None, reply: Reply | None) -> Trial:
        """What came of a candidate: of making it, and of running it."""
        if made is None:
            return Trial(sketch, "unmeasured", detail="the time was up")
        if "error" in made:
            return _failed(sketch, made)
        digest = str(made["digest"])
        if self._is_default(sketch, made):
            return Trial(sketch, "same", digest=digest)
        if reply is None:
            return Trial(sketch, "unmeasured", detail="the time was up")
        if "wrong" in reply:
            return Trial(sketch, "wrong", digest=digest, detail=str(reply["wrong"]))
        if "error" in reply:
            return _failed(sketch, reply, digest)
        seconds = [[float(t) for t in side] for side in reply["seconds"]]
        standing, candidate = seconds[0], seconds[-1]
        middle = sorted(standing)[len(standing) // 2]
        return Trial(sketch, "ok", ratio_of(standing, candidate), middle, digest)


def _failed(sketch: Sketch, reply: Reply, digest: str = "") -> Trial:
    fate: Fate = "lost" if reply.get("lost") else "refused"
    return Trial(sketch, fate, digest=digest, detail=str(reply["error"]))


def _sketch(reply: Reply | None) -> Sketch | str:
    if reply is None:
        return "the time was up"
    if "error" in reply:
        return str(reply["error"])
    picks = tuple(map(pick_from_json, reply["picks"]))
    choices = {p.name: p.choice for p in picks if p.choice != p.default}
    features = tuple(float(f) for f in reply["features"])
    parts = tuple((str(key), float(n)) for key, n in reply["parts"])
    return Sketch(choices, picks, float(reply["cycles"]), str(reply["bound"]), features, parts)

"""The process that makes candidates: ``python -m aisc.tuning.maker``, one JSON line at a time.

``sketch`` schedules a kernel by some choices and tells its decisions and what the model expects;
``make`` gives the record of its code as the cache would hold it, and the hash of that code.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import geometric_mean
from typing import Any

from aisc.artifact.cache import key_of
from aisc.codegen.backend import Backend, backend_of
from aisc.driver.kernel import make_kernel, to_record
from aisc.driver.options import Options
from aisc.ir import target as targets
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.parser import parse_func
from aisc.passes.analysis.estimate import estimate, features, parts_of
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.picks import Choices, Pick, choices_from_json, stale
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.tuning.serving import serve

Reply = dict[str, Any]


def answer(request: Mapping[str, Any]) -> Reply:
    """The reply to a request."""
    backend = backend_for(request["target"])
    func = parsed(request["kernel"], backend.target.name)
    choices = choices_from_json(request["choices"])
    if request["op"] == "make":
        return make(func, backend, choices)
    return sketch(func, backend, choices, int(request["threads"]), request.get("sizes") or [{}])


@lru_cache(maxsize=8)
def parsed(text: str, target: str) -> Func:
    """A kernel, which here belongs to a target of this name."""
    return replace(parse_func(text), target=target)


@lru_cache(maxsize=4)
def backend_for(target: str) -> Backend:
    """The back end of a target by its name, or its description."""
    found: Target = from_toml(target) if "\n" in target else targets.resolve(target)
    return backend_of(found)


def sketch(
    func: Func, backend: Backend, choices: Choices, threads: int, sizes: Sequence[Mapping[str, int]]
) -> Reply:
    """The decisions of a schedule, and what is expected of it: the geometric mean over sizes, the
    rest for those in the middle."""
    kernel = _scheduled(func, backend, choices)
    expected = [estimate(kernel.func, backend.target, threads, s) for s in sizes]
    middle = len(sizes) // 2
    parts = parts_of(kernel.func, backend.target, sizes[middle])
    return {
        "picks": [pick_to_json(p) for p in kernel.picks],
        "cycles": geometric_mean(e.cycles for e in expected),
        "bound": expected[middle].bound,
        "parts": [(key_of(text), n) for text, n in parts],
        "features": features(kernel.func, backend.target, threads, sizes[middle]),
    }


def _scheduled(func: Func, backend: Backend, choices: Choices) -> ScheduledKernel:
    """The kernel by the rules and these choices; E302 where they are not among the options."""
    schedule = backend.rules(func, Chooser(backend.target, choices))
    _require_made(func, choices, schedule.picks)
    return backend.optimize(func, schedule)


def _require_made(func: Func, choices: Choices, picks: tuple[Pick, ...]) -> None:
    unknown = stale(choices, picks)
    if unknown:
        raise error("E302", f"{func.name} cannot have {', '.join(unknown)} so")


def make(func: Func, backend: Backend, choices: Choices) -> Reply:
    """The code of a candidate; E302 where the gate of the back end refuses it."""
    scheduled, code = backend.schedule(func, choices)
    if choices:
        _require_made(func, choices, scheduled.picks)
    code = code or backend.assemble(backend.emit(scheduled.funcs))
    built = make_kernel(func, Options(), backend, given=scheduled, code=code)
    record = {name: base64.b64encode(data).decode() for name, data in to_record(built).items()}
    digest = hashlib.sha256(built.object).hexdigest()
    return {"record": record, "digest": digest}


def pick_to_json(p: Pick) -> list[Any]:
    """A decision as a JSON value."""
    return [p.name, p.choice, p.default, list(p.options), p.exact]


if __name__ == "__main__":
    serve(answer)

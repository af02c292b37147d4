"""One function or schedule of the tensor IR as a callable on arrays, without a model around it.

The function becomes the only kernel of a :class:`Program`; from there it takes the steps that the
kernels of a model take.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from aisc.codegen.run.executable import Executable
from aisc.codegen.run.threads import default_threads
from aisc.driver.api import Targets, backends_of
from aisc.driver.instruments import Instruments
from aisc.driver.options import Options
from aisc.driver.pipeline import Context, finish
from aisc.ir.annotations import checked_arguments
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import CallKernel
from aisc.ir.tensor.verify import verify_func
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.schedule import Schedule


@checked_arguments
def build(
    what: Func | Schedule,
    target: Targets = "cpu",
    *,
    threads: int | None = None,
    weights: Mapping[str, Any] | None = None,
) -> Executable:
    """Machine code of one function of the tensor IR, called on arrays: ``exe(a, b)``.

    what: a schedule is built as it stands, a function by the default rules of the target.
    target: name, TOML file or description: a device runs the function, the host calls it.
    threads: how many threads a call uses; by default the cores of this process.
    weights: contents of parameters of role *weight*, by name. Others are inputs of each call, but
    for those that the schedule packs, which is done once.
    Inputs and results are the parameters of these roles in order; sizes may be symbolic.
    Raises ``CompileError``: E301 the function is malformed, E302 contents do not fit.
    """
    host, devices = backends_of(target)
    backend = devices[0] if devices else host
    options = Options(threads=threads or default_threads(), use_cache=False)
    verify_func(what if isinstance(what, Func) else what.func)
    weights, kernels = weights or {}, dict[str, ScheduledKernel]()
    if isinstance(what, Func):
        lowered = _with_inputs(what, weights)
    else:
        start = _unpacked(what)
        kernel = kernels[start.name] = backend.optimize(start, what)
        lowered = _with_inputs(start, weights, {position for position, _ in kernel.packed})
    lowered = replace(lowered, target=backend.target.name)
    program = _program(lowered, weights, host.target.name)
    inputs, outputs = ([b.name for b in lowered.params if b.role == r] for r in ("input", "output"))
    context = Context(host, options, Instruments(), devices=devices)
    made = finish(program, context, (inputs, outputs), given=kernels).executable
    assert made is not None, "nothing stopped the pipeline"
    return made


def _unpacked(s: Schedule) -> Func:
    """The head of the function that a schedule began with: parameters as they were before they were
    packed."""
    sources = {packer.params[1].name: packer.params[0] for packer in s.packers}
    params = []
    for b in s.func.params:
        while b.name in sources:
            b = replace(sources[b.name], role="weight")
        params.append(b)
    return replace(s.func, params=tuple(params))


def _with_inputs(lowered: Func, weights: Mapping[str, Any], packed: Collection[int] = ()) -> Func:
    """`lowered` with weights that nobody gives as inputs of each call; E302 where one is packed,
    which is done once."""
    unknown = [n for n in weights if n not in {b.name for b in lowered.params}]
    if unknown:
        names = ", ".join(b.name for b in lowered.params if b.role == "weight") or "none"
        raise error("E302", f"{lowered.name} has no weight {unknown[0]}", f"its weights: {names}")
    params = []
    for k, b in enumerate(lowered.params):
        if b.name not in weights and b.role == "weight":
            if k in packed:
                raise error("E302", f"the schedule packs {b.name}, whose contents are not known",
                            f"give them: weights={{'{b.name}': array}}")  # fmt: skip
            b = replace(b, role="input")
        params.append(b)
    return replace(lowered, params=tuple(params))


def _program(lowered: Func, weights: Mapping[str, Any], host: str) -> Program:
    """An entry that calls one kernel with its own parameters."""
    blobs = {b.name: _contents(b, weights[b.name]) for b in lowered.params if b.name in weights}
    call = CallKernel(lowered.name, lowered.params, lowered.dims)
    entry = Func("entry", lowered.params, lowered.dims, call, target=host)
    return Program(lowered.name, (lowered,), entry, blobs)


def _contents(b: Buffer, given: Any) -> Blob:
    """The contents of a weight; E302 where they do not fit it."""
    blob = Blob(np.ascontiguousarray(given))
    if b.role != "weight" or blob.type != b.type:
        raise error("E302", f"the contents of {b.name} do not fit it",
                    f"expected {b.role} {b.type}", f"got {blob.type}")  # fmt: skip
    if b.most and np.abs(blob.array.astype(np.int64)).max(initial=0) > b.most:
        raise error("E302", f"the contents of {b.name} exceed {b.most}")
    return blob

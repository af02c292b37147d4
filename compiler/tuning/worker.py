"""The measuring process: compiles and times kernels as it is told, one JSON line at a time."""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.codegen.arrays import aligned
from aisc.codegen.backend import Host, host_of
from aisc.codegen.llvm.link import Linked
from aisc.ir import target as targets
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import AiscError, InternalError, error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.storage import extent_of
from aisc.ir.text.parser import parse_func
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.picks import Choices, choices_from_json, stale

MIN_SECONDS = 0.002  # one sample repeats the kernel at least this long


class Prepared:
    """A kernel with inputs, ready to be called."""

    def __init__(self, kernel: ScheduledKernel, objects: Sequence[bytes], lowered: Func) -> None:
        names = [kernel.func.name, *(p.name for p in kernel.packers)]
        self._linked = Linked(objects, names)
        rng = np.random.default_rng(0)
        arrays = {b.name: _filled(_room(b), b.dtype.numpy, rng) for b in lowered.params}
        packed = dict(kernel.packed)
        packers = {p.name: p for p in kernel.packers}
        self._arrays: list[Any] = []
        for k, b in enumerate(kernel.func.params):
            if k in packed:
                source = arrays[lowered.params[k].name]
                result = aligned(b.type.static_shape, b.dtype.numpy)
                self._invoke(packers[packed[k]].name, [source, result])
                self._arrays.append(result)
            else:
                empty = aligned(_room(b), b.dtype.numpy)
                self._arrays.append(arrays.get(b.name, empty))
        self._name = kernel.func.name
        self.run()

    def _invoke(self, name: str, arrays: Sequence[Any]) -> None:
        types = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 2
        function = ctypes.CFUNCTYPE(None, *types)(self._linked.addresses[name])
        # The status pointer is the last argument, and ignored by kernels that cannot fail.
        status = ctypes.c_int64()
        function(*(a.ctypes.data for a in arrays), 0, 1, None, ctypes.addressof(status))

    def run(self) -> None:
        """Call the kernel once, on one thread."""
        self._invoke(self._name, self._arrays)

    def sample(self, calls: int) -> float:
        """Seconds per call over `calls` calls."""
        start = time.perf_counter()
        for _ in range(calls):
            self.run()
        return (time.perf_counter() - start) / calls


def _room(b: Buffer) -> tuple[int, ...]:
    """The shape of memory for a parameter: one that has strides is a part of something."""
    shape = b.type.static_shape
    strides = tuple(s for s in b.strides if isinstance(s, int))
    return shape if b.is_dense else (extent_of(shape, strides),)


def _filled(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Any:
    array = aligned(shape, dtype)
    array[...] = rng.uniform(-1, 1, shape).astype(dtype)
    return array


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Times of each candidate of the request, interleaved."""
    backend = host_of(_target(request["target"]))
    func = parse_func(request["func"])
    prepared = [_prepared(func, choices_from_json(c), backend) for c in request["choices"]]
    calls = [max(1, int(MIN_SECONDS / max(p.sample(1), 1e-7))) for p in prepared]
    seconds: list[list[float]] = [[] for _ in prepared]
    for _ in range(request["repeats"]):
        for k, p in enumerate(prepared):
            seconds[k].append(p.sample(calls[k]))
    return {"seconds": seconds}


def _target(text: str) -> Target:
    """A target by its name, or from its description."""
    return from_toml(text) if "\n" in text else targets.resolve(text)


def _prepared(func: Func, choices: Choices, backend: Host) -> Prepared:
    """The kernel of a candidate; E302 where the rules do not make it, or its gate refuses it."""
    kernel, code = backend.schedule(func, choices)
    unknown = stale(choices, kernel.picks)
    if unknown:
        raise error("E302", f"{func.name} cannot have {', '.join(unknown)} so")
    code = code or backend.assemble(backend.emit(kernel.funcs))
    return Prepared(kernel, [backend.runtime, code.object], func)


def main() -> None:
    """Serve requests until the input ends."""
    memory = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except (AiscError, InternalError, MemoryError, ValueError) as fault:
            reply = {"error": f"{type(fault).__name__}: {fault}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()

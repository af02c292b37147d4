"""One side of a measurement, in a process of its own: opens a model, calls it, says what it took.

    python -m large.worker SIDE MODEL.onnx THREADS [NEW_TOKENS]

SIDE is ``aisc``, ``aisc-alone`` (without the cache of models) or ``onnxruntime``. Prints JSON:
seconds from before the import of the runtime until the model is open and of the first calls, and
resident memory in bytes, pages of mapped files included (VmRSS and VmHWM of Linux).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Feeds = Mapping[str, Array]
Call = Callable[[Feeds], list[Array]]
Inputs = list[tuple[str, list[Any], str]]
# Memory of its own that a process may take; what it maps from files is not counted.
OWN_BYTES = 18 << 30


def resident(field: str) -> int:
    """Bytes of a field of ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def open_aisc(path: str, threads: int, cache: bool) -> tuple[Call, Inputs]:
    """The call of a compiled model, and names, shapes and types of its inputs."""
    import aisc

    run = aisc.compile(path, threads=threads, cache=cache)
    inputs = [(p.name, list(p.type.shape), p.dtype.name) for p in run.inputs]
    return lambda feeds: run.run(None, feeds), inputs


def open_onnxruntime(path: str, threads: int) -> tuple[Call, Inputs]:
    """The same of onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": "f32", "tensor(int64)": "i64"}
    inputs = [(i.name, i.shape, kinds[i.type]) for i in session.get_inputs()]
    return lambda feeds: session.run(None, feeds), inputs


def feeds_for(inputs: Inputs, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Inputs of these symbolic sizes."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for name, dims, kind in inputs:
        shape = [sizes.get(str(d), d) for d in dims]
        if kind == "i64":
            found[name] = rng.integers(0, 500, shape)
        else:
            found[name] = rng.standard_normal(shape).astype(np.float32)
    return found


def main() -> None:
    side, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    tokens = int(sys.argv[4]) if len(sys.argv) > 4 else 0
    resource.setrlimit(resource.RLIMIT_DATA, (OWN_BYTES, OWN_BYTES))
    start = time.perf_counter()
    if side == "onnxruntime":
        call, inputs = open_onnxruntime(path, threads)
    else:
        call, inputs = open_aisc(path, threads, side == "aisc")
    told: dict[str, Any] = {"open": time.perf_counter() - start, "peak": resident("VmHWM")}
    given: dict[str, int] = {"n": 1, "batch": 1, "past": 0, "sequence": max(tokens, 1)}
    feeds = feeds_for(inputs, given)
    calls: list[float] = []
    results: list[Array] = []
    for _ in range(3):
        start = time.perf_counter()
        results = call(feeds)
        calls.append(time.perf_counter() - start)
    told |= {"first": calls[0], "call": min(calls), "sum": float(np.abs(results[0]).sum())}
    if tokens:
        told["decode"], told["sum1"] = decoding(call, inputs, results)
    told |= {"after": resident("VmRSS"), "all": resident("VmHWM")}
    print(json.dumps(told))


def decoding(
    call: Call, inputs: Inputs, results: list[Array], count: int = 5
) -> tuple[float, float]:
    """The least time of a token after those of a prompt, and the sum of the last logits."""
    seconds: list[float] = []
    for _ in range(count):
        token = np.array([[int(results[0].argmax()) % 500]], np.int64)
        past = [name for name, _, _ in inputs if name.startswith("past")]
        feeds = {"input_ids": token, **dict(zip(past, results[1:], strict=True))}
        start = time.perf_counter()
        results = call(feeds)
        seconds.append(time.perf_counter() - start)
    return min(seconds), float(np.abs(results[0]).sum())


if __name__ == "__main__":
    main()

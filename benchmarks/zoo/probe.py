"""What is measured in a process of its own: ``python -m zoo.probe KIND FILE DIMS``, JSON to stdout.

``compile FILE``: seconds of ``aisc.compile`` on a model file, lazy imports included; whether the
kernels come from the cache is decided by AISC_CACHE_DIR.
``memory FILE DIMS RUNTIME``: bytes that running the model needs beyond the process with the
libraries, the session and its weights. Heap that was freed while building is given back to the
system first (malloc_trim), the kernel's record of the peak is reset (clear_refs), then the model
runs three times at one thread: peak resident set (VmHWM) less the resident set before. Inputs are
there before; arenas, outputs and whatever else a run touches count.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import zoo


def compile_seconds(path: str) -> dict[str, float]:
    import aisc

    start = time.perf_counter()
    aisc.compile(path)
    return {"seconds": time.perf_counter() - start}


def _resident(field: str) -> int:
    """A field of the process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} here")


def _session(runtime: str, path: str) -> Callable[[Mapping[str, Any]], Any]:
    if runtime == "aisc":
        import aisc

        exe = aisc.compile(path, threads=1)
        return lambda feeds: exe.run(None, feeds)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, dict(feeds))


def memory_bytes(path: str, dims: Mapping[str, int], runtime: str) -> dict[str, int]:
    model = onnx.load(path)
    feeds = zoo.feeds(model, dims)
    del model
    run = _session(runtime, path)
    for array in feeds.values():  # inputs are resident before the measurement
        np.add.reduce(array.ravel())
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        run(feeds)
    return {"bytes": _resident("VmHWM") - before, "resident": before}


def main() -> None:
    kind, path, *rest = sys.argv[1:]
    if kind == "compile":
        print(json.dumps(compile_seconds(path)))
    else:
        print(json.dumps(memory_bytes(path, json.loads(rest[0]), rest[1])))


if __name__ == "__main__":
    main()

"""Running models under guard in processes that may end, and finding what ended them."""

from __future__ import annotations

import faulthandler
import os
import pickle
import resource
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aisc.codegen.run.guard import GuardedExecutable
from aisc.driver import api
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import CompileError, ExecutionError

Feeds = dict[str, np.ndarray[Any, Any]]
MEMORY = 4 << 30


def both_ends(model: Any, **choices: Any) -> list[GuardedExecutable]:
    """The executables of a model with buffers against the page after them, and before them."""
    options = from_environment(**{"threads": 1, "use_cache": False, "apart": True, **choices})
    made = api.executable(model, api.resolve_target("cpu"), options)
    return [GuardedExecutable(made.image, options.threads, at_end) for at_end in (True, False)]


def survives(task: Callable[[int], object], total: int) -> tuple[list[Any], str]:
    """What `task` gives for each number below `total`, in another process; and the end of that
    process if it was a signal, with the number at hand."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        with os.fdopen(write, "wb") as out:
            faulthandler.disable()  # what ends this process is told by its status
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for k in range(total):
                pickle.dump((k, None), out)
                out.flush()
                pickle.dump((k, task(k)), out)
        os._exit(0)
    os.close(write)
    results: list[Any] = []
    last = -1
    with os.fdopen(read, "rb") as source:
        while True:
            try:
                last, found = pickle.load(source)
            except EOFError:
                break
            if found is not None:
                results.append(found)
    status = os.waitpid(pid, 0)[1]
    ended = f"signal {os.WTERMSIG(status)} at {last}" if os.WIFSIGNALED(status) else ""
    if not ended and os.WEXITSTATUS(status):
        ended = f"exit {os.WEXITSTATUS(status)} at {last}"
    return results, ended


def outcome(exe: Any, feeds: Feeds) -> tuple[str, Any]:
    """("ok", results), or the code of the error and its text."""
    try:
        return "ok", exe.run(None, feeds)
    except ExecutionError as fault:
        return fault.codes[0], str(fault)
    except CompileError as fault:  # of a version for other sizes
        return "compile", str(fault)


def equal(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether results have the same bits."""
    return all(
        x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(a, b, strict=True)
    )

"""The loop of a worker process: requests from its input, bounded in memory, faults as replies."""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from aisc.ir.diagnostics import AiscError, InternalError

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


def serve(answer: Answer) -> None:
    """Serve requests until the input ends, as when the process that asked is gone. The first
    argument of the command line bounds the address space in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: who asks decides
    memory = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while True:
        print(_reply(answer, lines.get()), flush=True)


def _reply(answer: Answer, line: str) -> str:
    try:
        return json.dumps(answer(json.loads(line)))
    except (AiscError, InternalError) as fault:
        return json.dumps({"error": f"{type(fault).__name__}: {fault}"})
    except MemoryError:
        return json.dumps({"error": "it needs more memory than a candidate may have"})
    except Exception as fault:  # a rule that met what it does not know: the candidate's fault
        return json.dumps({"error": f"{type(fault).__name__}: {fault}"})


def _read(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)

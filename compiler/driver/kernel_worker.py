"""The process that makes kernels beside the compiler: ``python -m aisc.driver.kernel_worker``, with
JSON on its standard input, one line for the targets and options, then one for each kernel, and one
reply per line on its output (:mod:`aisc.driver.kernel_process`).

It ends when its input does, whatever it is doing then: with the process that started it. What it
would have to say (a warning, a rule that was left out, a fault) it leaves to the compiler: it
replies without a kernel.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import signal
import sys
import threading
import warnings
from functools import cache
from typing import Any

from aisc.artifact.fingerprint import fingerprint
from aisc.codegen.backend import Backend, backend_of
from aisc.driver.kernel import make_kernel, to_record
from aisc.driver.options import Options
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import AiscWarning
from aisc.ir.text.parser_tensor import parse_func
from aisc.passes.schedule.picks import choices_from_json

# What is read before anything is asked.
SMALLEST = "func @k() target cpu {\n}\n"


class _Said(Exception):
    """There would have been something to say."""


class _Refusing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise _Said(record.getMessage())


@cache
def _backend(description: str) -> Backend:
    return backend_of(from_toml(description))


def greeting(descriptions: list[str]) -> str:
    """What it says first: which compiler it is, and for which machines."""
    keys = [_backend(d).target.key for d in descriptions]
    return json.dumps({"compiler": fingerprint(), "targets": keys})


def answer(request: Any, descriptions: list[str], options: Options) -> str:
    """The reply to a request."""
    try:
        lowered = parse_func(request["kernel"])
        choices = choices_from_json(request["choices"])
        backend = _backend(descriptions[request["target"]])
        record = to_record(make_kernel(lowered, options, backend, lambda _: choices))
    except Exception as fault:
        return json.dumps({"id": request["id"], "fault": str(fault)})
    parts = {name: base64.b64encode(data).decode() for name, data in record.items()}
    return json.dumps({"id": request["id"], "record": parts})


def _read(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main() -> None:
    """Serve requests until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the compiler decides
    warnings.filterwarnings("error", category=AiscWarning)
    logging.getLogger("aisc").addHandler(_Refusing())
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    first = json.loads(lines.get())
    descriptions, options = first["targets"], Options(level=first["level"])
    print(greeting(descriptions), flush=True)
    parse_func(SMALLEST)  # grammars and rules are made while the compiler has not come to kernels
    while True:
        print(answer(json.loads(lines.get()), descriptions, options), flush=True)


if __name__ == "__main__":
    main()

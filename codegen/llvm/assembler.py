"""The process that generates machine code beside the compiler: ``python -m
aisc.codegen.llvm.assembler TRIPLE ARCH FEATURES``, one JSON request per line on its standard input,
one reply per line on its output (:mod:`aisc.codegen.llvm.assembler_process`).

It ends when its input does, whatever it is doing then: with the process that started it.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import sys
import threading
from hashlib import sha256
from pathlib import Path

from aisc.codegen.llvm import generate


def greeting() -> str:
    """What it says first: which code generator it is."""
    source = Path(generate.__file__).read_bytes()
    return json.dumps({"llvm": generate.version(), "source": sha256(source).hexdigest()})


def answer(line: str, machine: tuple[str, str, str]) -> str:
    """The reply to a request."""
    request = json.loads(line)
    try:
        made = generate.generate(request["text"], *machine, request["listing"])
    except RuntimeError as fault:
        return json.dumps({"id": request["id"], "fault": str(fault)})
    code = base64.b64encode(made.object).decode()
    return json.dumps({"id": request["id"], "object": code, "listing": made.listing})


def _read(lines: queue.Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main() -> None:
    """Serve requests until the input ends; any other fault is for the compiler to notice."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the compiler decides
    triple, arch, features = sys.argv[1:]
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    print(greeting(), flush=True)
    while True:
        print(answer(lines.get(), (triple, arch, features)), flush=True)


if __name__ == "__main__":
    main()

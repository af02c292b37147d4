"""What `aisc fuzz --load` imports to see that the end of a process is a finding: seeds that abort,
sleep, take all memory, or do nothing."""

from __future__ import annotations

import os
import time

from aisc.fuzz.check import Outcome
from aisc.fuzz.worker import Session


def graph(self: Session, seed: int) -> Outcome:
    if seed == 0:
        os.abort()
    if seed == 1:
        time.sleep(1000)
    if seed == 2:
        bytearray(1 << 45)
    return Outcome()


Session.graph = graph  # type: ignore[method-assign]

"""How many threads a call uses, and how they wait for each other, where nobody says so."""

from __future__ import annotations

import os
from typing import Literal

Wait = Literal["active", "passive"]


def default_threads() -> int:
    """``AISC_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the cores this process may use."""
    for name in ("AISC_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value.isdigit() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def default_wait() -> Wait:
    """``AISC_WAIT_POLICY``, else ``OMP_WAIT_POLICY``, else active."""
    for name in ("AISC_WAIT_POLICY", "OMP_WAIT_POLICY"):
        value = os.environ.get(name, "").lower()
        if value in ("active", "passive"):
            return "passive" if value == "passive" else "active"
    return "active"

"""Work that only speed depends on: a fault in it costs the speed, not the compilation.

Rules decline what they do not expect by returning nothing or by a refusal (E302 to E304). What
else goes wrong in a rule is a fault of aisc's own: :func:`attempt` leaves the rule out and says so
in one line. With the environment variable ``AISC_STRICT=1`` the fault is raised: tests and fuzzing
set it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

from aisc.ir.diagnostics import AiscError

T = TypeVar("T")
U = TypeVar("U")
_LOG = logging.getLogger("aisc")


def is_strict() -> bool:
    """Whether a fault in optional work ends the compilation."""
    return os.environ.get("AISC_STRICT", "") == "1"


def attempt(what: str, action: Callable[[], T], instead: Callable[[], U]) -> T | U:
    """The result of `action`, or of `instead` where it fails for no reason of the user's."""
    try:
        return action()
    except (AiscError, MemoryError):
        raise
    except Exception as fault:
        left_out(what, fault)
        return instead()


def left_out(what: str, fault: Exception) -> None:
    """Say that `what` was left out; raise the fault where that is wanted."""
    if is_strict():
        raise fault
    reason = str(fault).splitlines()[0] if str(fault) else ""
    _LOG.warning(
        "aisc: %s failed and was left out, please report it (%s: %s)",
        what, type(fault).__name__, reason,
    )  # fmt: skip

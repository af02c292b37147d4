"""Where a compilation gets tuned choices from, and whether it leaves kernels to be tuned."""

from __future__ import annotations

import os
from collections.abc import Callable

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.picks import Choices

# The tuned choices for a kernel; none where the rules' own are the best: how step 7 asks.
Lookup = Callable[[Func], Choices]
NO_CHOICES: Choices = {}


def untuned(lowered: Func) -> Choices:
    """The lookup without a database."""
    return NO_CHOICES


def tunes_later() -> bool:
    """Whether the user wants kernels tuned in idle time: ``AISC_TUNE=background``."""
    return os.environ.get("AISC_TUNE", "") == "background"


@dataclass(frozen=True, slots=True)
class Source:
    """What the options say. tuned: a database; empty: the user's own, in the folder of the cache;
    ``none``: none. locked: a lock file instead. threads: of the runs to come."""

    tuned: str = ""
    locked: str = ""
    cache_dir: str = ""
    threads: int = 1

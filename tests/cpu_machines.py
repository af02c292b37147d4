"""The machines of a compilation for the CPU alone, for tests that run passes one by one, and a
machine whose threads cost nothing."""

from dataclasses import replace

import pytest

from aisc.codegen.cpu.policy import CpuPolicy
from aisc.ir import target as targets
from aisc.ir.target import Costs
from aisc.passes.policy import Machines

CPU = Machines(CpuPolicy(targets.host()))


def make_threads_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on any work is enough for several threads."""
    free = replace(Costs(), parallel_work=1, fork_work=1, follow_work=1)
    machine = replace(targets.host(), costs=free)
    monkeypatch.setattr(targets, "host", lambda: machine)

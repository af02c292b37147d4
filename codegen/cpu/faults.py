"""The numbered faults of an entry: its requirements, and its calls of kernels that test indices or
divisors. Numbers count from 1 in the order of the entry; equal faults have one."""

from __future__ import annotations

from collections.abc import Mapping

from aisc.codegen.faults import Fault
from aisc.ir.location import UNKNOWN
from aisc.ir.node import walk
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import CallKernel, Require


def fault_of(s: CallKernel | Require) -> Fault:
    """What a statement may report."""
    if isinstance(s, Require):
        return Fault(s.text, s.loc, s.sizes)
    return Fault("", s.loc if s.faults == UNKNOWN else s.faults)


def faults_of(entry: Func, kernels: Mapping[str, Func]) -> dict[Fault, int]:
    """The faults of an entry and their numbers."""
    found: dict[Fault, int] = {}
    for n in walk(entry.body):
        if isinstance(n, Require) or (isinstance(n, CallKernel) and can_report(kernels[n.kernel])):
            found.setdefault(fault_of(n), len(found) + 1)
    return found


def can_report(kernel: Func) -> bool:
    """Whether a kernel takes the error slot."""
    return bool(kernel.attr("status", False))

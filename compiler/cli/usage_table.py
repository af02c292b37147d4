"""What kernels take of machines with many threads: registers, shared memory, occupancy."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from aisc.codegen.backend import Backend, KernelUsage, Measured
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Program


@dataclass(frozen=True, slots=True)
class UsedKernel:
    """A kernel, where it runs, and what it takes there."""

    name: str
    target: str
    usage: KernelUsage


def used_kernels(program: Program, devices: Sequence[Backend]) -> list[UsedKernel]:
    """The kernels of a program in kernel form whose back ends know what they take."""
    found = []
    for device in devices:
        if not isinstance(device, Measured):
            continue
        name = device.target.name
        usage = device.usage([k for k in program.kernels if k.target == name])
        found += [UsedKernel(kernel, name, u) for kernel, u in usage.items()]
    return found


def usage_table(kernels: Sequence[UsedKernel]) -> Table:
    """One row for each kernel."""
    assembled = all(k.usage.assembled for k in kernels)
    source = "said by the assembler" if assembled else "~: expected by the description"
    table = Table(box=box.SIMPLE, padding=0, title="what kernels take", caption=source)
    table.add_column("kernel", no_wrap=True, max_width=36)
    table.add_column("runs on", no_wrap=True)
    for title in ("threads", "regs", "spills", "shared", "occupancy"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    for k in kernels:
        u, mark = k.usage, "" if k.usage.assembled else "~"
        table.add_row(
            k.name, k.target, str(u.threads), f"{mark}{u.registers}", str(u.spills), str(u.shared),
            f"{mark}{u.occupancy:.0%}", u.bound,
        )  # fmt: skip
    return table

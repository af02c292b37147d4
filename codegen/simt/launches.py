"""What a launch must know of a kernel, kept beside its code: parameters, blocks, shared memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from aisc.codegen.image import DeviceCode
from aisc.codegen.simt.module import Grid
from aisc.ir.arith.dim_json import dim_from_json, dim_to_json, integer, text
from aisc.ir.arith.poly import Dim, evaluate, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError
from aisc.ir.tensor.dims import as_dim
from aisc.ir.tensor.func import Func

Size = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class KernelLaunch:
    """A kernel as its callers see it. operands: pointers that it takes; dims: the names of its
    dimensions behind them; reports: whether it may report an error behind these; grid: blocks along
    x, y, z; block: threads of one; shared: bytes of its shared memory."""

    name: str
    operands: int
    dims: tuple[str, ...]
    reports: bool
    grid: tuple[Dim, Dim, Dim]
    block: Size
    shared: int

    @staticmethod
    def of(func: Func, grid: Grid) -> KernelLaunch:
        """That of a kernel in kernel form."""
        sizes = [1 if e is None else as_dim(e, lambda v: symbol(v.name)) for e in grid.grid]
        if any(d is None for d in sizes):
            raise InternalError(f"{func.name}: blocks are counted by no dimension")
        x, y, z = (d for d in sizes if d is not None)
        dims = tuple(v.name for v in func.dims)
        reports = bool(func.attr("status", False))
        return KernelLaunch(
            func.name, len(func.params), dims, reports, (x, y, z), grid.block, grid.shared_bytes
        )

    def blocks(self, dims: Sequence[int]) -> Size:
        """How many blocks a launch with these values of the dimensions has; none where it has
        nothing to do."""
        values = dict(zip(self.dims, dims, strict=True))
        x, y, z = (max(0, evaluate(d, values)) for d in self.grid)
        return x, y, z

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "name": self.name, "operands": self.operands, "dims": list(self.dims),
            "reports": self.reports, "grid": [dim_to_json(d) for d in self.grid],
            "block": list(self.block), "shared": self.shared,
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> KernelLaunch:
        """That of :meth:`to_json`; ``ValueError`` and its like when the form is wrong."""
        gx, gy, gz = map(dim_from_json, data["grid"])
        bx, by, bz = map(integer, data["block"])
        return KernelLaunch(
            text(data["name"]), integer(data["operands"]), tuple(map(text, data["dims"])),
            bool(data["reports"]), (gx, gy, gz), (bx, by, bz), integer(data["shared"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceModule:
    """Kernels of one module: how they are launched, their code as PTX, and the object of the model
    of them for the host."""

    kernels: tuple[KernelLaunch, ...]
    code: str
    model: bytes


def modules_of(code: DeviceCode) -> tuple[DeviceModule, ...]:
    """The modules of a compiled model, as the back end has assembled them."""
    found = []
    for data in code.objects:
        head, _, native = data.partition(b"\n")
        about = json.loads(head)
        kernels = tuple(map(KernelLaunch.from_json, about["kernels"]))
        found.append(DeviceModule(kernels, str(about["ptx"]), native))
    return tuple(found)

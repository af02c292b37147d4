"""What a launch must know of a kernel, kept beside its code: parameters, blocks, shared memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
class Launch:
    """A launch of a kernel. entry: what is launched; grid: blocks along x, y, z; block: threads of
    one; shared: bytes of its shared memory; most: blocks that there may be, 0 where nothing bounds
    them: where there are more, each does several; dynamic: of the shared memory, what it must ask
    for; short: what dimensions must not exceed for the
    entry; general: the entry for others."""

    entry: str
    grid: tuple[Dim, Dim, Dim]
    block: Size
    shared: int
    most: Size = (0, 0, 0)
    dynamic: int = 0
    short: tuple[tuple[Dim, int], ...] = ()
    general: str = ""

    @property
    def entries(self) -> tuple[str, ...]:
        """All entries."""
        return (self.entry, self.general) if self.general else (self.entry,)

    def with_sizes(self, values: Mapping[str, int]) -> tuple[Launch, Size]:
        """The launch of the entry that is right for sizes, and its blocks."""
        x, y, z = (
            max(0, min(evaluate(d, values), most or sys.maxsize))
            for d, most in zip(self.grid, self.most, strict=True)
        )
        fits = all(evaluate(d, values) <= most for d, most in self.short)
        return (self if fits else replace(self, entry=self.general)), (x, y, z)

    @staticmethod
    def of(grid: Grid) -> Launch:
        """That of an entry of a module."""
        sizes = [1 if e is None else as_dim(e, lambda v: symbol(v.name)) for e in grid.grid]
        if any(d is None for d in sizes):
            raise InternalError(f"{grid.name}: blocks are counted by no dimension")
        x, y, z = (d for d in sizes if d is not None)
        return Launch(
            grid.name, (x, y, z), grid.block, grid.shared_bytes, grid.most, grid.dynamic,
            grid.short, grid.general,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "entry": self.entry, "grid": [dim_to_json(d) for d in self.grid],
            "block": list(self.block), "shared": self.shared, "most": list(self.most),
            "dynamic": self.dynamic, "general": self.general,
            "short": [[dim_to_json(d), most] for d, most in self.short],
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Launch:
        """That of :meth:`to_json`; ``ValueError`` and its like when the form is wrong."""
        gx, gy, gz = map(dim_from_json, data["grid"])
        bx, by, bz = map(integer, data["block"])
        mx, my, mz = map(integer, data["most"])
        short = tuple((dim_from_json(d), integer(most)) for d, most in data["short"])
        return Launch(
            text(data["entry"]), (gx, gy, gz), (bx, by, bz), integer(data["shared"]), (mx, my, mz),
            integer(data["dynamic"]), short, text(data["general"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceKernel:
    """A kernel as its callers see it. operands: pointers that it takes; dims: the names of its
    dimensions behind them; reports: whether it may report an error behind these; launches: one
    after the other, each with all of that."""

    name: str
    operands: int
    dims: tuple[str, ...]
    reports: bool
    launches: tuple[Launch, ...]

    @staticmethod
    def of(func: Func, grids: Sequence[Grid]) -> DeviceKernel:
        """That of a kernel in kernel form, of the entries of its module."""
        dims = tuple(v.name for v in func.dims)
        own = tuple(Launch.of(g) for g in grids if g.kernel == func.name)
        reports = bool(func.attr("status", False))
        return DeviceKernel(func.name, len(func.params), dims, reports, own)

    def launched(self, dims: Sequence[int]) -> Iterator[tuple[Launch, Size]]:
        """The launches with these values of the dimensions, with their blocks along x, y, z;
        without those that have nothing to do."""
        values = dict(zip(self.dims, dims, strict=True))
        for launch in self.launches:
            chosen, (x, y, z) = launch.with_sizes(values)
            if x * y * z:
                yield chosen, (x, y, z)

    def to_json(self) -> dict[str, Any]:
        """As a JSON value."""
        return {
            "name": self.name, "operands": self.operands, "dims": list(self.dims),
            "reports": self.reports, "launches": [x.to_json() for x in self.launches],
        }  # fmt: skip

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> DeviceKernel:
        """That of :meth:`to_json`; ``ValueError`` and its like when the form is wrong."""
        return DeviceKernel(
            text(data["name"]), integer(data["operands"]), tuple(map(text, data["dims"])),
            bool(data["reports"]), tuple(map(Launch.from_json, data["launches"])),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeviceModule:
    """Kernels of one module: how they are launched, their code as PTX, and the object of the model
    of them for the host."""

    kernels: tuple[DeviceKernel, ...]
    code: str
    model: bytes


def modules_of(code: DeviceCode) -> tuple[DeviceModule, ...]:
    """The modules of a compiled model, as the back end has assembled them."""
    found = []
    for data in code.objects:
        head, _, native = data.partition(b"\n")
        about = json.loads(head)
        kernels = tuple(map(DeviceKernel.from_json, about["kernels"]))
        found.append(DeviceModule(kernels, str(about["ptx"]), native))
    return tuple(found)

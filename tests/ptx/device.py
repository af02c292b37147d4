"""A device whose kernels are executed by the PTX machine, beside the thread loops of the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aisc.codegen.backend import operands_of
from aisc.codegen.image import DeviceCode
from aisc.codegen.simt.launches import modules_of
from aisc.codegen.simt.model import Model
from aisc.ir.tensor.func import Func
from ptx.counters import Counters
from ptx.machine import Machine
from ptx.memory import Space
from ptx.syntax import parse


@dataclass
class Checked:
    """Runs every kernel twice, and compares all that it writes. `limit`: threads of a launch above
    which the machine would take too long, so that only the loops run; `left_out` names these."""

    code: DeviceCode
    funcs: Mapping[str, Func]
    limit: int = 1 << 30
    ran: dict[str, Counters] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        modules = modules_of(self.code)
        self.model = Model.of(modules)
        self.text = {k.name: m.code for m in modules for k in m.kernels}

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a kernel on both; what differs is an ``AssertionError``."""
        func, about = self.funcs[kernel], self.model.kernels[kernel]
        arrays = operands_of(func, pointers, dims)
        found = list(about.launched(dims))
        threads = sum(int(np.prod(grid)) * int(np.prod(x.block)) for x, grid in found)
        before = [a.copy() for a in arrays]
        self.model.launch(kernel, pointers, dims)
        if threads > self.limit or not threads:
            self.left_out.add(kernel)
            return
        memory = Space()
        args = []
        for b, array in zip(func.params, before, strict=True):
            known = b.role in ("input", "weight", "state")
            args.append(memory.add(array, b.name, known, writable=b.role != "weight"))
        words = np.zeros(4, np.int64)
        status = [memory.add(words, "status"), 0] if about.reports else []
        for launch, grid in found:
            machine = Machine(parse(self.text[kernel]), memory)
            counted = machine.launch(
                launch.entry, grid, [*args, *dims, *status], launch.block, launch.dynamic
            )
            self.ran[launch.entry] = counted
        assert not words[0], f"{kernel} reports {words}"
        for b, mine, theirs in zip(func.params, before, arrays, strict=True):
            if b.role == "output":
                same(kernel, b.name, mine, theirs)


def same(kernel: str, name: str, got: np.ndarray, want: np.ndarray) -> None:
    """Equal but for the rounding of another order of the same operations."""
    message = f"{kernel} writes another {name}"
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want, message)
        return
    scale = float(np.nanmax(np.abs(want), initial=1e-30))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * scale, err_msg=message)

"""Kernels of a SIMT machine as machine code of the host: their threads are loops."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from aisc.codegen.backend import host_of
from aisc.codegen.faults import error_of
from aisc.codegen.llvm.link import Linked
from aisc.codegen.simt.launches import DeviceKernel, DeviceModule
from aisc.ir.dataclass import dataclass
from aisc.ir.target import host


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Kernels whose threads are loops on the host."""

    kernels: Mapping[str, DeviceKernel]
    code: Linked

    @staticmethod
    def of(modules: Sequence[DeviceModule]) -> Model:
        """The kernels of modules."""
        kernels = {k.name: k for m in modules for k in m.kernels}
        runtime = host_of(host()).runtime  # gives loops over blocks their shares
        return Model(kernels, Linked([runtime, *(m.model for m in modules)], list(kernels)))

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run all blocks of a kernel, one after the other."""
        about = self.kernels[kernel]
        words = (ctypes.c_int64 * 4)()
        kinds: list[type[ctypes.c_void_p] | type[ctypes.c_int64]] = [
            ctypes.c_void_p
        ] * about.operands
        kinds += [ctypes.c_int64] * (len(about.dims) + 2) + [ctypes.c_void_p]
        given = [*pointers, *dims, 0, 1, None]
        if about.reports:
            kinds += [ctypes.c_void_p, ctypes.c_int64]
            given += [ctypes.addressof(words), 0]
        ctypes.CFUNCTYPE(None, *kinds)(self.code.addresses[kernel])(*given)
        if words[0]:
            raise error_of(words[0], words[1:], ())

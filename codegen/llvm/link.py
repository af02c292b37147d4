"""Objects linked into this process, through LLVM's ORC, and LLVM's names of the machine that it
runs on. Linking needs no target description: the code is machine code already."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from functools import cache

import llvmlite.binding as llvm
from llvmlite.binding import ffi

from aisc.codegen.image import Machine
from aisc.codegen.llvm.generate import initialize, target_machine
from aisc.ir.target import Target, with_machine

_library = itertools.count()


@cache
def host_features() -> Mapping[str, bool]:
    """The host CPU's features by LLVM's names."""
    initialize()
    return dict(sorted(llvm.get_host_cpu_features().items()))


@cache
def host_machine() -> Machine:
    """What this process runs on."""
    names = tuple(f"{'+' if on else '-'}{name}" for name, on in host_features().items())
    return Machine("cpu", host_triple(), llvm.get_host_cpu_name(), names)


def complete(target: Target) -> Target:
    """`target` with LLVM's names of the host, where it leaves them open."""
    if target.triple:
        return target
    host = host_machine()
    return with_machine(target, host.triple, host.arch, host.features)


def host_triple() -> str:
    """LLVM's name of the host's architecture and system."""
    triple: str = llvm.get_default_triple()
    return triple


class Linked:
    """Code of some objects; addresses stay valid as long as this lives. ``RuntimeError`` when
    they cannot be linked."""

    def __init__(self, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        machine = target_machine(host_triple(), llvm.get_host_cpu_name(), "", True)
        self._jit = llvm.create_lljit_compiler(machine, suppress_errors=True)
        library = llvm.JITLibraryBuilder().add_current_process()
        for o in objects:
            library = library.add_object_img(o)
        for s in symbols:
            library = library.export_symbol(s)
        self._tracker = library.link(self._jit, f"aisc{next(_library)}")
        self.addresses: Mapping[str, int] = {s: self._tracker[s] for s in symbols}


# A process that forks while another of its threads is inside LLVM would leave the child a lock
# that nobody releases.
_lock = getattr(getattr(ffi.lib, "_lock", None), "_lock", None)
if hasattr(os, "register_at_fork") and _lock is not None:
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )

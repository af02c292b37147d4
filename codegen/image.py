"""Images: compiled programs as data. An executable is made from an image, whether the pipeline has
just built it or it was read from a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from aisc.codegen.faults import Fault
from aisc.codegen.signature import Signature
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error

if TYPE_CHECKING:
    from aisc.ir.tensor.stmt import HostCall

# Features of system software and hints: code generation emits nothing of them by itself.
_SYSTEM = frozenset({
    "64bit", "cldemote", "clflushopt", "clwb", "clzero", "fsgsbase", "fxsr", "hreset", "invpcid",
    "kl", "mwaitx", "pconfig", "pku", "prefetchi", "prfchw", "ptwrite", "rdpid", "rdpru", "rdrnd",
    "rdseed", "sahf", "serialize", "sgx", "shstk", "tsxldtrk", "uintr", "waitpkg", "wbnoinvd",
    "widekl", "xsave", "xsavec", "xsaveopt", "xsaves",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """What code was generated for: kind of target, LLVM's names of system, CPU and features (each
    with + or - before it)."""

    kind: str
    triple: str
    arch: str
    features: tuple[str, ...]

    @property
    def system(self) -> tuple[str, ...]:
        """Architecture and operating system: the second part of a triple is the vendor."""
        parts = self.triple.split("-")
        return (parts[0], parts[2]) if len(parts) > 2 else tuple(parts)

    @property
    def present(self) -> frozenset[str]:
        """The features that are there."""
        return frozenset(f[1:] for f in self.features if f.startswith("+"))

    def unfit(self, host: Machine) -> ExecutionError | None:
        """Why code for this machine cannot run on `host`, or nothing: E506 for another
        architecture or system, or for CPU features that the host lacks."""
        if self.kind != host.kind or self.system != host.system:
            return execution_error(
                "E506", "the code was made for another machine",
                f"made for {self.kind} {self.triple}", f"this is {host.kind} {host.triple}",
            )  # fmt: skip
        lacking = sorted(self.present - _SYSTEM - host.present)
        if lacking:
            return execution_error(
                "E506", "the code needs features that this CPU lacks",
                f"made for {self.arch}; lacking: {', '.join(lacking)}",
                "compile the model on this machine",
            )  # fmt: skip
        # The name of a CPU stands for features that are not listed.
        if not self.features and self.arch not in ("", "generic", host.arch):
            return execution_error(
                "E506", "the code was made for another CPU", f"made for {self.arch}",
                f"this is {host.arch}",
            )  # fmt: skip
        return None


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel of a device that the entry has run: the name of its target, its own, and how many
    buffers and dimensions it takes."""

    target: str
    kernel: str
    buffers: int
    dims: int


@dataclass(frozen=True, slots=True)
class Move:
    """A copy between memories: the targets that they belong to, nothing for the host."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, eq=False)
class DeviceCode:
    """The kernels of one device: name and kind of its target, and what each module of kernels was
    assembled to. Whatever a run needs beside that, the back end has put into the objects."""

    target: str
    kind: str
    objects: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """Machine code and packed weights with their signature.

    objects: kernels and entry. runtime: the object of the run time (barrier, pool).
    weights: in the signature's order, read-only; possibly mapped from a file.
    calls: what the entry calls back for, in the order of their numbers: operators of the host,
    kernels of `devices`, and copies between their memories and that of the host.
    straight: whether these calls are all that the entry does, one after the other, whatever is in
    its inputs.
    faults: what errors of a run say, by the number that they carry.
    profile: words of the block that the entry fills with times and counts; 0 for most. Bundles do
    not keep it: it is for whoever has just compiled the program.
    """

    signature: Signature
    machine: Machine
    runtime: bytes
    objects: tuple[bytes, ...]
    weights: tuple[NDArray[Any], ...]
    calls: tuple[HostCall | Launch | Move, ...] = ()
    profile: int = 0
    faults: tuple[Fault, ...] = ()
    devices: tuple[DeviceCode, ...] = ()
    straight: bool = False

    @property
    def moves(self) -> tuple[Move, ...]:
        """The copies between memories."""
        return tuple(c for c in self.calls if isinstance(c, Move))

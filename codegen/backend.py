"""Back ends: what makes code for a kind of machine, and how one is found.

A back end answers the passes' questions (its `policy`), schedules kernels by its rules, prints a
module of them and assembles that to bytes. One for a *host* also makes the entry that calls the
kernels; what the kernels of a *device* were assembled to is loaded by the back end again, which
runs them, on the device or on a model of it. Above this module nothing knows what a machine is.

Back ends are found by the kind of a target in the group ``backends`` (:mod:`aisc.ir.plugins`):
a callable that takes a :class:`Target` and has an attribute `load`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeGuard,
    runtime_checkable,
)

import numpy as np

from aisc.codegen.arrays import Array, array_at
from aisc.ir import plugins
from aisc.ir.arith.poly import evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error, execution_error

if TYPE_CHECKING:  # what is compiled opens without them
    from aisc.codegen.artefact import Artefact
    from aisc.codegen.image import DeviceCode, Image
    from aisc.codegen.weights import WeightSource
    from aisc.ir.target import Target
    from aisc.ir.tensor.func import Func, Program
    from aisc.passes.plan.bind import ScheduledKernel
    from aisc.passes.policy import Policy
    from aisc.passes.schedule.picks import Choices, Pick
    from aisc.passes.schedule.rules.chooser import Chooser
    from aisc.passes.schedule.schedule import Schedule
# A kernel after its rules, and what it was assembled to where the rules have looked at that.
Scheduled: TypeAlias = "tuple[ScheduledKernel, Artefact | None]"


class Device(Protocol):
    """Loaded kernels of a device, ready to run."""

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a kernel on buffers at these addresses, in the order of its parameters, with the
        values of its dimensions; what fails raises ``ExecutionError``."""


# Where the segments of a call's memory lie on the host now, each with its bytes, in the order of
# its signature.
Regions = Callable[[], Sequence[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Traced:
    """What a call has asked of a device: a launch, or a copy of bytes from `host` to what a place
    stands for, or from there."""

    kind: Literal["launch", "upload", "download"]
    kernel: str = ""
    pointers: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    place: int = 0
    host: int = 0
    size: int = 0


class Session(Device, Protocol):
    """A device with memory of its own, as one call at a time sees it. Addresses on the host stand
    for places there."""

    def upload(self, source: int, place: int, size: int) -> None:
        """Copy from the host to what a place stands for."""

    def download(self, place: int, to: int, size: int) -> None:
        """Copy from there to the host; when it returns the bytes are there."""

    def keep(self, key: object, steps: Sequence[Traced]) -> bool:
        """Remember a whole call, which a key stands for; whether it will be of use."""

    def replay(self, key: object, uploads: Sequence[int], downloads: Sequence[int]) -> bool:
        """Do a call again with other addresses on the host, in the order of its copies; whether it
        could be done so."""

    def lend(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Addresses on the host behind which stand others of the device, until this is called
        again: copies from or to them stay there."""

    def close(self) -> None:
        """Give back what the session has."""


class Held(Protocol):
    """An array in the memory of a device."""

    @property
    def address(self) -> int:
        """Where it lies there."""


@runtime_checkable
class Separate(Device, Protocol):
    """A device that does not work on the memory of the host."""

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Held:
        """A new array there."""

    def wait_for(self, stream: int) -> None:
        """Until the work of a queue of somebody else is done."""

    def session(self, regions: Regions, weights: Sequence[tuple[int, int]], timed: bool) -> Session:
        """A session for a workspace; `weights`: where those of the program lie, with their bytes;
        `timed`: whether each launch is waited for, so that it can be timed alone."""


class Backend(Protocol):
    """What makes code for one target."""

    @property
    def target(self) -> Target:
        """The machine."""

    @property
    def version(self) -> str:
        """What of the tools affects the code: a part of the key under which it is kept."""

    @property
    def policy(self) -> Policy:
        """The answers to what passes ask."""

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """Step 7 of a kernel, without a look at code: what is asked of `d` is the space of its
        schedules."""

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """Steps 7 and 8 of a kernel by the rules of this target, with these choices where they are
        among the options; `quick`: in little time, though the kernel may be slower for it."""

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """Step 8 of a kernel and its packers, as they are scheduled."""

    def emit(self, funcs: Sequence[Func]) -> str:
        """Step 10: kernels as one module of text."""

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """Step 11: what a module becomes."""


@runtime_checkable
class Described(Backend, Protocol):
    """A back end that knows how long its kernels take without running them."""

    def cycles(self, kernel: ScheduledKernel) -> float:
        """Cycles of a run of a kernel, by the description of the target; E402 for one that does not
        fit the machine."""


@dataclass(frozen=True, slots=True)
class KernelTime:
    """What a run of a kernel takes on a machine that is described cycle by cycle: cycles in all,
    and those that each unit works; multiply-adds, and how many the machine does in a cycle at most;
    bytes read from its memory and written there; cycles that each unit waits, by what for."""

    cycles: int
    busy: Mapping[str, int]
    work: int
    peak: int
    loaded: int
    stored: int
    waits: Mapping[str, Mapping[str, int]]

    @property
    def busiest(self) -> str:
        """The unit that works longest."""
        return max(self.busy, key=lambda unit: self.busy[unit], default="")

    @property
    def stall(self) -> tuple[str, int]:
        """What the busiest unit waits for longest, and for how many cycles."""
        found = self.waits.get(self.busiest, {})
        why = max(found, key=lambda name: found[name], default="")
        return why, found.get(why, 0)

    @property
    def utilization(self) -> float:
        """Multiply-adds of those that the machine could do in the time."""
        return self.work / (self.cycles * self.peak) if self.cycles and self.peak else 0.0


Watch = Callable[[str, str, int, int], None]


@runtime_checkable
class Timed(Described, Protocol):
    """A back end that knows what each unit of its machine does."""

    def time(self, func: Func, watch: Watch | None = None) -> KernelTime:
        """Of an optimized kernel. `watch` is told of every execution: the unit, what it does, and
        from which cycle to which."""


@runtime_checkable
class Examined(Described, Protocol):
    """A back end that can run what its units do side by side, and see what is wrong with it."""

    def examine(self, func: Func) -> Sequence[str]:
        """An optimized kernel on operands of any values: notes about what is slow. Raises an error
        with what is wrong."""


@runtime_checkable
class Encoded(Described, Protocol):
    """A back end whose kernels are instructions of its machine, as text and as bytes."""

    def written(self, funcs: Sequence[Func]) -> str:
        """Optimized kernels as text."""

    def encoded(self, text: str, file: str = "") -> bytes:
        """What a loader takes, from the text; `file` is named where it is wrong."""

    def decoded(self, data: bytes, file: str = "") -> str:
        """The text, from what a loader takes."""


@dataclass(frozen=True, slots=True)
class KernelUsage:
    """What a kernel takes of a machine that runs many threads. threads: of a block; registers: of a
    thread; spills: bytes of them that do not fit; shared: bytes of a block; occupancy: threads that
    a multiprocessor holds of those that it could; bound: what allows no more; assembled: whether an
    assembler has said so, or the description lets expect it."""

    threads: int
    registers: int
    spills: int
    shared: int
    occupancy: float
    bound: str
    assembled: bool


@runtime_checkable
class Measured(Backend, Protocol):
    """A back end that knows what its kernels take of the machine."""

    def here(self) -> str:
        """What runs its kernels on this computer, and why."""

    def usage(self, funcs: Sequence[Func]) -> Mapping[str, KernelUsage]:
        """Of optimized kernels, by their names."""


class Host(Backend, Protocol):
    """A back end whose code calls kernels: its own as functions, those of devices by requests."""

    @property
    def runtime(self) -> bytes:
        """The object that its kernels and entries are linked with."""

    def emit_entry(self, program: Program, profile: bool = False) -> str:
        """The entry of a planned Program as a module; `profile`: one that times its statements."""

    def assemble(self, text: str, want_listing: bool = False, quick: bool = False) -> Artefact:
        """Step 11; `quick`: in little time, for code in which little time is spent."""

    def emit_all(self, program: Program) -> str:
        """A planned Program with all that it needs as one module."""

    def image(
        self,
        program: Program,
        objects: Sequence[bytes],
        devices: Sequence[DeviceCode],
        names: tuple[Sequence[str], Sequence[str]],
        profile: bool = False,
    ) -> Image:
        """The image of a planned Program, but for its weights. `names`: what the model calls inputs
        and outputs."""

    def packing(self, program: Program, objects: Sequence[bytes]) -> WeightSource:
        """The weights of a planned Program as its code reads them, in the order of its image."""


def backend_of(target: Target) -> Backend:
    """The back end for a target; E401 when its kind is unknown."""
    found: Backend = _factory(target.kind)(target)
    return found


def is_host(backend: Backend) -> TypeGuard[Host]:
    """Whether the code of a back end can call kernels; asked of its class, since ``isinstance`` of
    a protocol would compute the properties of the object."""
    return hasattr(type(backend), "emit_entry")


def host_of(target: Target) -> Host:
    """The back end of a host; E402 for a kind of machine that cannot be one."""
    found = backend_of(target)
    if not is_host(found):
        raise error("E402", f"no entry can be made for kind '{target.kind}'")
    return found


def load(code: DeviceCode) -> Device:
    """The kernels of a device, ready to run; E506 when nothing here knows the kind of device."""
    factory = plugins.find("backends", code.kind)
    if factory is None:
        raise execution_error(
            "E506", f"the code needs a back end for kind '{code.kind}', which is not installed",
            f"kinds here: {', '.join(kinds())}",
        )  # fmt: skip
    found: Device = factory.load(code)
    return found


def ptx_of(code: DeviceCode) -> str:
    """The kernels of a device as PTX; E402 where its code is none."""
    maker = _factory(code.kind)
    if not hasattr(maker, "ptx"):
        raise error("E402", f"the code of {code.target} is no PTX", "see --emit asm")
    found: str = maker.ptx(code)
    return found


def kinds() -> tuple[str, ...]:
    """Every kind of target that has a back end here."""
    return tuple(sorted(plugins.names("backends")))


def _factory(kind: str) -> Any:
    found = plugins.find("backends", kind)
    if found is None:
        notes = (
            f"kinds: {', '.join(kinds())}",
            "others register as entry points of 'aisc.backends'",
        )
        raise error("E401", f"there is no back end for kind '{kind}'", *notes)
    return found


def by_rules(backend: Backend, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
    """Steps 7 and 8 of a kernel whose schedule needs no look at code."""
    from aisc.passes.schedule.rules.chooser import Chooser

    schedule = backend.rules(lowered, Chooser(backend.target, choices, quick=quick))
    return backend.optimize(lowered, schedule), None


def space(backend: Backend, lowered: Func) -> tuple[Pick, ...]:
    """The decisions of a kernel's default schedule, with what else each of them could be."""
    from aisc.passes.schedule.rules.chooser import Chooser

    return backend.rules(lowered, Chooser(backend.target)).picks


def operands_of(func: Func, pointers: Sequence[int], dims: Sequence[int]) -> list[Array]:
    """The operands of a kernel of a device as arrays, for devices whose memory is the host's."""
    sizes = dict(zip((v.name for v in func.dims), dims, strict=True))
    found = []
    for b, start in zip(func.params, pointers, strict=True):
        shape = tuple(evaluate(d, sizes) for d in b.shape)
        found.append(array_at(start, shape, b.dtype.numpy))
    return found

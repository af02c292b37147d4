"""Executables: compiled programs that are called with arrays.

Inputs are taken without a copy when they are C-contiguous, aligned and of the right type: numpy
arrays, anything with ``__array_interface__`` or the buffer protocol, DLPack tensors. Outputs are
new numpy arrays (which are DLPack producers), or the caller's own through ``out=``. Large new ones
lie in memory of results that the caller has dropped (:mod:`aisc.codegen.run.recycle`).
"""

from __future__ import annotations

import ctypes
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from aisc.codegen import abi
from aisc.codegen.arrays import Array, address, as_input, as_outputs, pointers
from aisc.codegen.cpu import pool as pools
from aisc.codegen.faults import error_of, fault_of
from aisc.codegen.image import Image
from aisc.codegen.llvm.link import Linked, host_machine
from aisc.codegen.run.bound import Bound
from aisc.codegen.run.recycle import Recycler
from aisc.codegen.run.repeated import Repeated, repeated
from aisc.codegen.run.threads import Wait, default_wait
from aisc.codegen.run.workspace import Workspace
from aisc.codegen.signature import Binding, Values
from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import AiscError, CompileError, ExecutionError, execution_error

if TYPE_CHECKING:
    from aisc.codegen.backend import Device
    from aisc.codegen.callbacks import Callbacks
    from aisc.codegen.image import DeviceCode
    from aisc.codegen.run.resident import Resident


# Makes the executable in which named inputs that have defaults are true inputs, or in which
# dimensions of the inputs have fixed sizes.
CompileWith = Callable[[tuple[str, ...], Mapping[str, int]], "Executable"]
MAX_VERSIONS = 8  # for sizes that the program does not fit


def _load(code: DeviceCode) -> Device:
    """The kernels of a device, ready to run."""
    from aisc.codegen.backend import load  # most programs have none

    return load(code)


class Executable:
    """A compiled model: ``exe(*arrays)``, ``exe.run(None, {name: array})``.

    Calls from several threads at once are safe: each has a frame and memory of its own.
    `optional_inputs` have defaults, which are compiled in as constants; :meth:`compile_again_with`.
    """

    # Whether calls like the one before may skip the steps that a kind of executable replaces.
    REPEATS = True

    def __init__(self, image: Image, threads: int = 1) -> None:
        if not 1 <= threads <= pools.MAX_THREADS:
            raise execution_error("E501", f"1 to {pools.MAX_THREADS} threads, got {threads}")
        unfit = image.machine.unfit(host_machine())
        if unfit is not None:
            raise unfit
        signature = image.signature
        self.image = image
        self.machine = image.machine
        self.threads = threads
        self._passive = default_wait() == "passive"
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self.optional_inputs = signature.defaults
        self.input_names = [p.name for p in self.inputs]
        self.output_names = [p.name for p in self.outputs]
        self.input_dtypes = [p.dtype.numpy for p in self.inputs]
        self.output_dtypes = [p.dtype.numpy for p in self.outputs]
        self._input_keys = frozenset(self.input_names)
        self._binding = Binding(signature)
        self._known: tuple[list[Values], Values, list[Values | None]] | None = None
        self._repeated: Repeated | None = None
        self._linked = Linked([image.runtime, *image.objects], ["aisc_entry"])
        self.entry = abi.function(self._linked.addresses["aisc_entry"])
        self._weights = pointers(image.weights)
        self._devices = {code.target: _load(code) for code in image.devices}
        self._resident: Resident | None = self._resident_calls()
        # Taking from and adding to a list are atomic, so this needs no lock that a fork could
        # leave closed.
        self.idle: list[Workspace] = []
        self.results = Recycler()
        self._compile_with: CompileWith | None = None
        self._draw: Callable[[], str] | None = None
        self._others: dict[tuple[str, ...], Executable] = {}
        self._versions: list[tuple[tuple[tuple[int, int], ...], Executable]] = []

    @property
    def wait(self) -> Wait:
        """How the threads of a call wait for each other. *active*: they spin for some 200
        microseconds before they sleep, and a while after a call, which is fastest where they have
        cores of their own; *passive*: they sleep at once, which leaves shared cores to others.
        Can be set; what has been bound before stays as it is."""
        return "passive" if self._passive else "active"

    @wait.setter
    def wait(self, value: Wait) -> None:
        if value not in ("active", "passive"):
            raise execution_error("E501", f"threads wait 'active' or 'passive', not {value!r}")
        self._passive = value == "passive"
        self._repeated = None

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an executable cannot be pickled: save it with aisc.save, and open it with aisc.load "
            "in the other process"
        )

    # -- calling -----------------------------------------------------------------------------

    def __call__(
        self, *arrays: Any, out: Sequence[Array] | Array | None = None, **named: Any
    ) -> Any:
        """Run on inputs by position, and by name behind them; one result alone, several as a
        tuple."""
        if named:
            feeds = dict(zip(self.input_names, arrays, strict=False))
            twice = ", ".join(feeds.keys() & named.keys())
            if twice or len(arrays) > len(feeds):
                what = f"{twice} is given twice" if twice else f"{len(arrays)} inputs are too many"
                raise execution_error("E501", what, f"inputs: {', '.join(self.input_names)}")
            feeds |= named
            if feeds.keys() != self._input_keys:
                return self._with_defaults_replaced(feeds)(out=out, **feeds)
            arrays = tuple(feeds[n] for n in self.input_names)
        results = self._run(arrays, out)
        return results[0] if len(results) == 1 else tuple(results)

    def __repr__(self) -> str:
        ports = (", ".join(f"{p.name}: {p.type}" for p in ps) for ps in (self.inputs, self.outputs))
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        name = self.image.signature.name
        return f"<Executable {name}: {' -> '.join(ports)}; {threads}; {self._target}>"

    def _repr_html_(self) -> str:
        """A table for notebooks, and the graph where the model is at hand."""
        threads = str(self.threads)
        rows = [
            *(("input" if p in self.inputs else "output", f"{p.name}: {p.type}")
              for p in (*self.inputs, *self.outputs)),
            ("target", self._target), ("threads", threads),
        ]  # fmt: skip
        cells = "".join(f"<tr><th>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
        try:
            picture = "" if self._draw is None else self._draw()
        except AiscError:  # the file is gone, or another one
            picture = ""
        return f"<table>{cells}</table>{picture}"

    def draw_with(self, draw: Callable[[], str]) -> None:
        """Let notebooks show what `draw` gives, which is HTML."""
        self._draw = draw

    @property
    def _target(self) -> str:
        """What runs it."""
        m = self.image.machine
        return ", ".join([f"{m.kind} {m.arch}".strip(), *(d.target for d in self.image.devices)])

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run on named inputs (onnxruntime's call); ``None`` asks for every output."""
        if (
            output_names is None and self._repeated is not None
            and type(feeds) is dict and len(feeds) == len(self.input_names)
        ):  # fmt: skip
            try:
                results = self._repeated([feeds[n] for n in self.input_names])
            except KeyError:
                results = None
            if results is not None:
                return results
        if type(feeds) is not dict and not isinstance(feeds, Mapping):
            got = type(feeds).__name__
            raise execution_error("E501", "inputs are given as a mapping by name", f"got {got}",
                                  f"names: {', '.join(self.input_names)}")  # fmt: skip
        if feeds.keys() != self._input_keys:
            return self._with_defaults_replaced(feeds).run(output_names, feeds)
        unknown = [n for n in output_names or () if n not in self.output_names]
        if unknown:
            raise execution_error("E501", f"there is no output {', '.join(unknown)}")
        results = self._run([feeds[n] for n in self.input_names], None)
        if output_names is None:
            return results
        table = dict(zip(self.output_names, results, strict=True))
        return [table[n] for n in output_names]

    def bind(self, *arrays: Any, out: Sequence[Array] | Array | None = None) -> Bound:
        """A call with these inputs, by position, and outputs, new ones unless given: each
        ``bound()`` reads what stands in the inputs then, and writes the same outputs.

        Raises ``ExecutionError`` E501 for inputs that a call would have to copy, and where only
        the run gives the sizes of an output.
        """
        if len(arrays) != len(self.inputs):
            raise execution_error(
                "E501", f"{len(self.inputs)} inputs are needed", f"got {len(arrays)}"
            )
        inputs = tuple(map(as_input, arrays, self.inputs, self.input_dtypes))
        for array, given, port in zip(inputs, arrays, self.inputs, strict=True):
            if isinstance(given, np.ndarray) and not np.shares_memory(array, given):
                raise execution_error(
                    "E501", f"input '{port.name}' cannot be bound: its elements do not lie in order"
                )
        dims, sizes = self.sizes(list(inputs))
        outputs = self._allocate(sizes, out, list(inputs))
        if any(a is None for a in outputs):
            raise execution_error("E501", "bind is not possible: the run decides the sizes")
        return Bound(self, inputs, tuple(a for a in outputs if a is not None), dims)

    @checked_arguments
    def save(self, path: str | PathLike[str], *, threads: int = 0) -> None:
        """Write a bundle of this, whole or not at all.

        threads: how many threads a call uses once it is opened; 0: the cores of that process.
        Raises ``CompileError`` E503 when the file cannot be written.
        """
        from aisc.codegen.run.bundle_writer import write

        write(self.image, Path(path), threads)

    def compile_again_with(self, compile_with: CompileWith) -> None:
        """From now on calls that this program does not fit may get another executable, made when it
        is first needed: where :meth:`run` gives inputs that have defaults, and where sizes that the
        program takes to be equal are not, one of them being 1, which is spread."""
        if self.optional_inputs or any(f.sizes for f in self.image.faults):
            self._compile_with = compile_with

    def _with_defaults_replaced(self, feeds: Mapping[str, Any]) -> Executable:
        """The executable that takes these inputs, some of which have defaults here."""
        given = tuple(p.name for p in self.optional_inputs if p.name in feeds)
        if not given or feeds.keys() != self._input_keys | set(given):
            notes = [f"expected {', '.join(self.input_names)}", f"got {', '.join(feeds)}"]
            if self.optional_inputs:
                names = ", ".join(p.name for p in self.optional_inputs)
                notes.insert(1, f"may be given as well: {names}")
            raise execution_error("E501", "the named inputs do not fit", *notes)
        if self._compile_with is None:
            names = ", ".join(given)
            raise execution_error(
                "E501", f"the default of {names} is compiled in",
                "compile the model with overridable= or --overridable, and these inputs stay open",
            )  # fmt: skip
        if given not in self._others:  # two threads may both compile; one result is kept
            self._others[given] = self._compile_with(given, {})
        return self._others[given]

    # -- versions for other sizes --------------------------------------------------------------

    def _version(self, dims: Values) -> Executable | None:
        """The version made for sizes of a call, if there is one."""
        for fixed, version in self._versions:
            if all(dims[k] == value for k, value in fixed):
                return version
        return None

    def _new_version(self, wanted: tuple[str, ...], dims: Values) -> Executable | None:
        """A version in which sizes of this call are fixed, where that may help: `wanted` are their
        names, or names with the values that they must have."""
        names = self.image.signature.dims
        here = dict(zip(names, dims, strict=True))
        pairs = [item.partition("=") for item in wanted]
        fixed = {n: here[n] for n, _, v in pairs if n in here and v in ("", str(here[n]))}
        if not fixed or self._compile_with is None or len(self._versions) == MAX_VERSIONS:
            return None
        try:
            version = self._compile_with((), fixed)
        except CompileError:
            return None  # the run has said what is wrong
        places = tuple((names.index(n), v) for n, v in fixed.items())
        self._versions.append((places, version))
        return version

    # -- profiles ----------------------------------------------------------------------------

    def profiles(self) -> list[Array]:
        """Times and counts of the calls that have ended since :meth:`reset_profiles`: blocks of
        words as :mod:`aisc.codegen.cpu.profile` tells, empty ones unless compiled with ``profile``.
        Calls that follow each other share one block."""
        return [space.profile.copy() for space in tuple(self.idle)]

    def reset_profiles(self) -> None:
        """Begin times and counts anew."""
        for space in tuple(self.idle):
            space.profile[:] = 0

    def _run(self, arrays: Sequence[Any], out: Any) -> list[Array]:
        if out is None and self._repeated is not None:
            repeated_results = self._repeated(arrays)
            if repeated_results is not None:
                return repeated_results
            self._repeated = None
        if len(arrays) != len(self.inputs):
            raise execution_error(
                "E501", f"{len(self.inputs)} inputs are needed", f"got {len(arrays)}"
            )
        if self._resident is not None and out is None and self._resident.takes(arrays):
            return self._resident(arrays)
        inputs = [
            as_input(a, p, t)
            for a, p, t in zip(arrays, self.inputs, self.input_dtypes, strict=True)
        ]
        dims, sizes = self.sizes(inputs)
        if self._versions and (version := self._version(dims)) is not None:
            return version._run(arrays, out)
        outputs = self._allocate(sizes, out, inputs)
        space = self._borrow_memory()
        try:
            status = self._invoke(space, inputs, outputs, dims)
            if not status:
                if out is None and self.REPEATS:
                    self._repeated = repeated(self, [a.shape for a in inputs], sizes, dims)
                return [
                    self._result(space, k, dims) if a is None else a for k, a in enumerate(outputs)
                ]
            fault = self.fault(space, status)
        finally:
            self.idle.append(space)
        wanted = fault_of(status, self.image.faults).sizes
        other = self._new_version(wanted, dims) if wanted else None
        if other is None:
            try:
                raise fault
            finally:
                del fault  # its traceback holds this frame, and with it the results
        return other._run(arrays, out)

    def _resident_calls(self) -> Resident | None:
        """What runs calls with arrays of a device, where all of the program runs there."""
        if not self.image.straight:
            return None
        from aisc.codegen.backend import Separate
        from aisc.codegen.run.resident import Resident

        devices = [self._devices[name] for name in {m.source for m in self.image.moves} - {""}]
        if len(devices) != 1 or not isinstance(devices[0], Separate):
            return None
        return Resident(self, devices[0])

    def run_at(
        self, inputs: list[Array], outputs: list[Array], dims: Values, lent: list[tuple[int, int]]
    ) -> None:
        """Run on arrays behind some of which stand others of the device."""
        space = self._borrow_memory()
        assert space.host is not None, "there are calls of devices"
        try:
            space.host.lend(lent)
            status = self._invoke(space, inputs, [*outputs], dims)
            if status:
                raise self.fault(space, status)
        finally:
            space.host.lend([])
            self.idle.append(space)

    def fault(self, space: Workspace, status: int) -> ExecutionError:
        """What went wrong in a run."""
        from aisc.ir.text.source import with_carets

        if space.host is not None and (fault := space.host.raised()) is not None:
            return fault
        values = (space.frame.value0, space.frame.value1, space.frame.value2)
        return with_carets(error_of(status, values, self.image.faults))

    def _invoke(
        self, space: Workspace, inputs: list[Array], outputs: list[Array | None], dims: Values
    ) -> int:
        """Fill the frame and call the entry, or have a device do again what the entry had it do
        before; the status."""
        for k, array in enumerate(inputs):
            space.inputs[k] = address(array)
        for k, result in enumerate(outputs):
            space.outputs[k] = 0 if result is None else address(result)
        for k, value in enumerate(dims):
            space.dims[k] = value
        space.frame.error = 0
        host = space.host
        if host is not None and host.again(dims, space.inputs[:], space.outputs[:]):
            return 0
        if host is not None and host.fault is not None:
            return abi.HOST_FAILED
        status = pools.entered(
            self.entry, space.frame, space.at, self.image.runtime, self.threads, self._passive
        )
        if host is not None and not status:
            host.remember(dims, space.inputs[:], space.outputs[:])
        return status

    def sizes(self, inputs: list[Array]) -> tuple[Values, list[Values | None]]:
        """Values of the dimensions and shapes of the outputs. Most calls have the same as the one
        before, which has found them right."""
        shapes = [a.shape for a in inputs]
        known = self._known
        if known is None or known[0] != shapes:
            dims = self._binding.values(inputs)
            known = self._known = shapes, dims, self._binding.output_shapes(dims)
        return known[1], known[2]

    def _allocate(
        self, shapes: list[Values | None], out: Any, inputs: list[Array]
    ) -> list[Array | None]:
        """Arrays for the outputs: new ones, or the caller's after a check; ``None`` for those whose
        sizes only the run gives."""
        if out is not None:
            sized = [s for s in shapes if s is not None]
            if len(sized) < len(shapes):
                raise execution_error("E501", "out= is not possible: the run decides the sizes")
            return [*as_outputs(out, self.outputs, sized, inputs)]
        return [
            None if s is None else self.results.array(s, t)
            for s, t in zip(shapes, self.output_dtypes, strict=True)
        ]

    def _result(self, space: Workspace, k: int, dims: Values) -> Array:
        """A new array with the contents of a result that lies in the program's memory."""
        shape = self._binding.result_shape(k, (*dims, *space.dims[len(dims) :]))
        array = self.results.array(shape, self.output_dtypes[k])
        ctypes.memmove(address(array), space.outputs[k], array.nbytes)
        return array

    def _borrow_memory(self) -> Workspace:
        """A workspace that no other call uses."""
        try:
            return self.idle.pop()
        except IndexError:
            return self.new_workspace()

    def new_workspace(self) -> Workspace:
        """A workspace for calls that do not share theirs; :meth:`release` gives back what it has
        come to own."""
        weights = ctypes.addressof(self._weights)
        return Workspace(self.image.signature, weights, self.image.profile, self._callbacks)

    def release(self, space: Workspace) -> None:
        """Free the memory that compiled code has allocated for a workspace."""
        space.free(self.image.signature.segments)

    def _callbacks(self, memory: Array) -> Callbacks | None:
        """The callback of a workspace with this block of memory, if the entry needs one. Only then
        the IR is loaded."""
        image = self.image
        if not image.calls:
            return None
        from aisc.codegen.callbacks import Callbacks

        segments = image.signature.segments
        return Callbacks(
            image.calls, self._devices,
            lambda: [(int(memory[k]), int(memory[k + 1])) for k in segments],
            [(address(w), w.nbytes) for w in image.weights], image.straight, image.profile > 0,
        )  # fmt: skip

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():  # the process gives everything back, and names of modules are gone
            return
        for space in getattr(self, "idle", ()):
            self.release(space)

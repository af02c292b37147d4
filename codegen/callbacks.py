"""What a running program calls back for: operators of the host, and work of devices.

A call passes its number and one array of words. Of an operator these are those of
:mod:`aisc.codegen.host`; of a kernel the addresses of its buffers, then the values of its
dimensions; of a copy between memories where it reads and writes, and the bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence

from aisc.codegen.abi import HOST_FAILED
from aisc.codegen.backend import Device, Regions, Separate, Session, Traced
from aisc.codegen.image import Launch, Move
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import (
    Alloc,
    Barrier,
    CallKernel,
    Copy,
    HostCall,
    Reserve,
    Seq,
)

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
Call = HostCall | Launch | Move


def calls_of(entry: Func, kernels: Mapping[str, Func]) -> tuple[Call, ...]:
    """What an entry calls back for, in the order of the numbers."""
    return tuple(_calls(entry, kernels))


def _calls(entry: Func, kernels: Mapping[str, Func]) -> Iterator[Call]:
    for n in walk(entry.body):
        if isinstance(n, HostCall):
            yield n
        elif isinstance(n, CallKernel) and kernels[n.kernel].target != entry.target:
            yield Launch(kernels[n.kernel].target, n.kernel, len(n.args), len(n.dims))
        elif isinstance(n, Copy) and crosses(n):
            yield Move(_owner(n.src), _owner(n.dst))


def crosses(s: Copy) -> bool:
    """Whether a copy goes from one memory to another."""
    return _owner(s.src) != _owner(s.dst)


def _owner(b: Buffer) -> str:
    """The target whose memory a buffer of an entry lies in; nothing for the host."""
    return b.space.rpartition(".")[0]


def is_straight(entry: Func, kernels: Mapping[str, Func]) -> bool:
    """Whether an entry only has one device do one thing after the other, between copies of its
    inputs and to its outputs."""
    body = entry.body.stmts if isinstance(entry.body, Seq) else (entry.body,)
    targets = set()
    for s in body:
        if isinstance(s, CallKernel):
            targets.add(kernels[s.kernel].target)
        elif isinstance(s, Copy):
            names = {_owner(s.src), _owner(s.dst)} - {""}
            inputs = s.src.role == "input" or s.dst.role == "output"
            if not crosses(s) or not inputs:
                return False
            targets |= names
        elif not isinstance(s, Alloc | Barrier | Reserve):
            return False
    return len(targets) == 1 and entry.target not in targets


class Callbacks:
    """The callback of one run at a time; `fault` is what a call raised. `regions` and `weights`:
    where segments and weights of the program lie; `straight`: what :func:`is_straight` says;
    `timed`: whether launches are waited for one by one."""

    def __init__(
        self, calls: Sequence[Call], devices: Mapping[str, Device], regions: Regions,
        weights: Sequence[tuple[int, int]], straight: bool, timed: bool,
    ) -> None:  # fmt: skip
        self.calls = calls
        self.sessions: dict[str, Session] = {}
        self.devices: dict[str, Device] = {}
        for name, device in devices.items():
            if isinstance(device, Separate):
                self.sessions[name] = device.session(regions, weights, timed)
            self.devices[name] = self.sessions.get(name, device)
        self.fault: Exception | None = None
        self._only = next(iter(self.sessions.values()), None) if straight else None
        self._trace: list[Traced] = []
        # By key, which input or output each copy of a call belongs to.
        self._copies: dict[object, tuple[list[int], list[int]]] = {}
        self._callback = _CALLBACK(self._run)

    @property
    def address(self) -> int:
        """Address of the callback."""
        return ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def raised(self) -> ExecutionError | None:
        """What a call raised, if anything, as an ``ExecutionError``."""
        fault, self.fault = self.fault, None
        if fault is None or isinstance(fault, ExecutionError):
            return fault
        return execution_error("E502", "an operator on the host or a device failed", str(fault))

    def lend(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Tell devices which addresses on the host stand for others of theirs."""
        for session in self.sessions.values():
            session.lend(pairs)

    def close(self) -> None:
        """Give back what devices hold for this."""
        for session in self.sessions.values():
            session.close()
        self.sessions.clear()

    # -- runs that are like one before -----------------------------------------------------------

    def again(self, key: object, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        """Run as in a call with the same key before, with operands at these addresses, without the
        entry; whether that was possible. A key stands for all that the entry makes of a call."""
        known = None if self._only is None else self._copies.pop(key, None)
        if self._only is None or known is None:
            return False
        try:
            given = ([inputs[k] for k in known[0]], [outputs[k] for k in known[1]])
            done = self._only.replay(key, *given)
        except Exception as fault:
            self.fault = fault
            return False
        if done:
            self._copies[key] = known
        return done

    def remember(self, key: object, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Keep the run that has just succeeded for calls with the same key."""
        if self._only is None or key in self._copies:
            return
        up = [s.host for s in self._trace if s.kind == "upload"]
        down = [s.host for s in self._trace if s.kind == "download"]
        if set(up) <= set(inputs) and set(down) <= set(outputs):
            places = [inputs.index(a) for a in up], [outputs.index(a) for a in down]
            if self._only.keep(key, tuple(self._trace)):
                self._copies[key] = places

    # -- calls -----------------------------------------------------------------------------------

    def _run(self, index: int, words: int, sizes: int) -> int:
        if index == 0:
            self._trace.clear()
        try:
            call = self.calls[index]
            if isinstance(call, Launch):
                self._launch(call, words)
            elif isinstance(call, Move):
                self._move(call, words)
            else:
                from aisc.codegen.host import run_host_call

                run_host_call(call, words, sizes)
        except Exception as fault:  # must not pass through native code
            self.fault = fault
            return HOST_FAILED
        return 0

    def _launch(self, call: Launch, words: int) -> None:
        given = list((ctypes.c_int64 * (call.buffers + call.dims)).from_address(words))
        pointers, dims = given[: call.buffers], given[call.buffers :]
        self.devices[call.target].launch(call.kernel, pointers, dims)
        self._note(Traced("launch", call.kernel, tuple(pointers), tuple(dims)))

    def _move(self, call: Move, words: int) -> None:
        source, target, size = (ctypes.c_int64 * 3).from_address(words)
        giver, taker = self.sessions.get(call.source), self.sessions.get(call.target)
        if giver is not None:
            giver.download(source, target, size)
            self._note(Traced("download", place=source, host=target, size=size))
        if taker is not None:
            source = target if giver is not None else source
            taker.upload(source, target, size)
            self._note(Traced("upload", place=target, host=source, size=size))
        if giver is None and taker is None:
            ctypes.memmove(target, source, size)

    def _note(self, step: Traced) -> None:
        if self._only is not None:
            self._trace.append(step)

"""Calls with arrays that stay: addresses are filled in once, results come to the same places."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from aisc.codegen.arrays import Array, address
from aisc.codegen.cpu import pool as pools
from aisc.ir.diagnostics import execution_error

if TYPE_CHECKING:
    from aisc.codegen.run.executable import Executable
    from aisc.codegen.signature import Values


class Bound:
    """An executable with its inputs and outputs: a call reads what stands in `inputs` then and
    writes `outputs`, which it returns: one alone, several as a tuple.

    For one thread at a time; a call while another one runs is E501. Made by
    :meth:`aisc.Executable.bind`.
    """

    def __init__(
        self, exe: Executable, inputs: tuple[Array, ...], outputs: tuple[Array, ...], dims: Values
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._exe = exe
        self._results = outputs[0] if len(outputs) == 1 else outputs
        space = exe.new_workspace()
        for table, arrays in ((space.inputs, inputs), (space.outputs, outputs)):
            for k, array in enumerate(arrays):
                table[k] = address(array)
        for k, value in enumerate(dims):
            space.dims[k] = value
        self._spaces = [space]
        self._enter: Callable[[int], int] = exe.entry
        self._threads, self._runtime = exe.threads, exe.image.runtime
        self._passive = exe.wait == "passive"

    def __call__(self) -> Array | tuple[Array, ...]:
        """Run; raises ``ExecutionError`` as any call."""
        try:
            space = self._spaces.pop()
        except IndexError:
            raise execution_error(
                "E501", "these arrays are in use by another call", "each thread binds its own"
            ) from None
        try:
            space.frame.error = 0
            status = pools.entered(
                self._enter, space.frame, space.at, self._runtime, self._threads, self._passive
            )
            if status:
                raise self._exe.fault(space, status)
        finally:
            self._spaces.append(space)
        return self._results

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():  # the process gives everything back, and names of modules are gone
            return
        for space in getattr(self, "_spaces", ()):
            self._exe.release(space)

"""Instructions that a description declares, as the code that it gives for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aisc.codegen.llvm.function import FunctionEmitter
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import Invoke

_LOCAL = re.compile(r"%[a-z]+")


def emit_instruction(
    emitter: FunctionEmitter, found: Intrinsic, s: Invoke, kinds: Sequence[str],
    given: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """The code of an instruction. Operands are vectors of `kinds`, the elements of which lie side
    by side; what is written is stored. Those without a kind are memory, of which the code gets
    `given` names."""
    w, names = emitter.w, dict(given or {})
    pairs = zip(s.operands, found.semantics.params, kinds, strict=True)
    operands = [(r, p, kind) for r, p, kind in pairs if kind]
    for region, param, kind in operands:
        if given and param.role == "output":  # nothing of it is read
            continue
        pointer, _ = emitter.address(region.buffer, region.low)
        names[f"%{param.name}"] = w.let(f"load {kind}, ptr {pointer}, align {param.dtype.bytes}")
    for line in filter(None, found.llvm.splitlines()):
        if line.startswith("declare"):
            w.declare(line)
            continue
        result, assigned, text = line.rpartition(" = ")
        text = _LOCAL.sub(lambda m: names[m[0]], text)
        if not assigned:
            w.line(text)
        elif given and not text.startswith("call"):
            names[result] = w.shared(text)
        else:
            names[result] = w.let(text)
    for region, param, kind in operands:
        if param.role == "output":
            pointer, _ = emitter.address(region.buffer, region.low)
            align = param.dtype.bytes
            w.line(f"store {kind} {names['%result']}, ptr {pointer}, align {align}")

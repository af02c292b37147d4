"""Instructions that a description declares, as the code that it gives for them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aisc.codegen.llvm.function import FunctionEmitter
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import Invoke

_LOCAL = re.compile(r"%[a-z]+")


def emit_instruction(
    emitter: FunctionEmitter, found: Intrinsic, s: Invoke, kinds: Sequence[str]
) -> None:
    """The code of an instruction. Operands are vectors of `kinds`, the elements of which lie side
    by side; what is written is stored."""
    w, names = emitter.w, {}
    operands = list(zip(s.operands, found.semantics.params, kinds, strict=True))
    for region, param, kind in operands:
        pointer, _ = emitter.address(region.buffer, region.low)
        names[f"%{param.name}"] = w.let(f"load {kind}, ptr {pointer}, align {param.dtype.bytes}")
    for line in filter(None, found.llvm.splitlines()):
        if line.startswith("declare"):
            w.declare(line)
            continue
        result, _, text = line.partition(" = ")
        names[result] = w.let(_LOCAL.sub(lambda m: names[m[0]], text))
    for region, param, kind in operands:
        if param.role == "output":
            pointer, _ = emitter.address(region.buffer, region.low)
            align = param.dtype.bytes
            w.line(f"store {kind} {names['%result']}, ptr {pointer}, align {align}")

"""Turn a kernel's global scratch buffers into parameters, so that the Program's plan places them.

before: ``func k(x, y) { alloc t: f32[64]; … }``   after: ``func k(x, y, t) { … }``
Precondition: global ``Alloc`` stands at the top of the body. Postcondition: no global ``Alloc``;
the new parameters have role *scratch* and follow the others in order of declaration.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.node import Node
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, Seq, seq
from aisc.ir.tensor.visitor import transform_accesses, walk_accesses


@dataclass(frozen=True, slots=True)
class HoistScratch:
    """The pass; see the module's docstring."""

    name: str = "hoist-scratch"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        found = tuple(
            n.buffer
            for n in walk_accesses(func.body)
            if isinstance(n, Alloc) and n.buffer.space == "global"
        )
        if not found:
            return func

        def drop(n: Node) -> Node:
            if isinstance(n, Seq):
                kept = (s for s in n.stmts if not (isinstance(s, Alloc) and s.buffer in found))
                return seq(*kept)
            return n

        return replace(func, params=func.params + found, body=transform_accesses(func.body, drop))

"""Modules of LLVM IR text and their machine code (:mod:`aisc.codegen.llvm.generate`).

Only this package and the back ends import llvmlite. Objects are bytes: they can be cached on disk,
made in another process (:mod:`aisc.driver.kernel_process`) and linked in a third
(:mod:`aisc.codegen.llvm.link`).
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen.artefact import Artefact
from aisc.codegen.llvm.function import NONTEMPORAL_NODE
from aisc.codegen.llvm.generate import generate
from aisc.codegen.llvm.stores import NONTEMPORAL
from aisc.ir.diagnostics import InternalError
from aisc.ir.target import Target


def machine_name(target: Target) -> str:
    """The architecture: ``x86_64``, ``aarch64``, ``riscv64`` …"""
    return target.triple.split("-")[0]


def module_text(
    target: Target,
    functions: Sequence[str],
    declarations: Sequence[str],
    globals_: Sequence[str],
    more: Sequence[str] = (),
) -> str:
    """A module: functions refer to attribute group ``#0``, with `more` of the back end in it."""
    attributes = [
        "nounwind",
        f'"target-cpu"="{target.arch}"',
        f'"target-features"="{",".join(target.features)}"',
        f'"prefer-vector-width"="{target.vector_bits}"',
        '"no-trapping-math"="true"',
        *more,
    ]
    return "\n\n".join(
        [
            f'target triple = "{target.triple}"',
            *globals_,
            *declarations,
            *functions,
            f"attributes #0 = {{ {' '.join(attributes)} }}",
            *([NONTEMPORAL_NODE] if any(NONTEMPORAL in f for f in functions) else []),
            "",
        ]
    )


def assemble(
    text: str, target: Target, want_listing: bool = False, quick: bool = False
) -> Artefact:
    """Machine code of a module, and its assembly if that is wanted; `quick`: without what LLVM does
    to make it fast."""
    features = ",".join(target.features)
    try:
        return generate(text, target.triple, target.arch, features, want_listing, quick)
    except RuntimeError as fault:
        raise InternalError(f"LLVM rejects the code: {fault}\n{text}") from None

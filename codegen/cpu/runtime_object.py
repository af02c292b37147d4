"""The run time as an object that is linked to kernels and entry."""

from __future__ import annotations

from functools import cache

from aisc.codegen.cpu.memory_runtime import guarded_text
from aisc.codegen.cpu.runtime import runtime_text
from aisc.codegen.llvm import engine, link
from aisc.ir import target as targets
from aisc.ir.target import Target


@cache
def guarded_runtime(at_end: bool) -> bytes:
    """The run time's object for runs under guard on this machine."""
    target = link.complete(targets.resolve("cpu"))
    text = guarded_text(runtime_text(engine.machine_name(target)), at_end)
    return engine.assemble(f'target triple = "{target.triple}"\n{text}', target).object


@cache
def runtime_object(target: Target) -> bytes:
    """The run time's object, made once per process."""
    text = runtime_text(engine.machine_name(target))
    return engine.assemble(f'target triple = "{target.triple}"\n{text}', target).object

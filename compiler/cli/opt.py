"""``aisc opt``: passes over IR text, like ``mlir-opt``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from aisc.codegen.files import write_whole
from aisc.driver.api import backends_of
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph
from aisc.ir.graph.verify import verify
from aisc.ir.tensor.func import Func, Program
from aisc.ir.tensor.verify import verify_func, verify_program
from aisc.ir.text.parser import load_blobs, parse
from aisc.ir.text.printer import print_ir
from aisc.passes.base import FuncPass, GraphPass
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.cse import CommonSubexpressions
from aisc.passes.graph.dce import DeadCode
from aisc.passes.graph.fold import Fold
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Decompose, Legalize
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.arena import plan_memory
from aisc.passes.policy import Machines
from aisc.passes.tensor.optimize import PASSES

Ir = Graph | Func | Program

GRAPH_PASSES: dict[str, GraphPass] = {
    p.name: p for p in (Canonicalize(), CommonSubexpressions(), Fold(), DeadCode(), Decompose())
}
# Passes that ask the machine; here it is the one that this process runs on.
ASKING: dict[str, Callable[[Machines], GraphPass]] = {
    "legalize": lambda machines: Legalize(machines=machines),
    "fuse": lambda machines: Fuse(machines=machines),
}
FUNC_PASSES: dict[str, FuncPass] = {p.name: p for p in PASSES}


def names() -> list[str]:
    """Every pass by name."""
    return sorted([*GRAPH_PASSES, *ASKING, *FUNC_PASSES, "lower", "plan"])


def apply(ir: Ir, name: str) -> Ir:
    """One pass by name; E202 or E301 when it does not fit the kind of IR, E401 if unknown."""
    if name in GRAPH_PASSES and isinstance(ir, Graph):
        return GRAPH_PASSES[name].run(ir)
    if name in ASKING and isinstance(ir, Graph):
        host, _ = backends_of("cpu")
        return ASKING[name](Machines(host.policy)).run(ir)
    if name == "lower" and isinstance(ir, Graph):
        return lower_graph(ir)
    if name == "plan" and isinstance(ir, Program):
        return plan_memory(ir).program
    if name in FUNC_PASSES and isinstance(ir, Func):
        return FUNC_PASSES[name].run(ir)
    if name in FUNC_PASSES and isinstance(ir, Program):
        return replace(ir, kernels=tuple(FUNC_PASSES[name].run(k) for k in ir.kernels))
    if name not in names():
        raise error("E401", f"there is no pass '{name}'", f"passes: {', '.join(names())}")
    kind = type(ir).__name__.lower()
    raise error("E401", f"pass '{name}' does not apply to a {kind}")


def check(ir: Ir) -> None:
    """Verify any kind of IR."""
    checks: dict[type, Callable[..., object]] = {
        Graph: verify, Func: verify_func, Program: verify_program,
    }  # fmt: skip
    checks[type(ir)](ir)


def run_passes(
    file: str,
    passes: str,
    output: str,
    verify_each: bool,
    print_after: bool,
    time_passes: bool,
    list_passes: bool,
) -> None:
    """Read IR, apply passes, write IR. Constants are read from ``FILE.npz`` beside the text."""
    if list_passes:
        print("\n".join(names()))
        return
    ir = _read(file)
    check(ir)
    for name in (p.strip() for p in passes.split(",") if p.strip()):
        start = time.perf_counter()
        ir = apply(ir, name)
        if time_passes:
            print(f"{name}: {time.perf_counter() - start:.4f} s", file=sys.stderr)
        if verify_each:
            check(ir)
        if print_after:
            print(f"// after {name}\n{print_ir(ir)}", file=sys.stderr)
    check(ir)
    text = print_ir(ir)
    if output == "-":
        print(text)
    else:
        write_whole(Path(output), text.encode() + b"\n")


def _read(file: str) -> Ir:
    if file == "-":
        return parse(sys.stdin.read(), {})
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise error("E107", f"cannot read {file}", str(fault)) from None
    side = path.with_suffix(".npz")
    return parse(text, load_blobs(side) if side.is_file() else {})

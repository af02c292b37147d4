"""Code generation in a process beside the compiler: the same bytes, and never needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aisc.codegen.cpu import schedule
from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm import assembler_process
from aisc.codegen.llvm.assembler import answer, greeting
from aisc.codegen.llvm.assembler_process import AssemblerProcess
from aisc.driver import kernels as building
from aisc.driver.api import resolve_target
from aisc.driver.kernel import BuiltKernel, to_record
from aisc.driver.kernels import build_kernels
from aisc.driver.options import Options
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import f32
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import seq

TARGET = resolve_target("cpu")
COUNT = 9
PATIENCE = 60.0  # seconds in which a process must be ready, on a busy machine too


def product(n: int) -> Func:
    a, b = buffer("a", f32, (64, n), "input"), buffer("b", f32, (n, 64), "weight")
    c = buffer("c", f32, (64, 64), "output")
    cb = ComputeBuilder()
    cb.reduce(c, (n,), "sum", lambda s, r: Load(a, (s[0], r[0])) * Load(b, (r[0], s[1])), "mm")
    return Func(f"mm{n}", (a, b, c), (), seq(*cb.stmts))


def built(threads: int) -> dict[str, BuiltKernel]:
    funcs = [product(8 * n + 16) for n in range(COUNT)]
    return build_kernels(funcs, CpuBackend(TARGET), Options(threads=threads), None)


def records(made: dict[str, BuiltKernel]) -> list[tuple[str, dict[str, bytes]]]:
    return [(name, to_record(k)) for name, k in made.items()]


@pytest.fixture(scope="module")
def alone() -> list[tuple[str, dict[str, bytes]]]:
    return records(built(1))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[AssemblerProcess]:
    """The processes that builds start; they are ready before anything is built."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(building, "has_idle_core", lambda: True)
    seen: list[AssemblerProcess] = []
    start = AssemblerProcess.start

    def waiting(target: Any) -> AssemblerProcess | None:
        made = start(target, assembler_process.COMMAND)
        if made is not None:
            seen.append(made)
            limit = time.monotonic() + PATIENCE
            while not made.child.has_answered and time.monotonic() < limit:
                time.sleep(0.01)
        return made

    monkeypatch.setattr(AssemblerProcess, "start", staticmethod(waiting))
    return seen


def command(body: str) -> Sequence[str]:
    return (sys.executable, "-c", "import sys, time, os\n" + body)


def test_the_bytes_are_the_same(
    started: list[AssemblerProcess], alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    give = AssemblerProcess.give

    def counting(self: AssemblerProcess, text: str, want_listing: bool) -> int:
        given.append(give(self, text, want_listing))
        return given[-1]

    monkeypatch.setattr(AssemblerProcess, "give", counting)
    assert records(built(2)) == alone
    assert given == list(range(1, len(given) + 1))
    (process,) = (b.child.process for b in started)
    assert process.poll() is not None, "it has been ended"


GREETING = f"print({greeting()!r}, flush=True)\n"
FAULTS = {
    "it does not start": "sys.exit(1)",
    "it is something else": "print('{}', flush=True); time.sleep(60)",
    "it says nothing": "time.sleep(60)",
    "it dies at once": GREETING + "os._exit(3)",
    "it dies later": GREETING + "sys.stdin.readline(); os._exit(3)",
    "it hangs": GREETING + "time.sleep(600)",
    "it talks nonsense": GREETING + "[print('nonsense', flush=True) for _ in sys.stdin]",
    "it cannot": GREETING + '[print(\'{"id": 0, "fault": "no"}\', flush=True) for _ in sys.stdin]',
}


@pytest.mark.parametrize("body", FAULTS.values(), ids=FAULTS)
def test_a_fault_beside_costs_only_time(
    started: list[AssemblerProcess], alone: Any, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 2.0)
    monkeypatch.setattr(assembler_process, "COMMAND", command(body))
    emit = CpuBackend.emit  # more text than a pipe holds
    monkeypatch.setattr(CpuBackend, "emit", lambda *a: emit(*a) + ";" + "-" * (1 << 20) + "\n")
    assert records(built(2)) == alone


# The first answers come late, what follows not before all kernels are made.
SLOW = """
from aisc.codegen.llvm import assembler
answer, delays = assembler.answer, [0.15, 0.15]
def late(*request):
    time.sleep(delays.pop() if delays else 30)
    return answer(*request)
assembler.answer = late
assembler.main()
"""


def test_late_answers_are_for_the_request_that_was_made(
    started: list[AssemblerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every first tile is refused, so that kernels make two requests; what takes too long is taken
    back, and answered later."""
    first: dict[str, str] = {}

    def spills(assembly: str) -> int:
        name = re.findall(r"^(mm\d+):", assembly, re.MULTILINE)[0]
        return int(first.setdefault(name, assembly) == assembly)

    monkeypatch.setattr(schedule, "spills", spills)
    monkeypatch.setattr(assembler_process, "COMMAND", command(SLOW))
    expected, taken = records(built(1)), list[int]()
    assert len(first) == COUNT
    take, take_back = AssemblerProcess.take, AssemblerProcess.take_back
    monkeypatch.setattr(
        AssemblerProcess, "take", lambda self, patience=0.0: take(self, min(patience, 0.1))
    )

    def counting(self: AssemblerProcess) -> int:
        taken.append(take_back(self))
        return taken[-1]

    monkeypatch.setattr(AssemblerProcess, "take_back", counting)
    assert records(built(2)) == expected
    assert taken


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(os, "sched_getaffinity", lambda _: {0}),
        lambda m: m.setattr(building, "has_idle_core", lambda: False),
        lambda m: m.setattr(building, "MIN_KERNELS", COUNT + 1),
        lambda m: m.setattr(sys, "executable", "/usr/bin/uwsgi"),
        lambda m: m.setattr(sys, "executable", None),
    ],
    ids=["one core", "no idle core", "few kernels", "embedded", "unknown"],
)
def test_where_none_is_started(
    started: list[AssemblerProcess],
    alone: Any,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    change(monkeypatch)
    assert records(built(2)) == alone
    assert started == []


def test_the_kernel_says_whether_a_core_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for text, idle in (("0.5 0.4 0.3 1/90 7", True), ("2.1 2 2 3/90 7", False), ("what", True)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert building.has_idle_core() is idle


def test_what_llvm_refuses_is_reported_here(
    started: list[AssemblerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CpuBackend, "emit", lambda self, funcs: "nonsense")
    with pytest.raises(InternalError, match="LLVM rejects the code"):
        built(2)
    assert '"fault"' in answer('{"id": 1, "text": "nonsense", "listing": false}', machine())


def machine() -> tuple[str, str, str]:
    return TARGET.triple, TARGET.arch, ",".join(TARGET.features)


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = (
        "import sys, time\n"
        "from aisc.driver.api import resolve_target\n"
        "from aisc.codegen.llvm.assembler_process import AssemblerProcess\n"
        "made = AssemblerProcess.start(resolve_target('cpu'))\n"
        "print(made.child.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout is not None
        pid = int(p.stdout.readline())
        assert alive(pid)
        p.kill()
    limit = time.monotonic() + 20
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_targets_are_told_apart(started: list[AssemblerProcess]) -> None:
    """What generates code beside is told the target of the kernels, not the host."""
    plain = replace(TARGET, arch="x86-64", features=()) if "x86" in TARGET.triple else TARGET
    funcs = [product(8 * n + 16) for n in range(COUNT)]
    one, two = (
        records(build_kernels(funcs, CpuBackend(plain), Options(threads=k), None)) for k in (1, 2)
    )
    assert one == two
    assert len(started) == 1

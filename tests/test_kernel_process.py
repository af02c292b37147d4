"""Kernels made in processes beside the compiler: the same bytes, and never needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aisc.artifact.fingerprint import fingerprint
from aisc.codegen.child import Child
from aisc.codegen.cpu.backend import CpuBackend
from aisc.driver import crew as hiring
from aisc.driver import kernel_process
from aisc.driver.api import resolve_target
from aisc.driver.crew import Crew
from aisc.driver.kernel import BuiltKernel, to_record
from aisc.driver.kernel_process import KernelProcess
from aisc.driver.kernel_worker import answer
from aisc.driver.kernels import build_kernels
from aisc.driver.options import Options
from aisc.ir.description import to_toml
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import f32
from aisc.ir.target import Target
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import seq
from aisc.ir.text.printer import print_ir

BACKEND = CpuBackend(resolve_target("cpu"))
TARGET = BACKEND.target
COUNT = 9
PATIENCE = 60.0  # seconds in which a process must be ready, on a busy machine too


def product(n: int) -> Func:
    a, b = buffer("a", f32, (64, n), "input"), buffer("b", f32, (n, 64), "weight")
    c = buffer("c", f32, (64, 64), "output")
    cb = ComputeBuilder()
    cb.reduce(c, (n,), "sum", lambda s, r: Load(a, (s[0], r[0])) * Load(b, (r[0], s[1])), "mm")
    return Func(f"mm{n}", (a, b, c), (), seq(*cb.stmts))


FUNCS = [product(8 * n + 16) for n in range(COUNT)]
Records = list[tuple[str, dict[str, bytes]]]


def built(threads: int, backend: CpuBackend = BACKEND, operators: int = 99) -> Records:
    options = Options(threads=threads)
    with Crew.start([backend.target], options, operators) as crew:
        made: dict[str, BuiltKernel] = build_kernels(FUNCS, backend, options, None, crew=crew)
    return [(name, to_record(k)) for name, k in made.items()]


@pytest.fixture(scope="module")
def alone() -> Records:
    return built(1)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[KernelProcess]:
    """The processes that builds start; they are ready before anything is built."""
    monkeypatch.setattr(hiring, "usable_cores", lambda: 2)
    monkeypatch.setattr(hiring, "idle_cores", lambda: 2)
    seen: list[KernelProcess] = []
    start, wait = KernelProcess.start, Child.wait

    def waiting(*args: Any) -> KernelProcess | None:
        made = start(*args, command=kernel_process.COMMAND)
        if made is not None:
            seen.append(made)
            wait(made.child, PATIENCE)
        return made

    monkeypatch.setattr(KernelProcess, "start", staticmethod(waiting))
    return seen


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the kernels that are given away."""
    numbers: list[int] = []
    give = KernelProcess.give

    def counting(self: KernelProcess, number: int, *rest: Any) -> None:
        numbers.append(number)
        give(self, number, *rest)

    monkeypatch.setattr(KernelProcess, "give", counting)
    return numbers


def command(body: str) -> Sequence[str]:
    return (sys.executable, "-c", "import sys, time, os\n" + body)


def test_the_bytes_are_the_same(
    started: list[KernelProcess], given: list[int], alone: Records
) -> None:
    assert built(2) == alone
    assert 0 < len(set(given)) == len(given)
    (process,) = (b.child.process for b in started)
    assert process.poll() is not None, "it has been ended"


GREETING = json.dumps({"compiler": fingerprint(), "targets": [TARGET.key]})
READY = f"sys.stdin.readline(); print({GREETING!r}, flush=True)\n"
FAULTS = {
    "it does not start": "sys.exit(1)",
    "it is something else": "print('{}', flush=True); time.sleep(60)",
    "it says nothing": "time.sleep(60)",
    "it dies at once": READY + "os._exit(3)",
    "it dies later": READY + "sys.stdin.readline(); os._exit(3)",
    "it hangs": READY + "time.sleep(600)",
    "it talks nonsense": READY + "[print('nonsense', flush=True) for _ in sys.stdin]",
    "it cannot": READY + "import json\nfor line in sys.stdin:"
    " print(json.dumps({'id': json.loads(line)['id'], 'fault': 'no'}), flush=True)",
    "its records are damaged": READY + "import json\nfor line in sys.stdin: print(json.dumps("
    "{'id': json.loads(line)['id'], 'record': {'head': '!', 'object': 3}}), flush=True)",
}


@pytest.mark.parametrize("body", FAULTS.values(), ids=FAULTS)
def test_a_fault_beside_costs_only_time(
    started: list[KernelProcess], alone: Records, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PATIENCE", 2.0)
    monkeypatch.setattr(kernel_process, "COMMAND", command(body))
    assert built(2) == alone


# The first answers come late, what follows not before all kernels are made.
SLOW = """
from aisc.driver import kernel_worker
answer, delays = kernel_worker.answer, [0.05, 0.05]
def late(*request):
    time.sleep(delays.pop() if delays else 30)
    return answer(*request)
kernel_worker.answer = late
kernel_worker.main()
"""


def test_what_takes_too_long_is_taken_back(
    started: list[KernelProcess], alone: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_process, "COMMAND", command(SLOW))
    taken = list[int]()
    wait, take_back = Child.wait, KernelProcess.take_back

    def counting(self: KernelProcess) -> int:
        taken.append(take_back(self))
        return taken[-1]

    monkeypatch.setattr(Child, "wait", lambda self, patience: wait(self, min(patience, 0.1)))
    monkeypatch.setattr(KernelProcess, "take_back", counting)
    assert built(2) == alone
    assert taken


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.setattr(hiring, "usable_cores", lambda: 1),
        lambda m: m.setattr(hiring, "idle_cores", lambda: 1),
        lambda m: m.setattr(hiring, "OPERATORS", 100),
        lambda m: m.setattr(sys, "executable", "/usr/bin/uwsgi"),
        lambda m: m.setattr(sys, "executable", None),
    ],
    ids=["one core", "no idle core", "few operators", "embedded", "unknown"],
)
def test_where_none_is_started(
    started: list[KernelProcess], alone: Records, monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:  # fmt: skip
    change(monkeypatch)
    assert built(2) == alone
    assert started == []


def test_the_kernel_says_how_many_cores_are_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for text, idle in (("0.5 0.4 0.3 1/90 7", 2), ("2.1 2 2 3/90 7", 0), ("what", 2)):
        monkeypatch.setattr(Path, "read_text", lambda self, text=text: text)
        assert hiring.idle_cores() == idle


def test_faults_and_warnings_are_told_here(
    started: list[KernelProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CpuBackend, "emit", lambda self, funcs: "nonsense")
    monkeypatch.setattr(kernel_process, "COMMAND", command(FAULTS["it cannot"]))
    with pytest.raises(InternalError, match="LLVM rejects the code"):
        built(2)


def asked(kernel: str, choices: str = "{}") -> dict[str, Any]:
    request = {"id": 1, "kernel": kernel, "target": 0, "choices": choices}
    reply: dict[str, Any] = json.loads(answer(request, [to_toml(TARGET)], Options()))
    return reply


@pytest.mark.filterwarnings("error::aisc.ir.diagnostics.AiscWarning")
def test_a_worker_has_nothing_to_say() -> None:
    text = print_ir(FUNCS[0])
    assert "record" in asked(text)
    assert "fault" in asked("nonsense")
    assert "fault" in asked(text, '{"no such decision": 1}'), "the record is stale: a warning"


def test_it_ends_with_the_process_that_started_it() -> None:
    parent = (
        "import sys, time\n"
        "from aisc.driver.kernel_process import KernelProcess\n"
        "made = KernelProcess.start([], 2, {})\n"
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


def plain(target: Target) -> Target:
    return replace(target, arch="x86-64", features=()) if "x86" in target.triple else target


def test_targets_are_told_apart(started: list[KernelProcess], given: list[int]) -> None:
    """A process is told the target of the kernels, not the host."""
    backend = CpuBackend(plain(TARGET))
    one, two = (built(threads, backend) for threads in (1, 2))
    assert one == two
    assert len(started) == 1
    assert given

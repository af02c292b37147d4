"""Shares of parallel loops: each is taken once, whoever comes and whenever; nobody is waited for
who has not come."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest

from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.cpu.runtime import DONE, MEMBER, MEMBERS, THREADS, pool_bytes
from aisc.codegen.cpu.threads import decides
from aisc.codegen.llvm.link import Linked, complete
from aisc.ir import dtypes
from aisc.ir.target import host
from aisc.ir.tensor.expr import Binary, Const, Expr, Load, Var
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import Bind, CallKernel, If, Reserve, Seq, Stmt, While, seq

EACH = 3
BARRIER = "barrier"
Step = int | str  # a parallel loop with so many shares for each thread, or a barrier
_NAMES = ("aisc_share", "aisc_passed", "aisc_barrier", "aisc_pool_run")
_JOB = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@pytest.fixture(scope="module")
def linked() -> Linked:
    return Linked([CpuBackend(complete(host())).runtime], list(_NAMES))


class Members:
    """A pool without threads of its own: its members are driven by hand."""

    def __init__(self, linked: Linked, count: int) -> None:
        memory = ctypes.create_string_buffer(128 + pool_bytes(count))
        self.memory, self.count = memory, count
        self.pool = (ctypes.addressof(memory) + 127) // 64 * 64
        ctypes.c_int64.from_address(self.pool - 8).value = count
        ctypes.c_int64.from_address(self.pool + THREADS).value = count
        for k in range(count):
            words = (ctypes.c_int64 * 7).from_address(self.member(k))
            words[0], words[1], words[6] = self.pool, k, -1
        kinds = [ctypes.c_void_p, *[ctypes.c_int64] * 3]
        address = linked.addresses
        self.share = ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(address["aisc_share"])
        self.passed = ctypes.CFUNCTYPE(None, *kinds[:2])(address["aisc_passed"])
        self.barrier = ctypes.CFUNCTYPE(None, *kinds[:2])(address["aisc_barrier"])

    def member(self, k: int) -> int:
        """Its address."""
        return self.pool + MEMBERS + MEMBER * k

    def is_open(self, k: int) -> bool:
        """Whether a barrier would let a member pass at once."""
        done = ctypes.c_int32.from_address(self.pool + DONE).value
        return done >= ctypes.c_int64.from_address(self.member(k) + 40).value


@dataclass
class Log:
    """Which shares of which statement were begun, and statements of which some were begun before
    all of an earlier one, behind a barrier, were done."""

    begun: dict[int, list[int]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)


def walk(m: Members, k: int, steps: list[Step], log: Log) -> Iterator[bool]:
    """One member's way through the statements; yields whether it waits."""
    for at, step in enumerate(steps):
        if step == BARRIER:
            while not m.is_open(k):
                yield True
            m.barrier(m.member(k), m.count)
            for before in range(at):
                size = steps[before]
                wanted = 0 if size == BARRIER else 1 if size == 0 else m.count * int(size)
                assert log.done.get(before, 0) == wanted
        elif step == 0:  # by the first thread alone
            if k == 0:
                log.begun.setdefault(at, []).append(0)
                yield False
                log.done[at] = 1
            m.passed(m.member(k), k)
        else:
            share = m.share(m.member(k), m.count, int(step), -1)
            while share >= 0:
                log.begun.setdefault(at, []).append(share)
                yield False
                log.done[at] = log.done.get(at, 0) + 1
                share = m.share(m.member(k), m.count, int(step), share)
        yield False


@pytest.mark.parametrize("seed", range(40))
def test_every_share_is_taken_once_in_any_order(linked: Linked, seed: int) -> None:
    random = Random(seed)
    m = Members(linked, random.randint(2, 5))
    steps: list[Step] = [
        random.choice([0, 1, 2, EACH, BARRIER]) for _ in range(random.randint(1, 30))
    ]
    log = Log()
    ways = {k: walk(m, k, steps, log) for k in range(m.count)}
    there = [0]  # the others come later, or never
    while ways.get(0) is not None:
        if random.random() < 0.05:
            there.append(random.randrange(m.count))
        k = random.choice(there)
        if k in ways and next(ways[k], None) is None:
            del ways[k]
        if 0 not in ways:  # who has come goes to the end; the caller waits for that
            for k in set(there) & set(ways):
                assert not any(ways[k])
    for at, step in enumerate(steps):
        if step != BARRIER:
            wanted = 1 if step == 0 else m.count * int(step)
            assert sorted(log.begun[at]) == list(range(wanted))


def test_the_caller_does_all_where_nobody_comes(linked: Linked) -> None:
    m = Members(linked, 3)
    seen: list[int] = []

    def job(argument: int, tid: int, n: int, member: int) -> None:
        for _ in range(2):
            share = m.share(member, n, EACH, -1)
            while share >= 0:
                seen.append(share)
                share = m.share(member, n, EACH, share)
            m.passed(member, tid)
            m.barrier(member, n)

    function = _JOB(job)
    kinds = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    run = ctypes.CFUNCTYPE(None, *kinds)(linked.addresses["aisc_pool_run"])
    for _ in range(3):
        seen.clear()
        run(m.pool, ctypes.cast(function, ctypes.c_void_p), None, 3, 0)
        assert seen == 2 * list(range(3 * EACH))


def test_one_thread_takes_a_loop_as_a_whole(linked: Linked) -> None:
    m = Members(linked, 2)
    assert [m.share(None, 1, EACH, last) for last in (-1, 0)] == [0, -1]


def test_runs_that_decide_by_what_they_computed_need_all_threads() -> None:
    x = buffer("x", dtypes.i64, (4,), "output")
    kernel = Func("k", (x,), (), Seq(()))
    call, i = CallKernel("k", (x,), ()), Var("i")
    first = Load(x, (Const(0),))
    turn = seq(call, Bind((i,), (i + 1,)))
    start = Reserve("s", Const(64))

    def loop(cond: Expr) -> Stmt:
        return seq(Bind((i,), (Const(0),)), While(cond, turn))

    cases: list[tuple[Stmt, bool]] = [
        (call, False),
        (seq(start, call), False),
        (seq(call, start, call), True),
        (If(first, call), True),
        (seq(call, Bind((i,), (first,))), True),
        (loop(Binary("lt", i, Const(3))), False),
        (loop(Binary("lt", i, first)), True),
    ]
    for body, wanted in cases:
        assert decides(Func("entry", (x,), (), body), {"k": kernel}) == wanted

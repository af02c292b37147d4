"""Profiles of entries: what thread 0 spends on each statement of a run, kept in the call's frame.

An entry that was made for profiling stamps the clock before and after each call of a kernel, copy,
call of the host and barrier. The frame's ``profile`` points to a block of int64 words, or is null:
word 0 is the time of the last stamp in nanoseconds, words 1 and 2 are nanoseconds and stamps of
everything between the sites, and then follow the words of each :class:`Site`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aisc.codegen.abi import offset
from aisc.ir.dataclass import dataclass
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Barrier, CallKernel, Copy, HostCall, Stmt

if TYPE_CHECKING:
    from aisc.codegen.cpu.entry import EntryEmitter

Timed = CallKernel | Copy | HostCall | Barrier
BETWEEN = 1  # first word of what lies between the sites
_FIRST = 3
_CLOCK_MONOTONIC = 1


@dataclass(frozen=True, slots=True)
class Site:
    """A statement of the entry. Its words, from number `at` on: nanoseconds, executions, and the
    values that `sizes` had the last time: those on which its work depends, by name."""

    stmt: Timed
    at: int
    sizes: tuple[tuple[str, Expr], ...]

    @property
    def end(self) -> int:
        """The word after its last one."""
        return self.at + 2 + len(self.sizes)


def sites_of(entry: Func, kernels: Mapping[str, Func]) -> tuple[Site, ...]:
    """The sites of an entry in the order in which they are emitted."""
    found: list[Site] = []
    for s in walk(entry.body):
        if isinstance(s, Timed):
            at = found[-1].end if found else _FIRST
            found.append(Site(s, at, _sizes(s, kernels)))
    return tuple(found)


def profile_words(sites: tuple[Site, ...]) -> int:
    """Size of the block."""
    return sites[-1].end if sites else _FIRST


def buffers_at(s: Timed) -> tuple[Buffer, ...]:
    """The buffers that a statement reads or writes."""
    if isinstance(s, CallKernel):
        return s.args
    if isinstance(s, Copy):
        return s.src, s.dst
    if isinstance(s, HostCall):
        results = () if s.binds else s.outputs
        return tuple(b for b in (*s.inputs, *results) if b is not None)
    return ()


def _sizes(s: Timed, kernels: Mapping[str, Func]) -> tuple[tuple[str, Expr], ...]:
    if isinstance(s, CallKernel):
        names = (v.name for v in kernels[s.kernel].dims)
        return tuple(zip(names, s.dims, strict=True))
    symbols = {x.name: None for b in buffers_at(s) for x in b.type.symbols}
    return tuple((name, Var(name)) for name in sorted(symbols))


class Stamps:
    """Emits the stamps of one entry, site after site."""

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self._left = iter(sites)

    def start(self, em: EntryEmitter) -> None:
        """The first stamp of a run."""
        _stamp(em, 0)

    def end(self, em: EntryEmitter) -> None:
        """The last one."""
        _stamp(em, BETWEEN)

    def around(self, em: EntryEmitter, s: Stmt, emit: Callable[[], None]) -> None:
        """`emit` the code of `s` between two stamps."""
        site = next(self._left)
        assert site.stmt is s, "statements are emitted in the order of their sites"
        if site.sizes:
            _keep_sizes(em, site)
        _stamp(em, BETWEEN)
        emit()
        _stamp(em, site.at)


def _stamp(em: EntryEmitter, word: int) -> None:
    em.w.line(f"call void @aisc_stamp(ptr %frame, i64 %tid, i64 {word})")


def _keep_sizes(em: EntryEmitter, site: Site) -> None:
    block = em.field("profile")
    there = em.w.shared(f"icmp ne ptr {block}, null", "p", 0)
    first = em.w.shared("icmp eq i64 %tid, 0", "first", 0)
    values = [em.scalar(e) for _, e in site.sizes]
    end = em.w.open_if(em.w.shared(f"and i1 {there}, {first}", "p", 0))
    for k, value in enumerate(values, site.at + 2):
        at = em.w.let(f"getelementptr i64, ptr {block}, i64 {k}")
        em.w.line(f"store i64 {value}, ptr {at}, align 8")
    em.w.close_if(end)


def stamp_text() -> str:
    """``aisc_stamp(frame, tid, word)``: thread 0 adds the time since the last stamp to the word
    and counts in the one after it; word 0 only sets the clock."""
    return f"""define internal void @aisc_stamp(ptr %frame, i64 %tid, i64 %word) #0 {{
entry:
  %time = alloca [2 x i64], align 8
  %blockp = getelementptr i8, ptr %frame, i64 {offset("profile")}
  %block = load ptr, ptr %blockp, align 8
  %none = icmp eq ptr %block, null
  %other = icmp ne i64 %tid, 0
  %skip = or i1 %none, %other
  br i1 %skip, label %done, label %read
read:
  %r = call i32 @clock_gettime(i32 {_CLOCK_MONOTONIC}, ptr %time)
  %s = load i64, ptr %time, align 8
  %nsp = getelementptr i64, ptr %time, i64 1
  %ns = load i64, ptr %nsp, align 8
  %whole = mul i64 %s, 1000000000
  %now = add i64 %whole, %ns
  %last = load i64, ptr %block, align 8
  store i64 %now, ptr %block, align 8
  %first = icmp eq i64 %word, 0
  br i1 %first, label %done, label %add
add:
  %passed = sub i64 %now, %last
  %sump = getelementptr i64, ptr %block, i64 %word
  %sum = load i64, ptr %sump, align 8
  %more = add i64 %sum, %passed
  store i64 %more, ptr %sump, align 8
  %countp = getelementptr i64, ptr %sump, i64 1
  %count = load i64, ptr %countp, align 8
  %counted = add i64 %count, 1
  store i64 %counted, ptr %countp, align 8
  br label %done
done:
  ret void
}}"""


CLOCK = "declare i32 @clock_gettime(i32, ptr)"

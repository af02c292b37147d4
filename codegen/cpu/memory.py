"""Memory of one call of a program: segments that grow when they must and stay for the next call.

The frame's ``memory`` points to a block of words, zero before the first call: a status, words for
results of the host, then per segment its base and capacity in bytes and, where it has slots whose
sizes are symbolic, the sizes they had last and their offsets. Slots are placed anew
(``aisc_place``) only when a size has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aisc.codegen.abi import NO_MEMORY
from aisc.ir.dataclass import dataclass
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Const, Expr, Var
from aisc.ir.tensor.first_fit import ALIGNMENT
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import HostCall, Reserve

if TYPE_CHECKING:
    from aisc.codegen.cpu.entry import EntryEmitter

MAX_BYTES = float(1 << 40)  # more than this is not even asked for


@dataclass(frozen=True, slots=True)
class Words:
    """Numbers of the words of one segment; `total` holds the size its slots take together."""

    base: int
    capacity: int
    total: int
    sizes: int
    offsets: int
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """The layout of the block."""

    entry: str
    segments: dict[str, Words]
    words: int
    status: int = 0
    host: int = 1

    def spans(self, segment: str) -> str:
        """Name of the constant with the lifetimes of a segment's slots."""
        return f"@aisc.{self.entry}.{segment.replace('.', '_')}.spans"

    def globals(self) -> list[str]:
        """Constants that the code refers to."""
        found = []
        for name, words in self.segments.items():
            if words.slots:
                items = ", ".join(f"i64 {n}" for span in words.slots for n in span)
                kind = f"[{2 * len(words.slots)} x i64]"
                found.append(f"{self.spans(name)} = private constant {kind} [{items}], align 8")
        return found


def memory_of(entry: Func) -> Memory:
    """The layout of an entry's memory block."""
    results = max((len(n.binds) for n in walk(entry.body) if isinstance(n, HostCall)), default=0)
    at = 1 + results
    segments: dict[str, Words] = {}
    for n in walk(entry.body):
        if isinstance(n, Reserve) and n.segment not in segments:
            count = len(n.slots)
            spans = tuple((s.first, s.last) for s in n.slots)
            segments[n.segment] = Words(at, at + 1, at + 2, at + 3, at + 3 + count, spans)
            at += 3 + 2 * count
    return Memory("entry", segments, at)


def emit_reserve(em: EntryEmitter, memory: Memory, s: Reserve) -> str:
    """Code that makes a segment large enough; returns (and stores) the status, 0 or an error."""
    w, words = em.w, memory.segments[s.segment]
    size, large = em.scalar(s.size), _too_large(em, [s.size, *(x.size for x in s.slots)])
    if s.slots:
        size = _placed(em, memory, s, words, large)
    w.declare("declare i64 @aisc_reserve(ptr, i64, i1)")
    keep = "true" if s.keep else "false"
    asked = w.let(f"select i1 {large}, i64 -1, i64 {size}") if large != "false" else size
    call = f"call i64 @aisc_reserve(ptr {em.word(words.base)}, i64 {asked}, i1 {keep})"
    status = w.let(call)
    w.line(f"store i64 {status}, ptr {em.word(memory.status)}, align 8")
    failed = w.let(f"icmp ne i64 {status}, 0")
    end = w.open_if(failed)
    em.fail(str(NO_MEMORY))
    w.close_if(end)
    return status


def _placed(em: EntryEmitter, memory: Memory, s: Reserve, words: Words, large: str) -> str:
    """Code that places the slots where a size has changed; gives the bytes they take."""
    w = em.w
    changed = "false"
    for k, slot in enumerate(s.slots):
        size = em.scalar(slot.size)
        up = w.let(f"add i64 {size}, {ALIGNMENT - 1}")
        whole = w.let(f"and i64 {up}, {-ALIGNMENT}")
        old = w.let(f"load i64, ptr {em.word(words.sizes + k)}, align 8")
        if large != "false":  # sizes that overflow are neither placed nor remembered
            whole = w.let(f"select i1 {large}, i64 {old}, i64 {whole}")
        differs = w.let(f"icmp ne i64 {old}, {whole}")
        w.line(f"store i64 {whole}, ptr {em.word(words.sizes + k)}, align 8")
        changed = differs if changed == "false" else w.let(f"or i1 {changed}, {differs}")
    end = w.open_if(changed)
    w.declare("declare i64 @aisc_place(ptr, ptr, ptr, i64)")
    total = w.let(
        f"call i64 @aisc_place(ptr {em.word(words.sizes)}, ptr {em.word(words.offsets)}, "
        f"ptr {memory.spans(s.segment)}, i64 {len(s.slots)})"
    )
    w.line(f"store i64 {total}, ptr {em.word(words.total)}, align 8")
    w.close_if(end)
    return w.let(f"load i64, ptr {em.word(words.total)}, align 8")


def _too_large(em: EntryEmitter, sizes: list[Expr]) -> str:
    """An i1: whether sizes add up to more than is possible, computed in doubles, which do not
    wrap around."""
    dynamic = [e for e in sizes if not isinstance(e, Const)]
    if not dynamic:
        return "false"
    w, total = em.w, "0.0"
    for e in dynamic:
        total = w.let(f"fadd double {total}, {_double(em, e)}")
    return w.let(f"fcmp ogt double {total}, {MAX_BYTES:.1f}")


def _double(em: EntryEmitter, e: Expr) -> str:
    """A size as a double, at least what it is exactly."""
    w = em.w
    if isinstance(e, Const):
        return f"{float(e.value):.1f}"
    if isinstance(e, Var):
        return w.let(f"sitofp i64 {em.scalar(e)} to double")
    if isinstance(e, Binary) and e.op in ("add", "sub", "mul", "floordiv"):
        a, b = _double(em, e.a), _double(em, e.b)
        op = {"add": "fadd", "sub": "fsub", "mul": "fmul", "floordiv": "fdiv"}[e.op]
        return w.let(f"{op} double {a}, {b}")
    if isinstance(e, Binary) and e.op in ("min", "max", "mod"):
        a, b = _double(em, e.a), _double(em, e.b)
        sign = "olt" if e.op == "min" else "ogt"
        if e.op == "mod":
            return b
        test = w.let(f"fcmp {sign} double {a}, {b}")
        return w.let(f"select i1 {test}, double {a}, double {b}")
    return w.let(f"sitofp i64 {em.value(e).ref} to double")

"""The assembler of DSAs: a tensorized Func as an instruction stream, and its cycles.

Loops around instructions are executed here, so the stream is straight: one line for each
instruction, with the operands' addresses. Tiles get addresses in their memory one after the
other. Nests without instructions are the host's work and stand as ``host`` lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, For, If, Invoke, Region, Seq, Stmt
from aisc.ir.tensor.thread_trace import index_value
from aisc.ir.tensor.visitor import substitute, written_buffers

MAX_INSTRUCTIONS = 1 << 20


@dataclass(frozen=True, slots=True)
class Operand:
    """Where an operand lies: a memory of the target or a buffer in global memory, the byte offset
    in it, and byte strides of the operand's dimensions."""

    place: str
    local: bool
    offset: int
    strides: tuple[int, ...]

    def __str__(self) -> str:
        rows = "/".join(map(str, self.strides[:-1]))
        if self.local:
            return f"{self.place}:{self.offset:#06x}/{rows}"
        return f"{self.place}+{self.offset:#x}/{rows}"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the stream."""

    name: str
    operands: tuple[Operand, ...]
    args: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {', '.join([*map(str, self.operands), *(f'#{a}' for a in self.args)])}"


@dataclass(frozen=True, slots=True)
class HostStep:
    """A nest without instructions, which the host runs between instructions."""

    work: Stmt

    def __str__(self) -> str:
        return f"host -> {', '.join(b.name for b in written_buffers(self.work))}"


@dataclass(frozen=True, slots=True)
class Listing:
    """An instruction stream.

    counts: executions by instruction; cycles: by unit, as if it never waited; memory: bytes used
    of each memory. `serial` is the time without any overlap, `overlapped` that of units which
    never wait for each other: the truth lies between.
    """

    steps: tuple[Instruction | HostStep, ...]
    counts: Mapping[str, int]
    cycles: Mapping[str, int]
    memory: Mapping[str, int]

    @property
    def serial(self) -> int:
        """Cycles when every instruction waits for the one before."""
        return sum(self.cycles.values())

    @property
    def overlapped(self) -> int:
        """Cycles of the busiest unit."""
        return max(self.cycles.values(), default=0)

    @property
    def text(self) -> str:
        """The stream with a head that says what it needs and takes."""
        used = [f"; {space}: {size} bytes" for space, size in self.memory.items()]
        spent = [f"; {unit}: {count} cycles" for unit, count in self.cycles.items()]
        return "\n".join([*used, *spent, *map(str, self.steps), ""])


def assemble(func: Func, target: Target) -> Listing:
    """The instruction stream of a lowered, tensorized function of constant sizes; E402 where a
    memory is too small or the target lacks an instruction."""
    if func.dims:
        raise error("E402", f"{func.name}: an instruction stream needs constant sizes")
    addresses, used = _place(func, target)
    walker = _Assembler(target, addresses)
    walker.stmt(func.body, {})
    counts = dict(sorted(walker.counts.items()))
    return Listing(tuple(walker.steps), counts, dict(sorted(walker.cycles.items())), used)


def _place(func: Func, target: Target) -> tuple[dict[str, int], dict[str, int]]:
    """Byte addresses of tiles, and bytes used by memory."""
    addresses: dict[str, int] = {}
    used: dict[str, int] = {}
    for n in walk(func.body):
        if not isinstance(n, Alloc) or n.buffer.space == "global":
            continue
        b = n.buffer
        start = -(-used.get(b.space, 0) // b.dtype.bytes) * b.dtype.bytes
        size = b.bytes
        if not isinstance(size, int):
            raise error("E402", f"{func.name}: the size of {b.name} is not constant")
        addresses[b.name] = start
        used[b.space] = start + size
        room = target.memory(b.space).bytes
        if used[b.space] > room:
            raise error(
                "E402",
                f"{func.name} does not fit the {b.space} of {target.name}",
                f"expected at most {room} bytes, got {used[b.space]} with {b.name}: {b.type}",
            )
    return addresses, dict(sorted(used.items()))


@dataclass(slots=True)
class _Assembler:
    target: Target
    addresses: Mapping[str, int]
    steps: list[Instruction | HostStep] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    cycles: dict[str, int] = field(default_factory=dict)

    def stmt(self, s: Stmt, env: dict[str, int]) -> None:
        """Append the instructions of `s` with the given loop values."""
        if isinstance(s, Alloc):
            return
        if isinstance(s, Invoke):
            self.instruction(s, env)
        elif isinstance(s, Seq):
            for child in s.stmts:
                self.stmt(child, env)
        elif not any(isinstance(n, Invoke) for n in walk(s)):
            values: dict[Var, Expr] = {Var(name): Const(i) for name, i in env.items()}
            self.steps.append(HostStep(substitute(s, values)))
        elif isinstance(s, For):
            for i in self.turns(s, env):
                self.stmt(s.body, {**env, s.var.name: i})
        elif isinstance(s, If):
            arm = s.then if index_value(s.cond, env) else s.other
            if arm is not None:
                self.stmt(arm, env)
        else:
            raise error("E402", f"instructions inside {type(s).__name__} cannot be assembled")

    def turns(self, s: For, env: Mapping[str, int]) -> Iterator[int]:
        """Values of a loop's variable."""
        low = index_value(s.low, env)
        return iter(range(low, low + index_value(s.extent, env)))

    def instruction(self, s: Invoke, env: Mapping[str, int]) -> None:
        """Encode one instruction and count its cycles."""
        found = self.target.intrinsic(s.intrinsic)
        args = tuple(index_value(a, env) for a in s.args)
        operands = tuple(
            self.operand(r, p, env) for r, p in zip(s.operands, found.semantics.params, strict=True)
        )
        self.steps.append(Instruction(s.intrinsic, operands, args))
        if len(self.steps) > MAX_INSTRUCTIONS:
            raise error("E402", f"more than {MAX_INSTRUCTIONS} instructions")
        self.counts[s.intrinsic] = self.counts.get(s.intrinsic, 0) + 1
        self.cycles[found.unit] = self.cycles.get(found.unit, 0) + found.cycles(*args)

    def operand(self, r: Region, param: Buffer, env: Mapping[str, int]) -> Operand:
        """The operand's place; dimensions of extent 1 that the instruction lacks are dropped."""
        b = r.buffer
        steps = [_static(d, b) * b.dtype.bytes for d in b.strides]
        sizes = [index_value(e, env) for e in r.extent]
        offset = sum(index_value(e, env) * n for e, n in zip(r.low, steps, strict=True))
        excess = b.rank - param.rank
        strides: list[int] = []
        for size, step in zip(sizes, steps, strict=True):
            if size == 1 and excess > 0:
                excess -= 1
            else:
                strides.append(step)
        start = self.addresses.get(b.name)
        if start is None:
            return Operand(b.name, False, offset, tuple(strides))
        return Operand(b.space, True, start + offset, tuple(strides))


def _static(d: object, b: Buffer) -> int:
    if not isinstance(d, int):
        raise error("E402", f"the strides of {b.name} are not constant")
    return d

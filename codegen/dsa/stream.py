"""A kernel as a stream of instructions that is never written out: its loops as a Python function.

A *site* is an instruction of the kernel's text; where its operands lie and how they are walked over
does not change. Each time it is reached the function gives its number, the values of its dimensions
and the offset of each operand. Networks of millions of instructions are a few lines each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aisc.ir.accelerator import TokenQueue
from aisc.ir.arith.poly import Dim, sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Binary, Const, Expr, Select, Unary, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import Alloc, For, Handover, If, Invoke, Region, Seq, Stmt
from aisc.passes.tensor.handovers import ahead_of
from aisc.passes.tensor.vector_programs import instructions_of, programs_of

# What an execution of a site is: its number, values of dimensions, offsets of operands in bytes.
Execution = tuple[int, tuple[int, ...], tuple[int, ...]]
_SIGNS = {
    "add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "and", "or": "or",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operand of a site lies: a memory of the target, or a buffer in global memory; byte
    strides of the operand's dimensions; its sizes, each a number or which dimension it is."""

    name: str
    local: bool
    param: Buffer
    strides: tuple[int, ...]
    sizes: tuple[int | str, ...]
    written: bool

    @staticmethod
    def of(name: str, local: bool, param: Buffer, strides: tuple[int, ...]) -> Place:
        """The place of an operand that stands for a parameter of its instruction."""
        sizes = tuple(_size(d) for d in param.shape)
        return Place(name, local, param, strides, sizes, param.role == "output")

    def shape(self, dims: Mapping[str, int]) -> tuple[int, ...]:
        """The sizes of one execution."""
        return tuple(n if isinstance(n, int) else dims[n] for n in self.sizes)


@dataclass(frozen=True, slots=True)
class Site:
    """An instruction in the text of a kernel."""

    intrinsic: Intrinsic
    places: tuple[Place, ...]
    dims: tuple[str, ...]

    @property
    def name(self) -> str:
        """The instruction's name."""
        return self.intrinsic.name

    @property
    def unit(self) -> str:
        """What executes it."""
        return self.intrinsic.unit


@dataclass(frozen=True, slots=True)
class Signal:
    """A unit gives a token to another, or takes one from it."""

    queue: TokenQueue
    gives: bool

    @property
    def name(self) -> str:
        """What the unit does."""
        return f"{'give' if self.gives else 'take'} {self.queue.name}"

    @property
    def unit(self) -> str:
        """Whose queue it stands in."""
        return self.queue.giver if self.gives else self.queue.taker


class Code:
    """The instructions of a kernel: its operands, the bytes that it needs of each memory, programs
    of the vector unit, and sites, which are executed in some order. `layer` is what it computes of
    the model."""

    name: str
    layer: str
    params: tuple[Buffer, ...]
    memory: dict[str, int]
    programs: dict[str, str]
    sites: list[Site | Signal]

    def __iter__(self) -> Iterator[Execution]:
        """All executions in order."""
        raise NotImplementedError


class Stream(Code):
    """The stream of a lowered kernel of instructions; E402 where it does not fit the memories."""

    def __init__(self, func: Func, target: Target) -> None:
        if func.dims:
            raise error("E402", f"{func.name}: an instruction stream needs constant sizes")
        self.name, self.params, self.layer = func.name, func.params, _layer(func)
        self.addresses, self.memory = _place(func, target)
        self.sites, self.programs = [], programs_of(func)
        self._instructions = instructions_of(func, target)
        self._tokens = () if target.chip is None else target.chip.tokens
        self._lines = ["def stream():"]
        ahead = [(q, n) for q in self._tokens if (n := ahead_of(func, q))]
        for queue, count in ahead:
            self._signal(queue, (True,), 1, count)
        self._stmt(func.body, 1)
        for queue, count in ahead:  # for the next kernel to start from
            self._signal(queue, (False,), 1, count)
        self._lines.append("    yield from ()")
        names: dict[str, object] = {}
        exec("\n".join(self._lines), {"min": min, "max": max}, names)  # of our own text only
        self._walk = names["stream"]

    def __iter__(self) -> Iterator[Execution]:
        """All executions in order."""
        return self._walk()  # type: ignore[operator, no-any-return]

    def _stmt(self, s: Stmt, depth: int) -> None:
        pad = "    " * depth
        if isinstance(s, Invoke):
            self._lines.append(f"{pad}yield {self._site(s)}")
        elif isinstance(s, Handover):
            pair = s.giver, s.taker
            queue = next((q for q in self._tokens if (q.giver, q.taker) == pair), None)
            if queue is None:
                raise error("E402", f"{self.name}: no tokens pass from {s.giver} to {s.taker}")
            self._signal(queue, (True, False), depth)
        elif isinstance(s, Seq):
            for x in s.stmts:
                self._stmt(x, depth)
        elif isinstance(s, For):
            low, name = _text(s.low), _name(s.var)
            self._lines.append(f"{pad}for {name} in range({low}, {low} + {_text(s.extent)}):")
            self._body(s.body, depth)
        elif isinstance(s, If):
            self._lines.append(f"{pad}if {_text(s.cond)}:")
            self._body(s.then, depth)
            if s.other is not None:
                self._lines.append(f"{pad}else:")
                self._body(s.other, depth)
        elif not isinstance(s, Alloc):
            raise error("E402", f"{self.name}: {type(s).__name__} is no instruction")

    def _body(self, s: Stmt, depth: int) -> None:
        self._stmt(s, depth + 1)
        self._lines.append(f"{'    ' * (depth + 1)}pass")

    def _signal(
        self, queue: TokenQueue, gives: tuple[bool, ...], depth: int, times: int = 1
    ) -> None:
        """Tokens of a queue, given or taken or both."""
        for each in gives:
            self.sites.append(Signal(queue, each))
            line = f"yield {len(self.sites) - 1}, (), ()"
            self._lines += [f"{'    ' * depth}{line}"] * times

    def _site(self, s: Invoke) -> str:
        found = self._instructions[s.intrinsic]
        params = found.semantics.params
        pairs = list(zip(s.operands, params, strict=True))
        places = tuple(self._operand(r, p) for r, p in pairs)
        self.sites.append(Site(found, places, tuple(v.name for v in found.semantics.dims)))
        args = "".join(f"{_text(a)}, " for a in s.args)
        offsets = "".join(f"{self._offset(r)}, " for r, _ in pairs)
        return f"{len(self.sites) - 1}, ({args}), ({offsets})"

    def _offset(self, r: Region) -> str:
        terms = [str(self.addresses.get(r.buffer.name, 0))]
        for low, stride in zip(r.low, _steps(r.buffer), strict=True):
            text = _text(low)
            terms += [] if text == "0" else [f"{text} * {stride}"]
        return " + ".join(terms)

    def _operand(self, r: Region, param: Buffer) -> Place:
        """The operand's place; dimensions of extent 1 that the instruction lacks are dropped."""
        steps = _steps(r.buffer)
        strides = [0 if d is None else steps[d] * max(r.steps[d], 1) for d in r.dims_of(param.rank)]
        local = r.buffer.name in self.addresses
        place = r.buffer.space if local else r.buffer.name
        return Place.of(place, local, param, tuple(strides))


def _layer(func: Func) -> str:
    """The first node of the model that a kernel computes, or else its name."""

    def first(loc: Loc) -> str:
        return loc.node or next((n for part in loc.parts if (n := first(part))), "")

    return first(func.loc) or func.name


def _size(d: Dim) -> int | str:
    if isinstance(d, int):
        return d
    symbol = sole_symbol(d)
    if symbol is None:
        raise error("E402", "a size of an operand is neither a number nor a dimension", str(d))
    return symbol.name


def _steps(b: Buffer) -> list[int]:
    found = []
    for d in b.strides:
        if not isinstance(d, int):
            raise error("E402", f"the strides of {b.name} are not constant")
        found.append(d * b.dtype.bytes)
    return found


def _place(func: Func, target: Target) -> tuple[dict[str, int], dict[str, int]]:
    """Byte addresses of tiles, and bytes used by memory."""
    addresses: dict[str, int] = {}
    used: dict[str, int] = {}
    for n in walk(func.body):
        if not isinstance(n, Alloc) or n.buffer.space == "global":
            continue
        b, memory = n.buffer, target.memory(n.buffer.space)
        row = max(memory.width, b.dtype.bytes)
        start = -(-used.get(b.space, 0) // row) * row
        size = b.bytes
        if not isinstance(size, int):
            raise error("E402", f"{func.name}: the size of {b.name} is not constant")
        addresses[b.name] = start
        used[b.space] = start + size
        if used[b.space] > memory.bytes:
            raise error(
                "E402",
                f"{func.name} does not fit the {b.space} of {target.name}",
                f"expected at most {memory.bytes} bytes, got {used[b.space]} with {b.name}: "
                f"{b.type}",
            )
    return addresses, dict(sorted(used.items()))


def _name(v: Var) -> str:
    return "v_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c)}_" for c in v.name)


def _text(e: Expr) -> str:
    """An index as an expression of Python."""
    if isinstance(e, Const):
        return str(int(e.value))
    if isinstance(e, Var):
        return _name(e)
    if isinstance(e, Binary) and e.op in _SIGNS:
        return f"({_text(e.a)} {_SIGNS[e.op]} {_text(e.b)})"
    if isinstance(e, Binary) and e.op in ("min", "max"):
        return f"{e.op}({_text(e.a)}, {_text(e.b)})"
    if isinstance(e, Select):
        return f"({_text(e.then)} if {_text(e.cond)} else {_text(e.other)})"
    if isinstance(e, Unary) and e.op == "neg":
        return f"(-{_text(e.a)})"
    raise error("E402", f"{type(e).__name__} is no index of an instruction")

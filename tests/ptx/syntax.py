"""PTX text as data: kernels, their variables, and instructions in basic blocks.

What is read is what LLVM's NVPTX back end writes (PTX ISA 8): a statement in a line or several,
variables of a kernel in front of its instructions.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import networkx as nx


class PtxError(Exception):
    """Text that is no PTX this machine knows."""


@dataclass(frozen=True, slots=True)
class Reg:
    """A register by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Imm:
    """A number: the bits of a float where `bits` says how many, else an integer."""

    value: int
    bits: int = 0


@dataclass(frozen=True, slots=True)
class Name:
    """A variable or a label."""

    name: str


@dataclass(frozen=True, slots=True)
class Address:
    """What stands in brackets: a register, a variable or a number, and bytes behind it."""

    base: Reg | Name | Imm
    offset: int


@dataclass(frozen=True, slots=True)
class Several:
    """A tuple in braces, or a result and its predicate."""

    parts: tuple[Operand, ...]


Operand = Reg | Imm | Name | Address | Several


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its line in the text, guard, opcode with modifiers, operands."""

    line: int
    text: str
    guard: str
    negated: bool
    parts: tuple[str, ...]
    operands: tuple[Operand, ...]

    @property
    def opcode(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a memory: bytes, alignment, and what it holds at first."""

    name: str
    space: str
    bytes: int
    align: int
    initial: bytes | None = None


@dataclass(slots=True)
class Block:
    """A basic block: its instructions, and the labels of what follows where it does not end so."""

    label: str
    body: list[Instruction] = field(default_factory=list)
    next: int = -1
    rank: int = 0


@dataclass(slots=True)
class Kernel:
    """An entry: parameters by name with their bytes, registers by name with their bits."""

    name: str
    params: list[tuple[str, int]] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    threads: tuple[int, int, int] | None = None
    blocks: list[Block] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Module:
    """A module: its kernels and the variables that all of them see."""

    kernels: dict[str, Kernel] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)


# After these all or some threads go on elsewhere, or only together.
ENDS = ("bra", "ret", "exit", "trap")
MEETS = ("bar", "barrier", "shfl", "vote", "redux", "mma", "ldmatrix", "stmatrix", "match")
_BITS = {"pred": 1}
_VARIABLE = re.compile(
    r"(?:\.extern\s+)?\.(global|shared|const|local)\s+(?:\.align\s+(\d+)\s+)?\.([busf]\d+)\s+([\w$.]+)"
    r"(?:\[(\d*)\])?(?:\s*=\s*(.*))?$"
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%[\w$]+)(?:<(\d+)>)?$")
_PARAM = re.compile(
    r"\.param\s+(?:\.align\s+\d+\s+)?\.([busf]\d+|pred)\b.*?([\w$]+)(?:\[(\d+)\])?,?$"
)
_OPERAND = re.compile(r"[^\s,{}\[\]]+|[{}\[\],]")


def parse(text: str) -> Module:
    """A module of one or several translation units, one behind the other."""
    return _Parser().run(text)


class _Parser:
    def __init__(self) -> None:
        self.module, self.kernel = Module(), None
        self.inside = False

    def run(self, text: str) -> Module:
        begun = ""
        for number, line in enumerate(text.splitlines(), 1):
            code = f"{begun} {line.split('//')[0].strip()}".strip()
            if self.inside and code and code[0] not in "{}." and code[-1] not in ";:":
                begun = code  # it goes on in the next line
                continue
            begun = ""
            for statement in _statements(code):
                try:
                    self.statement(statement, number)
                except (ValueError, KeyError, struct.error) as fault:
                    raise PtxError(f"line {number}: {statement}: {fault}") from None
        for kernel in self.module.kernels.values():
            _link(kernel)
        return self.module

    def statement(self, code: str, line: int) -> None:
        kernel: Kernel | None = self.kernel
        if code.startswith((".version", ".target", ".address_size", ".file", ".loc", ".pragma")):
            return
        if entry := re.match(r"(?:\.\w+\s+)*\.entry\s+([\w$]+)", code):
            self.kernel = self.module.kernels[entry[1]] = Kernel(entry[1])
        elif code == "{":
            self.inside = True
        elif code == "}":
            self.kernel, self.inside = None, False
        elif variable := _VARIABLE.match(code):
            made = _variable(variable)
            into = kernel.variables if kernel and self.inside else self.module.variables
            if made not in into:
                if any(v.name == made.name for v in into):
                    raise ValueError("another variable has this name")
                into.append(made)
        elif kernel is None:
            raise ValueError("nothing that stands outside of kernels")
        elif code.startswith(".param"):
            kernel.params.append(_param(code))
        elif code.startswith((".reqntid", ".maxntid")):
            sizes = [int(n) for n in re.findall(r"\d+", code)]
            x, y, z = (*sizes, 1, 1)[:3]
            kernel.threads = (x, y, z) if code.startswith(".reqntid") else kernel.threads
        elif found := _REGISTERS.match(code):
            _declare(kernel, found)
        elif code in ("(", ")") or code.startswith((".minnctapersm", ".maxnreg")):
            return
        elif code.startswith("."):
            raise ValueError("unknown directive")
        else:
            _put(kernel, code, line)


def _statements(code: str) -> Iterator[str]:
    """The statements of a line, labels apart from what follows them."""
    while label := re.match(r"([\w$]+):(?!:)\s*", code):
        yield label[1] + ":"
        code = code[label.end() :]
    for part in code.split(";"):
        if part.strip():
            yield part.strip()


def _variable(found: re.Match[str]) -> Variable:
    space, align, kind, name, count, initial = found.groups()
    size = int(kind[1:]) // 8
    total = size * (1 if count is None else int(count or 0))
    data = None
    if initial is not None:
        numbers = [_number(x).value for x in re.findall(r"[-\w.]+", initial)]
        data = b"".join((n & ((1 << 8 * size) - 1)).to_bytes(size, "little") for n in numbers)
        data = data.ljust(total, b"\0")
    elif space in ("global", "const"):
        data = bytes(total)
    return Variable(name, space, total, int(align or size), data)


def _param(code: str) -> tuple[str, int]:
    found = _PARAM.match(code)
    if found is None:
        raise ValueError("no parameter")
    return found[2], int(found[1][1:]) // 8 * int(found[3] or 1)


def _declare(kernel: Kernel, found: re.Match[str]) -> None:
    bits = _BITS.get(found[1]) or int(found[1][1:])
    names = [f"{found[2]}{k}" for k in range(int(found[3]))] if found[3] else [found[2]]
    kernel.registers.update(dict.fromkeys(names, bits))


def _put(kernel: Kernel, code: str, line: int) -> None:
    """Add a label or an instruction; what ends or meets has a block of its own behind it."""
    blocks = kernel.blocks
    if code.endswith(":"):
        kernel.labels[code[:-1]] = len(blocks)
        blocks.append(Block(code[:-1]))
        return
    found = _instruction(code, line)
    if not blocks or (blocks[-1].body and _ends(blocks[-1].body[-1], found)):
        blocks.append(Block(""))
    blocks[-1].body.append(found)


def _ends(last: Instruction, new: Instruction) -> bool:
    return last.parts[0] in (*ENDS, *MEETS) or new.parts[0] in MEETS


def _instruction(code: str, line: int) -> Instruction:
    guard, negated, rest = "", False, code
    if found := re.match(r"@(!?)(%[\w$]+)\s+", code):
        guard, negated, rest = found[2], bool(found[1]), code[found.end() :]
    opcode, _, operands = rest.partition(" ") if "\t" not in rest else _cut(rest)
    parts = tuple(re.split(r"(?<!:)\.", opcode))
    return Instruction(line, code, guard, negated, parts, tuple(_operands(operands)))


def _cut(rest: str) -> tuple[str, str, str]:
    found = re.match(r"(\S+)\s*(.*)", rest)
    assert found is not None, rest
    return found[1], " ", found[2]


def _operands(text: str) -> Iterator[Operand]:
    tokens = _OPERAND.findall(text)
    at = 0
    while at < len(tokens):
        if tokens[at] == ",":
            at += 1
        elif tokens[at] in "{[":
            end = tokens.index("}" if tokens[at] == "{" else "]", at)
            inner = [t for t in tokens[at + 1 : end] if t != ","]
            yield (
                Several(tuple(_operand(t) for t in inner))
                if tokens[at] == "{"
                else _address("".join(inner))
            )
            at = end + 1
        else:
            yield _operand(tokens[at])
            at += 1


def _operand(token: str) -> Operand:
    if "|" in token:
        return Several(tuple(_operand(t) for t in token.split("|")))
    if token.startswith("%"):
        return Reg(token)
    if re.match(r"-?\d", token):
        return _number(token)
    return Name(token)


def _number(token: str) -> Imm:
    if token[:2] in ("0f", "0F", "0d", "0D"):
        return Imm(int(token[2:], 16), 32 if token[1] in "fF" else 64)
    if "." in token:
        return Imm(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)
    return Imm(int(token.rstrip("U"), 0))


def _address(text: str) -> Address:
    found = re.match(r"([%\w$.]+)(?:\+?((?<=\+)-?\d+|-\d+))?$", text)
    if found is None:
        raise ValueError(f"no address: {text}")
    base = _operand(text if text.isdigit() else found[1])
    assert isinstance(base, Reg | Name | Imm), text
    return Address(base, 0 if text.isdigit() else int(found[2] or 0))


# -- order of blocks -------------------------------------------------------------------------------


def _link(kernel: Kernel) -> None:
    """Number the blocks so that a loop stands together in front of what follows it: threads that
    leave it wait there for the others."""
    blocks = kernel.blocks
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(blocks)))
    for k, block in enumerate(blocks):
        last = block.body[-1] if block.body else None
        jumps = last is not None and last.parts[0] in ENDS
        if not jumps or (last is not None and last.guard):
            block.next = k + 1 if k + 1 < len(blocks) else -1
            if block.next >= 0:
                graph.add_edge(k, block.next)
        if last is not None and last.parts[0] == "bra":
            target = last.operands[0]
            assert isinstance(target, Name), last.text
            graph.add_edge(k, kernel.labels[target.name])
    for rank, k in enumerate(_ordered(graph, 0)):
        blocks[k].rank = rank


def _ordered(graph: nx.DiGraph[int], entry: int) -> list[int]:
    """Nodes in an order in which every loop is one piece, its head first."""
    cycles = nx.condensation(graph)
    found: list[int] = []
    for part in nx.topological_sort(cycles):
        members = set(cycles.nodes[part]["members"])
        if len(members) == 1:
            found += members
            continue
        inner = graph.subgraph(members).copy()
        outside = [v for u, v in graph.edges if v in members and u not in members]
        head = entry if entry in members else outside[0] if outside else min(members)
        inner.remove_edges_from(list(inner.in_edges(head)))
        found += _ordered(inner, head)
    return found

"""Kernels of an accelerator written out, and their text: what an assembler reads.

A kernel begins with `.kernel`, what it needs to be loaded (operands, bytes of memories, programs of
the vector unit), and ends with `.end`; between them stand instructions in program order, as
:func:`aisc.codegen.dsa.assembler.executed` writes one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from aisc.codegen.dsa.assembler import executed
from aisc.codegen.dsa.encoding import Format, Values
from aisc.codegen.dsa.stream import Code, Execution, Signal, Site
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Role, buffer
from aisc.ir.text import lexical
from aisc.passes.tensor.vector_programs import with_own

_NAME = r'"(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*'
_OPERAND = re.compile(rf"({_NAME})([:+])0x([0-9a-f]+)((?:/-?\d+)*)$")
_PARAM = re.compile(rf"\.param ({_NAME}) (\w+)\[([0-9, ]*)\] (input|output|weight)$")
_PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')


class Recorded(Code):
    """A kernel as all of its executions."""

    def __init__(
        self, target: Target, name: str, layer: str, params: Sequence[Buffer],
        memory: Mapping[str, int], programs: Mapping[str, str],
    ) -> None:  # fmt: skip
        self.name, self.layer, self.params = name, layer, tuple(params)
        self.memory, self.programs = dict(memory), dict(programs)
        self.format = Format(target, with_own(target, self.programs))
        self.sites: list[Site | Signal] = []
        self.executions: list[Execution] = []
        self._known: dict[Site | Signal | tuple[object, ...], int] = {}

    @property
    def buffers(self) -> list[str]:
        """The names of the operands."""
        return [p.name for p in self.params]

    def __iter__(self) -> Iterator[Execution]:
        """All executions in order."""
        return iter(self.executions)

    def add(self, name: str, values: Values) -> None:
        """One more instruction; ``ValueError`` where it is none."""
        signal = self.format.signals.get(name)
        if signal is not None:
            self.executions.append((self._number(signal, signal), (), ()))
            return
        site, args, offsets = self.format.site(name, values, self.buffers)
        key = name, tuple((p.name, p.strides) for p in site.places)
        self.executions.append((self._number(key, site), args, offsets))

    def _number(self, key: Site | Signal | tuple[object, ...], site: Site | Signal) -> int:
        if key not in self._known:
            self._known[key] = len(self.sites)
            self.sites.append(site)
        return self._known[key]


def recorded(code: Code, target: Target) -> Recorded:
    """A kernel written out, without instructions on nothing."""
    made = Recorded(target, code.name, code.layer, code.params, code.memory, code.programs)
    for number, args, offsets in code:
        site = code.sites[number]
        if isinstance(site, Signal):
            made.add(site.name, ())
        elif not _is_empty(site, args):
            made.add(site.name, made.format.values(site, args, offsets, made.buffers))
    return made


def _is_empty(site: Site, args: Sequence[int]) -> bool:
    dims = dict(zip(site.dims, args, strict=True))
    return any(0 in p.shape(dims) for p in site.places)


def text_of(codes: Iterable[Recorded], target: Target) -> str:
    """Kernels as text."""
    lines = [f".target {json.dumps(target.name)}"]
    for code in codes:
        lines += [f".kernel {json.dumps(code.name)}", f".layer {json.dumps(code.layer)}"]
        lines += [f".param {_param(p)}" for p in code.params]
        lines += [f".memory {m} {size}" for m, size in sorted(code.memory.items())]
        lines += [f".program {name} {text}" for name, text in sorted(code.programs.items())]
        lines += [executed(code.sites[x[0]], x) for x in code.executions]
        lines.append(".end")
    return "\n".join([*lines, ""])


def _param(p: Buffer) -> str:
    sizes = ", ".join(map(str, p.type.static_shape))
    return f"{lexical.name(p.name)} {p.dtype.name}[{sizes}] {p.role}"


def read_text(text: str, target: Target, file: str = "") -> list[Recorded]:
    """The kernels of a text; E107 with the line that is wrong, E506 for another target."""
    reader = _Reader(target)
    for number, line in enumerate(text.splitlines(), 1):
        try:
            reader.line(line.split(";")[0].strip() if line.startswith(";") else line.strip())
        except ValueError as fault:
            at = f"{file or 'the text'}:{number}"
            raise error("E107", f"{at}: {fault}", f"the line: {line}") from None
    if reader.open:
        raise error("E107", f"{file or 'the text'} ends in a kernel", "expected .end")
    return reader.codes


class _Reader:
    """Reads lines."""

    def __init__(self, target: Target) -> None:
        self.target, self.codes = target, list[Recorded]()
        self.open: dict[str, str] = {}
        self.params: list[Buffer] = []
        self.memory: dict[str, int] = {}
        self.programs: dict[str, str] = {}
        self.code: Recorded | None = None

    def line(self, line: str) -> None:
        """One line; ``ValueError`` says what is wrong with it."""
        word, _, rest = line.partition(" ")
        if not line:
            return
        if word == ".target":
            require_target(_text(rest), self.target)
        elif word == ".kernel":
            if self.open:
                raise ValueError("a kernel in another")
            self.open = {"kernel": _text(rest)}
            self.params, self.memory, self.programs, self.code = [], {}, {}, None
        elif not self.open:
            raise ValueError("it stands outside of a kernel")
        elif word.startswith("."):
            self.directive(word, rest, line)
        else:
            self.instruction(line)

    def directive(self, word: str, rest: str, line: str) -> None:
        """What a kernel needs, or its end."""
        if word == ".end":
            self.codes.append(self.started())
            self.open = {}
        elif self.code is not None:
            raise ValueError(f"{word} stands behind instructions")
        elif word == ".layer":
            self.open["layer"] = _text(rest)
        elif word == ".memory" and len(parts := rest.split()) == 2 and parts[1].isdigit():
            self.memory[parts[0]] = int(parts[1])
        elif word == ".program":
            name, _, table = rest.partition(" ")
            self.programs[name] = table
        elif word == ".param" and (found := _PARAM.match(line)):
            name, dtype, sizes, role = found.groups()
            self.params.append(param_of(_name(name), dtype, sizes, role))
        else:
            raise ValueError(f"there is no {line}")

    def started(self) -> Recorded:
        """The kernel with all that it needs."""
        if self.code is None:
            name = self.open["kernel"]
            self.code = made_code(
                self.target, name, self.open.get("layer", name), self.params, self.memory,
                self.programs,
            )  # fmt: skip
        return self.code

    def instruction(self, line: str) -> None:
        """An instruction, or a token."""
        code = self.started()
        if line in code.format.signals:
            code.add(line, ())
            return
        name, _, rest = line.partition(" ")
        found = code.format.instructions.get(name)
        if found is None:
            raise ValueError(f"{self.target.name} has no instruction {name}")
        parts = [p.strip() for p in _PART.findall(rest)]
        params, dims = found.semantics.params, found.semantics.dims
        if len(parts) != len(params) + len(dims):
            raise ValueError(f"{name} has {len(params)} operands and {len(dims)} numbers")
        values = [_number(p) for p in parts[len(params) :]]
        for param, part in zip(params, parts, strict=False):
            values += _operand(param, part, code.buffers)
        for f, value in zip(code.format.fields[name], values, strict=True):
            try:
                f.encoded(value, name)
            except CompileError as fault:
                raise ValueError(fault.diagnostics[0].message) from None
        code.add(name, tuple(values))


def made_code(
    target: Target, name: str, layer: str, params: Sequence[Buffer], memory: Mapping[str, int],
    programs: Mapping[str, str],
) -> Recorded:  # fmt: skip
    """A kernel without instructions; ``ValueError`` where a memory or a program is none."""
    try:
        for m in memory:
            target.memory(m)
        return Recorded(target, name, layer, params, memory, programs)
    except (CompileError, KeyError, TypeError, json.JSONDecodeError) as fault:
        raise ValueError(str(fault).splitlines()[0]) from None


def param_of(name: str, dtype: str, sizes: str, role: str) -> Buffer:
    """An operand of a kernel; ``ValueError`` where its type is none."""
    if not dtypes.exists(dtype) or role not in ("input", "output", "weight"):
        raise ValueError(f"there is no {role} of {dtype}")
    shape = tuple(int(n) for n in sizes.split(",")) if sizes else ()
    kind: Role = role  # type: ignore[assignment]
    return buffer(name, dtypes.dtype(dtype), shape, kind)


def require_target(name: str, target: Target) -> None:
    """E506 where a program is for another target."""
    if name != target.name:
        raise error("E506", f"the program is for {name}", f"got the description of {target.name}")


def _operand(param: Buffer, part: str, buffers: Sequence[str]) -> list[int]:
    """The fields of an operand."""
    found = _OPERAND.match(part)
    if found is None:
        raise ValueError(f"'{part}' is no operand")
    name, sign, address, rest = found.groups()
    name, head = _name(name), []
    if (sign == ":") != (param.space != "global") or (sign == ":" and name != param.space):
        raise ValueError(f"{param.name} lies in {param.space}, not in {name}")
    if sign == "+":
        if name not in buffers:
            raise ValueError(f"there is no operand {name}")
        head = [buffers.index(name)]
    strides = [int(s) for s in rest.split("/")[1:]]
    if len(strides) == param.rank - 1:
        strides.append(param.dtype.bytes)
    if len(strides) != param.rank:
        raise ValueError(f"{param.name} has {param.rank} strides")
    return [*head, int(address, 16), *strides]


def _number(part: str) -> int:
    if not re.fullmatch(r"#-?\d+", part):
        raise ValueError(f"'{part}' is no number")
    return int(part[1:])


def _name(text: str) -> str:
    return _text(text) if text.startswith('"') else text


def _text(text: str) -> str:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, str):
        raise ValueError(f"{text} is no text in quotes")
    return found

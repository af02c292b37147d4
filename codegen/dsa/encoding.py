"""How instructions of an accelerator are laid out as bits, as its description has them.

An instruction is its number, the values of its dimensions, and for each operand where it lies and
how many bytes its elements lie apart along each axis. Fields follow each other from the lowest bit,
in as many bits as their values need: a dimension that is at most so much, an address of a memory of
so many bytes; `[encoding]` says the rest. Tokens are instructions without fields. Instructions end
at whole units of `align` bits, so that the number says how long one is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from aisc.codegen.dsa.stream import Place, Signal, Site
from aisc.ir.accelerator import Accelerator, Encoding
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.intrinsic import Intrinsic

# What an instruction is as numbers: the values of its fields in order.
Values = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """Bits of an instruction: what they hold, and whether that may be below 0."""

    name: str
    bits: int
    signed: bool = False

    def encoded(self, value: int, of: str) -> int:
        """The bits of a value; E402 where it has more."""
        low = -(1 << self.bits - 1) if self.signed else 0
        if not low <= value < low + (1 << self.bits):
            raise error(
                "E402", f"{of}: {self.name} is {value}, which {self.bits} bits do not hold",
                "[encoding] of the description says how many there are",
            )  # fmt: skip
        return value & ((1 << self.bits) - 1)

    def decoded(self, bits: int) -> int:
        """The value of bits."""
        return bits - (1 << self.bits) if self.signed and bits >> (self.bits - 1) else bits


class Format:
    """The layout of all instructions of a target and of the programs of a kernel."""

    def __init__(self, target: Target, instructions: Mapping[str, Intrinsic]) -> None:
        self.target, self.instructions = target, instructions
        chip = target.chip
        assert chip is not None, "an accelerator"
        self.chip: Accelerator = chip
        self.encoding: Encoding = chip.encoding

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Instructions by number: those of the description, tokens, programs of the kernel."""
        own = sorted(set(self.instructions) - set(self.target.instructions))
        return (*sorted(self.target.instructions), *self.signals, *own)

    @cached_property
    def signals(self) -> dict[str, Signal]:
        """Tokens by name."""
        made = (Signal(q, gives) for q in self.chip.tokens for gives in (True, False))
        return {s.name: s for s in made}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each instruction."""
        return {name: k for k, name in enumerate(self.names)}

    @cached_property
    def opcode(self) -> Field:
        """The number of the instruction, which comes first."""
        return Field("the instruction", self.encoding.opcode)

    @cached_property
    def fields(self) -> dict[str, tuple[Field, ...]]:
        """What follows the number, by instruction."""
        return {n: self._fields(n) for n in self.names}

    def _fields(self, name: str) -> tuple[Field, ...]:
        found = self.instructions.get(name)
        if found is None:
            return ()
        e, fields = self.encoding, []
        for v in found.semantics.dims:
            most = found.most.get(v.name)
            fields.append(
                Field(v.name, e.size, True) if most is None else Field(v.name, most.bit_length())
            )
        for p in found.semantics.params:
            if p.space == "global":
                fields.append(Field(f"the buffer of {p.name}", e.buffer))
                fields.append(Field(f"the address of {p.name}", e.address))
            else:
                size = self.target.memory(p.space).bytes
                fields.append(Field(f"the address of {p.name}", size.bit_length()))
            fields += [Field(f"stride {d} of {p.name}", e.stride, True) for d in range(p.rank)]
        return tuple(fields)

    def length(self, name: str) -> int:
        """Bytes of an instruction."""
        bits = self.opcode.bits + sum(f.bits for f in self.fields[name])
        return -(-bits // self.encoding.align) * self.encoding.align // 8

    def encode(self, name: str, values: Values) -> bytes:
        """An instruction as bytes."""
        word, at = self.opcode.encoded(self.numbers[name], name), self.opcode.bits
        for f, value in zip(self.fields[name], values, strict=True):
            word |= f.encoded(value, name) << at
            at += f.bits
        return word.to_bytes(self.length(name), "little")

    def decode(self, data: bytes, at: int) -> tuple[str, Values, int]:
        """The instruction at a place: its name, the values of its fields, and where the next one
        is; ``ValueError`` says why there is none."""
        if at >= len(data):
            raise ValueError("it is cut off")
        head = int.from_bytes(data[at : at + 8], "little") & ((1 << self.opcode.bits) - 1)
        if head >= len(self.names):
            raise ValueError(f"there is no instruction {head}")
        name = self.names[head]
        end = at + self.length(name)
        if end > len(data):
            raise ValueError(f"{name} is cut off")
        word = int.from_bytes(data[at:end], "little") >> self.opcode.bits
        values = []
        for f in self.fields[name]:
            values.append(f.decoded(word & ((1 << f.bits) - 1)))
            word >>= f.bits
        if word:
            raise ValueError(f"bits behind the fields of {name} are set")
        return name, tuple(values), end

    def values(
        self, site: Site, args: Sequence[int], offsets: Sequence[int], buffers: Sequence[str]
    ) -> Values:
        """The fields of an execution; `buffers` are the operands of the kernel."""
        found = list(args)
        for place, offset in zip(site.places, offsets, strict=True):
            found += [offset] if place.local else [buffers.index(place.name), offset]
            found += place.strides
        return tuple(found)

    def site(
        self, name: str, values: Values, buffers: Sequence[str]
    ) -> tuple[Site, tuple[int, ...], tuple[int, ...]]:
        """The instruction of such fields, its sizes and offsets; ``ValueError`` for a buffer that
        there is not."""
        found, left = self.instructions[name], iter(values)
        args = tuple(next(left) for _ in found.semantics.dims)
        places, offsets = [], []
        for p in found.semantics.params:
            local, where = p.space != "global", p.space
            if not local:
                number = next(left)
                if number >= len(buffers):
                    raise ValueError(f"{name} has no operand {number}")
                where = buffers[number]
            offsets.append(next(left))
            strides = tuple(next(left) for _ in range(p.rank))
            places.append(Place.of(where, local, p, strides))
        dims = tuple(v.name for v in found.semantics.dims)
        return Site(found, tuple(places), dims), args, tuple(offsets)

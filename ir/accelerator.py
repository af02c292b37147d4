"""Parts of a systolic accelerator as data: its array, its DMA engines, its vector unit.

A description (:mod:`aisc.ir.description`) gives their numbers. All of them are names in the cost
formulas of its instructions, and words in the text of their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType, f32

# Where operands lie while the array works: rows that stream in, sums, and weights in its cells.
SCRATCHPAD, ACCUMULATOR, CELLS = "scratchpad", "accumulator", "array"
DATAFLOWS = ("WS", "OS")
SHORT = 16


@dataclass(frozen=True, slots=True)
class Array:
    """Rows by columns of cells. Weight stationary (WS): a cell keeps a weight, rows of the data
    stream through, sums leave at the columns' ends. Output stationary (OS): a cell keeps a sum,
    data and weights stream in from two sides. Where `weight_buffers` is 2, the next weights are
    loaded while the current ones are used."""

    rows: int
    columns: int
    inputs: tuple[DType, ...]
    weights: tuple[DType, ...]
    accumulator: DType
    outputs: tuple[DType, ...]
    dataflow: str = "WS"
    weight_buffers: int = 1

    @property
    def short_floats(self) -> tuple[DType, ...]:
        """Floats of 16 bits whose products it adds up in f32."""
        both = (t for t in self.inputs if t in self.weights) if self.accumulator is f32 else ()
        return tuple(t for t in both if t.is_float and t.bits == SHORT)


@dataclass(frozen=True, slots=True)
class Dma:
    """An engine that moves tiles: bytes in a cycle, cycles until the first arrives, requests under
    way at a time, and dimensions that one request walks over."""

    name: str
    width: int
    latency: int
    outstanding: int = 1
    dimensions: int = 3


@dataclass(frozen=True, slots=True)
class TokenQueue:
    """Tokens that a unit gives and another takes, which so waits for what the first has done:
    `depth` of them have room."""

    name: str
    giver: str
    taker: str
    depth: int


@dataclass(frozen=True, slots=True)
class Encoding:
    """Bits of the fields of instructions whose values nothing else bounds: the number of the
    instruction, sizes, strides, operands of a kernel, addresses in global memory; and the multiple
    of bits that an instruction has."""

    opcode: int = 8
    size: int = 24
    stride: int = 32
    buffer: int = 8
    address: int = 40
    align: int = 8


@dataclass(frozen=True, slots=True)
class Proxies:
    """Numbers by which designs are compared, and which measure nothing: square micrometres of a
    cell and of a byte of local memory; picojoules of a multiply-add, of a byte that goes past the
    array and of a byte from or to global memory. By default those of 45 nm and 8 bits (Horowitz,
    *Computing's energy problem*, ISSCC 2014)."""

    area_cell: float = 420.0
    area_byte: float = 4.0
    energy_mac: float = 0.23
    energy_byte: float = 1.25
    energy_global_byte: float = 160.0


@dataclass(frozen=True, slots=True)
class Accelerator:
    """What an accelerator is made of. On their way out, `vector_width` sums of a row pass the
    vector unit in a cycle, which has these operations, up to `vector_stages` of them in a pass;
    `queues` are the instructions that wait before each unit. Where there are `tokens`, units wait
    for nothing else; without, for what others still read and write at the same addresses."""

    array: Array
    dmas: tuple[Dma, ...] = ()
    vector_width: int = 1
    vector_operations: frozenset[str] = frozenset()
    vector_stages: int = 1
    queues: Mapping[str, int] = field(default_factory=dict, hash=False)
    proxies: Proxies = field(default_factory=Proxies, hash=False, compare=False)
    tokens: tuple[TokenQueue, ...] = ()
    encoding: Encoding = field(default_factory=Encoding, hash=False, compare=False)

    def parameters(self) -> dict[str, int]:
        """The numbers by the names that they have in cost formulas."""
        found = {
            "rows": self.array.rows,
            "columns": self.array.columns,
            "weight_buffers": self.array.weight_buffers,
            "vector_width": self.vector_width,
        }
        for dma in self.dmas:
            found[f"{dma.name}_width"] = dma.width
            found[f"{dma.name}_latency"] = dma.latency
        return found

    def dma(self, name: str) -> Dma | None:
        """An engine by name."""
        return next((d for d in self.dmas if d.name == name), None)

    def queue(self, unit: str) -> int:
        """How many instructions wait before a unit."""
        return self.queues.get(unit, DEFAULT_QUEUE)


DEFAULT_QUEUE = 8

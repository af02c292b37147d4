"""Target descriptions as TOML files: what may stand in one, in which unit and range.

The tables here are the schema: files are validated by them, and the page of the documentation is
written from them. E401 names file, key, unit and range.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.target import Costs, Memory, Target

if TYPE_CHECKING:
    from aisc.ir.accelerator import Accelerator
    from aisc.ir.dtypes import DType
    from aisc.ir.tensor.intrinsic import Intrinsic

MOST = 1 << 60


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a table: its type, unit and range, and what it means."""

    name: str
    kind: type
    doc: str
    unit: str = ""
    least: float = 0
    most: float = MOST
    required: bool = False

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.kind is str:
            return "text"
        if self.kind is list:
            return "a list of texts"
        what = "a whole number" if self.kind is int else "a number"
        most = "" if self.most >= MOST else f" to {self.most:g}"
        return f"{what} of {self.unit or 'units'}, from {self.least:g}{most or ' on'}"


TARGET = (
    Key("kind", str, "which back end: `cpu`, `simt`, `dsa` or that of a plug-in", required=True),
    Key("name", str, "what kernels and memory are marked with; by default that of the file"),
    Key("triple", str, "LLVM's name of architecture and system; by default the host's"),
    Key("arch", str, "LLVM's name of the processor"),
    Key("features", list, "LLVM's names of features, each with + or - before it"),
    Key("vector_bits", int, "width of a vector register", "bits", 8, 1 << 16),
    Key("vector_registers", int, "vector registers of a thread", "registers", 1, 1 << 16),
    Key("cores", int, "cores, or multiprocessors", "cores", 1, 1 << 20),
    Key("instruction_set", str, "of a systolic array: shipped instructions that it has, by name"),
)
MEMORY = (
    Key("bytes", int, "size", "bytes", 1, required=True),
    Key("bandwidth", float, "what moves in a cycle", "bytes per cycle"),
    Key(
        "ways", int, "ways of a cache: so many lines that lie a way apart stay", "ways", 1, 1 << 16
    ),
    Key(
        "banks",
        int,
        "of an accelerator's memory: parts that are accessed at the same time",
        "banks",
        1,
        1 << 16,
    ),
    Key("ports", int, "rows that a bank reads or writes in a cycle", "rows", 1, 64),
    Key("width", int, "a row of a bank", "bytes", 1, 1 << 16),
)
ARRAY = (
    Key("rows", int, "rows of cells: what is summed up at a time", "cells", 1, 1 << 14, True),
    Key("columns", int, "columns of cells: sums at a time", "cells", 1, 1 << 14, True),
    Key(
        "dataflow",
        str,
        "`WS`: weights stay in the cells, rows of data stream through; "
        "`OS`: sums stay there, data and weights stream in",
    ),
    Key("inputs", list, "element types of what streams in", required=True),
    Key("weights", list, "element types of weights", required=True),
    Key("accumulator", str, "element type of sums", required=True),
    Key("outputs", list, "element types that sums are rounded to on their way out"),
    Key(
        "weight_buffers",
        int,
        "sets of weights that cells hold: 2 where the next ones are loaded "
        "while the current ones are used",
        "sets",
        1,
        2,
    ),
)
DMA = (
    Key("width", int, "what it moves in a cycle", "bytes", 1, 1 << 16, True),
    Key("latency", int, "until the first byte of a request is there", "cycles", 0, 1 << 20, True),
    Key("outstanding", int, "requests under way at a time", "requests", 1, 1 << 16),
    Key("dimensions", int, "that a request walks over, each with a stride", "dimensions", 2, 8),
)
VECTOR = (
    Key("width", int, "elements of a row in a cycle", "elements", 1, 1 << 16, True),
    Key(
        "operations",
        list,
        "of the tensor IR that it has for maps of sums on their way out: `add`, "
        "`sub`, `mul`, `div`, `min`, `max`, `round`, `cast`, `select`, comparisons, functions",
    ),
    Key("stages", int, "operations in one pass over its elements", "operations", 1, 1 << 10),
)
QUEUE = (
    Key("depth", int, "instructions that wait before the unit", "instructions", 1, 1 << 16, True),
)
TOKEN = (
    Key("giver", str, "the unit that gives tokens, after what it did before", required=True),
    Key("taker", str, "the unit that takes them, before what it does next", required=True),
    Key("depth", int, "tokens that have room; the giver waits for it", "tokens", 1, 1 << 16, True),
)
ENCODING = (
    Key("opcode", int, "the number of an instruction", "bits", 1, 32),
    Key("size", int, "a dimension that has no `most`, and may be below 0", "bits", 1, 64),
    Key("stride", int, "from an element of an operand to the next along an axis", "bits", 1, 64),
    Key("buffer", int, "the number of an operand of the kernel", "bits", 1, 32),
    Key("address", int, "where an operand lies in global memory", "bits", 1, 64),
    Key("align", int, "what the length of an instruction is a multiple of", "bits", 8, 4096),
)
COSTS = (
    Key("parallel_work", int, "work from which on a kernel is divided among awake threads",
        "operations", 1),
    Key("fork_work", int, "work of a run from which on it wakes sleeping threads",
        "operations", 1),
    Key("follow_work", int, "the same where a run follows another so closely that they are awake",
        "operations", 1),
    Key("far_bytes", int, "operands of a kernel from which on they lie in no cache", "bytes", 1),
    Key("fma_latency", int, "from a multiply-add to the next that needs it", "cycles", 1, 1000),
    Key("fma_units", int, "vector multiply-adds that begin in a cycle", "instructions", 1, 64),
    Key("byte_work", int, "what a core computes while it reads a byte from memory",
        "operations", 1, 1 << 20),
    Key("masked_store", int, "from a store of some lanes of a vector to the next",
        "cycles", 1, 1000),
)  # fmt: skip
LIMIT = Key("limits", int, "a hard bound, by name", "whatever the name says", 0)
PROXIES = (
    Key("area_cell", float, "of a cell of the array", "square micrometres"),
    Key("area_byte", float, "of local memory", "square micrometres per byte"),
    Key("energy_mac", float, "of a multiply-add", "picojoules"),
    Key("energy_byte", float, "of what goes past the array", "picojoules per byte"),
    Key("energy_global_byte", float, "from and to global memory", "picojoules per byte"),
)
RATE = Key("rates", float, "operations in a cycle of a core, by name", "operations per cycle")
TABLES = (
    "target", "memory", "costs", "limits", "rates", "array", "dma", "vector", "queue",
    "token", "encoding", "proxies", "instruction",
)  # fmt: skip


def from_toml(text: str, source: str = "") -> Target:
    """A target from its description; E401 with the key that is wrong."""
    file = source or "the target"
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise error("E401", f"{file} is not valid TOML", str(fault)) from None
    _require_known(data, TABLES, file, "table")
    if "target" not in data:
        raise error("E401", f"{file} has no [target] table")
    head = _read(data["target"], TARGET, file, "target")
    head["features"] = tuple(sorted(head.get("features", ())))
    memories = _table(data, "memory", file)
    found: dict[str, Any] = {
        "name": Path(source).stem or "target",
        "source": text,
        **head,
        "memories": tuple(
            Memory(n, **_read(m, MEMORY, file, f"memory.{n}")) for n, m in memories.items()
        ),
        "costs": Costs(**_read(_table(data, "costs", file), COSTS, file, "costs")),
        "limits": _named(_table(data, "limits", file), LIMIT, file),
        "rates": _named(_table(data, "rates", file), RATE, file),
    }
    found["chip"] = _chip(data, found, file) if "array" in data else None
    found["instructions"] = _instructions(found, _table(data, "instruction", file))
    found["intrinsics"] = tuple(found["instructions"])
    if found["chip"] is not None:
        _require_units(found, file)
    return Target(**found)


def to_toml(target: Target) -> str:
    """The description of a target without instructions of its own."""
    lines = ["[target]"]
    for key in TARGET:
        value = getattr(target, key.name)
        if value not in ("", ()):
            lines.append(f"{key.name} = {_literal(value)}")
    for m in target.memories:
        lines += ["", f"[memory.{m.name}]", f"bytes = {m.bytes}", f"ways = {m.ways}"]
        lines += [f"bandwidth = {m.bandwidth}"] if m.bandwidth else []
    lines += ["", "[costs]"]
    lines += [f"{f.name} = {getattr(target.costs, f.name)}" for f in fields(Costs)]
    for name, table in (("limits", target.limits), ("rates", target.rates)):
        lines += ["", f"[{name}]", *(f"{k} = {v}" for k, v in table.items())] if table else []
    return "\n".join([*lines, ""])


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{v}"' for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _table(data: Mapping[str, Any], name: str, file: str) -> Mapping[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise error("E401", f"{file}: '{name}' must be a table", f"got {table!r}")
    return table


def _read(table: Any, keys: tuple[Key, ...], file: str, where: str) -> dict[str, Any]:
    """The entries of a table, checked."""
    if not isinstance(table, dict):
        raise error("E401", f"{file}: [{where}] must be a table", f"got {table!r}")
    _require_known(table, tuple(k.name for k in keys), file, f"key of [{where}]")
    missing = [k for k in keys if k.required and k.name not in table]
    if missing:
        key = missing[0]
        raise error("E401", f"{file}: {where}.{key.name} is missing", f"expected {key.expected}")
    return {k.name: _checked(k, table[k.name], file, where) for k in keys if k.name in table}


def _named(table: Mapping[str, Any], key: Key, file: str) -> dict[str, Any]:
    """A table of names that are not known here."""
    entry = {n: Key(n, key.kind, key.doc, key.unit, key.least, key.most) for n in table}
    return {n: _checked(entry[n], v, file, key.name) for n, v in table.items()}


def _checked(key: Key, value: Any, file: str, where: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        str: isinstance(value, str) and bool(value),
        list: isinstance(value, list) and all(isinstance(v, str) for v in value),
        int: number and isinstance(value, int),
        float: number,
    }[key.kind]
    if fits and number:
        fits = key.least <= value <= key.most
    if not fits:
        notes = (f"expected {key.expected}", f"got {value!r}", f"it is: {key.doc}")
        raise error("E401", f"{file}: {where}.{key.name} is wrong", *notes)
    return float(value) if key.kind is float else value


def _require_known(table: Mapping[str, Any], known: tuple[str, ...], file: str, what: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            notes = [f"did you mean '{near[0]}'?"] if near else []
            raise error(
                "E401", f"{file}: '{name}' is no {what}", *notes, f"known: {', '.join(known)}"
            )


def _chip(data: Mapping[str, Any], found: Mapping[str, Any], file: str) -> Accelerator:
    """The parts of an accelerator, which need its memories."""
    from aisc.ir.accelerator import (
        ACCUMULATOR,
        CELLS,
        DATAFLOWS,
        SCRATCHPAD,
        Accelerator,
        Array,
        Dma,
        Encoding,
        Proxies,
        TokenQueue,
    )

    table = _read(data["array"], ARRAY, file, "array")
    for key in ("inputs", "weights", "outputs"):
        names = table.get(key, ["f32"])
        if not names:
            note = "expected element types: i8, u8, i32, f32, …"
            raise error("E401", f"{file}: array.{key} is empty", note)
        table[key] = tuple(_type(t, f"array.{key}", file) for t in names)
    table["accumulator"] = _type(table["accumulator"], "array.accumulator", file)
    array = Array(**table)
    if array.dataflow not in DATAFLOWS:
        known = f"expected one of: {', '.join(DATAFLOWS)}"
        raise error("E401", f"{file}: array.dataflow is wrong", known, f"got '{array.dataflow}'")
    sizes = {m.name: m.bytes for m in found["memories"]}
    cells = array.rows * array.columns * max((t.bytes for t in array.weights), default=1)
    least = {SCRATCHPAD: 1, ACCUMULATOR: 1}
    least |= {CELLS: cells * array.weight_buffers} if array.dataflow == "WS" else {}
    for name, size in least.items():
        if sizes.get(name, 0) < size:
            what = f"{sizes[name]} bytes" if name in sizes else "no such memory"
            notes = (f"expected at least {size} bytes for [array]", f"got {what}")
            raise error("E401", f"{file}: memory.{name}.bytes is wrong or missing", *notes)
    dmas = tuple(
        Dma(n, **_read(t, DMA, file, f"dma.{n}")) for n, t in _table(data, "dma", file).items()
    )
    queues = {
        n: _read(t, QUEUE, file, f"queue.{n}")["depth"]
        for n, t in _table(data, "queue", file).items()
    }
    vector = _read(data["vector"], VECTOR, file, "vector") if "vector" in data else {}
    width, stages = vector.get("width", array.columns), vector.get("stages", 1)
    operations = frozenset(vector.get("operations", ()))
    proxies = Proxies(**_read(_table(data, "proxies", file), PROXIES, file, "proxies"))
    tokens = tuple(
        TokenQueue(n, **_read(t, TOKEN, file, f"token.{n}"))
        for n, t in _table(data, "token", file).items()
    )
    bits = _read(_table(data, "encoding", file), ENCODING, file, "encoding")
    if bits.get("align", 8) % 8:
        note = f"expected whole bytes, got {bits['align']} bits"
        raise error("E401", f"{file}: encoding.align is wrong", note)
    more = tokens, Encoding(**bits)
    return Accelerator(array, dmas, width, operations, stages, queues, proxies, *more)


def _require_units(found: Mapping[str, Any], file: str) -> None:
    """Tokens pass between units that instructions name, in one queue for each pair."""
    units = sorted({i.unit for i in found["instructions"].values()})
    pairs: dict[tuple[str, str], str] = {}
    for q in found["chip"].tokens:
        for key in ("giver", "taker"):
            if getattr(q, key) not in units:
                notes = (f"expected one of: {', '.join(units)}", f"got '{getattr(q, key)}'")
                raise error("E401", f"{file}: token.{q.name}.{key} is wrong", *notes)
        other = pairs.setdefault((q.giver, q.taker), q.name)
        if q.giver == q.taker or other != q.name:
            note = "expected another unit" if other == q.name else f"token.{other} has the same"
            raise error("E401", f"{file}: token.{q.name}.taker is wrong", note)


def _over(shipped: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The instructions of a set with those of a description, of which one without a meaning changes
    what else the set says of it."""
    found = dict(shipped)
    for name, table in own.items():
        changes = name in shipped and isinstance(table, dict) and "semantics" not in table
        found[name] = {**shipped[name], **table} if changes else table
    return found


def _type(name: str, where: str, file: str) -> DType:
    if not dtypes.exists(name):
        notes = ("expected element types: i8, u8, i32, f32, …", f"got {name!r}")
        raise error("E401", f"{file}: {where} is wrong", *notes)
    return dtypes.dtype(name)


def _instructions(found: dict[str, Any], table: Mapping[str, Any]) -> dict[str, Intrinsic]:
    if not all(isinstance(v, dict) for v in table.values()):
        raise error("E401", "[instruction] must hold one table for each instruction")
    text, chip, constants = "", found["chip"], dict(found["limits"])
    if chip is not None:
        constants |= chip.parameters()
    if "instruction_set" in found:
        if chip is None:
            note = "an instruction set is made for the [array] of a description"
            raise error("E401", "target.instruction_set without an [array]", note)
        from aisc.ir.instruction_sets import shipped

        text = shipped(found["instruction_set"])
        table = _over(tomllib.loads(text)["instruction"], table)
    if not table:
        return {}
    found["digest"] = hashlib.sha256(f"{found['source']}{text}".encode()).hexdigest()
    if chip is not None:
        from aisc.ir.instruction_sets import expanded

        table = expanded(table, chip, constants)
    # The parser of the tensor IR is only loaded for targets that declare instructions.
    from aisc.ir.tensor.intrinsic import from_table

    spaces = frozenset(m.name for m in found["memories"])
    return {n: from_table(n, table[n], constants, spaces) for n in sorted(table)}


__all__ = ["COSTS", "ENCODING", "MEMORY", "TARGET", "TOKEN", "Key", "from_toml", "to_toml"]

"""Parsing either IR, and the side file that holds the contents of constants.

``same(parse_graph(print_graph(g), blobs_of(g)), g)`` for graphs; functions and programs parse
back to equal ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph
from aisc.ir.node import walk
from aisc.ir.tensor.func import Func, Program
from aisc.ir.tensor.stmt import HostCall
from aisc.ir.text.parser_graph import parse_graph
from aisc.ir.text.parser_tensor import parse_func, parse_program
from aisc.ir.text.source import Source


def parse(
    text: str, blobs: Mapping[str, Blob] | None = None, file: str = ""
) -> Graph | Func | Program:
    """Whatever IR the text holds, by its first word; E107 on any fault."""
    first = re.match(r"(?:\s|//[^\n]*)*(\w*)", text)
    word = first[1] if first else ""
    if word == "graph":
        return parse_graph(text, blobs, file)
    if word == "func":
        return parse_func(text, blobs, file)
    if word == "program":
        return parse_program(text, blobs, file)
    source = Source(text, file)
    place = source.place(first.start(1) if first else 0)
    raise source.error(*place, "expected 'graph', 'func' or 'program'")


def blobs_of(x: Graph | Func | Program) -> dict[str, Blob]:
    """Every blob of a piece of IR, by hash."""
    return {b.digest: b for b in _blobs(x)}


def _blobs(x: Graph | Func | Program) -> Iterator[Blob]:
    if isinstance(x, Graph):
        for node in x.nodes:
            for _, value in node.attrs:
                yield from _of_value(value)
            for region in node.regions:
                yield from _blobs(region)
        return
    if isinstance(x, Program):
        yield from x.weights.values()
    for func in x.functions if isinstance(x, Program) else (x,):
        for stmt in walk(func.body):
            if isinstance(stmt, HostCall):
                for _, value in stmt.attrs:
                    yield from _of_value(value)


def _of_value(value: object) -> Iterator[Blob]:
    if isinstance(value, Blob):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _of_value(item)


def save_blobs(path: Path | str, blobs: Iterable[Blob]) -> None:
    """Write contents to an ``.npz`` without pickled objects: bytes under hash and type."""
    arrays: dict[str, np.ndarray] = {}
    for blob in blobs:
        raw = np.ascontiguousarray(blob.array).reshape(-1).view(np.uint8)
        shape = "x".join(map(str, blob.array.shape))
        arrays[f"{blob.digest}.{blob.dtype.name}.{shape}"] = raw
    with Path(path).open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]


def load_blobs(path: Path | str) -> dict[str, Blob]:
    """Contents by hash, each checked against its hash; E107 when the file is damaged."""
    found: dict[str, Blob] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                digest, dtype, shape = key.split(".")
                sizes = tuple(int(s) for s in shape.split("x") if s)
                blob = Blob(file[key].view(dtypes.dtype(dtype).numpy).reshape(sizes))
                if blob.digest != digest:
                    raise error("E107", f"{path}: contents of blob {digest} do not fit the hash")
                found[digest] = blob
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as e:
        raise error("E107", f"{path} is no readable file of blobs", str(e)) from None
    return found


__all__ = ["blobs_of", "load_blobs", "parse", "parse_func", "parse_graph", "parse_program"]

"""Failures as files: a test in Python that holds the graph as text, its constants and inputs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aisc.codegen.files import write_whole
from aisc.fuzz.case import Case, size_of
from aisc.fuzz.check import Finding
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.graph.opdef import Array
from aisc.ir.text.parser import blobs_of, parse_graph
from aisc.ir.text.printer import print_ir

READABLE = 256  # elements; larger arrays are written packed

_TEMPLATE = '''"""Found by aisc fuzz: {title}

{message}
"""

from __future__ import annotations

from math import inf, nan  # noqa: F401

from aisc.fuzz.write import array, packed, replay  # noqa: F401

GRAPH = r"""
{graph}
"""
CONSTANTS = [
{constants}]
INPUTS = {{
{inputs}}}


def test_seed_{seed}() -> None:
    replay(GRAPH, CONSTANTS, INPUTS, oracle={oracle!r}, target={target!r})


if __name__ == "__main__":
    test_seed_{seed}()
'''


def array(dtype: str, shape: Sequence[int], items: Sequence[object]) -> Array:
    """An array from its elements in order."""
    t = dtypes.dtype(dtype)
    wide = np.array(items, object if not t.is_float else np.float64)
    return wide.astype(t.numpy).reshape(tuple(shape))


def packed(dtype: str, shape: Sequence[int], data: str) -> Array:
    """An array from its compressed bytes as hexadecimal digits."""
    raw = zlib.decompress(bytes.fromhex(data))
    return np.frombuffer(raw, dtypes.dtype(dtype).numpy).reshape(tuple(shape))


def replay(
    graph: str, constants: Sequence[Array], inputs: dict[str, Array], oracle: str, target: str
) -> None:
    """Check the case again; ``AssertionError`` with what is found."""
    from dataclasses import replace

    from aisc.driver.api import resolve_target
    from aisc.fuzz.check import check
    from aisc.fuzz.oracles import oracles_named

    blobs = {b.digest: b for b in map(Blob, constants)}
    case = Case(0, parse_graph(graph.strip() + "\n", blobs), (inputs,))
    asked = tuple(replace(o, every=1) for o in oracles_named((oracle,)))
    found = check(case, resolve_target(target), asked).findings
    assert not found, "\n".join(f"{f.kind} by {f.oracle}: {f.message}" for f in found)


def as_test(case: Case, finding: Finding, target: str, step: str, feed: int = 0) -> str:
    """The text of a test that fails as long as the fault is there."""
    where = f"; first wrong after {step}" if step else ""
    title = f"seed {case.seed}, {finding.kind} by {finding.oracle}{where}"
    title += f"; {size_of(case.graph)} nodes"
    inputs = case.feeds[feed].items()
    return _TEMPLATE.format(
        title=title, message=finding.message.replace('"""', "'''"), seed=case.seed,
        graph=print_ir(case.graph).strip(),
        constants="".join(f"    {_literal(np.asarray(b.array))},\n"
                          for b in blobs_of(case.graph).values()),
        inputs="".join(f"    {name!r}: {_literal(x)},\n" for name, x in inputs),
        oracle=finding.oracle, target=target,
    )  # fmt: skip


def _literal(x: Array) -> str:
    name, shape = dtypes.from_numpy(x.dtype).name, tuple(map(int, x.shape))
    if x.size > READABLE:
        data = zlib.compress(np.ascontiguousarray(x).tobytes(), 9).hex()
        return f'packed("{name}", {shape}, "{data}")'
    flat = x.reshape(-1)
    items = flat.tolist() if flat.dtype.kind in "iub" else flat.astype(np.float64).tolist()
    return f'array("{name}", {shape}, {items})'


def write_finding(folder: Path, name: str, text: str) -> Path:
    """Write a test file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    write_whole(path, text.encode())
    return path

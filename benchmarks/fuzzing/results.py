"""The file of results of a kind of core, ``benchmarks/results/ARCH.json``: an entry per kind of
measurement and number of threads, with what it was measured with."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
FOLDER = Path(__file__).resolve().parents[1] / "results"
# Many short tries: some of them fall between what others do on the core.
PEAK_TRIES, PEAK_ROUNDS = 60, 100_000


def ceilings(threads: int) -> Row:
    """What the machine does at most: GFLOP/s of multiply-adds, GB/s of large copies. The most of
    several measurements: nothing makes it more than it is."""
    from aisc.measure.machine_limits import copy_gbytes, fma_gflops

    return {
        "gflops": max(fma_gflops(PEAK_ROUNDS, threads) for _ in range(PEAK_TRIES)),
        "gbytes": max(copy_gbytes(threads) for _ in range(PEAK_TRIES)),
    }


def conditions(threads: int, peers: Sequence[str], before: Row) -> Row:
    """What was measured with: the command, versions, the machine and its ceilings, which were also
    measured `before`."""
    from versus.report import machine

    import aisc
    from aisc.measure.peers import peer

    now = ceilings(threads)
    return {
        "command": command_line(sys.argv),
        "threads": threads,
        "machine": machine(),
        "ceilings": {k: round(max(v, before[k]), 1) for k, v in now.items()},
        "versions": {"aisc": aisc.__version__, **{n: peer(n).version for n in peers}},
    }


def command_line(argv: Sequence[str]) -> str:
    """The command as it is repeated: without where a machine keeps its files."""
    kept, words = [], iter(argv[1:])
    for word in words:
        if word == "--json":
            next(words, "")
        elif not word.startswith("--json="):
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{Path(argv[0]).name}", *kept])


def processor() -> str:
    """LLVM's name of the processor."""
    from aisc.driver.api import resolve_target

    return str(resolve_target("cpu").arch)


def write_json(path: Path, value: object) -> None:
    """Write a file whole or not at all."""
    from aisc.codegen.files import write_whole

    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def saved(folder: Path) -> dict[str, list[Row]]:
    """The entries of all kinds of cores."""
    return {p.stem: json.loads(p.read_text())["entries"] for p in sorted(folder.glob("*.json"))}


def save(entry: Row, arch: str, folder: Path) -> Path:
    """Put an entry in the place of that of its kind and number of threads, or at the end."""
    path, key = folder / f"{arch}.json", _key(entry)
    entries = saved(folder).get(arch, [])
    places = [k for k, e in enumerate(entries) if _key(e) == key] or [len(entries)]
    entries[places[0] : places[0] + 1] = [entry]
    write_json(path, {"processor": arch, "entries": entries})
    return path


def _key(entry: Row) -> tuple[str, int]:
    return entry["kind"], entry["conditions"]["threads"]

"""Run the cases of the onnx standard on machine code and write the table of what is missing.

Operators may not run on the host, and the interpreters are out of reach.

    python tests/conformance.py            # all cases; rewrites tests/conformance.txt
    python tests/conformance.py conv relu  # only cases with these words, printed

A case is run in a forked child: one that crashes or hangs costs itself and nothing else.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx

TABLE = Path(__file__).with_suffix(".txt")
SECONDS = 30.0


def all_cases() -> list[Any]:
    """Every case that the installed onnx package has, by name; always with the same data."""
    np.random.seed(0)  # the cases draw from the global generator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases
        from onnx.backend.test.loader import load_model_tests

        cases = list(collect_testcases(None))
        for kind in ("simple", "pytorch-converted", "pytorch-operator"):
            cases += load_model_tests(kind=kind)
    return sorted(cases, key=lambda c: str(c.name))


def data_sets(case: Any, model: onnx.ModelProto) -> Iterator[tuple[list[Any], list[Any]]]:
    """Inputs and expected outputs, from memory or from the files of the case."""
    if case.data_sets is not None:
        yield from case.data_sets
        return
    for folder in sorted(Path(case.model_dir).glob("test_data_set*")):
        yield tuple(  # type: ignore[misc]
            [
                onnx.load_tensor(folder / f"{side}_{k}.pb")
                for k in range(len(list(folder.glob(f"{side}_*.pb"))))
            ]
            for side in ("input", "output")
        )


def array(x: Any) -> Any:
    return onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else x


def outcome(case: Any) -> str:
    """``pass``, or the stage and the reason of the failure in one line."""
    from onnx.backend.test.runner import Runner

    from aisc.ir.diagnostics import AiscError, InternalError
    from aisc.onnx_backend import prepare

    model = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    stage = "compile"
    try:
        rep = prepare(model, threads=1, cache=False, host=False)
        for inputs, outputs in data_sets(case, model):
            stage = "run"
            got = rep.run([array(x) for x in inputs])
            stage = "wrong"
            expected = [array(y) for y in outputs]
            Runner.assert_similar_outputs(expected, got, case.rtol, case.atol)
    except AiscError as fault:
        first = fault.diagnostics[0]
        return f"{first.code}: {first.message}"
    except InternalError as fault:
        return f"internal: {_head(fault)}"
    except AssertionError as fault:
        return f"wrong: {_mismatch(fault)}" if stage == "wrong" else f"internal: {_head(fault)}"
    except Exception as fault:
        return f"{stage}: {type(fault).__name__}: {_head(fault)}"
    return "pass"


def _head(fault: BaseException) -> str:
    # What stands in braces names modules by numbers that differ from run to run.
    lines = re.sub(r" *\{.*\}", "", str(fault)).splitlines()
    return lines[0][:120] if lines else type(fault).__name__


def _mismatch(fault: AssertionError) -> str:
    wanted = ("shape", "Mismatch", "dtype")
    lines = [x.strip() for x in str(fault).splitlines() if any(w in x for w in wanted)]
    return lines[0][:120] if lines else _head(fault)


def forbid_interpreters() -> None:
    """From here on nothing but machine code can compute a result."""
    from aisc.codegen import host
    from aisc.ir.graph import interpret as graphs
    from aisc.ir.tensor import interpret as tensors

    def forbidden(*_: object, **__: object) -> Any:
        raise AssertionError("an interpreter was asked for a result")

    for module, name in (
        (graphs, "interpret"), (graphs, "run_node"), (tensors, "run_program"),
        (tensors, "run_func"), (host, "host_results"),
    ):  # fmt: skip
        setattr(module, name, forbidden)


def _serve(cases: Sequence[Any], pipe: Connection) -> None:
    """The child: runs the cases whose places arrive."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    warnings.simplefilter("ignore")
    forbid_interpreters()
    while True:
        place = pipe.recv()
        pipe.send(outcome(cases[place]))


def run_cases(cases: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Names and outcomes, in order."""
    context = multiprocessing.get_context("fork")
    process: Any = None
    pipe: Connection | None = None
    try:
        for place, case in enumerate(cases):
            if process is None or pipe is None:
                pipe, other = context.Pipe()
                process = context.Process(target=_serve, args=(cases, other), daemon=True)
                process.start()
                other.close()
            pipe.send(place)
            try:
                result = pipe.recv() if pipe.poll(SECONDS) else "hangs"
            except EOFError:
                process.join()
                result = f"crash: exit code {process.exitcode}"
            if result == "hangs" or result.startswith("crash"):
                process.kill()
                process.join()
                process = None
            yield str(case.name), result
    finally:
        if process is not None:
            process.kill()
            process.join()


def read_table() -> dict[str, str]:
    """The committed table: what fails, by name."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return {name: reason.strip() for name, _, reason in pairs}


def main(words: Sequence[str]) -> None:
    cases = [c for c in all_cases() if not words or any(w in c.name for w in words)]
    start = time.perf_counter()
    results = dict(run_cases(cases))
    missing = {name: reason for name, reason in results.items() if reason != "pass"}
    print(f"{len(results) - len(missing)} of {len(results)} cases pass", end="")
    print(f" ({time.perf_counter() - start:.0f} s)")
    for reason, count in Counter(missing.values()).most_common():
        print(f"{count:5} {reason}")
    rows = [f"{name} {reason}" for name, reason in missing.items()]
    if words:
        print("\n".join(rows))
        return
    head = [
        f"# onnx {onnx.__version__}: {len(results) - len(missing)} of {len(results)} cases pass.",
        "# What fails, and why; written by tests/conformance.py.",
    ]
    TABLE.write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

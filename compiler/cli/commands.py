"""What the commands of the command line do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aisc.artifact.cache import cache_of
from aisc.cli import running
from aisc.cli.spinner import spinner
from aisc.codegen.backend import ptx_of
from aisc.codegen.files import write_whole
from aisc.codegen.run.bundle_writer import write
from aisc.codegen.run.executable import Executable
from aisc.driver import api
from aisc.driver.api import build
from aisc.driver.instruments import Progress as StepProgress
from aisc.driver.instruments import Timer
from aisc.driver.options import from_environment
from aisc.driver.pipeline import Compiled
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Program
from aisc.ir.text.printer import print_ir

_EMIT_STEP = {
    "graph": "fuse", "tensor": "optimize", "program": "plan", "llvm": "emit", "asm": "assemble",
}  # fmt: skip
_err = Console(stderr=True)
_out = Console()


@contextmanager
def progress(title: str) -> Iterator[StepProgress]:
    """An instrument that shows the running step on a terminal's standard error."""
    with spinner(title) as show:
        yield StepProgress(show)


def built(model: str, target: str, choices: Mapping[str, Any], *more: Any) -> Compiled:
    """What the pipeline makes of a model, with its steps shown as they run."""
    with progress(Path(model).name) as steps:
        return build(model, target, from_environment(**choices), *more, steps)


def _executable(model: str, target: str, choices: Mapping[str, Any]) -> Executable:
    with progress(Path(model).name) as steps:
        return api.executable(model, target, from_environment(**choices), steps)


def compile_model(
    model: str,
    target: str,
    output: Path | None,
    emit: str,
    stop_after: str,
    choices: dict[str, Any],
    time_steps: bool,
) -> None:
    """``aisc compile``."""
    if not emit:
        emit = "bundle" if output is not None and output.suffix == ".aisc" else "program"
    if emit not in (*_EMIT_STEP, "ptx", "dsa", "obj", "bundle"):
        known = ", ".join((*_EMIT_STEP, "ptx", "dsa", "obj"))
        raise error("E401", f"cannot emit '{emit}'", f"expected {known} or bundle")
    timer = Timer()
    if emit == "bundle" and not stop_after:
        _emit_bundle(model, target, output, choices, timer)
        if time_steps:
            _print_times(timer)
        return
    if emit == "obj" and not stop_after:
        _emit_object(model, target, output, choices)
        return
    if emit == "ptx" and not stop_after:
        _emit_ptx(model, target, output, choices)
        return
    if emit == "dsa" and not stop_after:
        from aisc.cli.instruction_commands import emit_instructions

        emit_instructions(model, target, output, choices)
        return
    choices["stop_after"] = stop_after or _EMIT_STEP.get(emit, "assemble")
    compiled = built(model, target, choices, timer)
    product = compiled.product
    assert product is not None, "every step up to assemble has a product"
    text = product if isinstance(product, str) else print_ir(product)
    if output is None:
        print(text)
    else:
        write_whole(output, text.encode())
    if time_steps:
        _print_times(timer)


def _emit_object(model: str, target: str, output: Path | None, choices: dict[str, Any]) -> None:
    if output is None:
        raise error("E401", "an object needs a file", "give -o FILE.o")
    host, devices = api.backends_of(target)
    if devices:
        name = devices[0].target.name
        raise error(
            "E402", f"an object cannot hold kernels of {name}", "write a bundle: -o FILE.aisc"
        )
    choices["stop_after"] = "plan"
    product = built(model, target, choices).product
    assert isinstance(product, Program), "the product of plan is a Program"
    write_whole(output, host.assemble(host.emit_all(product)).object)


def _emit_ptx(model: str, target: str, output: Path | None, choices: dict[str, Any]) -> None:
    """The kernels of all devices, without the model of them and the entry."""
    image = built(model, target, {**choices, "load": False}).image
    assert image is not None, "nothing stopped the pipeline"
    if not image.devices:
        raise error("E402", "no kernel runs on a device", "name one: --target nvidia_sm90")
    text = "\n".join(ptx_of(code) for code in image.devices)
    if output is None:
        print(text)
    else:
        write_whole(output, text.encode())


def _emit_bundle(
    model: str,
    target: str,
    output: Path | None,
    choices: dict[str, Any],
    timer: Timer,
) -> None:
    if output is None:
        raise error("E401", "a bundle needs a file", "give -o FILE.aisc")
    image = built(model, target, {**choices, "load": False}, timer).image
    assert image is not None, "nothing stopped the pipeline"
    write(image, output, choices["threads"] or 0)


def _print_times(timer: Timer) -> None:
    table = Table("step", "seconds", title="time per step")
    for step, seconds in timer.seconds.items():
        table.add_row(step, f"{seconds:.3f}")
    _err.print(table)


def run_model(
    model: str,
    target: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    choices: dict[str, Any],
    as_json: bool = False,
) -> None:
    """``aisc run``."""
    running.run_once(_executable(model, target, choices), inputs, outputs, as_json)


def bench_model(model: str, target: str, what: running.Measuring, choices: dict[str, Any]) -> None:
    """``aisc bench``."""

    def make(count: int) -> Executable:
        return _executable(model, target, {**choices, "threads": count})

    running.bench(model, make, what)


def profile_model(
    model: str,
    target: str,
    threads: Sequence[int],
    runs: tuple[int, int],
    places: tuple[Path | None, Path | None],
    top: int,
    dims: Mapping[str, int],
    choices: dict[str, Any],
) -> None:
    """``aisc bench --profile``. `places`: of the numbers as JSON, and of a trace."""
    from aisc.cli.profile_table import profile_table
    from aisc.measure.profile import chrome_trace, profile_runs

    profiles = []
    for count in threads:
        wanted = {**choices, "threads": count, "profile": True}
        compiled = built(model, target, wanted)
        assert compiled.executable is not None, "nothing stopped the pipeline"
        feeds = running.random_feeds(compiled.executable, dims)
        profiles.append(profile_runs(compiled, feeds, *runs))
        _out.print(profile_table(profiles[-1], top, _out.width, Path(model).name))
    numbers, trace = places
    if numbers is not None:
        rows = [p.to_json() for p in profiles]
        write_whole(numbers, json.dumps(rows, indent=2).encode())
    if trace is not None:
        write_whole(trace, json.dumps(chrome_trace(profiles)).encode())


def handle_cache(action: str) -> None:
    """``aisc cache``."""
    for kind, what in (("", "records"), ("images", "models")):
        store = cache_of("", kind)
        if action == "clear":
            print(f"removed {store.clear()} {what}")
        else:
            size = store.size() / 1e6
            print(f"{store.folder}: {len(store.files())} {what}, {size:.1f} MB")
    if action == "clear":
        cache_of("", "facts").clear()

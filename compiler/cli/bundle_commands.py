"""``aisc run | bench | check`` on a bundle: opened as it is, without the compiler."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aisc.artifact.loading import load
from aisc.cli import running
from aisc.codegen.llvm import link
from aisc.codegen.run import bundle
from aisc.codegen.signature import Port
from aisc.ir.diagnostics import error


def run_bundle(
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    choices: dict[str, Any],
    as_json: bool = False,
) -> None:
    """``aisc run``."""
    _refuse(path, choices)
    running.run_once(load(path, threads=choices["threads"]), inputs, outputs, as_json)


def bench_bundle(path: Path, what: running.Measuring, choices: dict[str, Any]) -> None:
    """``aisc bench``."""
    _refuse(path, choices, **{"--against": bool(what.peers)})
    running.bench(str(path), lambda n: load(path, threads=n, wait=choices["wait"]), what)


def check_bundle(path: Path, choices: dict[str, Any]) -> None:
    """``aisc check``: verify everything, print what is in the bundle and for which machine."""
    _refuse(path, choices)
    opened = bundle.read(path)
    image, about = opened.image, opened.about
    made, machine = image.signature, image.machine
    unfit = machine.unfit(link.host_machine())
    print(f"{path.name}: a bundle of {opened.size / 1e6:.1f} MB, checksums right")
    for what, ports in (("input ", made.inputs), ("output", made.outputs)):
        for p in ports:
            print(f"  {what} {p.name}: {p.type}")
    bounds = [f"{s.name} from {s.lower} to {s.upper or 'any size'}" for s in made.symbols]
    print(f"  symbolic dimensions: {', '.join(bounds) or 'none'}")
    code = sum(map(len, (image.runtime, *image.objects)))
    print(f"  {len(image.objects)} objects, {code / 1e3:.1f} kB of code")
    for d in image.devices:
        size = sum(map(len, d.objects))
        print(f"  {len(d.objects)} objects for {d.target}, kind {d.kind}, {size / 1e3:.1f} kB")
    print(f"  {len(image.weights)} weights, {sum(map(_bytes, made.weights)) / 1e6:.1f} MB, packed")
    print(f"  threads of a call: {about.threads or 'the cores of the process'}")
    print(f"  made by aisc {about.version} with {about.llvm}")
    print(f"  made for {machine.kind} {machine.triple}, {machine.arch}")
    if unfit is not None:
        raise unfit
    print("  runs on this machine")


def _bytes(weight: Port) -> int:
    size = weight.dtype.bytes
    for d in weight.type.static_shape:
        size *= d
    return size


def _refuse(path: Path, choices: dict[str, Any], **more: bool) -> None:
    """E401 for options that need the model that a bundle was compiled from."""
    given = {"--shape": bool(choices.get("shapes")), **more}
    given |= {f"--{name}": bool(choices.get(name)) for name in ("tuned", "locked")}
    given["--exact-quantization"] = choices.get("exact_quantization", False)
    given["--precision"] = choices.get("precision", "f32") != "f32"
    given["--no-host"] = not choices.get("host", True)
    given["--profile"] = choices.get("profile", False)
    given["--target"] = choices.get("target", "cpu") != "cpu"
    asked = [name for name, on in given.items() if on]
    if asked:
        raise error(
            "E401",
            f"{path} is compiled already",
            f"{', '.join(asked)} needs the model it was made of",
        )

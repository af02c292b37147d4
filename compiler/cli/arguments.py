"""Arguments that several commands take, and how their values are read."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from aisc.codegen.run.threads import Wait
from aisc.ir.dtypes import Precision

Model = Annotated[str, typer.Argument(help="The model, e.g. model.onnx.")]
Runnable = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model, e.g. model.onnx, or a bundle of it.")
]
TargetName = Annotated[str, typer.Option("--target", help="cpu, a shipped target, or FILE.toml.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", help="Fix a symbolic dimension (n=8), or bound it (n=1..512)."),
]
Level = Annotated[
    int,
    typer.Option(
        "-O", min=0, max=3,
        help="Optimisation level: 0 naive loops, 1 code that is made quickly, 2 and 3 fast code.",
    ),
]  # fmt: skip
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of a call.")]
Waiting = Annotated[
    Wait | None,
    typer.Option("--wait", help="How threads wait: passive where cores are shared with others."),
]
TimeSteps = Annotated[bool, typer.Option("--time-steps", help="Print seconds per step.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Do not use the kernel cache.")]
NoHost = Annotated[
    bool, typer.Option("--no-host", help="Refuse operators that would run on the host (numpy).")
]
ExactQuantization = Annotated[
    bool,
    typer.Option(
        "--exact-quantization", help="No rule that may move a quantized value by one step."
    ),
]
PrecisionName = Annotated[
    Precision,
    typer.Option(
        "--precision", help="Store weights in this type; devices that have it multiply in it."
    ),
]
KeptFloat = Annotated[
    str, typer.Option("--keep-float", help="Weights of these nodes stay f32, e.g. fc1,head.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tuned = Annotated[
    Path | None, typer.Option("--tuned", help="Use the records of this database; none: of none.")
]
Locked = Annotated[
    Path | None,
    typer.Option("--locked", help="Take a lock file's choices; its code must result."),
]


class ShowFormat(Enum):
    """What ``aisc show`` writes."""

    html = "html"
    json = "json"
    dot = "dot"
    onnx = "onnx"


class ShowStage(Enum):
    """A stage of a model."""

    written = "as-written"
    optimised = "optimised"
    kernels = "kernels"


def stored_in(precision: Precision, keep: str) -> dict[str, Any]:
    """The options of a compilation for what ``--precision`` and ``--keep-float`` say."""
    return {"precision": precision, "keep_float": tuple(n for n in keep.split(",") if n)}


def _load_operators(files: list[Path] | None) -> list[Path] | None:
    if files:
        from aisc.frontend.own.registry import load_operators

        for file in files:
            load_operators(file)
    return files


Ops = Annotated[
    list[Path] | None,
    typer.Option("--ops", help="Operators of this .aim file.", callback=_load_operators),
]


def extent(item: str) -> tuple[str, int | tuple[int, int]]:
    """``n=8`` or ``n=1..512``."""
    name, _, value = item.partition("=")
    ends = value.split("..")
    if not name or len(ends) > 2 or not all(e.isdigit() for e in ends):
        message = f"expected NAME=NUMBER or NAME=LEAST..GREATEST, got '{item}'"
        raise typer.BadParameter(message, param_hint="--shape")
    return name, int(value) if len(ends) == 1 else (int(ends[0]), int(ends[1]))


def size(item: str) -> tuple[str, int]:
    """``n=8``."""
    name, _, value = item.partition("=")
    if not name or not value.isdigit():
        raise typer.BadParameter(f"expected NAME=NUMBER, got '{item}'", param_hint="--dim")
    return name, int(value)


def seconds(text: str, hint: str = "--budget") -> float:
    """``60s``, ``5m`` or ``1h``."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise typer.BadParameter("expected e.g. 60s or 5m", param_hint=hint) from None


def percent(text: str, hint: str) -> float:
    """``2%`` as 0.02; nothing is 0."""
    try:
        value = float(text.removesuffix("%") or 0) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter("expected a part of the whole, e.g. 2%", param_hint=hint)
    return value


def sizes_at(text: str) -> tuple[str, tuple[int, ...]]:
    """``n=1,16`` as a name and numbers."""
    name, _, values = text.partition("=")
    try:
        found = tuple(int(v) for v in values.split(","))
    except ValueError:
        found = ()
    if not name or not found or min(found) < 0:
        raise typer.BadParameter("expected NAME=SIZE,SIZE", param_hint="--at")
    return name, found

"""``aisc quantize``: the command and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisc.cli.arguments import Model, TargetName, Threads, percent


def quantize(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="Write here, e.g. q.onnx.")],
    data: Annotated[
        Path, typer.Option("--data", help="Samples of every input: a file of numpy.savez.")
    ],
    method: Annotated[
        str, typer.Option(help="How ranges are found: minmax, percentile, entropy or mse.")
    ] = "mse",
    percentile: Annotated[
        float, typer.Option(help="Of absolute values, with --method percentile.")
    ] = 99.99,
    activations: Annotated[str, typer.Option(help="u8, or i8 without zero points.")] = "u8",
    weights: Annotated[
        str,
        typer.Option(
            help="i8, i7 for runtimes that add products in 16 bits, i4: weights alone, in groups."
        ),
    ] = "i8",
    rounding: Annotated[
        str, typer.Option(help="Of i4: gptq for the least error of products, or nearest.")
    ] = "gptq",
    group: Annotated[int, typer.Option(help="Weights of 4 bits with one scale: 16 to 256.")] = 32,
    per_tensor: Annotated[
        bool, typer.Option("--per-tensor", help="One scale for all weights of a layer.")
    ] = False,
    no_bias_correction: Annotated[
        bool, typer.Option("--no-bias-correction", help="Leave biases as they are.")
    ] = False,
    smooth: Annotated[
        float, typer.Option(min=0, max=1, help="Part of a norm's range moved into weights.")
    ] = 0.0,
    products: Annotated[
        bool, typer.Option("--products", help="Quantize products of two activations, too.")
    ] = False,
    ops: Annotated[
        str, typer.Option("--ops", help="Kinds of operators, e.g. Conv,Gemm; by default all.")
    ] = "",
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="This node stays in float.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Samples of a run, where the model leaves the choice.")
    ] = 16,
    budget: Annotated[
        str, typer.Option(help="Allowed relative error of the outputs, e.g. 0.01 or 1%.")
    ] = "",
    measure: Annotated[
        bool, typer.Option("--measure", help="Show error and time of every layer.")
    ] = False,
    numbers: Annotated[Path | None, typer.Option("--json", help="Write the table here.")] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write a page with error against latency.")
    ] = None,
    target: TargetName = "cpu",
    threads: Threads = None,
) -> None:
    """Quantize a model with the ranges that data give, and write it as standard ONNX."""
    from aisc.cli.quantize_command import quantize_model
    from aisc.quantization.settings import OPERATORS

    chosen = {
        "method": method, "percentile": percentile, "activations": activations,
        "weights": weights, "per_channel": not per_tensor, "products": products,
        "smooth": smooth, "rounding": rounding, "group": group,
        "bias_correction": not no_bias_correction, "keep": tuple(keep or ()), "batch": batch,
        "budget": _share(budget), "operators": tuple(ops.split(",")) if ops else OPERATORS,
    }  # fmt: skip
    quantize_model(model, output, data, chosen, target, threads, measure, (numbers, page))


def _share(text: str) -> float | None:
    """``0.01`` or ``1%``; nothing is no budget."""
    if not text:
        return None
    if text.endswith("%"):
        return percent(text, "--budget")
    try:
        return float(text)
    except ValueError:
        message = "expected e.g. 0.01 or 1%"
        raise typer.BadParameter(message, param_hint="--budget") from None

"""The command line: ``aisc compile | run | bench | opt | check | show | tune | quantize | dse |
fmt | convert | lsp | fuzz | targets | cache``.

Heavy packages are imported by the command that needs them. Exit codes: 0 ok, 1 the user's error,
2 usage, 3 unsupported, 4 mismatch, 70 internal error.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from aisc.cli.arguments import (
    AsJson,
    ExactQuantization,
    KeptFloat,
    Level,
    Locked,
    Model,
    NoCache,
    NoHost,
    Ops,
    PrecisionName,
    Runnable,
    Shapes,
    ShowFormat,
    ShowStage,
    TargetName,
    Threads,
    TimeSteps,
    Tuned,
    Waiting,
    extent,
    percent,
    seconds,
    size,
    sizes_at,
    stored_in,
)
from aisc.cli.assemble_app import assemble
from aisc.cli.dse_app import dse
from aisc.cli.quantize_app import quantize
from aisc.cli.targets_app import machines

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Compile AI models to native code.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(machines, name="targets", invoke_without_command=True)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from aisc.ir.version import VERSION

        print(f"aisc {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """Compile AI models to native code."""


@app.command("compile")
def compile_command(
    model: Model,
    ops: Ops = None,
    target: TargetName = "cpu",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here.")] = None,
    emit: Annotated[
        str,
        typer.Option(
            help="graph, tensor, program, llvm, asm, ptx, dsa, obj or bundle. By default bundle "
            "for an output named .aisc, else program."
        ),
    ] = "",
    stop_after: Annotated[str, typer.Option(help="Stop after this step and print it.")] = "",
    dump_dir: Annotated[str, typer.Option(help="Write every step's product here.")] = "",
    verify: Annotated[bool, typer.Option("--verify-each", help="Verify after each step.")] = False,
    shape: Shapes = None,
    level: Level = 2,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads of a call of the bundle.")
    ] = None,
    time_steps: TimeSteps = False,
    no_cache: NoCache = False,
    no_host: NoHost = False,
    overridable: Annotated[
        list[str] | None,
        typer.Option("--overridable", help="Keep this input, which has a default, an input."),
    ] = None,
    exact_quantization: ExactQuantization = False,
    precision: PrecisionName = "f32",
    keep_float: KeptFloat = "",
    tuned: Tuned = None,
    locked: Locked = None,
) -> None:
    """Compile a model and write what --emit names (to -o, or standard output)."""
    from aisc.cli.commands import compile_model

    compile_model(
        model, target, output, emit, stop_after,
        {**_choices(shape, level, threads, no_cache, dump_dir, verify), "host": not no_host,
         "overridable": tuple(overridable or ()), "exact_quantization": exact_quantization,
         **_records(tuned, locked), **stored_in(precision, keep_float)},
        time_steps,
    )  # fmt: skip


@app.command()
def run(
    model: Runnable,
    ops: Ops = None,
    input_: Annotated[
        list[str] | None,
        typer.Option("--input", help="NAME=@FILE.npy, NAME=random or, for a number, NAME=2.5."),
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option("--output", help="NAME=@FILE.npy: save an output.")
    ] = None,
    target: TargetName = "cpu",
    shape: Shapes = None,
    level: Level = 2,
    threads: Threads = None,
    no_cache: NoCache = False,
    no_host: NoHost = False,
    exact_quantization: ExactQuantization = False,
    precision: PrecisionName = "f32",
    keep_float: KeptFloat = "",
    tuned: Tuned = None,
    locked: Locked = None,
    as_json: AsJson = False,
) -> None:
    """Compile a model and run it once, or run a bundle."""
    choices = {**_choices(shape, level, threads, no_cache), "host": not no_host}
    choices.update(_records(tuned, locked), exact_quantization=exact_quantization)
    choices.update(stored_in(precision, keep_float))
    if _is_bundle(model):
        from aisc.cli.bundle_commands import run_bundle

        choices.update(target=target)
        run_bundle(Path(model), input_ or [], output or [], choices, as_json)
        return
    from aisc.cli.commands import run_model

    run_model(model, target, input_ or [], output or [], choices, as_json)


@app.command()
def bench(
    model: Runnable,
    ops: Ops = None,
    against: Annotated[str, typer.Option(help="Peers, e.g. onnxruntime.")] = "",
    threads: Annotated[str, typer.Option(help="Numbers of threads, e.g. 1,2.")] = "1",
    warmup: Annotated[int, typer.Option(min=0, help="Runs that are not counted.")] = 5,
    iterations: Annotated[int, typer.Option(min=1, help="Counted runs of each side.")] = 50,
    streams: Annotated[
        int, typer.Option(min=0, max=1024, help="Requests at once, each on --threads: per second.")
    ] = 0,
    duration: Annotated[str, typer.Option(help="Time of each side with --streams.")] = "10s",
    json_output: Annotated[Path | None, typer.Option("--json", help="Write results here.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time, work and share of the limits per layer.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Layers of a profile that are shown.")] = 25,
    dim: Annotated[
        list[str] | None,
        typer.Option("--dim", help="Size of a symbolic dimension in the runs (n=8); else 1."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--export-profile", help="Write a profile here for chrome://tracing."),
    ] = None,
    target: TargetName = "cpu",
    shape: Shapes = None,
    wait: Waiting = None,
    precision: PrecisionName = "f32",
    keep_float: KeptFloat = "",
    tuned: Tuned = None,
    locked: Locked = None,
) -> None:
    """Measure the latency or the throughput of a model or a bundle, interleaved with other
    runtimes, or a profile."""
    counts = [int(t) for t in threads.split(",") if t.isdigit() and int(t) > 0]
    if not counts:
        raise typer.BadParameter("expected numbers such as 1,2", param_hint="--threads")
    peers = [p for p in against.split(",") if p]
    choices, dims = _choices(shape, 2, None, False), dict(map(size, dim or ()))
    choices.update(wait=wait, **_records(tuned, locked), **stored_in(precision, keep_float))
    profile = profile or trace is not None
    _require_one_way(profile, peers, streams)
    from aisc.cli.running import Measuring

    runs, time = (warmup, iterations), seconds(duration, "--duration")
    what = Measuring(peers, counts, runs, streams, time, dims, json_output)
    if _is_bundle(model):
        from aisc.cli.bundle_commands import bench_bundle

        choices.update(target=target, profile=profile)
        bench_bundle(Path(model), what, choices)
        return
    from aisc.cli.commands import bench_model, profile_model

    if profile:
        places = json_output, trace
        profile_model(model, target, counts, runs, places, top, dims, choices)
        return
    bench_model(model, target, what, choices)


def _require_one_way(profile: bool, peers: Sequence[str], streams: int) -> None:
    """A profile is measured alone."""
    if profile and peers:
        raise typer.BadParameter("a profile is of aisc alone", param_hint="--against")
    if profile and streams:
        raise typer.BadParameter("a profile is of one call at a time", param_hint="--streams")


@app.command()
def opt(
    file: Annotated[str, typer.Argument(help="IR text, or - for standard input.")],
    passes: Annotated[
        str, typer.Option("--passes", "--pass-pipeline", help="Names, e.g. fold,cse,fuse.")
    ] = "",
    output: Annotated[str, typer.Option("-o", help="Write here; - for standard output.")] = "-",
    verify_each: Annotated[bool, typer.Option("--verify-each")] = False,
    print_after: Annotated[bool, typer.Option("--print-ir-after-all")] = False,
    time_passes: Annotated[bool, typer.Option("--time-passes")] = False,
    list_passes: Annotated[bool, typer.Option("--list-passes", help="List them and stop.")] = False,
) -> None:
    """Run passes over IR text."""
    from aisc.cli.opt import run_passes

    run_passes(file, passes, output, verify_each, print_after, time_passes, list_passes)


@app.command()
def check(
    model: Runnable,
    ops: Ops = None,
    target: TargetName = "cpu",
    shape: Shapes = None,
    no_host: NoHost = False,
    types: Annotated[
        bool, typer.Option("--types", help="Show the inferred type of every name (.aim).")
    ] = False,
    precision: PrecisionName = "f32",
    keep_float: KeptFloat = "",
    data: Annotated[
        Path | None,
        typer.Option(help="With --precision: measure its error on the inputs in this .npz."),
    ] = None,
    cycles: Annotated[
        bool, typer.Option("--cycles", help="Show what each layer takes on a simulated target.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Write what its units do over time: a Chrome trace, in cycles."),
    ] = None,
    faults: Annotated[
        bool, typer.Option("--faults", help="Run its instructions one by one: races, waits, banks.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Report every reason why a model cannot be compiled, or what it or a bundle consists of."""
    if types:
        from aisc.cli.type_table import show_types

        show_types(model, dict(map(extent, shape or ())))
    if _is_bundle(model):
        from aisc.cli.bundle_commands import check_bundle

        check_bundle(Path(model), {**_choices(shape, 2, None, False), "target": target})
        return
    from aisc.cli.check_command import check_model

    choices = {**_choices(shape, 2, None, False), "host": not no_host}
    choices.update(stored_in(precision, keep_float))
    check_model(model, target, choices, cycles, as_json, trace, faults)
    if data is not None:
        from aisc.cli.precision_table import show_errors

        show_errors(model, target, data, choices)


@app.command()
def show(
    model: Model,
    ops: Ops = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file; by default MODEL.html.")
    ] = None,
    form: Annotated[
        ShowFormat, typer.Option("--format", help="A page, or a stage for another viewer.")
    ] = ShowFormat.html,
    stage: Annotated[
        ShowStage, typer.Option(help="With dot and onnx: which stage.")
    ] = ShowStage.kernels,
    target: TargetName = "cpu",
    shape: Shapes = None,
    times: Annotated[
        bool, typer.Option("--times", help="Run the model as well: times and roofline.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Make a page of a model: as written, as optimised, as kernels, in memory and in time."""
    from aisc.cli.show_command import write_shown

    choices = _choices(shape, 2, None, False)
    place = write_shown(model, target, choices, output, form.value, stage.value, times, threads)
    print(f"wrote {place}")


@app.command()
def tune(
    model: Model,
    ops: Ops = None,
    budget: Annotated[str, typer.Option(help="Time to spend, e.g. 60s or 5m.")] = "60s",
    trials: Annotated[int, typer.Option(min=0, help="Candidates to measure at most.")] = 0,
    until: Annotated[
        str, typer.Option(help="End when another round promises less of the model's time, e.g. 2%.")
    ] = "",
    database: Annotated[
        Path | None, typer.Option(help="Where records are kept; by default the user's own.")
    ] = None,
    target: TargetName = "cpu",
    shape: Shapes = None,
    at: Annotated[
        list[str] | None, typer.Option(help="n=1,16,128: tune kernels of any n for these.")
    ] = None,
    threads: Threads = None,
    only_list: Annotated[
        bool, typer.Option("--list", help="Show what can be decided, and measure nothing.")
    ] = False,
    reassociate: Annotated[
        bool, typer.Option("--reassociate", help="Try also what rounds otherwise.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    numbers: Annotated[Path | None, typer.Option("--json", help="Write the report here.")] = None,
    page: Annotated[Path | None, typer.Option("--html", help="Write a page with curves.")] = None,
    lock: Annotated[
        Path | None, typer.Option(help="Write a lock file for aisc compile --locked.")
    ] = None,
    workers: Annotated[
        str, typer.Option(help="A Ray cluster, ray://HOST:PORT, instead of this machine.")
    ] = "",
    explain: Annotated[
        str, typer.Option(help="Show why a kernel is scheduled as it is, and measure nothing.")
    ] = "",
) -> None:
    """Search for faster schedules and record them, where aisc compile finds them."""
    from aisc.cli.tune_commands import Wanted, explain_kernel, list_spaces, tune_model
    from aisc.tuning.session import Budget

    choices = _choices(shape, 2, threads, False)
    if only_list:
        list_spaces(model, target, choices)
        return
    if explain:
        explain_kernel(model, target, explain, database, choices)
        return
    spend = Budget(seconds(budget), trials, percent(until, "--until"))
    places = (numbers, page, lock)
    sizes = dict(map(sizes_at, at or ()))
    wanted = Wanted(spend, database, not reassociate, seed, places, sizes, workers)
    tune_model(model, target, wanted, choices)


app.command()(quantize)
app.command()(assemble)
app.command()(dse)


@app.command()
def records(
    action: Annotated[str, typer.Argument(help="show, export or import.")] = "show",
    file: Annotated[Path | None, typer.Argument(help="A file of JSON lines.")] = None,
    database: Annotated[
        Path | None, typer.Option(help="The database; by default the user's own.")
    ] = None,
) -> None:
    """Show, export or import what was tuned."""
    from aisc.cli.record_commands import handle_records

    handle_records(action, file, database)


@app.command("fmt")
def format_command(
    files: Annotated[list[Path], typer.Argument(help="Files of the model language (.aim).")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; show what would change.")
    ] = False,
) -> None:
    """Bring files of the model language into their one form."""
    from aisc.cli.format_command import format_files

    format_files(files, check)


@app.command()
def lsp() -> None:
    """Serve the model language to an editor, over standard input and output."""
    from aisc.lsp.command import serve

    serve()


@app.command()
def convert(
    model: Model,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Write here, e.g. model.aim; weights beside it.")
    ],
    shape: Shapes = None,
) -> None:
    """Write a model in the model language, and its weights as a .safetensors file."""
    from aisc.cli.convert_command import convert_model

    convert_model(model, output, dict(map(extent, shape or ())))


@app.command()
def fuzz(
    count: Annotated[
        int | None,
        typer.Option(min=1, help="How many cases; by default 100, or what --time allows."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed; a seed gives one case.")] = 0,
    duration: Annotated[str, typer.Option("--time", help="End after this time, e.g. 10m.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="Write a test for each finding into this folder.")
    ] = None,
    kind: Annotated[str, typer.Option(help="graphs, schedules or all.")] = "graphs",
    oracle: Annotated[
        list[str] | None,
        typer.Option(help="Ask only this one: 'compiled', 'level 0', 'onnxruntime'."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Steps in which a graph grows.")] = 12,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one for each core.")] = 0,
    case_time: Annotated[str, typer.Option(help="Time of one case.")] = "60s",
    memory: Annotated[int, typer.Option(min=1, help="GiB of address space of a process.")] = 8,
    reduce: Annotated[str, typer.Option(help="Time to make a finding small.")] = "60s",
    load: Annotated[
        list[str] | None,
        typer.Option(help="Import this module first: more operators or rules, planted faults."),
    ] = None,
    target: TargetName = "cpu",
) -> None:
    """Compile random graphs and compare what they compute with the interpreter and others.

    Exit codes: 0 nothing found, 4 results differ, 70 aisc failed inside, hung or died.
    """
    from aisc.fuzz.command import fuzz_command

    if kind not in ("graphs", "schedules", "all"):
        raise typer.BadParameter("expected graphs, schedules or all", param_hint="--kind")
    ends = seconds(duration, "--time") if duration else None
    limits = {
        "seconds": seconds(case_time, "--case-time"), "memory": memory << 30, "target": target,
        "oracles": tuple(oracle or ()), "nodes": nodes, "load": tuple(load or ()),
    }  # fmt: skip
    raise typer.Exit(
        fuzz_command(
            count if count or ends else 100,
            seed,
            ends,
            out,
            kind,
            jobs,
            seconds(reduce, "--reduce"),
            limits,
        )
    )


@app.command()
def cache(
    action: Annotated[str, typer.Argument(help="status or clear.")] = "status",
) -> None:
    """Show or clear the cache of compiled kernels."""
    from aisc.cli.commands import handle_cache

    if action not in ("status", "clear"):
        raise typer.BadParameter("expected status or clear", param_hint="ACTION")
    handle_cache(action)


def _records(tuned: Path | None, locked: Path | None) -> dict[str, str | None]:
    """Options about tuned choices."""
    if tuned is not None and locked is not None:
        raise typer.BadParameter("a lock names its choices itself", param_hint="--tuned")
    return {"tuned": None if tuned is None else str(tuned),
            "locked": None if locked is None else str(locked)}  # fmt: skip


def _is_bundle(model: str) -> bool:
    """Whether to open a file instead of compiling it. IR text may have the suffix of bundles, but
    is for ``aisc opt`` only."""
    from aisc.codegen.run.bundle import is_bundle

    return model.endswith(".aisc") or is_bundle(Path(model))


def _choices(
    shape: Sequence[str] | None,
    level: int,
    threads: int | None,
    no_cache: bool,
    dump_dir: str = "",
    verify: bool = False,
) -> dict[str, Any]:
    """Command-line values as fields of ``Options``."""
    shapes = dict(map(extent, shape or ()))
    choices: dict[str, Any] = {"shapes": shapes, "level": level, "threads": threads}
    choices.update(use_cache=not no_cache, dump_dir=dump_dir or None, verify=verify or None)
    return choices


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Warnings are diagnostics, and printed as such."""
    print(message, file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: errors become diagnostics and exit codes; tracebacks only with AISC_DEBUG."""
    from aisc.ir.diagnostics import AiscError, InternalError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(args=arguments, prog_name="aisc")
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except Exception as fault:
        if os.environ.get("AISC_DEBUG"):
            raise
        text = str(fault)
        if not isinstance(fault, AiscError):
            head = f"{type(fault).__name__}: {text}".splitlines()[0]
            text = f"internal error: {head}\n  note: set AISC_DEBUG=1 for details, please report"
        print(text, file=sys.stderr)
        raise SystemExit(getattr(fault, "exit_code", InternalError.exit_code)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()

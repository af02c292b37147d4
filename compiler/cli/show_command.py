"""``aisc show``: a page of a model, or one of its stages for another viewer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aisc.cli.running import random_feeds
from aisc.codegen.files import write_whole
from aisc.driver.api import timed
from aisc.measure.profile import profile_runs
from aisc.pictures.picture import Picture
from aisc.pictures.stages import Shown, shown

RUNS = 20


def write_shown(
    model: str,
    target: str,
    choices: Mapping[str, Any],
    output: Path | None,
    form: str,
    stage: str,
    times: bool,
    threads: int | None,
) -> Path:
    """Compile a model and write what is shown of it; gives the file. `times`: run it as well, with
    random inputs."""
    found = shown(model, target, choices)
    if times:
        _add_times(found, model, target, {**choices, "threads": threads})
    place = output or Path(f"{Path(model.partition('.py:')[0]).stem}.{form}")
    write_whole(place, Picture(found).text(form, stage))
    return place


def _add_times(found: Shown, model: str, target: str, choices: Mapping[str, Any]) -> None:
    """Seconds and shares of the roofline by kernel, from whole runs."""
    compiled, _ = timed(model, target, **{**choices, "profile": True})
    exe = compiled.executable
    assert exe is not None, "it was compiled to be run"
    sizes = {n: s for n, s in (choices.get("shapes") or {}).items() if isinstance(s, int)}
    known = {s.name for s in exe.image.signature.symbols}
    feeds = random_feeds(exe, {n: s for n, s in sizes.items() if n in known})
    profile = profile_runs(compiled, feeds, 3, RUNS)
    found.times = [
        {
            "kernel": r.kernel,
            "seconds": r.seconds,
            "roofline": profile.least(r) / max(r.seconds, 1e-9),
        }
        for r in profile.rows
        if r.kind == "kernel"
    ]

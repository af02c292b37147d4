"""What the command line prints as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from aisc.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
DIGITS = str(ROOT / "examples" / "digits" / "digits.onnx")


def told(*args: str) -> Any:
    done = CliRunner().invoke(app, list(args))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_check() -> None:
    found = told("check", DIGITS, "--json")
    assert found["kernels"] and found["weights_bytes"] > 0 and found["host"] == []
    assert set(found["inputs"]) == {"image"} and sum(found["operators"].values()) > 3


def test_run_gives_every_element(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 1, 8, 8), np.float32))
    exact = told(
        "run", DIGITS, "--input", f"image=@{tmp_path / 'x.npy'}", "--json", "--threads", "1"
    )
    (result,) = exact.values()
    assert result["shape"] == [2, 10] and result["dtype"] == "float32"
    np.testing.assert_allclose(np.sum(result["data"], axis=1), 1.0, rtol=1e-5)


def test_targets() -> None:
    found = told("targets", "list", "--json")
    assert found["cpu"]["kind"] == "cpu" and found["gemmini16"]["memories"]["scratchpad"] > 0


def test_version() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0 and done.stdout.startswith("aisc ")


def test_a_number_is_an_input(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def double(a: float, n: int):\n    return a * 2 + n\n")
    place = f"{tmp_path / 'm.py'}:double"
    found = told("run", place, "--input", "a=1.5", "--input", "n=4", "--json")
    assert found["output0"]["data"] == 7.0
    done = CliRunner().invoke(app, ["run", place, "--input", "a=x"])
    assert done.exit_code == 1

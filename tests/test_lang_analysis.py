"""What is known about the names in a file of the model language."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from aisc.cli.main import main
from aisc.frontend.lang.analysis import Analysis, analysed
from aisc.frontend.lang.mentions import Mention
from aisc.frontend.lang.parameters import stored_in
from aisc.frontend.lang.reading import tokens
from aisc.ir.location import Loc

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples" / "lang").glob("*.aim"))
TEXT = """import "layers.aim"

layer scaled(x: f32[n, k], by: float = 2.0) -> f32[n, k] {
    return x * by
}

layer spare(x: f32[n]) { return x }

model m(x: f32[n, 4], flag: bool[]) {
    for i in 0..3 { x = scaled(x, by=i + 1.0) }
    y = relu(x[:, 0:2])
    z[a, b] = sum[c in 0..2](y[a, c] * x[b, c])
    wide = scaled(concat(x, x, axis=1))
    if flag { y = y + 1 }
    values, places = top_k(wide, k=[2], axis=1)
    return twice(z), y, values
}
"""
LAYERS = "layer twice(x: f32[n, m]) { return x + x }\n"


@pytest.fixture
def found(tmp_path: Path) -> Analysis:
    (tmp_path / "layers.aim").write_text(LAYERS)
    return analysed(TEXT, "m.aim", tmp_path)


def at(found: Analysis, snippet: str, offset: int = 0) -> Mention:
    """The name that stands at a piece of the text."""
    place = TEXT.index(snippet) + offset
    line = TEXT.count("\n", 0, place) + 1
    m = found.at(line, place - TEXT.rfind("\n", 0, place))
    assert m is not None, snippet
    return m


def test_names_have_types_and_definitions(found: Analysis) -> None:
    assert not found.diagnostics
    for snippet, offset, kind, types, line in (
        ("x * by", 0, "tensor", ("f32[n, 4]", "f32[n, 8]"), 3),
        ("x * by", 4, "hyper-parameter", ("float = 1.0", "float = 2.0", "float = 3.0"), 3),
        ("scaled(x, by", 0, "layer", ("f32[n, 4]",), 3),
        ("scaled(x, by", 7, "tensor", ("f32[n, 4]",), 9),
        ("by=i", 0, "argument", (), 3),
        ("i + 1.0", 0, "variable", ("int = 0", "int = 1", "int = 2"), 10),
        ("i in 0", 0, "variable", ("int in 0..3",), 10),
        ("y = relu", 0, "variable", ("f32[n, 2]",), 11),
        ("z[a", 0, "variable", ("f32[n, n]",), 12),
        ("c] * x", 0, "index", (), 12),
        ("y = y + 1", 4, "variable", ("f32[n, 2]",), 11),
        ("places", 0, "variable", ("i64[n, 2]",), 15),
        ("twice(", 0, "layer", ("f32[n, n]",), 1),
        ("y, values", 0, "variable", ("f32[n, 2]",), 14),
        ("relu(", 0, "operator", ("f32[n, 2]",), None),
    ):
        m = at(found, snippet, offset)
        assert (m.kind, tuple(found.types_of(m))) == (kind, types), snippet
        assert (m.definition.line if m.definition else None) == line, snippet
    assert at(found, "twice(").definition.file == "layers.aim"  # type: ignore[union-attr]


def test_a_layer_that_nothing_calls_has_names_and_no_types(found: Analysis) -> None:
    m = at(found, "x }\n\nmodel")
    assert (m.kind, m.home, found.types_of(m)) == ("tensor", "spare", ())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_name_of_the_examples_is_known(path: Path) -> None:
    text = path.read_text()
    found = analysed(text, path.name, path.parent)
    assert not found.diagnostics
    quiet = {"operator", "reduction", "start", "argument", "property", "index", "layer", "model"}
    for m in found.mentions:
        assert found.types_of(m) or m.kind in quiet, m
        assert m.definition or m.kind in quiet, m
    places = {(m.at.line, m.at.column) for m in found.mentions}
    words = list(tokens(text))
    for before, t in pairwise(words):
        if t.type == "NAME" and (t.line, t.column) not in places:
            assert before.type in ("AS", "DOT"), f"only names of blocks are left out, not {t}"


def test_faults_leave_the_rest_known() -> None:
    text = "model m(x: f32[n]) {\n    y = rellu(x)\n    z = x + 1\n    return y\n}\n"
    found = analysed(text, "m.aim", Path())
    assert [d.code for d in found.diagnostics] == ["E108"]
    z = found.at(3, 5)
    assert z is not None and found.types_of(z) == ("f32[n]",)
    broken = analysed("model m(", "m.aim", Path())
    assert [d.code for d in broken.diagnostics] == ["E107"] and not broken.is_read
    lost = analysed('import "none.aim"\n', "m.aim", Path())
    assert [d.code for d in lost.diagnostics] == ["E104"]
    assert not analysed(LAYERS, "m.aim", Path()).diagnostics, "a library"


def test_large_parameters_are_not_made(found: Analysis) -> None:
    """Types need no contents: this one would have 16 GB."""
    text = "model m(x: f32[n, 65536]) { param w: f32[65536, 65536] = normal()\n return x @ w }"
    found = analysed(text, "m.aim", Path())
    assert not found.diagnostics
    assert ("f32[65536, 65536]",) in found.types.values()


def test_parameters_have_paths_types_and_sources() -> None:
    text = """weights "none.npz"
    layer dense(x: f32[n, k], out: int) {
        param w: f32[k, out]
        param b: f32[out] = full(0.5)
        return x @ w + b
    }
    model m(x: f32[n, 4]) { return dense(dense(x, out=8) as first, out=2) as heads[0] }
    """
    found = analysed(text, "m.aim", Path())
    assert [d.code for d in found.diagnostics] == ["E104"], "and nothing about what it would hold"
    assert {k: (p.type, p.given) for k, p in found.parameters.items()} == {
        "first.w": ("f32[4, 8]", "none.npz"), "first.b": ("f32[8]", "full(0.5)"),
        "heads.0.w": ("f32[8, 2]", "none.npz"), "heads.0.b": ("f32[2]", "full(0.5)"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_files_of_weights_are_compared_and_not_read(tmp_path: Path, kind: str) -> None:
    arrays = {"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float16), "z": np.ones(0)}
    path = tmp_path / f"w.{kind}"
    np.savez(path, **arrays) if kind == "npz" else save_file(arrays, path)
    whole = stored_in(tmp_path, path.name, Loc())
    heads = stored_in(tmp_path, path.name, Loc(), contents=False)
    assert {k: (v.shape, v.dtype) for k, v in whole.items()} == {
        k: (v.shape, v.dtype) for k, v in heads.items()
    }
    assert all(not any(v.strides) for v in heads.values() if v.size), "one element for all"
    text = f"""weights "{path.name}"
    model m(x: f32[n, 4]) {{
        param w: f32[4, 3]
        param b: f32[3]
        return x @ w + b
    }}"""
    (fault,) = analysed(text, "m.aim", tmp_path).diagnostics
    assert "holds float16[3]" in fault.notes[1]
    path.write_bytes(path.read_bytes()[:20])
    (fault,) = analysed(text, "m.aim", tmp_path).diagnostics
    assert fault.code == "E104"


def test_check_shows_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.aim"
    (tmp_path / "layers.aim").write_text(LAYERS)
    path.write_text(TEXT)
    with pytest.raises(SystemExit) as end:
        main(["check", str(path), "--types", "--shape", "n=7"])
    out = capsys.readouterr().out
    assert not end.value.code
    assert "f32[7, 8]" in out and "int in 0..3" in out and "can be compiled" in out
    assert max(map(len, out.splitlines())) <= 80
    with pytest.raises(SystemExit) as end:
        main(["check", "model.onnx", "--types"])
    assert end.value.code == 1

"""Importers as plug-ins: files, bytes and objects find the one that knows them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx_models import F, model, node, value

import aisc
from aisc.frontend import registry
from aisc.ir import plugins

PLUGIN = """
from aisc.ir import plugins
from aisc.ir.dtypes import f32
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

class Importer:
    def accepts(self, source):
        return hasattr(source, "operators")

    def parts(self, path):
        return ()

    def __call__(self, source, shapes, *, overridable=()):
        names = source.operators if self.accepts(source) else source.read_text().split()
        b = GraphBuilder()
        x = b.input("x", TensorType((3,), f32))
        for name in names:
            x = b.add(name, (x,))
        return b.finish([x])

IMPORTER = Importer()
"""
X = np.array([-1, 4, 9], np.float32)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that reads lists of operators from files with the suffix .ops."""
    site = tmp_path / "site"
    info = site / "aisc_ops-1.dist-info"
    info.mkdir(parents=True)
    (site / "ops_reader.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aisc-ops\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[aisc.importers]\nops = ops_reader:IMPORTER\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    plugins.forget()
    yield tmp_path
    plugins.forget()
    sys.modules.pop("ops_reader", None)


def test_files_of_a_plug_in(plugin: Path) -> None:
    path = plugin / "net.ops"
    path.write_text("relu sqrt")
    np.testing.assert_array_equal(aisc.compile(path, threads=1, cache=False)(X), [0, 2, 3])
    assert ".ops" in str(refusal(plugin / "net.txt")), "what is known"
    assert registry.parts(path) == ()


def test_objects_of_a_plug_in(plugin: Path) -> None:
    exe = aisc.compile(SimpleNamespace(operators=["neg", "relu"]), threads=1)
    np.testing.assert_array_equal(exe(X), [1, 0, 0])


def test_own_importers_come_first() -> None:
    x, y = value("x", F, [3]), value("y", F, [3])
    proto = model([node("Relu", "x", "y")], [x], [y])
    for source in (proto, proto.SerializeToString()):
        np.testing.assert_array_equal(aisc.compile(source, threads=1)(X), [0, 4, 9])
    assert {"aim", "onnx"} <= set(registry.suffixes())


@pytest.mark.parametrize("source", [3, None, ["a"], "net.txt", Path("net")])
def test_what_nobody_knows(source: object) -> None:
    assert refusal(source).codes == ("E101",)


def refusal(source: object) -> aisc.CompileError:
    with pytest.raises(aisc.CompileError) as caught:
        registry.importer_for(source)
    return caught.value

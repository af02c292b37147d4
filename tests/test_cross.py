"""Code for other architectures: objects of every operator, whole models as bundles."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import light_models
import numpy as np
import pytest
from onnx import helper
from test_ops_machine import COMPUTED, graph_of

import aisc
from aisc.codegen.run import bundle, bundle_writer
from aisc.driver import api
from aisc.driver.options import Options
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.tensor.func import Program

DIGITS = Path(__file__).resolve().parent.parent / "examples/digits/digits.onnx"
# The machine of an ELF header, and multiply-adds of vectors.
FOREIGN = {
    "aarch64-neon": (183, r"fmla\s+v\d+\.4s"),
    "aarch64-sve": (183, r"fm(la|ad)\s+z\d+\.s"),
    "riscv64-v": (243, r"vfm(acc|add)\.v"),
}
HOSTS = re.compile(r"%[xyz]mm|\b(mov|lea|vmov)\w*\s+%?[re]")


def machine_of(code: bytes) -> int:
    assert code[:4] == b"\x7fELF"
    number: int = struct.unpack_from("<H", code, 18)[0]
    return number


def whole_object(model: object, target: str) -> bytes:
    program = aisc.lower(model, "program", target=target)
    assert isinstance(program, Program)
    host, _ = api.backends_of(target)
    return host.assemble(host.emit_all(program)).object


@pytest.mark.parametrize("target", FOREIGN)
def test_some_operators(target: str) -> None:
    for case in COMPUTED[7::40]:
        assert machine_of(whole_object(graph_of(case, True)[0], target)) == FOREIGN[target][0]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("target", FOREIGN)
def test_operators(target: str, part: int) -> None:
    for case in COMPUTED[part::8]:
        assert machine_of(whole_object(graph_of(case, True)[0], target)) == FOREIGN[target][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", light_models.NAMES)
@pytest.mark.parametrize("target", FOREIGN)
def test_light_models(target: str, name: str) -> None:
    assert machine_of(whole_object(light_models.load(name, 0), target)) == FOREIGN[target][0]


@pytest.mark.parametrize("target", FOREIGN)
def test_hot_loops_have_vectors_of_the_target(target: str) -> None:
    assembly = str(aisc.lower(DIGITS, "asm", target=target))
    assert len(re.findall(FOREIGN[target][1], assembly)) > 20
    assert not (found := HOSTS.search(assembly)), found


@pytest.mark.parametrize("target", FOREIGN)
def test_a_bundle_is_made_here_and_runs_there(target: str, tmp_path: Path) -> None:
    made = api.build(DIGITS, target, Options(threads=2, use_cache=False, load=False))
    assert made.executable is None
    assert made.image is not None
    bundle_writer.write(made.image, tmp_path / "digits.aisc")
    image = bundle.read(tmp_path / "digits.aisc").image
    assert {machine_of(o) for o in (image.runtime, *image.objects)} == {FOREIGN[target][0]}
    with pytest.raises(ExecutionError, match="another machine") as caught:
        aisc.load(tmp_path / "digits.aisc")
    assert caught.value.codes == ("E506",)
    with pytest.raises(ExecutionError, match="another machine"):
        aisc.compile(DIGITS, target=target, cache=False)


def test_weights_are_packed_as_there() -> None:
    """Lanes of 128 bits: what a packer makes does not depend on where it runs."""
    images = [
        api.build(DIGITS, t, Options(use_cache=False, load=False)).image
        for t in ("aarch64-neon", "riscv64-v")
    ]
    first, second = images
    assert first is not None and second is not None
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_without_weights() -> None:
    relu = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "relu",
            [helper.make_tensor_value_info("x", 1, [4])],
            [helper.make_tensor_value_info("y", 1, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )  # fmt: skip
    made = api.build(relu, "aarch64-neon", Options(use_cache=False, load=False)).image
    assert made is not None
    assert made.weights == ()

"""SIMT machines by their descriptions: code for each, what kernels take there, and what the
assembler makes of them."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
import zoo
from ptx.device import Checked
from typer.testing import CliRunner

import aisc
from aisc.cli.main import app
from aisc.codegen.simt.module import GENERAL, Grid, module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas
from aisc.codegen.simt.sass import Sass, find_nvdisasm, parse, sass_of
from aisc.codegen.simt.usage import occupancy_of
from aisc.ir.diagnostics import CompileError
from aisc.ir.target import builtin_names, resolve

ROOT = Path(__file__).parent.parent
DIGITS = str(ROOT / "examples/digits/digits.onnx")
SIMT = tuple(n for n in builtin_names() if n != "cpu" and resolve(n).kind == "simt")
NVIDIA = tuple(n for n in SIMT if resolve(n).triple.startswith("nvptx64"))
needs_ptxas = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
needs_disassembler = pytest.mark.skipif(
    find_ptxas() is None or find_nvdisasm() is None, reason="the tools are not installed"
)


@cache
def small() -> object:
    return zoo.ZOO["mlp"].build(sizes=(20, 70, 65))


@cache
def program(target: str) -> aisc.Program:
    return aisc.lower(small(), "program", target=target)


def test_there_are_machines_of_all_sorts() -> None:
    assert {"nvidia_sm75", "nvidia_sm80", "nvidia_sm90", "warp16", "amd_gfx942"} <= set(SIMT)
    assert {resolve(n).limits["warp"] for n in SIMT} == {16, 32, 64}


@pytest.mark.parametrize("target", SIMT)
def test_a_model_is_right_on_every_machine(target: str) -> None:
    x = np.random.default_rng(0).standard_normal((67, 20)).astype(np.float32)
    want = aisc.compile(small(), cache=False)(x)
    exe = aisc.compile(small(), target=target, cache=False)
    np.testing.assert_allclose(exe(x), want, rtol=1e-5, atol=1e-6)
    assert {c.target for c in exe.image.calls if hasattr(c, "kernel")} == {target}


@pytest.mark.parametrize("target", SIMT)
def test_kernels_keep_the_limits(target: str) -> None:
    machine = resolve(target)
    kernels = [k for k in program(target).kernels if k.target == target]
    _, grids = module_of(kernels, machine)
    for grid in grids:
        assert np.prod(grid.block) <= machine.limits["threads_per_block"]
        assert grid.shared_bytes <= machine.limits["shared_bytes"]


@pytest.mark.parametrize("target", NVIDIA)
def test_kernels_run_as_ptx(target: str) -> None:
    exe = aisc.compile(small(), target=target, cache=False)
    (code,) = exe.image.devices
    checked = Checked(code, {k.name: k for k in program(target).kernels})
    exe._devices[target] = checked
    exe(np.random.default_rng(1).standard_normal((3, 20)).astype(np.float32))
    assert checked.funcs.keys() <= checked.ran.keys()


def test_no_machine_is_named_in_code() -> None:
    names = re.compile(r"\b(gfx\d+|amd_\w+|warp16|nvidia_sm7\w*|nvidia_sm80)\b")
    for folder in ("ir", "frontend", "passes", "codegen"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not names.search(path.read_text(encoding="utf-8")), path


def test_amd_kernels_assemble() -> None:
    machine = resolve("amd_gfx942")
    kernels = [k for k in program(machine.name).kernels if k.target == machine.name]
    text, _ = module_of(kernels, machine)
    assembly = ptx_of(text, machine)
    for k in kernels:
        assert f"\n{k.name}:" in assembly and f".amdhsa_kernel {k.name}\n" in assembly
    assert set(re.findall(r"\.amdhsa_private_segment_fixed_size (\d+)", assembly)) == {"0"}
    assert "s_barrier" in assembly and "v_fma" in assembly
    tool = llvm.Target.from_triple(machine.triple).create_target_machine(cpu=machine.arch)
    made = tool.emit_object(llvm.parse_assembly(text))
    assert made[:4] == b"\x7fELF" and made[18:20] == b"\xe0\x00"  # EM_AMDGPU


@needs_ptxas
@pytest.mark.parametrize("target", NVIDIA)
def test_the_assembler_takes_every_kernel(target: str) -> None:
    from aisc.codegen.simt.usage import usage_of

    kernels = [k for k in program(target).kernels if k.target == target]
    usage = usage_of(kernels, resolve(target))
    assert {k.name for k in kernels} <= usage.keys()
    for u in usage.values():
        assert u.assembled and u.spills == 0 and 0 < u.occupancy <= 1


# -- what the command line says --------------------------------------------------------------------


def run(*args: str) -> str:
    done = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_ptx_is_emitted_alone(tmp_path: Path) -> None:
    text = run("compile", DIGITS, "--target", "nvidia_sm80", "--emit", "ptx")
    entries = re.findall(r"\.visible \.entry (\w+)", text)
    assert len([n for n in entries if not n.endswith(GENERAL)]) == 9 and ".target sm_80" in text
    assert "rsp" not in text
    run("compile", DIGITS, "--target", "nvidia_sm80", "--emit", "ptx", "-o", str(tmp_path / "p"))
    assert (tmp_path / "p").read_text().strip() == text.strip()


@pytest.mark.parametrize("target", ["cpu", "amd_gfx942", "systolic8"])
def test_what_is_no_ptx_is_not_emitted_as_such(target: str) -> None:
    args = ["compile", DIGITS, "--target", target, "--emit", "ptx"]
    with pytest.raises(CompileError) as caught:
        CliRunner().invoke(app, args, catch_exceptions=False)
    assert caught.value.codes == ("E402",)


def test_check_tells_what_kernels_take() -> None:
    for target in ("nvidia_sm90", "amd_gfx942"):
        table = run("check", DIGITS, "--target", target)
        assert f"{target}: its kernels run" in table
        assert "what kernels take" in table and "k0_conv_relu" in table and "%" in table
        rows = json.loads(run("check", DIGITS, "--target", target, "--json"))["usage"]
        assert len(rows) == 9 and {r["target"] for r in rows} == {target}
        assembled = target == "nvidia_sm90" and find_ptxas() is not None
        assert {r["assembled"] for r in rows} == {assembled}
    assert json.loads(run("check", DIGITS, "--json"))["usage"] == []


def test_occupancy() -> None:
    machine = resolve("nvidia_sm90")
    one = None, None, None
    cases = {
        (256, 0, 32): (1.0, "threads"), (256, 0, 64): (0.5, "registers"),
        (128, 48 << 10, 32): (4 * 128 / 2048, "shared memory"), (32, 0, 16): (0.5, "blocks"),
        (100, 0, 16): (1.0, "threads"),
    }  # fmt: skip
    for (threads, shared, registers), (share, bound) in cases.items():
        grid = Grid("k", "k", one, (threads, 1, 1), shared)
        assert occupancy_of(machine, grid, registers) == (share, bound), (threads, shared)
    grid = Grid("k", "k", one, (20, 1, 1), 3000)
    assert occupancy_of(resolve("warp16"), grid, 8) == (2 * 32 / 512, "shared memory")


# -- instructions of the machine -------------------------------------------------------------------

LISTING = """
.text.first:
        /*0000*/                   LDG.E.128.CONSTANT R4, [R2.64] ;
        /*0010*/              @!P0 HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0020*/                   LDSM.16.M88.4 R4, [R3] ;
        /*0030*/              @!PT LDS RZ, [RZ] ;
.text.second:
        /*0000*/              @UP1 STL [R1], R4 ;
        /*0010*/                   STS.64 [R1], R4 ;
"""


def test_listings_are_counted() -> None:
    found = parse(LISTING)
    first, second = found["first"], found["second"]
    assert (first.tensor_core, first.wide_global, first.wide_shared, first.local) == (1, 1, 1, 0)
    assert first.count("LDS") == 0, "it is never executed"
    assert (second.tensor_core, second.wide_shared, second.local) == (0, 0, 1)
    assert Sass(Counter({"LDG.E.128": 2, "LDG.E": 3})).count("LDG") == 5


PTX = """.version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 k_param_0, .param .u64 k_param_1)
.reqntid 32, 1, 1
{
  .reg .b32 %r<20>; .reg .b64 %rd<9>;
  ld.param.u64 %rd1, [k_param_0];
  ld.param.u64 %rd2, [k_param_1];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd3, %r1, 16;
  add.s64 %rd4, %rd1, %rd3;
  ld.global.v4.b32 {%r2, %r3, %r4, %r5}, [%rd4];
  ld.global.v2.b32 {%r6, %r7}, [%rd4+512];
  mov.b32 %r8, 0;
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r9, %r10, %r11, %r12}, {%r2, %r3, %r4, %r5}, {%r6, %r7}, {%r8, %r8, %r8, %r8};
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%r13, %r14, %r15, %r16}, {%r2, %r3, %r4, %r5}, {%r7, %r6}, {%r9, %r10, %r11, %r12};
  add.s64 %rd5, %rd2, %rd3;
  st.global.v4.b32 [%rd5], {%r13, %r14, %r15, %r16};
  ret;
}
"""  # noqa: E501


@needs_disassembler
def test_tensor_cores_and_wide_accesses_are_seen() -> None:
    for arch in ("sm_80", "sm_90"):
        found = sass_of(PTX, arch)["k"]
        assert (found.tensor_core, found.wide_global, found.local) == (2, 2, 0)


@needs_disassembler
def test_spills_are_seen() -> None:
    held = "\n".join(f"  ld.global.b32 %r{20 + k}, [%rd4+{4 * k}];" for k in range(300))
    used = "\n".join(f"  st.volatile.global.b32 [%rd5+{4 * k}], %r{20 + k};" for k in range(300))
    text = PTX.replace("%r<20>", "%r<330>").replace(
        "  ret;", f"{held}\n  bar.sync 0;\n{used}\n  ret;"
    )
    text = text.replace("ld.global.b32", "ld.volatile.global.b32")
    assert sass_of(text, "sm_80")["k"].local > 0


@needs_disassembler
def test_compiled_kernels_are_seen() -> None:
    machine = resolve("nvidia_sm90")
    kernels = [k for k in program(machine.name).kernels if k.target == machine.name]
    text, grids = module_of(kernels, machine)
    found = sass_of(ptx_of(text, machine), machine.arch)
    assert found.keys() == {name for g in grids for name in g.entries}
    usual = [found[g.name] for g in grids]
    assert all(s.local == 0 and s.count("FFMA") + s.count("LDG") > 0 for s in usual)


def test_tools_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(CompileError) as caught:
        sass_of(PTX, "sm_80")
    assert caught.value.codes == ("E402",)
    rows = json.loads(run("check", DIGITS, "--target", "nvidia_sm90", "--json"))["usage"]
    assert rows and not any(r["assembled"] for r in rows)

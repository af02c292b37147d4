"""Accelerators whose units pass tokens: handovers that are inserted and proved, streams that run by
queues, and faults that are planted."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import test_dsa
from test_dsa_models import command, digits, images

import aisc
from aisc.codegen.dsa.backend import DsaBackend
from aisc.codegen.dsa.banks import conflicts
from aisc.codegen.dsa.queues import run_queues
from aisc.codegen.dsa.simulator import simulate
from aisc.codegen.dsa.stream import Execution, Signal, Site, Stream
from aisc.codegen.dsa.timing import timing
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.location import Loc
from aisc.ir.node import walk
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Handover, Seq, Stmt
from aisc.ir.tensor.tree import transform_statements
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.tensor.handovers import AHEAD, ahead_of, check_handovers

__all__ = ["digits"]
VTA = resolve("vta16")
TEXT = VTA.source
# The same with little memory, and with units that wait for addresses.
LITTLE = from_toml(
    TEXT.replace("bytes = 294912", "bytes = 4096").replace("bytes = 131072", "bytes = 4096")
)
FREE = from_toml(re.sub(r"\[token\..*?\n\n", "", TEXT, flags=re.DOTALL))
CASES = {
    "product": lambda: test_dsa.product(33, 40, 50, bias=True),
    **{n: c.func for n, c in test_dsa.CONVS.items()},
}


def kernel_of(name: str, chip: Target = VTA) -> Func:
    return test_dsa.kernel_of(replace(CASES[name](), loc=Loc(node="layer_7")), chip)


@pytest.mark.parametrize("chip", [VTA, LITTLE], ids=["vta16", "little memory"])
@pytest.mark.parametrize("name", CASES)
def test_levels_agree(name: str, chip: Target) -> None:
    """Bit by bit, also where each unit goes on as far as it comes."""
    func = CASES[name]()
    kernel = test_dsa.agree(func, chip)
    check_handovers(kernel, chip)
    want, got = test_dsa.arguments(func), test_dsa.arguments(func)
    run_func(func, want)
    run_queues(Stream(kernel, chip), chip, got)
    np.testing.assert_array_equal(got[-1], want[-1])


@pytest.mark.parametrize("name", CASES)
def test_tokens_cost_little(name: str) -> None:
    """Beside units that wait for addresses, which they know exactly."""
    with_tokens, without = kernel_of(name), kernel_of(name, FREE)
    assert any(isinstance(n, Handover) for n in walk(with_tokens.body))
    assert not any(isinstance(n, Handover) for n in walk(without.body))
    a, b = timing(Stream(with_tokens, VTA), VTA), timing(Stream(without, FREE), FREE)
    assert b.cycles <= a.cycles <= 1.12 * b.cycles
    assert (a.busy, a.macs, a.loaded) == (b.busy, b.macs, b.loaded)


@pytest.mark.parametrize("chip", [VTA, FREE, resolve("gemmini16")], ids=["tokens", "free", "g16"])
def test_units_say_what_they_wait_for(chip: Target) -> None:
    """Work and waits fill the time of a unit up to its last instruction."""
    for name in ("product", "3x3", "strided"):
        found = timing(Stream(kernel_of(name, chip), chip), chip)
        reasons = {*found.busy, "queue", "requests"}
        for unit, waits in found.waits.items():
            assert set(waits) <= reasons - {unit}
            assert found.busy[unit] + sum(waits.values()) <= found.cycles
        assert found.waits["store"], "results come later than the kernel begins"


def test_the_slowest_engine_is_what_units_wait_for() -> None:
    narrow = from_toml(TEXT.replace("width = 8\nlatency = 60", "width = 1\nlatency = 60", 1))
    kernel = test_dsa.kernel_of(test_dsa.product(64, 256, 64), narrow)
    time = DsaBackend(narrow).time(kernel)
    assert time.busiest == "load"
    assert max(time.waits["compute"], key=lambda why: time.waits["compute"][why]) == "load"
    wide = from_toml(TEXT.replace("width = 8\nlatency = 60", "width = 256\nlatency = 2", 1))
    time = DsaBackend(wide).time(test_dsa.kernel_of(test_dsa.product(256, 256, 256), wide))
    assert time.busiest == "compute"
    assert time.stall[1] < 0.1 * time.cycles


def test_units_run_ahead() -> None:
    kernel = kernel_of("3x3")
    ahead = {q.name: ahead_of(kernel, q) for q in VTA.chip.tokens}  # type: ignore[union-attr]
    assert ahead == {"loaded": 0, "read": 3, "computed": 0, "stored": 0}
    assert parse_func(print_func(kernel)) == kernel


def without(func: Func, number: int) -> Func:
    """A kernel that lacks one of its handovers."""
    seen = itertools.count()

    def swap(s: Stmt) -> Stmt:
        return Seq(()) if isinstance(s, Handover) and next(seen) == number else s

    return replace(func, body=transform_statements(func.body, swap))


@pytest.mark.parametrize("name", ["product", "3x3", "strided", "groups"])
def test_every_handover_is_needed(name: str) -> None:
    """The proof fails without any of them, and when a unit may be farther ahead."""
    kernel = kernel_of(name, LITTLE)
    count = sum(isinstance(n, Handover) for n in walk(kernel.body))
    assert count >= 3
    for number in range(count):
        with pytest.raises(CompileError) as caught:
            check_handovers(without(kernel, number), LITTLE)
        assert caught.value.codes == ("E507",)
        assert "race on" in str(caught.value)
    pairs = {(n.giver, n.taker) for n in walk(kernel.body) if isinstance(n, Handover)}
    for giver, taker in pairs:
        attrs = dict(kernel.attrs)
        attrs[f"{AHEAD}{giver}.{taker}"] = 7
        with pytest.raises(CompileError) as caught:
            check_handovers(replace(kernel, attrs=tuple(attrs.items())), LITTLE)
        assert caught.value.codes == ("E507",)


def test_tokens_that_do_not_fit_are_a_deadlock() -> None:
    kernel = kernel_of("3x3")
    attrs = {**dict(kernel.attrs), f"{AHEAD}compute.load": 8}
    with pytest.raises(CompileError, match="9 tokens do not fit read") as caught:
        check_handovers(replace(kernel, attrs=tuple(attrs.items())), VTA)
    assert caught.value.codes == ("E508",)


def test_units_without_tokens_between_them() -> None:
    """A description that lacks a queue is refused, which names it."""
    text = re.sub(r"\[token\.stored\].*?\n\n", "", TEXT, flags=re.DOTALL)
    with pytest.raises(CompileError, match="nothing orders the units store and compute") as caught:
        test_dsa.kernel_of(test_dsa.product(33, 40, 50), from_toml(text))
    assert caught.value.codes == ("E402",)
    assert 'giver = "store", taker = "compute"' in str(caught.value)


WRONG = {
    'giver = "load"': [('giver = "loads"', "token.loaded.giver", "compute, load, store")],
    'taker = "compute"\ndepth = 8': [
        ('taker = "compute"\ndepth = 0', "token.loaded.depth", "from 1"),
        ('taker = "compute"', "token.loaded.depth", "missing"),
        ('taker = "load"\ndepth = 8', "token.loaded.taker", "another unit"),
        ('to = "compute"\ndepth = 8', "'to'", "known"),
    ],
    'taker = "load"': [('taker = "store"', "token.computed.taker", "token.read has the same")],
}
EDITS = [(old, *edit) for old, edits in WRONG.items() for edit in edits]


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e[1].replace("\n", " "))
def test_a_wrong_queue_is_named(edit: tuple[str, str, str, str]) -> None:
    old, new, key, remedy = edit
    with pytest.raises(CompileError) as caught:
        from_toml(TEXT.replace(old, new, 1), "chip.toml")
    assert caught.value.codes == ("E401",)
    assert key in str(caught.value)
    assert remedy in str(caught.value)


# -- planted faults -------------------------------------------------------------------------------

Program = list[Execution]
Plant = Callable[[Stream, Program], Program]


def at(stream: Stream, program: Program, name: str, nth: int = 0) -> int:
    """The place of an instruction or signal in a program."""
    return [k for k, x in enumerate(program) if stream.sites[x[0]].name == name][nth]


def missing_pair(stream: Stream, program: Program) -> Program:
    """Neither unit knows of a token: a hazard."""
    give = at(stream, program, "give loaded", 1)
    take = at(stream, program, "take loaded", 1)
    return [x for k, x in enumerate(program) if k not in (give, take)]


def missing_give(stream: Stream, program: Program) -> Program:
    give = at(stream, program, "give loaded", -1)
    return [x for k, x in enumerate(program) if k != give]


def swapped(stream: Stream, program: Program) -> Program:
    """Two units that each wait for the other before they give."""
    loaded, read = at(stream, program, "give loaded"), at(stream, program, "take read")
    program = list(program)
    program[loaded], program[read] = program[read], program[loaded]
    first = at(stream, program, "take loaded")
    free = [k for k, x in enumerate(program) if stream.sites[x[0]].name == "give read"]
    moved = [program[k] for k in free[:8]]
    kept = [x for k, x in enumerate(program) if k not in free[:8]]
    return [*kept[:first], *kept[first:], *moved]


def changed(
    stream: Stream, program: Program, name: str, operand: int, by: int, nth: int = 0
) -> Program:
    k = at(stream, program, name, nth)
    site, sizes, offsets = program[k]
    moved = [o + by * (n == operand) for n, o in enumerate(offsets)]
    return [*program[:k], (site, sizes, tuple(moved)), *program[k + 1 :]]


def restrided(stream: Stream, name: str, operand: int, stride: int) -> None:
    """Walk over the first dimension of an operand by another stride, wherever the instruction
    stands."""
    for k, site in enumerate(stream.sites):
        if isinstance(site, Site) and site.name == name:
            places = list(site.places)
            strides = (*places[operand].strides[:-2], stride, places[operand].strides[-1])
            places[operand] = replace(places[operand], strides=strides)
            stream.sites[k] = replace(site, places=tuple(places))


def overlapping(stream: Stream, program: Program) -> Program:
    restrided(stream, "load_weights", 1, 8)
    return program


def far(stream: Stream, program: Program) -> Program:
    restrided(stream, "compute_u8", 0, 1 << 18)
    return program


def beside(stream: Stream, program: Program) -> Program:
    restrided(stream, "load_weights", 1, 48)
    return program


FAULTS: dict[str, tuple[Plant, str, str]] = {
    "missing token": (missing_pair, "E507", r"preload .*: load writes it by load_weights .*token"),
    "missing give": (missing_give, "E508", "compute stands at take loaded, and load never gives"),
    "swapped tokens": (swapped, "E508", "wait for ever"),
    "beyond the scratchpad": (
        lambda s, p: changed(s, p, "load_weights", 1, 1 << 20), "E502",
        r"load_weights .* lie outside of scratchpad",
    ),
    "beyond a buffer": (
        lambda s, p: changed(s, p, "load_u8", 0, 10_000), "E502", r"load_u8 .* lie outside of x",
    ),
    "unwritten": (
        lambda s, p: changed(s, p, "compute_u8", 0, 2048), "E509",
        r"compute_u8 .*: it reads what nothing has written",
    ),
    "stride by which rows overlap": (
        overlapping, "E509", r"load_weights .*: elements of its result overlap by strides 8/1",
    ),
    "stride beyond the memory": (far, "E502", r"compute_u8 .* lie outside of scratchpad"),
    "stride beside": (beside, "E509|E507", r"preload .*: "),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str) -> None:
    """Each error names the instruction, the address and the layer."""
    plant, code, words = FAULTS[name]
    kernel = kernel_of("3x3")
    stream = Stream(kernel, VTA)
    program = plant(stream, list(stream))
    args = test_dsa.arguments(CASES["3x3"]())
    with pytest.raises(ExecutionError) as caught:
        run_queues(stream, VTA, args, program)
    text = str(caught.value)
    assert re.fullmatch(code, caught.value.codes[0])
    assert re.search(words, text, re.DOTALL), text
    assert "layer layer_7, kernel conv" in text
    if code != "E508":
        assert re.search(r"(scratchpad|array|x)[:+]0x", text)


def test_faults_of_chips_without_tokens() -> None:
    chip = resolve("gemmini16")
    stream = Stream(kernel_of("3x3", chip), chip)
    args = test_dsa.arguments(CASES["3x3"]())
    run_queues(stream, chip, args)
    for plant, code in ((FAULTS["unwritten"][0], "E509"), (overlapping, "E509")):
        stream = Stream(kernel_of("3x3", chip), chip)
        with pytest.raises(ExecutionError) as caught:
            run_queues(stream, chip, args, plant(stream, list(stream)))
        assert caught.value.codes == (code,)


def test_what_a_missing_token_does() -> None:
    """In program order it is not seen; units side by side do read what is not there yet."""
    kernel = kernel_of("3x3")
    stream = Stream(kernel, VTA)
    signals = {k for k, s in enumerate(stream.sites) if isinstance(s, Signal)}
    program = [x for x in stream if x[0] not in signals]
    want, got = (test_dsa.arguments(CASES["3x3"]()) for _ in range(2))
    run_func(CASES["3x3"](), want)
    simulate(stream, VTA, got, program)
    np.testing.assert_array_equal(got[-1], want[-1])
    with pytest.raises(ExecutionError) as caught:
        run_queues(stream, VTA, got, program)
    assert caught.value.codes[0] in ("E507", "E509")


def test_conflicts_of_banks() -> None:
    """Loads beside a product in one bank; none where a bank has a port for each."""
    kernel = kernel_of("3x3")
    found = conflicts(Stream(kernel, VTA), VTA)
    assert found
    assert all(c.memory == "scratchpad" and c.cycles > 0 for c in found)
    text = str(found[0])
    assert re.search(r"bank 0 of scratchpad is wanted for \d+ cycles by .* at 0x", text)
    assert "layer layer_7" in text
    wide = from_toml(TEXT.replace("ports = 1", "ports = 3"))
    assert not conflicts(Stream(kernel, wide), wide)


# -- whole models ---------------------------------------------------------------------------------


def test_digits_by_tokens(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = images(3)
    want = aisc.compile(str(digits), shapes={"batch": 3}, cache=False).run(None, {"image": x})
    exe = aisc.compile(str(digits), target="vta16", shapes={"batch": 3}, cache=False)
    got = exe.run(None, {"image": x})
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-7)
    at = [str(digits), "--target", "vta16", "--shape", "batch=1"]
    assert command("check", *at, "--faults") == 0
    out = capsys.readouterr().out
    assert out.count(": no faults") == 5
    assert command("check", *at, "--cycles") == 0
    assert command("check", str(digits), "--faults") != 0
    assert "instructions are known of simulated targets only" in capsys.readouterr().err


def test_layers_are_named_after_the_model(digits: Path) -> None:
    program = aisc.lower(str(digits), "program", target="vta16", shapes={"batch": 1})
    kernels = [k for k in program.kernels if k.target == "vta16"]  # type: ignore[union-attr]
    names = {n.name for n in onnx.load(digits).graph.node}
    assert all(Stream(k, VTA).layer in names for k in kernels)

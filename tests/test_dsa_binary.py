"""Instructions of accelerators as text and as bytes: each is made of the other."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import test_dsa
from test_dsa_models import command, digits

from aisc.codegen.backend import Encoded, backend_of
from aisc.codegen.dsa.binary import MAGIC, decode, encode
from aisc.codegen.dsa.encoding import Field
from aisc.codegen.dsa.queues import run_queues
from aisc.codegen.dsa.recorded import Recorded, read_text, recorded, text_of
from aisc.codegen.dsa.simulator import simulate
from aisc.codegen.dsa.stream import Stream
from aisc.codegen.dsa.timing import timing
from aisc.ir import dtypes
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func

__all__ = ["digits"]
ROOT = Path(__file__).parents[1]
CHIPS = {n: resolve(n) for n in ("gemmini16", "systolic8", "outputs8", "vta16", "tpu128")}
VTA = CHIPS["vta16"]
FUNCS = {
    "product": test_dsa.product(17, 40, 20, bias=True),
    **{n: test_dsa.CONVS[n].func() for n in ("3x3", "groups", "channels first", "zero point")},
    "program": test_dsa.with_map(*test_dsa.MAPS["residual"]),
}


def code_of(name: str, chip: Target) -> Recorded:
    return recorded(Stream(test_dsa.kernel_of(FUNCS[name], chip), chip), chip)


def random_code(chip: Target, seed: int) -> Recorded:
    """Any instructions, with any values that their fields hold."""
    rng = random.Random(seed)
    types = rng.sample([dtypes.i8, dtypes.f32, dtypes.bf16], 2)
    params = [buffer(n, t, (3, 5), "input") for n, t in zip(("x", "a name"), types, strict=True)]
    code = Recorded(
        chip, f"k{seed}", 'layer, of "no" model; at all', params, {"accumulator": 4}, {}
    )
    for _ in range(20):
        name = rng.choice(code.format.names)
        values = [_value(f, rng) for f in code.format.fields[name]]
        code.add(name, tuple(values))
    return code


def _value(f: Field, rng: random.Random) -> int:
    if "buffer" in f.name:
        return rng.randrange(2)
    low = -(1 << f.bits - 1) if f.signed else 0
    return rng.choice([low, low + (1 << f.bits) - 1, rng.randrange(low, low + (1 << f.bits)), 1])


@pytest.mark.parametrize("chip", CHIPS)
def test_random_programs_are_the_same_again(chip: str) -> None:
    target = CHIPS[chip]
    codes = [random_code(target, seed) for seed in range(200)]
    text = text_of(codes, target)
    data = encode(read_text(text, target), target)
    assert text_of(decode(data, target), target) == text
    assert encode(codes, target) == data
    for a, b in zip(decode(data, target), codes, strict=True):
        assert a.layer == b.layer
        assert [a.sites[x[0]].name for x in a] == [b.sites[x[0]].name for x in b]
        assert [x[1:] for x in a] == [x[1:] for x in b]


@pytest.mark.parametrize("chip", ["gemmini16", "outputs8", "vta16"])
@pytest.mark.parametrize("name", ["product", "3x3", "groups", "channels first", "zero point"])
def test_what_was_loaded_computes_the_same(name: str, chip: str) -> None:
    """From the bytes alone: results, and cycles but for what does nothing."""
    func, target = FUNCS[name], CHIPS[chip]
    (code,) = decode(encode([code_of(name, target)], target), target)
    want, got, side = (test_dsa.arguments(func) for _ in range(3))
    run_func(func, want)
    simulate(code, target, got)
    np.testing.assert_array_equal(got[-1], want[-1])
    run_queues(code, target, side)
    np.testing.assert_array_equal(side[-1], want[-1])
    stream = Stream(test_dsa.kernel_of(func, target), target)
    assert timing(code, target).busy == timing(stream, target).busy


def test_programs_of_the_vector_unit_are_in_the_header() -> None:
    chip, func = CHIPS["gemmini16"], FUNCS["program"]
    (code,) = decode(encode([code_of("program", chip)], chip), chip)
    assert "vector_0" in code.programs
    want, got = test_dsa.arguments(func), test_dsa.arguments(func)
    run_func(func, want)
    simulate(code, chip, got)
    np.testing.assert_array_equal(got[-1], want[-1])


def test_any_wrong_byte_is_one_error() -> None:
    data = encode([code_of("zero point", VTA)], VTA)
    rng = random.Random(5)
    for at in [*range(40), *rng.sample(range(40, len(data)), 300)]:
        wrong = bytearray(data)
        wrong[at] ^= 1 << rng.randrange(8)
        with pytest.raises(CompileError) as caught:
            decode(bytes(wrong), VTA, "p.bin")
        assert caught.value.codes == ("E504",)
        assert "p.bin" in str(caught.value)
    for size in [*range(0, 60), *rng.sample(range(60, len(data)), 60)]:
        with pytest.raises(CompileError) as caught:
            decode(data[:size], VTA)
        assert caught.value.codes == ("E504",)
    with pytest.raises(CompileError, match="1 bytes follow the last kernel"):
        decode(data + b"\0", VTA)


def rewritten(data: bytes, **changes: object) -> bytes:
    """A file whose sums are right again, with entries of the header of its kernel changed; `code`
    are its bytes."""
    size = int.from_bytes(data[8:12], "little")
    head, code = json.loads(data[16 : 16 + size]), data[16 + size :]
    code = changes.pop("code", code)  # type: ignore[assignment]
    head["kernels"][0] |= {"sum": zlib.crc32(code), "bytes": len(code), **changes}
    text = json.dumps(head, sort_keys=True).encode()
    sums = [n.to_bytes(4, "little") for n in (len(text), zlib.crc32(text))]
    return b"".join([MAGIC, *sums, text, code])


def test_a_file_that_fits_its_sums_may_be_wrong_all_the_same() -> None:
    data = encode([code_of("product", VTA)], VTA)
    code = data[16 + int.from_bytes(data[8:12], "little") :]
    assert decode(rewritten(data), VTA)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"code": b"\xff" + code[1:]}, "there is no instruction 255"),
        ({"code": code[:-1]}, "is cut off"),
        ({"code": code + code[:1]}, "follow the instructions"),
        ({"count": 10**6}, "cut off"), ({"count": "many"}, ""), ({"memory": {"L9": 1}}, "L9"),
        ({"params": [["x", "u9", "1", "input"]]}, "u9"), ({"params": []}, "has no operand"),
        ({"params": [["x", "u8", "1", "guest"]]}, "guest"), ({"programs": {"vector_0": "{"}}, ""),
    ]  # fmt: skip
    for changes, words in wrong:
        with pytest.raises(CompileError) as caught:
            decode(rewritten(data, **changes), VTA)
        assert caught.value.codes == ("E504",)
        assert words in str(caught.value)


def test_programs_are_for_one_description() -> None:
    data = encode([code_of("product", VTA)], VTA)
    text = text_of([code_of("product", VTA)], VTA)
    other = from_toml(VTA.source + "\n# another\n")
    for read in (
        lambda: decode(data, CHIPS["gemmini16"]),
        lambda: read_text(text, CHIPS["tpu128"]),
        lambda: decode(data, other),
    ):
        with pytest.raises(CompileError) as caught:
            read()
        assert caught.value.codes == ("E506",)


LINES = {
    "load_u9 x+0x0": "no instruction load_u9",
    "give away": "no instruction give",
    "preload scratchpad:0x0/16": "2 operands and 2 numbers",
    "preload x+0x0/16, array:0x0/16, #1, #1": "src lies in scratchpad, not in x",
    "preload accumulator:0x0/16, array:0x0/16, #1, #1": "not in accumulator",
    "preload scratchpad:0x0/16/1/1, array:0x0/16, #1, #1": "src has 2 strides",
    "preload scratchpad:16, array:0x0/16, #1, #1": "'scratchpad:16' is no operand",
    "preload scratchpad:0x0/16, array:0x0/16, #1, 1": "'1' is no number",
    "preload scratchpad:0x0/16, array:0x0/16, #1, #99": "n is 99, which 5 bits do not hold",
    "preload scratchpad:0xfffffff/16, array:0x0/16, #1, #1": "the address of src is 268435455",
    "load_i8 z+0x0/1/1, scratchpad:0x0/1/1, #1, #1, #1": "there is no operand z",
    ".memory scratchpad 4": "stands behind instructions",
    '.kernel "other"': "a kernel in another",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_line_is_named(line: str) -> None:
    text = text_of([code_of("product", VTA)], VTA)
    for at in ("take loaded\n", ".end\n"):
        before, _, after = text.partition(at)
        with pytest.raises(CompileError) as caught:
            read_text(f"{before}{line}\n{at}{after}", VTA, "p.s")
        assert caught.value.codes == ("E107",)
        assert LINES[line] in str(caught.value)
        assert f"p.s:{before.count(chr(10)) + 1}:" in str(caught.value)


@pytest.mark.parametrize("head", [".layer 3", ".program vector_0 {", ".param x u8[1", ".what", "x"])
def test_a_wrong_head_is_named(head: str) -> None:
    text = f'.target "vta16"\n.kernel "k"\n{head}\ntake loaded\n.end\n'
    with pytest.raises(CompileError) as caught:
        read_text(text, VTA)
    assert caught.value.codes == ("E107",)
    for text in ('.kernel "k"\n', "take loaded\n"):
        with pytest.raises(CompileError) as caught:
            read_text(text, VTA)
        assert caught.value.codes == ("E107",)
    assert read_text('; a comment\n\n.kernel "k"\n.end\n', VTA)[0].executions == []


def test_bits_are_those_of_the_description() -> None:
    """Wider fields, longer instructions; what a field does not hold is refused."""
    code = code_of("product", VTA)
    short = encode([code], VTA)
    wide = from_toml(VTA.source + "\n[encoding]\nopcode = 16\nalign = 128\naddress = 48\n")
    again = code_of("product", wide)
    assert text_of([again], wide) == text_of([code], VTA)
    long = encode([again], wide)
    assert len(long) > 1.2 * len(short)
    assert all(
        wide_length % 16 == 0 for wide_length in map(again.format.length, again.format.names)
    )
    assert text_of(decode(long, wide), wide) == text_of([code], VTA)
    narrow = from_toml(VTA.source + "\n[encoding]\nstride = 4\n")
    with pytest.raises(
        CompileError, match=r"stride . of .* is .*, which 4 bits do not hold"
    ) as caught:
        encode([code_of("product", narrow)], narrow)
    assert caught.value.codes == ("E402",)
    for wrong, words in (("align = 12", "whole bytes"), ("stride = 0", "from 1"), ("bits = 3", "")):
        with pytest.raises(CompileError) as caught:
            from_toml(VTA.source + f"\n[encoding]\n{wrong}\n")
        assert caught.value.codes == ("E401",)
        assert words in str(caught.value)


def test_the_command_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "q.bin"
    at = ["--target", "vta16"]
    compiled = ["compile", str(digits), *at, "--shape", "batch=1", "--emit", "dsa"]
    assert command(*compiled, "-o", str(made)) == 0
    text = (tmp_path / "q.s").read_text()
    assert text.count(".kernel ") == 5
    capsys.readouterr()
    assert command(*compiled) == 0
    assert capsys.readouterr().out == text
    assert command("assemble", str(made), *at) == 0
    assert capsys.readouterr().out == text
    assert command("assemble", str(tmp_path / "q.s"), *at, "-o", str(tmp_path / "b.bin")) == 0
    assert (tmp_path / "b.bin").read_bytes() == made.read_bytes()
    assert command("assemble", str(tmp_path / "q.s"), *at) == 1
    assert command("assemble", str(tmp_path / "none"), *at) == 1
    assert command("assemble", str(made), "--target", "cpu") != 0
    assert command(*compiled, "-o", str(tmp_path / "x.s")) == 1
    (tmp_path / "junk").write_bytes(b"\xff\xfe")
    capsys.readouterr()
    assert command("assemble", str(tmp_path / "junk"), *at) == 1
    assert "error[E504]: junk is no program of an accelerator" in capsys.readouterr().err


def test_back_ends_say_whether_they_encode() -> None:
    assert isinstance(backend_of(VTA), Encoded)
    assert not isinstance(backend_of(resolve("warp16")), Encoded)
    backend = backend_of(VTA)
    assert isinstance(backend, Encoded)
    kernels: list[Func] = [test_dsa.kernel_of(FUNCS[n], VTA) for n in ("product", "3x3")]
    text = backend.written(kernels)
    assert backend.decoded(backend.encoded(text)) == text

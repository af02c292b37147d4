"""The machine that executes PTX: what instructions mean, and the faults that it finds."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
import zoo
from ptx.counters import Counters
from ptx.device import Checked
from ptx.machine import LaunchFault, Machine
from ptx.memory import Space
from ptx.syntax import PtxError, parse

import aisc

BF16 = np.dtype(ml_dtypes.bfloat16)
REGISTERS = """
  .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<40>; .reg .b64 %rd<20>;
"""
# Each thread has in %rd1 and %rd2 the places of its 8 bytes of input and output, in %r1 its number.
HEAD = """
  ld.param.b64 %rd1, [k_param_0];
  ld.param.b64 %rd2, [k_param_1];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd3, %r1, 8;
  add.s64 %rd1, %rd1, %rd3;
  add.s64 %rd2, %rd2, %rd3;
"""


def kernel(body: str, threads: int = 32, outside: str = "") -> str:
    """A kernel of one block with an input and an output."""
    return f""".version 8.0
.target sm_90
.address_size 64
{outside}
.visible .entry k(
  .param .u64 .ptr .global .align 8 k_param_0,
  .param .u64 .ptr .global .align 8 k_param_1
)
.reqntid {threads}, 1, 1
{{{REGISTERS}{HEAD}{body}
  ret;
}}
"""


def execute(
    text: str, given: np.ndarray, size: int, known: bool = False, **options: object
) -> tuple[np.ndarray, Counters]:
    """What a kernel writes: `size` bytes."""
    memory = Space()
    out = np.full(size, 0xA5, np.uint8)
    args = [memory.add(given, "x"), memory.add(out, "y", known)]
    machine = Machine(parse(text), memory, **options)  # type: ignore[arg-type]
    return out, machine.launch("k", (1, 1, 1), args)


def fault(text: str, kind: str, given: np.ndarray | None = None, size: int = 256) -> LaunchFault:
    """The fault that a kernel is found to have."""
    with pytest.raises(LaunchFault) as caught:
        execute(text, np.zeros(64, np.int64) if given is None else given, size)
    assert caught.value.kind == kind, caught.value
    return caught.value


# -- what instructions mean ------------------------------------------------------------------------

I32, F32 = np.int32, np.float32
INTS = np.array([0, 1, -1, 5, -7, 2**31 - 1, -(2**31), 12345678], np.int64)
FLOATS = np.array([0.0, -0.0, 1.5, -2.25, 1e30, np.inf, np.nan, 3e-41], F32)
LOAD, STORE = "ld.global.v2.b32 {%r2, %r3}, [%rd1];\n", "\nst.global.b32 [%rd2], %r4;"


def quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sign(a * b) * (abs(a) // np.maximum(1, abs(b)))


def flushed(x: np.ndarray) -> np.ndarray:
    return np.where(abs(x) < 2.0**-126, np.copysign(F32(0), x), x)


Meaning = Callable[[np.ndarray, np.ndarray], np.ndarray]
INTEGER: dict[str, Meaning] = {
    "add.s32": lambda a, b: a + b,
    "sub.s32": lambda a, b: a - b,
    "mul.lo.s32": lambda a, b: a * b,
    "mul.hi.s32": lambda a, b: a * b >> 32,
    "mul.hi.u32": lambda a, b: (a % 2**32) * (b % 2**32) >> 32,
    "min.s32": np.minimum,
    "max.u32": lambda a, b: np.maximum(a % 2**32, b % 2**32),
    "and.b32": np.bitwise_and,
    "or.b32": np.bitwise_or,
    "xor.b32": np.bitwise_xor,
    "div.s32": lambda a, b: np.where(b == 0, -1, quotient(a, b)),
    "rem.s32": lambda a, b: np.where(b == 0, a, a - quotient(a, b) * b),
    "div.u32": lambda a, b: np.where(b == 0, -1, (a % 2**32) // np.maximum(1, b % 2**32)),
    "shl.b32": lambda a, b: np.where(b % 2**32 > 31, 0, a << (b % 2**32).clip(0, 31)),
    "shr.s32": lambda a, b: a >> (b % 2**32).clip(0, 31),
    "shr.u32": lambda a, b: np.where(
        b % 2**32 > 31, 0, (a % 2**32) >> (b % 2**32).clip(0, 31)
    ),
}  # fmt: skip


def pairs(values: np.ndarray, dtype: type) -> np.ndarray:
    """All pairs of values, one pair of words for each thread."""
    a, b = (x.ravel() for x in np.meshgrid(values, values, indexing="ij"))
    return np.ascontiguousarray(np.stack([a, b], axis=1)).astype(dtype)


@pytest.mark.parametrize("opcode", INTEGER)
def test_integer_arithmetic(opcode: str) -> None:
    body = f"{LOAD}{opcode} %r4, %r2, %r3;{STORE}"
    given = pairs(INTS, I32)
    out, _ = execute(kernel(body, 64), given, 512)
    got = out.view(np.int64).astype(np.uint32).astype(I32)
    a, b = given[:, 0].astype(np.int64), given[:, 1].astype(np.int64)
    np.testing.assert_array_equal(
        got, INTEGER[opcode](a, b).astype(np.uint64).astype(np.uint32).view(I32)
    )


FLOAT: dict[str, Meaning] = {
    "add.rn.f32": lambda a, b: a + b,
    "sub.rn.f32": lambda a, b: a - b,
    "mul.rn.f32": lambda a, b: a * b,
    "div.rn.f32": lambda a, b: a / b,
    "min.f32": np.fmin,
    "max.NaN.f32": np.maximum,
    "mul.rn.ftz.f32": lambda a, b: flushed(a * b),
}  # fmt: skip


@pytest.mark.parametrize("opcode", FLOAT)
def test_float_arithmetic(opcode: str) -> None:
    body = f"{LOAD}{opcode} %r4, %r2, %r3;{STORE}"
    given = pairs(FLOATS, F32)
    out, _ = execute(kernel(body, 64), given, 512)
    with np.errstate(all="ignore"):
        want = FLOAT[opcode](given[:, 0], given[:, 1])
    np.testing.assert_array_equal(out.view(F32)[::2], want)


def test_fused_multiply_add_rounds_once() -> None:
    rng = np.random.default_rng(3)
    given = rng.standard_normal((256, 2)).astype(F32)
    given[:64, 1] = -(given[:64, 0] ** 2)
    body = (
        "ld.global.v2.b32 {%r2, %r3}, [%rd1];\n fma.rn.f32 %r4, %r2, %r2, %r3;\n"
        "st.global.b32 [%rd2], %r4;"
    )
    out, _ = execute(kernel(body, 256), given, 2048)
    a, c = (given[:, k].astype(np.longdouble) for k in (0, 1))
    np.testing.assert_array_equal(out.view(F32)[::2], (a * a + c).astype(F32))


CONVERSIONS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "cvt.rzi.s32.f32": (FLOATS, np.array([0, 0, 1, -2, 2**31 - 1, 2**31 - 1, 0, 0], I32)),
    "cvt.rni.f32.f32": (FLOATS[:4], np.array([0.0, -0.0, 2.0, -2.0], F32)),
    "cvt.rn.f32.s32": (INTS.astype(I32), INTS.astype(I32).astype(F32)),
    "cvt.rna.tf32.f32": (np.array([1 + 2**-11], F32), np.array([1 + 2**-10], F32)),
    "popc.b32": (INTS.astype(I32), np.array([0, 1, 32, 2, 30, 31, 1, 12], I32)),
    "clz.b32": (np.array([0, 1, -1], I32), np.array([32, 31, 0], I32)),
    "brev.b32": (np.array([1, 6], I32), np.array([-(2**31), 0x60000000], I32)),
    "neg.f32": (FLOATS[:4], -FLOATS[:4]),
    "not.b32": (INTS.astype(I32), ~INTS.astype(I32)),
}


@pytest.mark.parametrize("opcode", CONVERSIONS)
def test_conversions(opcode: str) -> None:
    given, want = CONVERSIONS[opcode]
    words = np.zeros((len(given), 2), given.dtype)
    words[:, 0] = given
    body = f"ld.global.b32 %r2, [%rd1];\n {opcode} %r4, %r2;\n st.global.b32 [%rd2], %r4;"
    out, _ = execute(kernel(body, len(given)), words, 8 * len(given))
    np.testing.assert_array_equal(out.view(want.dtype)[::2], want)


def test_halves_are_packed_and_taken_apart() -> None:
    given = np.array([[1.5, -2.75], [3.14159, 65504.0]], F32)
    body = """
  ld.global.v2.b32 {%r2, %r3}, [%rd1];
  cvt.rn.bf16x2.f32 %r4, %r3, %r2;
  mov.b32 {%rs1, %rs2}, %r4;
  cvt.rn.f16.f32 %rs3, %r2;
  mov.b32 %r5, {%rs2, %rs3};
  st.global.v2.b32 [%rd2], {%r4, %r5};"""
    out, _ = execute(kernel(body, 2), given, 16)
    np.testing.assert_array_equal(out.view(BF16).reshape(2, 4)[:, :2], given.astype(BF16))
    np.testing.assert_array_equal(out.view(BF16).reshape(2, 4)[:, 2], given[:, 1].astype(BF16))
    np.testing.assert_array_equal(
        out.view(np.float16).reshape(2, 4)[:, 3], given[:, 0].astype(np.float16)
    )


def test_threads_part_and_meet_again() -> None:
    """Each thread counts its own number of turns, odd ones twice as much."""
    body = """
  mov.b32 %r2, 0; mov.b32 %r3, 0;
LOOP:
  setp.ge.u32 %p1, %r2, %r1;
  @%p1 bra DONE;
  and.b32 %r4, %r2, 1;
  setp.eq.b32 %p2, %r4, 0;
  @%p2 bra EVEN;
  add.s32 %r3, %r3, 2;
  bra.uni NEXT;
EVEN:
  add.s32 %r3, %r3, 1;
NEXT:
  add.s32 %r2, %r2, 1;
  bra.uni LOOP;
DONE:
  bar.sync 0;
  st.global.b32 [%rd2], %r3;"""
    out, _ = execute(kernel(body, 70), np.zeros(70, np.int64), 560)
    want = [sum(1 + k % 2 for k in range(t)) for t in range(70)]
    np.testing.assert_array_equal(out.view(np.uint32)[::2], want)


def test_warps_shuffle_vote_and_reduce() -> None:
    body = """
  ld.global.b32 %r2, [%rd1];
  shfl.sync.bfly.b32 %r3|%p1, %r2, 5, 31, -1;
  shfl.sync.down.b32 %r4|%p2, %r2, 3, 31, -1;
  shfl.sync.idx.b32 %r5, %r2, 2, 0x181f, -1;
  selp.b32 %r4, %r4, -9, %p2;
  setp.gt.s32 %p3, %r2, 40;
  vote.sync.ballot.b32 %r6, %p3, -1;
  redux.sync.max.s32 %r7, %r2, -1;
  st.global.v4.b32 [%rd4], {%r3, %r4, %r5, %r6};
  st.global.b32 [%rd4+16], %r7;"""
    first = "ld.param.b64 %rd2, [k_param_1]; mul.wide.u32 %rd4, %r1, 32; add.s64 %rd4, %rd4, %rd2;"
    given = np.zeros((64, 2), I32)
    given[:, 0] = values = np.arange(64)[::-1]
    out, _ = execute(kernel(first + body, 64), given, 64 * 32)
    got = out.view(I32).reshape(64, 8)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    np.testing.assert_array_equal(got[:, 0], values[warp + (lane ^ 5)])
    np.testing.assert_array_equal(
        got[:, 1], np.where(lane + 3 < 32, values[np.minimum(np.arange(64) + 3, 63)], -9)
    )
    np.testing.assert_array_equal(got[:, 2], values[warp + (lane & 24) + 2])
    ballot = [sum(1 << k for k in range(32) if values[w + k] > 40) for w in (0, 32)]
    np.testing.assert_array_equal(got[:, 3].view(np.uint32), np.repeat(ballot, 32))
    np.testing.assert_array_equal(got[:, 4], np.repeat([63, 31], 32))


def test_atomics_add_up_in_order_of_threads() -> None:
    body = """
  ld.param.b64 %rd2, [k_param_1];
  atom.global.add.u32 %r2, [%rd2], 2;
  setp.eq.b32 %p1, %r1, 3;
  @%p1 red.global.max.u32 [%rd2+4], %r2;
  atom.global.cas.b64 %rd5, [%rd2+8], 0, 77;"""
    memory = Space()
    out = np.zeros(2, np.int64)
    args = [memory.add(np.zeros(4, np.int64)), memory.add(out)]
    Machine(parse(kernel(body)), memory).launch("k", (1, 1, 1), args)
    assert out[1] == 77 and out.view(np.uint32)[:2].tolist() == [64, 6]


MATRICES = {
    "m16n8k16.row.col.f32.bf16.bf16.f32": (16, 8, 16, BF16, np.dtype(F32)),
    "m16n8k16.row.col.f32.f16.f16.f32": (16, 8, 16, np.dtype(np.float16), np.dtype(F32)),
    "m16n8k8.row.col.f32.bf16.bf16.f32": (16, 8, 8, BF16, np.dtype(F32)),
    "m16n8k8.row.col.f32.tf32.tf32.f32": (16, 8, 8, np.dtype(F32), np.dtype(F32)),
    "m16n8k32.row.col.s32.s8.s8.s32": (16, 8, 32, np.dtype(np.int8), np.dtype(I32)),
    "m16n8k16.row.col.s32.u8.s8.s32": (16, 8, 16, np.dtype(np.uint8), np.dtype(I32)),
    "m8n8k16.row.col.s32.s8.s8.s32": (8, 8, 16, np.dtype(np.int8), np.dtype(I32)),
}


def fragment(m: np.ndarray, word: int) -> np.ndarray:
    """The registers of 32 threads that hold a matrix of rows (PTX ISA, matrix fragments): one
    register holds neighbours of a row, the next one 8 rows below, then those on the right."""
    each = word // m.dtype.itemsize
    found = []
    for right in range(m.shape[1] // (4 * each)):
        for below in range(m.shape[0] // 8):
            part = m[8 * below : 8 * below + 8, 4 * each * right : 4 * each * (right + 1)]
            found.append(np.ascontiguousarray(part).view(np.uint32).reshape(32))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("form", MATRICES)
def test_products_of_matrices(form: str) -> None:
    m, n, k, kind, sums = MATRICES[form]
    rng = np.random.default_rng(k)
    b_kind = np.dtype(np.int8) if kind == np.uint8 else kind
    low = 0 if kind == np.uint8 else -4
    a, b = rng.integers(low, 5, (m, k)).astype(kind), rng.integers(-4, 5, (k, n)).astype(b_kind)
    c = rng.integers(-9, 9, (m, n)).astype(sums)
    count_a, count_b = m * k // 32 * kind.itemsize // 4, n * k // 32 * kind.itemsize // 4
    count_c = m * n // 32
    cs = [c[8 * r : 8 * r + 8].reshape(32, 2) for r in range(m // 8)]
    fragments = [fragment(a, 4), fragment(np.ascontiguousarray(b.T), 4)]
    registers = np.concatenate([*fragments, *(x.view(np.uint32) for x in cs)], axis=1)
    width = registers.shape[1]
    loads = "".join(f"ld.global.b32 %r{4 + j}, [%rd4+{4 * j}];\n" for j in range(width))
    names = [f"%r{4 + j}" for j in range(width)]
    parts = names[:count_a], names[count_a : count_a + count_b], names[count_a + count_b :]
    x, y, z = ("{" + ", ".join(p) + "}" for p in parts)
    stores = "".join(f"st.global.b32 [%rd5+{4 * j}], {r};\n" for j, r in enumerate(parts[2]))
    body = f"""
  ld.param.b64 %rd1, [k_param_0]; ld.param.b64 %rd2, [k_param_1];
  mul.wide.u32 %rd4, %r1, {4 * width}; add.s64 %rd4, %rd4, %rd1;
  mul.wide.u32 %rd5, %r1, {4 * count_c}; add.s64 %rd5, %rd5, %rd2;
  {loads} mma.sync.aligned.{form} {z}, {x}, {y}, {z};
  {stores}"""
    out, counters = execute(kernel(body), registers, 4 * m * n)
    got = out.view(sums).reshape(32, count_c)
    want = a.astype(np.float64) @ b.astype(np.float64) + c
    for r in range(m // 8):
        part = got[:, 2 * r : 2 * r + 2].reshape(8, 8)
        np.testing.assert_array_equal(part, want[8 * r : 8 * r + 8])
    assert sum(counters.steps.values()) == 1


TILE = ".shared .align 16 .b8 tile[1024];"


@pytest.mark.parametrize("turned", [False, True])
def test_matrices_are_loaded_from_shared_memory(turned: bool) -> None:
    m, turn = np.arange(256, dtype=np.uint16).reshape(4, 8, 8), ".trans" if turned else ""
    body = f"""
  ld.global.b64 %rd4, [%rd1];
  mov.b64 %rd5, tile;
  add.s64 %rd6, %rd5, %rd3;
  st.shared.b64 [%rd6], %rd4;
  ld.global.b64 %rd4, [%rd1+256];
  st.shared.b64 [%rd6+256], %rd4;
  bar.sync 0;
  mul.wide.u32 %rd7, %r1, 16;
  add.s64 %rd7, %rd7, %rd5;
  ldmatrix.sync.aligned.m8n8.x4{turn}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%rd7];
  ld.param.b64 %rd2, [k_param_1];
  mul.wide.u32 %rd8, %r1, 16;
  add.s64 %rd8, %rd8, %rd2;
  st.global.v4.b32 [%rd8], {{%r4, %r5, %r6, %r7}};"""
    out, counters = execute(kernel(body, outside=TILE), m, 512)
    got = out.view(np.uint16).reshape(32, 4, 2).transpose(1, 0, 2).reshape(4, 8, 8)
    np.testing.assert_array_equal(got, m.transpose(0, 2, 1) if turned else m)
    assert counters.bank_conflicts() == 0


# -- shared memory: copies, races, banks -----------------------------------------------------------


def pipeline(
    wait: str = "cp.async.wait_group 0;",
    barrier: str = "bar.sync 0;",
    read: str = "xor.b32 %r5, %r1, 1;",
) -> str:
    """Each thread copies 8 bytes to shared memory and reads those of its neighbour."""
    return kernel(f"""
  mov.b64 %rd5, tile;
  add.s64 %rd6, %rd5, %rd3;
  cp.async.ca.shared.global [%rd6], [%rd1], 8;
  cp.async.commit_group;
  {wait}
  {barrier}
  {read}
  mul.wide.u32 %rd7, %r5, 8;
  add.s64 %rd7, %rd7, %rd5;
  ld.shared.b64 %rd8, [%rd7];
  st.global.b64 [%rd2], %rd8;""", 32, TILE)  # fmt: skip


NUMBERS = np.arange(32, dtype=np.int64)


def test_asynchronous_copies_land() -> None:
    out, _ = execute(pipeline(), NUMBERS, 256)
    np.testing.assert_array_equal(out.view(np.int64), NUMBERS ^ 1)


def test_a_missing_wait_is_found() -> None:
    found = fault(pipeline(wait=""), "pending", NUMBERS)
    assert "ld.shared.b64" in str(found) and found.opcode == "ld.shared.b64"
    fault(pipeline(wait="cp.async.wait_group 1;"), "pending", NUMBERS)


def test_a_missing_barrier_is_found() -> None:
    found = fault(pipeline(barrier=""), "race", NUMBERS)
    assert "thread 0 reads what thread 1 wrote" in str(found)
    execute(pipeline(barrier="bar.warp.sync -1;"), NUMBERS, 256)  # one warp: this is enough
    execute(pipeline(barrier="", read="mov.b32 %r5, %r1;"), NUMBERS, 256)  # its own element


def test_an_index_off_by_one_is_found() -> None:
    given = np.zeros(32, np.int64)
    fault(kernel("ld.global.b64 %rd4, [%rd1+8];"), "bounds", given)
    found = fault(kernel("st.global.b64 [%rd2+8], %rd1;"), "bounds", given)
    assert "256 of y, which has 256" in str(found)
    beyond = "mov.b64 %rd5, tile; add.s64 %rd6, %rd5, %rd3; st.shared.b64 [%rd6+776], %rd6;"
    assert "shared" in str(fault(kernel(beyond, outside=TILE), "bounds", given))


def test_a_misaligned_vector_is_found() -> None:
    given = np.zeros(64, np.int64)
    text = kernel("ld.global.v4.b32 {%r2, %r3, %r4, %r5}, [%rd1];")
    assert "16 bytes" in str(fault(text, "misaligned", given))


def test_what_nobody_has_written_is_not_read() -> None:
    read = "mov.b64 %rd5, tile; add.s64 %rd6, %rd5, %rd3; ld.shared.b64 %rd7, [%rd6];"
    fault(kernel(read, outside=TILE), "uninitialised")
    fault(kernel("ld.global.b64 %rd7, [%rd2];"), "uninitialised")


def transposed(swizzle: str, back: str) -> str:
    """8 rows of 16 bytes a thread row: written in rows, read in columns."""
    return kernel(f"""
  mov.b64 %rd5, tile;
  shr.u32 %r2, %r1, 3; and.b32 %r3, %r1, 7;
  {swizzle}
  shl.b32 %r5, %r2, 7; shl.b32 %r6, %r4, 4; add.s32 %r5, %r5, %r6;
  cvt.u64.u32 %rd6, %r5; add.s64 %rd6, %rd6, %rd5;
  ld.global.b64 %rd7, [%rd1];
  st.shared.v2.b64 [%rd6], {{%rd7, %rd7}};
  bar.sync 0;
  {back}
  shl.b32 %r5, %r3, 7; shl.b32 %r6, %r4, 4; add.s32 %r5, %r5, %r6;
  cvt.u64.u32 %rd6, %r5; add.s64 %rd6, %rd6, %rd5;
  ld.shared.v2.b64 {{%rd8, %rd9}}, [%rd6];
  shl.b32 %r7, %r3, 3; add.s32 %r7, %r7, %r2;
  mul.wide.u32 %rd10, %r7, 8;
  ld.param.b64 %rd2, [k_param_1];
  add.s64 %rd10, %rd10, %rd2;
  st.global.b64 [%rd10], %rd8;""", 64, TILE)  # fmt: skip


def test_a_swizzle_frees_banks_and_a_wrong_one_is_seen() -> None:
    given = np.arange(64, dtype=np.int64)
    plain = transposed("mov.b32 %r4, %r3;", "mov.b32 %r4, %r2;")
    right = transposed("xor.b32 %r4, %r3, %r2;", "xor.b32 %r4, %r2, %r3;")
    wrong = transposed("xor.b32 %r4, %r3, %r2;", "mov.b32 %r4, %r2;")
    half = (
        "shr.u32 %r8, %r2, 1; xor.b32 %r4, %r3, %r8;",
        "shr.u32 %r8, %r3, 1; xor.b32 %r4, %r2, %r8;",
    )
    conflicts = {}
    for name, text in {"plain": plain, "right": right, "half": transposed(*half)}.items():
        out, counters = execute(text, given, 512)
        np.testing.assert_array_equal(out.view(np.int64), given)
        conflicts[name] = counters.bank_conflicts()
        assert counters.widths("shared") == {128: 4}
    assert conflicts["right"] == 0 < conflicts["half"] < conflicts["plain"] == 8 * 7
    out, _ = execute(wrong, given, 512)
    assert (out.view(np.int64) != given).any()


def test_sectors_of_strided_accesses() -> None:
    for stride, taken in ((4, 4), (8, 8), (32, 32), (128, 32)):
        body = f"""
  ld.param.b64 %rd1, [k_param_0];
  mul.wide.u32 %rd4, %r1, {stride};
  add.s64 %rd4, %rd4, %rd1;
  ld.global.b32 %r2, [%rd4];"""
        _, counters = execute(kernel(body), np.zeros(1024, F32), 8)
        assert (counters.sectors(), counters.sectors_needed()) == (taken, 4)


def test_threads_that_do_not_come_to_a_barrier() -> None:
    body = "setp.lt.u32 %p1, %r1, 8;\n @%p1 bra OUT;\n bar.sync 0;\nOUT:\n"
    fault(kernel(body), "barrier")
    fault(kernel("setp.lt.u32 %p1, %r1, 8;\n @%p1 bra OUT;\n"
                 "shfl.sync.bfly.b32 %r2|%p2, %r1, 16, 31, -1;\nOUT:\n"), "barrier")  # fmt: skip


def test_two_threads_write_one_place() -> None:
    fault(kernel("ld.param.b64 %rd2, [k_param_1]; st.global.b32 [%rd2], %r1;"), "race")


def test_blocks_do_not_meet() -> None:
    """A barrier orders the threads of a block, not those of another one."""
    body = """
  mov.u32 %r2, %ctaid.x;
  setp.ne.b32 %p1, %r2, 0;
  @%p1 bra READ;
  st.global.b64 [%rd2], %rd1;
READ:
  bar.sync 0;
  ld.global.b64 %rd4, [%rd2];"""
    memory = Space()
    args = [memory.add(np.zeros(32, np.int64)), memory.add(np.zeros(32, np.int64), "y")]
    machine = Machine(parse(kernel(body)), memory)
    machine.launch("k", (1, 1, 1), args)
    with pytest.raises(LaunchFault, match="thread 32 reads what thread 0 wrote"):
        machine.launch("k", (2, 1, 1), args)


def test_what_is_unknown_has_a_name_and_a_line() -> None:
    found = fault(kernel("wgmma.fence.sync.aligned;"), "unknown")
    assert found.opcode == "wgmma.fence.sync.aligned" and f"line {found.line}: wgmma" in str(found)
    with pytest.raises(PtxError, match="line 1"):
        parse(".nonsense 3;")


def test_a_loop_without_an_end_is_stopped() -> None:
    with pytest.raises(LaunchFault) as caught:
        execute(kernel("L:\n bra.uni L;\n"), np.zeros(32, np.int64), 256, limit=1000)
    assert caught.value.kind == "endless"


# -- what the compiler emits -----------------------------------------------------------------------

QUICK = ("mlp", "lstm")


@pytest.mark.parametrize("name", [
    n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in zoo.ZOO
])  # fmt: skip
def test_kernels_of_the_zoo(name: str) -> None:
    """Each kernel of a small model runs without a fault and agrees with its thread loops."""
    entry = zoo.ZOO[name]
    model = entry.build(**entry.tiny)
    program = aisc.lower(model, "program", target="nvidia_sm90")
    exe = aisc.compile(model, target="nvidia_sm90", cache=False)
    (code,) = exe.image.devices
    checked = Checked(code, {k.name: k for k in program.kernels})
    exe._devices[code.target] = checked
    ranges = {**entry.dims, **entry.tiny_dims}
    exe.run(None, zoo.feeds(model, {d: r.low for d, r in ranges.items()}, 0))
    assert checked.funcs.keys() <= checked.ran.keys()
    assert all(c.worst_conflict() <= 2 for c in checked.ran.values())
    if name in QUICK:  # partial sums of short rows meet in others
        assert all(c.bank_conflicts() == 0 for c in checked.ran.values())

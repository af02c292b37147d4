"""The verifier of the tensor IR: what it accepts, and one case for each thing it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import CompileError, InternalError
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Expr, Load, Var
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.tensor.stmt import Store
from aisc.ir.tensor.verify import verify_func, verify_program
from aisc.ir.text.parser import parse, parse_func

f32 = dtypes.f32
HEAD = "func @f(a: f32[4] input, o: f32[4] output, k: i64[4] input; n) target cpu {\n"


def matmul() -> Func:
    b = ComputeBuilder()
    n = symbol("n")
    x, w = buffer("x", f32, (n, 3), "input"), buffer("w", f32, (3, 5), "input")
    y = buffer("y", f32, (n, 5), "output")
    t = b.alloc("t", f32, (n, 5))
    b.reduce(t, (3,), "sum", lambda i, r: Load(x, (i[0], r[0])) * Load(w, (r[0], i[1])))
    b.map(y, lambda i, j: Load(t, (i, j)) + 1.0)
    return b.func("matmul", (x, w, y), (Var("n"),))


def test_naive_functions_pass() -> None:
    for level in ("lowered", "scheduled", "planned"):
        verify_func(matmul(), level)  # type: ignore[arg-type]


GOOD = [
    "serial i in 0 .. 4 { o[i] = a[i] }",
    "let x:f32 = a[0]\n o[1] = x:f32",
    "parallel i in 0 .. 4 { o[i] = 1.0:f32 }\n barrier threads\n o[0] = 2.0:f32",
    "block.x b in 0 .. n { thread.x t in 0 .. 4 { barrier block } }",
    "alloc t: f32[n]\n invoke mma(t[0 +: 4], a[0 +: 4]; n)",
    "o[k[0]] = select(isnan(a[0]) | a[1] < 0.0:f32, f32(k[1]), fma(a[0], a[1], a[2]))",
    "block b(i reduce 4 = n) reads(a[i]) writes(o[0]) combiner sum { o[0] = o[0] + a[i] }",
]


@pytest.mark.parametrize("body", GOOD)
def test_accepted(body: str) -> None:
    verify_func(parse_func(HEAD + body + "}"))


BAD = [
    ("o[0] = x:f32", "not bound"),
    ("o[n] = a[0:i32]", "dtype i32"),
    ("o[0] = a[0, 1]", "2 indices"),
    ("o[0] = a[0] + k[0]", "f32 and i64"),
    ("o[0] = k[0]", "dtype i64"),
    ("o[0] = f32(k[0] / k[1])", "not defined on i64"),
    ("o[0] = a[0] // a[1]", "not defined on f32"),
    ("o[0] = sqrt(n:f32)", "bound as i64"),
    ("o[0] = select(n, a[0], a[1])", "not bool"),
    ("o[0] = exp(a[0], a[1])", "takes 1"),
    ("o[0] = @frob(a[0]):f32", "unknown function"),
    ("o[0] = 0.1:f32", "no value of f32"),
    ("a[0] = 1.0:f32", "input a is written"),
    ("serial n in 0 .. 4 { }", "bound twice"),
    ("serial i in 0 .. 4 { }\n o[i] = 1.0:f32", "not bound"),
    ("serial i:i32 in 0 .. 4 { }", "not i64"),
    ("parallel i in 0 .. 4 { parallel j in 0 .. 4 { } }", "inside another"),
    ("parallel i in 0 .. 4 { barrier threads }", "barrier"),
    ("barrier block", "barrier"),
    ("if n { }", "dtype i64"),
    ("if n < 3 { alloc t: f32[2] }\n alloc u: f32[m]", "m of u"),
    ("alloc t: f32[2] strides [1, 1]", "strides"),
    ("alloc t: f32[2] align 3", "power of two"),
    ("invoke frob(a[0])", "unknown intrinsic"),
    ("invoke mma(a[0, 0])", "rank"),
    ("copy a -> o", "Copy is not allowed"),
    ("call g(a)", "CallKernel is not allowed"),
    ("block b(i reduce 4 = n) writes(o[i]) { }", "no combiner"),
    ("block b(i spatial 4 = n) writes(o[i]) combiner frob { }", "unknown combiner"),
    ("block b(i spatial 4 = n) writes(o[i]) { o[i] = a[i] }", "reads a"),
    ("block b(i spatial 4 = n) reads(a[i]) { o[i] = a[i] }", "writes o"),
    ("block b(i spatial 4 = n) reads(a[i, i]) { }", "rank"),
]


@pytest.mark.parametrize(("body", "message"), BAD)
def test_refused(body: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as e:
        verify_func(parse_func(HEAD + body + "}"), names=("mma",))
    assert set(e.value.codes) == {"E301"}


def test_the_guilty_line_is_shown() -> None:
    text = HEAD + "alloc t: f32[4]\n serial i in 0 .. 4 {\n o[i] = 1.0:f32\n t[i] = k[i]\n }\n}"
    with pytest.raises(CompileError) as e:
        verify_func(parse_func(text))
    (d,) = e.value.diagnostics
    assert [x for x in d.notes[0].splitlines() if x.strip().startswith(">")] == [
        "        >     t[i] = k[i]"
    ]


def test_what_no_text_can_say_is_refused() -> None:
    """An expression of an unknown class: the report itself cannot show it."""

    @dataclass(frozen=True, slots=True)
    class Unknown(Expr):
        dtype: dtypes.DType = f32

    a, o = buffer("a", f32, (), "input"), buffer("o", f32, (), "output")
    with pytest.raises(InternalError, match="Unknown has no text form"):
        verify_func(Func("f", (a, o), (), Store(o, (), Load(a, ()) + Unknown())))


def test_levels() -> None:
    for body in ("parallel i in 0 .. 4 { }", "o[0] = 1.0:f32", "barrier threads"):
        func = parse_func(HEAD + body + "}")
        verify_func(func)
        with pytest.raises(CompileError):
            verify_func(func, "lowered")


def test_depth_and_scope() -> None:
    body = "s[0] = 1.0:f32" + " + 1.0:f32" * 150
    func = parse_func(f"func @f(s: f32[1]) target cpu {{ {body} }}")
    verify_func(func)
    stmt = func.body
    for _ in range(100):
        from aisc.ir.tensor.stmt import Seq

        stmt = Seq((stmt,))
    with pytest.raises(CompileError, match="deep"):
        verify_func(Func("f", func.params, (), stmt))


def program(entry: str, kernel: str = "") -> Program:
    kernel = kernel or "func @k(x: f32[m] input, y: f32[m] output; m) target cpu { }"
    contents = {"w": Blob(np.zeros(4, np.float32))}
    head = "func @main(x: f32[4] input, y: f32[4] output, w: f32[4] weight) target cpu {\n"
    return Program("p", (parse_func(kernel),), parse_func(head + entry + "}"), contents)


def test_programs() -> None:
    good = program("alloc t: f32[4] base arena offset 64\n call k(x, t; 4)\n call k(w, y; 4)")
    verify_program(good, "planned")
    unplanned = program("alloc t: f32[4]\n copy x -> t")
    verify_program(unplanned)
    with pytest.raises(CompileError, match="no place"):
        verify_program(unplanned, "planned")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("call g(x, y)", "unknown kernel"),
        ("call k(x, y)", "takes"),
        ("call k(x, y; 5)", "does not fit"),
        ("alloc t: i32[4]\n call k(t, y; 4)", "does not fit"),
        ("alloc t: f32[4] strides [2]\n call k(t, y; 4)", "does not fit"),
        ("call k(x, w; 4)", "weight w is written"),
        ("y[0] = 1.0:f32", "Store is not allowed"),
        ("serial i in 0 .. 3 { }", "For is not allowed"),
        ("alloc v: f32[4] weight", "no contents"),
        ("host frob.frob(x) -> (y)", "unknown operator"),
    ],
)
def test_refused_programs(entry: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as e:
        verify_program(program(entry))
    assert set(e.value.codes) == {"E301"}


def test_undeclared_buffers_are_refused() -> None:
    a, other = buffer("a", f32, (4,), "output"), buffer("a", f32, (5,), "output")
    from aisc.ir.tensor.stmt import Store

    for used in (other, buffer("b", f32, (4,))):
        with pytest.raises(CompileError, match="declar"):
            verify_func(Func("f", (a,), (), Store(used, (ZERO,), Load(used, (ZERO,)))))


# -- conditions that kernels rely on -----------------------------------------------------------
RELIES = """program @main {
  func @k(a: f32[n] input, o: f32[m] output; n, m) target cpu requires n == m {
    serial i in 0 .. m {
      block copy(v spatial m = i) reads(a[v]) writes(o[v]) { o[v] = a[v] }
    }
  }
  entry func @entry(a: f32[n] input, c: bool[] input, o: f32[m] output; n, m) target cpu { BODY }
}
"""
TEST, CALL = 'require n == m else "sizes differ"', "call k(a, o; n, m)"


def check_entry(body: str) -> None:
    program = parse(RELIES.replace("BODY", body))
    assert isinstance(program, Program)
    verify_program(program, "lowered")


@pytest.mark.parametrize(
    "body",
    [f"{TEST} {CALL}", f"{TEST} {CALL} {CALL}", f"{TEST} if (c[]) {{ {CALL} }}",
     f"if (c[]) {{ {TEST} {CALL} }}"],
)  # fmt: skip
def test_conditions_are_tested_before_calls(body: str) -> None:
    check_entry(body)


@pytest.mark.parametrize(
    "body",
    [CALL, f"{CALL} {TEST}", f"if (c[]) {{ {TEST} }} {CALL}", f"{TEST} call k(a, o; m, n)",
     f"if (c[]) {{ {TEST} {CALL} }} {CALL}"],
)  # fmt: skip
def test_a_condition_that_is_not_tested_is_refused(body: str) -> None:
    with pytest.raises(CompileError, match=r"k requires . == ., which is not tested"):
        check_entry(body)

"""Text forms: what is printed parses back, and faults of a text are placed."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aisc.ir import dtypes
from aisc.ir.arith.poly import ceildiv, floordiv, maximum, minimum, mod, symbol
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.same import same
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    BINARY_OPS,
    MATH_CALLS,
    ONE,
    UNARY_OPS,
    ZERO,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    const,
)
from aisc.ir.tensor.func import Buffer, Func, Program, buffer
from aisc.ir.tensor.stmt import (
    FOR_KINDS,
    Alloc,
    Barrier,
    Block,
    CallKernel,
    Copy,
    For,
    Handover,
    HostCall,
    If,
    Invoke,
    Iter,
    Let,
    Region,
    Seq,
    Stmt,
    Store,
    While,
)
from aisc.ir.text import lexical
from aisc.ir.text.parser import (
    blobs_of,
    load_blobs,
    parse,
    parse_func,
    parse_graph,
    parse_program,
    save_blobs,
)
from aisc.ir.text.parsing import grammar
from aisc.ir.text.printer import print_func, print_graph, print_ir, print_program
from aisc.ir.types import TensorType

f32 = dtypes.f32
N = symbol("n", 1, 512)
A = buffer("a", f32, (4, 5), "input")
ODD = buffer('odd name/0:\n"é', dtypes.bf16, (3,))
SCALAR = buffer("s", dtypes.i64, ())
VAR = Var("v")


def func(body: Stmt, *params: Buffer) -> Func:
    return Func("f", params or (A, ODD, SCALAR), (), body)


def check_func(f: Func) -> None:
    text = print_func(f)
    again = parse_func(text)
    assert again == f, text
    assert print_func(again) == text


# Random expressions -----------------------------------------------------------------------------

NAMES = st.sampled_from(["i", "x.y", "min", "f32", "for", "ö", "a b", "_", "nan", "block.x", "e1"])
DTYPES = st.sampled_from(dtypes.ALL)
CONSTS = st.one_of(
    st.builds(Const, st.integers(-(1 << 63), (1 << 64) - 1), DTYPES),
    st.builds(Const, st.floats(), DTYPES),
    st.builds(Const, st.booleans(), DTYPES),
)


def deeper(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(Binary, st.sampled_from(BINARY_OPS), inner, inner),
        st.builds(Unary, st.sampled_from(UNARY_OPS), inner),
        st.builds(Cast, inner, DTYPES),
        st.builds(Select, inner, inner, inner),
        st.builds(lambda i, j: Load(A, (i, j)), inner, inner),
        st.builds(lambda i: Load(ODD, (i,)), inner),
        st.just(Load(SCALAR, ())),
        st.builds(Call, st.sampled_from([*MATH_CALLS, "x86.dp", "min"]), st.tuples(inner), DTYPES),
    )


EXPRS = st.recursive(st.one_of(CONSTS, st.builds(Var, NAMES, DTYPES)), deeper, max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(EXPRS)
def test_random_expressions(e: Expr) -> None:
    check_func(func(Store(SCALAR, (), e)))


# Random statements ------------------------------------------------------------------------------

STORE = st.builds(lambda e: Store(A, (ZERO, e), const(0.5, f32)), EXPRS)
ATTRIBUTES = st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.booleans())
NOTES = st.lists(st.tuples(NAMES, ATTRIBUTES), max_size=2).map(tuple)


def bodies(inner: st.SearchStrategy[Stmt]) -> st.SearchStrategy[Stmt]:
    return st.one_of(
        st.lists(inner, max_size=3).map(lambda s: Seq(tuple(s))),
        st.builds(For, st.just(VAR), st.sampled_from([ZERO, ONE, VAR]), EXPRS,
                  st.sampled_from(FOR_KINDS), inner, NOTES),
        st.builds(While, EXPRS, inner),
        st.builds(If, EXPRS, inner, st.one_of(st.none(), inner)),
        st.builds(Let, st.builds(Var, NAMES, DTYPES), EXPRS, inner),
        st.builds(lambda b, i, n: block(b, i, n), inner, st.one_of(st.none(), inner), EXPRS),
    )  # fmt: skip


def block(body: Stmt, init: Stmt | None, n: Expr) -> Block:
    iters = (Iter(VAR, n, "spatial"), Iter(Var("in", dtypes.i32), ONE, "ordered"))
    reads = (Region(A, (VAR, n), (ONE, n)), Region(SCALAR, (), ()))
    return Block("b", iters, (n, VAR), reads, (), init, body, "sum" if init else "")


STMTS = st.recursive(
    st.one_of(
        STORE, st.just(Seq(())), st.just(Barrier("block")), st.just(Handover("load", "store"))
    ),
    bodies,
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(STMTS)
def test_random_statements(s: Stmt) -> None:
    check_func(func(s))


def test_buffer_fields_survive() -> None:
    full = Buffer(
        "input",
        f32,
        (N, 3),
        (8, floordiv(N, 3)),
        "l1.0",
        "arena",
        ceildiv(N, 7) * 64,
        16,
        "",
        "state",
    )
    quoted = buffer("q", f32, (symbol("seq len"), mod(N, maximum(N, symbol("m"))))).with_(
        alias_set="x"
    )
    check_func(
        Func("a/b", (full,), (Var("n"), Var("k", f32)), Alloc(quoted), (("x", 1.5),), "my simt")
    )


def test_kinds_of_symbols() -> None:
    d, k = symbol("d", 0, None, "derived"), symbol("k", 2, 9, "data")
    shape = (d * k * d - 3, minimum(d, k, N), -d + 4)
    check_func(func(Seq(()), buffer("a", f32, shape)))


def program() -> Program:
    b = ComputeBuilder()
    y = buffer("y", f32, (4,), "output")
    b.map(y, lambda i: i * 0 if False else const(1.0, f32))
    kernel = b.func("fill", (y,))
    x, w = buffer("x", f32, (4,), "output"), buffer("w", f32, (2,), "weight")
    region = Region(x, (ZERO,), (Const(4),))
    body = Seq(
        (
            Alloc(w),
            CallKernel("fill", (x,), (ONE, VAR)),
            Invoke("mma", (region, region), (ONE,)),
            Invoke("wait", ()),
            HostCall("if", (x, None), (w, x), (("axes", (1, N)), ("b", Blob(np.ones(2))))),
            HostCall("nop", (), ()),
            Copy(x, w),
        )
    )
    return Program(
        "p", (kernel,), Func("entry", (x,), (), body), {"w": Blob(np.ones(2, np.float32))}
    )


def words() -> list[str]:
    """Every word that means something somewhere."""
    found = {*lexical.KEYWORDS, *MATH_CALLS, *UNARY_OPS, *BINARY_OPS, *lexical.DIM_CALLS, "select"}
    for which in ("graph", "tensor"):
        found |= {t.pattern.value for t in grammar(which).terminals if t.pattern.type == "str"}
    return sorted(w for w in found if w.replace(".", "").isidentifier())


def test_any_word_may_be_a_name() -> None:
    x = Value("x", TensorType((2,), f32))
    for word in words():
        y = Value(word, TensorType((2,), f32))
        attrs: tuple[tuple[str, AttrValue], ...] = ((word, word), ("b", 1))
        node, alone = GraphNode(word, (x,), (y,), attrs), GraphNode(word, (), ())
        g = Graph(word, (x,), (node, alone), (y,))
        text = print_graph(g)
        assert same(parse_graph(text), g), text
        assert f" = {word}(" in text
        part = Iter(Var(word), ONE, "spatial")
        b = buffer(word, f32, (symbol(word),), space=word).with_(base=word)
        region = Region(b, (Var(word),), (ONE,))
        v = Var(word)
        store = Store(b, (v,), Select(v, Var(word, f32), Load(b, (v + v,))))
        host = HostCall(word, (b,), (b,))
        loop = For(v, v, v, "serial", If(v, store, store))
        inner = Seq((Alloc(b), store, Invoke(word, (region,)), store, Copy(b, b), store, host))
        inner = Seq((*inner.stmts, store, loop, store, If(v, store), Let(v, v, store), store))
        init = Let(Var(word, f32), const(0.5, f32), Barrier())
        stmt = Block(word, (part,), (v,), (), (), init, inner, word)
        check_func(Func(word, (), (Var(word),), stmt, ((word, word),), word))


def test_program() -> None:
    p = program()
    text = print_program(p)
    assert parse_program(text, blobs_of(p)) == p
    assert parse(text, blobs_of(p)) == p
    packing = replace(p, prepare=replace(p.entry, name="pack"))
    assert parse(print_program(packing), blobs_of(packing)) == packing
    with pytest.raises(CompileError, match="blob") as e:
        parse_program(text)
    assert e.value.codes == ("E107",)


# Graphs -----------------------------------------------------------------------------------------

VALUES: st.SearchStrategy[AttrValue] = st.recursive(
    st.one_of(
        st.integers(), st.floats(), st.text(), st.booleans(), DTYPES,
        st.sampled_from([N * 3 - 1, -N, N * N + 2, floordiv(N, 7) - symbol("a b"), N - N]),
        st.just(Blob(np.arange(3))),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@example({"index": 0, "binds": (float("nan"), N)}, "")
@example({"index": (0, (Blob(np.arange(3)),)), "carried_dims": ""}, "")
@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=3), st.text(max_size=4))
def test_random_attributes(attrs: dict[str, AttrValue], name: str) -> None:
    x = Value(name, TensorType((N, 2), f32))
    g = Graph(name, (x,), (GraphNode("nop", (x, None), (), tuple(attrs.items())),), (x,), (name,))
    text = print_graph(g)
    again = parse_graph(text, blobs_of(g))
    assert same(again, g), text
    assert again.name == g.name
    assert print_graph(again) == text


def nested() -> Graph:
    t = TensorType((N,), f32)
    inner_in, inner_out = Value("x", t), Value("y", t)
    body = Graph("then", (inner_in,), (GraphNode("cast", (inner_in,), (inner_out,)),), (inner_out,))
    x, one, two = Value("x", t), Value("r", t), Value("r", t)  # a hint used twice
    node = GraphNode("if", (x,), (one, two), (("k", 1),), (body, body))
    return Graph("main", (x,), (node,), (two, one, two))


def test_regions_and_repeated_names() -> None:
    g = nested()
    text = print_graph(g)
    assert "%r_1" in text
    assert same(parse_graph(text), g)


def test_constants_print_beside_the_text(tmp_path: Path) -> None:
    blobs = [
        Blob(np.ones((2, 3), np.float32)),
        Blob(np.zeros((0, 4), np.int64)),
        Blob(np.array(2.5, ml_dtypes.bfloat16)),
        Blob(np.array([True, False])),
    ]
    path = tmp_path / "side.npz"
    save_blobs(path, blobs)
    again = load_blobs(path)
    assert list(again.values()) == blobs
    with np.load(path) as file:
        content = {k: file[k] for k in file.files}
    content[next(iter(content))] = np.ones(24, np.uint8)
    np.savez(path, **content)
    with pytest.raises(CompileError) as e:
        load_blobs(path)
    assert e.value.codes == ("E107",)
    path.write_bytes(b"nonsense")
    with pytest.raises(CompileError):
        load_blobs(path)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("graph @g() {\n  return %x\n}", 2, 10),
        ("graph @g(%x: f32[2]) {\n  %x: f32[2] = add(%x, %x)\n  return\n}", 2, 3),
        ("graph @g() {\n  = add()\n}", 2, 3),
        ("func @f(a: f32[2]) target cpu {\n  a[0] = b[1]\n}", 2, 10),
        ("func @f(a: f32[2], a: f32[2]) target cpu {}", 1, 20),
        ("func @f() target cpu {\n  while frob(1) {}\n}", 2, 9),
        ("func @f() target cpu {\n  while exp(1, ) {}\n}", 2, 16),
        ("func @f(a: f32[modd(2,3)]) target cpu {}", 1, 16),
        ("func @f() target cpu {", 1, 23),
        ('func @"\\q"() target cpu {}', 1, 7),
        ("  hello", 1, 3),
        ("", 1, 1),
        ("func @f() target cpu {} ?", 1, 25),
        ("program @p { func @f() target cpu {} }", 1, 38),
    ],
)
def test_errors_are_placed(text: str, line: int, column: int) -> None:
    with pytest.raises(CompileError) as e:
        parse(text, {}, "t.aisc")
    (d,) = e.value.diagnostics
    assert d.code == "E107"
    assert (d.loc.file, d.loc.line, d.loc.column) == ("t.aisc", line, column), str(d)
    assert d.notes[0].endswith("^")


def test_depth_is_bounded() -> None:
    deep = "(" * 5000 + "1" + ")" * 5000
    chain = " + ".join(["v"] * 5000)
    lets = "let x = 1\n" * 5000
    span = f"serial i in {chain} .. {chain} {{}}"
    for body in (f"s[] = {deep}", f"s[] = {chain}", f"s[] = exp({chain})", span, lets):
        with pytest.raises(CompileError) as e:
            parse(f"func @f(s: i64[]) target cpu {{ {body} }}")
        assert e.value.codes == ("E107",)


def test_long_texts_are_no_problem() -> None:
    check_func(func(Seq(tuple(Store(SCALAR, (), Const(i)) for i in range(3000)))))


def test_special_floats() -> None:
    for x in (math.nan, math.inf, -math.inf, -0.0, 1e-45, 1e16, 5e-324):
        check_func(func(Store(SCALAR, (), Const(x, dtypes.f64))))


def test_printing_is_fast() -> None:
    body = Seq(tuple(Store(A, (VAR, ONE), Load(A, (VAR, ZERO)) + 1.0) for _ in range(60)))
    start = time.perf_counter()
    print_ir(func(body))
    assert time.perf_counter() - start < 0.1  # about 1 ms


@pytest.mark.parametrize("call", ["min(1)", "exp()", "fma()", "abs()", "select(1, 2)", "f32(1, 2)"])
def test_functions_have_their_number_of_operands(call: str) -> None:
    """The verifier knows those of functions better; none at all has no dtype."""
    with pytest.raises(CompileError, match=r"'\w+' takes -?\d operands, got \d"):
        parse_func(f"func @f(a: f32[4] input, o: f32[4] output) target cpu {{ o[0] = {call} }}")


def test_arms_are_indented_alike() -> None:
    text = """func @f(k: i64[] input, o: i64[4] output) target cpu {
  if k[] < 2 {
    o[0] = 1
  } else {
    o[1] = 2
  }
}"""
    assert print_func(parse_func(text)).strip() == text

"""Graphs as text of the model language: reading it gives the same graph again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import test_formulas
import test_lang
from onnx import TensorProto, helper

from aisc.frontend.lang import formatting
from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.model import graph_of
from aisc.frontend.lang.parameters import safetensors_of
from aisc.frontend.lang.printing import Printed, printed
from aisc.frontend.lang.printing.names import RESERVED
from aisc.frontend.lang.reading import keywords, type_names
from aisc.frontend.onnx.importer import import_model
from aisc.fuzz.case import live
from aisc.fuzz.generate import make
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import f32
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.types import TensorType

X = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)


def graph(text: str, folder: Path = Path()) -> Graph:
    return graph_of(text, "m.aim", folder, {})


def read(p: Printed) -> Graph:
    """The graph of a printed file."""
    with tempfile.TemporaryDirectory() as place:
        if p.weights:
            (Path(place) / "w.safetensors").write_bytes(safetensors_of(p.weights))
        return graph(p.text, Path(place))


def checked(g: Graph, exact: bool = True) -> Printed:
    """A graph as text, which is in its one form, always the same, and means the graph."""
    p = printed(g, "w.safetensors", exact=exact)
    assert formatted(p.text) == p.text
    assert printed(g, "w.safetensors", exact=exact).text == p.text
    assert not exact or same(read(p), g), p.text
    return p


@pytest.mark.parametrize("path", test_lang.EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_printed_and_read_again(path: Path) -> None:
    checked(graph(path.read_text(), path.parent))


def test_expressions_and_formulas_are_printed_and_read_again() -> None:
    bodies = [f"return {text}" for text in test_lang.EXPRESSIONS]
    bodies += [f"{body}\nreturn z" for body, _ in test_formulas.FORMULAS.values()]
    for body in bodies:
        checked(graph(f"model m(x: f32[n, 8], y: f32[8, 5]) {{\n{body}\n}}"))


PROGRAMS = {
    "branches": """y = x
    if reduce_sum(x, axes=[0, 1], keepdims=false) > 0 { y = y * 2
        z = y + 1
    } else if x[0, 0] > 0 { z = x } else { z = x - 1 }
    return y, z""",
    "nothing chosen": "if x[0, 0] > 0 { y = x\nz = x } else { y = x\nz = x * 2 }\nreturn z, y",
    "changes in turn": """a = x[0]
    b = x[1]
    scan row in x { c = a + row
        a = b * 2
        b = c
    }
    return a, b""",
    "swapped": """a = x[0]
    b = x[1]
    scan row in x { c = a
        a = b
        b = c
        collect before = c
    }
    return a, b, before""",
    "read before its change": """a = x[0]
    b = x[1]
    scan row in x { collect c = a * row
        d = b - row
        a = b
        b = d
    }
    return a, b, c""",
    "known turns": """k = assume(sizes(values=[3])[0], shape=[])
    scan t in 0..k { collect c = x[0] * cast(t, to=f32) }
    param m: i64[] = full(2)
    scan t in 0..m { collect d = x[0] * cast(t, to=f32) }
    return c, d""",
    "results called like sizes": "n = x[0] * cast(n, to=f32)\nt = x + 1\nreturn t, n",
    "unchanged": """a = x[0]
    b = a
    scan row in x, t in 0..n { a = a
        b = b + cast(t, to=f32)
        collect r = row + a
    }
    return a, b, r""",
    "nested": """h = x[0]
    scan row in x {
        g = row
        scan t in 0..3 while g[0] < 1.5 { g = g + h * cast(t, to=f32) }
        if g[0] > 0 { h = h + g } else { h = h - g }
        collect gs = g
    }
    return h, gs""",
    "grows": """seen = x[0:0]
    scan t in 0..n while seen.shape[0] < 99 { seen = concat(x, seen, axis=0) }
    return seen""".replace(" while seen.shape[0] < 99", ""),
    "counted by data": """k = cast(x[0, 0] * 4, to=i64)
    scan t in 0..k while k > 1 { collect ts = t
        again cast(t, to=i64) < 3
    }
    while true { k = k + 1
        again k < 9
    }
    scan t in 0.. { k = k + cast(t, to=i64)
        again k < 99
    }
    return ts, k""",
    "sizes": """m = bind_dims(cast(x[0], to=i64)[0:1], least=[1], most=[9])
    y = expand(x[0, 0], shape=[m, n * 2 // 3 + min(m, 4), ceildiv(n, max(m, 1))])
    return reshape(y, shape=[-1]), n * cast(m, to=i64), sizes(values=[m, n % 3])""",
    "found": """values, places, back, counts = unique(x)
    return reshape(values, shape=[values.shape[0], 1]), cast(counts, to=f32) * 2""",
    "many results": "a, b = top_k(x, k=[2], axis=1)\nreturn a, b, x, a",
    "tested": """y = assume(x, shape=[3, 8])
    return expect(y, y[0, 0] < 9, message="\\"quoted\\", 1 line"), clip(y, max=inf, min=-inf)""",
    "numbers": """param s: f32[] = full(0.1)
    param t: i64[] = full(-3)
    a = x * s + 3.4028235e38 - -inf * nan
    return a, cast(a, to=i32) * 2147483647, cast(a, to=f16) * 65504.0, t""",
    "chosen": "return (x if x > 0 else 0) if not (x > 1 and x < 2 or x == 3) else -(-x)**2",
    "picked": "return x[1], x[:, 2], x[1, 3], x[-1][::-1], (x + 1)[:, 1:7:2], x[n - 1]",
    "mean of a formula": "m[i] = mean[j](x[i, j])\nc[i] = mean[t](x[t, i])\nreturn m, c",
    "narrow": "y = cast(x, to=f16)\nz[i] = sum[j](y[i, j])\nw[i, j] = y[i, j] * y[i, 7 - j]\n"
              "return z, w",
    "scalars in formulas": """s = x[0, 0]
    z[i, j] = x[i, j] * s + (x[i - 1, j + 1] else x[i, 0])
    return z""",
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_printed_and_read_again(name: str) -> None:
    checked(graph(f"model m(x: f32[n, 8]) {{\n    {PROGRAMS[name]}\n}}"))


def test_text_reads_like_that_of_a_person() -> None:
    text = """model newton(x: f32[n in 1..65], tolerance: f32[]) -> f32[n], i64[], f32[turns_2, n] {
    guess = x * 0.5 + 0.5
    turns = 0
    while reduce_max(abs(guess * guess - x), axes=[0], keepdims=false) > tolerance {
        guess = (guess + x / guess) * 0.5
        turns = turns + 1
        collect guesses = guess
    }
    turns_2 = guesses.shape[0]
    return guess, turns, guesses
}
"""
    got = checked(graph(text.replace(", f32[turns_2, n]", ", f32[k, n]"))).text
    assert got.replace("turns0", "turns_2") == text.replace("    turns_2 = guesses.shape[0]\n", "")


BLOCKS = """layer unit(x: f32[n, k], shift: f32[]) -> f32[n, k] {
    param w: f32[k, k] = normal(0.3)
    param b: f32[k] = normal(0.1)
    y = tanh(x @ w + b)
    y = y * 0.5 + shift
    return layer_norm(x + y, axis=1)
}

model m(x: f32[n, 8], shift: f32[]) -> f32[n, 8] {
    for i in 0..5 { x = unit(x, shift) as units[i] }
    return x
}
"""


def test_equal_blocks_are_found_again() -> None:
    g = graph(BLOCKS)
    p = checked(g)
    assert "for i in 0..5 {\n" in p.text and "as blocks[i]" in p.text
    assert p.text.count("@") == 1
    assert {f"blocks.{i}.{w}" for i in range(5) for w in "wb"} == set(p.weights)


def test_blocks_that_give_results_of_their_own_are_called_one_by_one() -> None:
    text = BLOCKS.replace("return layer_norm(x + y, axis=1)", "return layer_norm(x + y, axis=1), y")
    text = text.replace("-> f32[n, k] {", "{").replace("-> f32[n, 8] {", "{")
    calls = "\n".join(f"    x, y{i} = unit(x, shift) as units[{i}]" for i in range(3))
    text = f"{text[: text.index('    for')]}{calls}\n    return x, y0, y1, y2\n}}\n"
    p = checked(graph(text))
    assert p.text.count("= block(") == 3 and "as blocks[2]" in p.text


def test_blocks_in_blocks() -> None:
    outer = """layer outer(x: f32[n, k], shift: f32[]) {
    for i in 0..3 { x = unit(x, shift) as inner[i] }
    return softmax(exp(x) @ transpose(x, perm=[1, 0]) @ x)
}
"""
    calls = "    for i in 0..4 { x = outer(x, shift) as outer[i] }\n"
    model = f"model m(x: f32[n, 8], shift: f32[]) {{\n{calls}    return x\n}}\n"
    p = checked(graph(f"{BLOCKS[: BLOCKS.index('model')]}{outer}{model}"))
    assert p.text.count("layer ") == 2 and "blocks.3.blocks.2.w" in p.weights


@pytest.mark.parametrize("exact", [True, False])
def test_blocks_with_loops_have_parameters_of_their_own(exact: bool) -> None:
    text = """layer recurrent(x: f32[n, k]) {
    param start: f32[k] = normal(0.5)
    h = start
    scan row in x {
        param w: f32[k, k] = normal(0.5)
        param b: f32[k] = normal(0.5)
        h = tanh(row + h @ w + b)
        collect hs = h
    }
    return hs * 0.5 + x
}
model m(x: f32[n, 8]) {
    for i in 0..3 { x = recurrent(x) as layers[i] }
    return x
}
"""
    g = graph(text)
    p = checked(g, exact)
    assert p.text.count("scan ") == 1 and "for i in 0..3" in p.text
    assert len(p.weights) == 9
    np.testing.assert_array_equal(interpret(read(p), [X])[0], interpret(g, [X])[0])


def test_what_binds_sizes_is_in_no_block() -> None:
    lines = [f"n{k} = bind_dims(cast(exp(x[{k}, 0:1]) + 1, to=i64))" for k in range(4)]
    shape = ", ".join(f"n{k}" for k in range(4))
    text = "\n    ".join([*lines, f"return expand(x[0, 0], shape=[{shape}])"])
    assert "block" not in checked(graph(f"model m(x: f32[4, 8]) {{\n    {text}\n}}")).text


def test_blocks_take_sizes_that_their_tensors_do_not_show() -> None:
    text = """layer unit(x: f32[a], k: int) {
    y = reshape(exp(x), shape=[k, -1])
    return reshape(softmax(tanh(y), axis=1) * 2, shape=[x.shape[0]])
}
model m(x: f32[n * 6], like: bool[n]) {
    for i in 0..4 { x = unit(x, k=n) as units[i] }
    return x
}
""".replace("x: f32[n * 6], like: bool[n]", "like: bool[n], x: f32[n * 6]")
    p = checked(graph(text))
    assert "n: int" in p.text and "n=n" in p.text


def test_equal_constants_of_blocks_are_shared_or_their_own() -> None:
    """In an ONNX graph constants have no place: what one block reads alone is its parameter."""
    nodes, tensors, last = [], [], "x"
    shared = np.arange(8, dtype=np.float32)
    tensors.append(onnx.numpy_helper.from_array(shared, "shared"))
    for k in range(4):
        w = np.full((8, 8), k, np.float32)
        w[0] = 1
        tensors.append(onnx.numpy_helper.from_array(w, f"layers.{k}.weight"))
        nodes += [
            helper.make_node("MatMul", [last, f"layers.{k}.weight"], [f"m{k}"]),
            helper.make_node("Add", [f"m{k}", "shared"], [f"a{k}"]),
            helper.make_node("Tanh", [f"a{k}"], [f"t{k}"]),
            helper.make_node("Mul", [f"t{k}", f"a{k}"], [f"u{k}"]),
        ]
        last = f"u{k}"
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])]
    outs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", 8])]
    g = import_model(helper.make_model(helper.make_graph(nodes, "g", infos, outs, tensors)))
    p = checked(g, exact=False)
    assert set(p.weights) == {"shared", *(f"blocks.{k}.layers_weight" for k in range(4))}
    for one, want in zip(interpret(read(p), [X]), interpret(g, [X]), strict=True):
        np.testing.assert_array_equal(one, want)


def test_names_are_identifiers_that_nothing_else_has() -> None:
    b = GraphBuilder("relu")
    t = TensorType((symbol("for"), 2), f32)
    x, y = b.input("0", t), b.input("x.y/z", t)
    out = b.add("add", (x, y), names=("/deep/model.1/Add_output_0",))
    g = b.finish([out, x, out, y], ["a b", "0", "", "x.y/z"])
    p = checked(g, exact=False)
    again = read(p)
    assert [v.name for v in again.inputs] == ["v0", "x_y_z"]
    assert again.result_names == ("a_b", "v0", "v", "x_y_z")
    assert p.text.startswith("model relu_2(v0: f32[for_, 2]")


def test_results_may_have_the_names_of_inputs() -> None:
    b = GraphBuilder("m")
    x, y = (b.input(name, TensorType((2,), f32)) for name in "xy")
    out = b.add("add", (x, y), names=("z",))
    for outputs, names in (((y, x), "xy"), ((out, x), "xy"), ((x, out), "xy"), ((y, y), "xz")):
        g = live(b.finish(outputs, list(names)))
        again = read(checked(g))
        assert again.result_names == tuple(names)
        arrays = [np.float32([1, 2]), np.float32([3, 4])]
        for one, want in zip(interpret(again, arrays), interpret(g, arrays), strict=True):
            np.testing.assert_array_equal(one, want)


def test_long_lines_are_broken() -> None:
    many = ", ".join(["x"] * 40)
    text = f"model m(x: f32[n, 8]) {{\n    return concat({many}, axis=0), {many}\n}}\n"
    p = checked(graph(text))
    assert max(map(len, p.text.splitlines())) <= 100
    sums = " + ".join(f"x[:, {k % 8}] * {k}.5" for k in range(20))
    p = checked(
        graph(f"model m(x: f32[n, 8]) {{\n    z[i] = {sums.replace(':', 'i')}\nreturn z\n}}")
    )
    assert max(map(len, p.text.splitlines())) <= 100


def test_functions_without_a_notation_are_given_as_text() -> None:
    """Another name of the function, or of a variable, is another text."""
    g = graph("model m(x: f32[n, 8]) {\nz[i] = sum[j](x[i, j] * 2)\nreturn relu(z)\n}")
    (body,) = (n.attr("body") for n in g.nodes if n.op == "index")
    b = GraphBuilder("m")
    x = b.input("x", g.inputs[0].type)
    for old, new in (("@formula", "@twice"), ("* 2.0:f32", "* x0[formula_v0, formula_r_v0 * 0]")):
        z = b.add("index", (x,), {"body": str(body).replace(old, new)}, names=("z",))
        p = checked(live(b.finish([b.add("relu", (z,))])))
        assert "body=" in p.text


def test_constants_keep_every_bit() -> None:
    b = GraphBuilder("m")
    x = b.input("x", TensorType((), f32))
    odd = np.uint32([0xFFC00001, 0x7FC00000, 0x80000000, 1]).view(np.float32)
    values = [
        b.constant(np.asarray(v)) for v in (*odd, *np.outer(odd, np.ones(3)).view(np.float32))
    ]
    made = [b.add("max", (x, v)) for v in values]
    for exact in (True, False):
        g = b.finish(made)
        want = {n.attr("value") for n in g.nodes if n.op == "constant"}
        again = read(checked(g, exact))
        assert {n.attr("value") for n in again.nodes if n.op == "constant"} == want


def test_graphs_that_have_no_text() -> None:
    b = GraphBuilder("m")
    x = b.input("x", TensorType((symbol("n") * 2,), f32))
    with pytest.raises(CompileError, match="names a size: n") as caught:
        printed(b.finish([b.add("relu", (x,))]), "w.safetensors")
    assert caught.value.codes == ("E102",)
    b = GraphBuilder("m")
    x = b.input("x", TensorType((3,), f32))
    inner = Value("x", x.type)
    region = Graph("g", (inner,), (), (inner,))
    made = b.add_multi("fused", (x,), regions=(region,))
    with pytest.raises(CompileError, match="groups of operators"):
        printed(b.finish(made), "w.safetensors")


def check_random(seed: int) -> None:
    """A random graph, exactly and with its constants elsewhere."""
    case = make(seed)
    g = live(case.graph)
    first = read(printed(g, "w.safetensors"))
    checked(first)
    free = read(checked(g, exact=False))
    inputs = [case.feeds[0][v.name] for v in g.inputs]
    want, *got = (outcome(x, inputs) for x in (g, first, free))
    for found in got:
        assert type(found) is type(want), seed
        for a, b in zip(found, want, strict=True) if isinstance(want, list) else ():
            assert (a.dtype, a.shape) == (b.dtype, b.shape), seed
            assert same_numbers(a, b), seed


def same_numbers(a: Any, b: Any) -> bool:
    """Whether arrays are equal; NaN is equal to itself in every type."""
    if a.dtype.kind not in "biuf":  # types that numpy does not know
        a, b = a.astype(np.float64), b.astype(np.float64)
    return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def outcome(g: Graph, inputs: list[Any]) -> Any:
    try:
        return interpret(g, inputs)
    except Exception as fault:
        return fault


@pytest.mark.parametrize("start", range(0, 60, 20))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_random_graphs_are_printed_and_read_again(start: int) -> None:
    for seed in range(start, start + 20):
        check_random(seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers of random graphs overflow
def test_many_random_graphs_are_printed_and_read_again() -> None:
    for seed in range(60, 1000):
        check_random(seed)


def test_words_of_the_language_are_known_everywhere() -> None:
    assert {*keywords(), *type_names()} == {*RESERVED} - {"inf", "nan"}
    assert {*keywords()} >= formatting._WORDS

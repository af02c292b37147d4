"""Winograd's convolution: its error bound, odd sizes, refusals, and when the rule takes it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.target import Memory
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.tree import places
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule, prepared
from aisc.passes.schedule.rules.winograd import _moved
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.schedule.variants.winograd import ERROR_FACTOR
from aisc.passes.tensor.optimize import optimize

Array = np.ndarray


def model(
    n: Dim, h: Dim, w: Dim, c: int, o: int, kernel: int = 3, stride: int = 1, dtype=dtypes.f32
) -> Graph:
    """``relu(conv(x) + bias)`` over a channels-last image with a border of one."""
    rng = np.random.default_rng(h * 1000 + w if isinstance(h, int) and isinstance(w, int) else 0)
    b = GraphBuilder()
    x = b.input("x", TensorType((n, h, w, c), dtype))
    weight = rng.standard_normal((kernel, kernel, c, o)) * np.sqrt(2 / (kernel**2 * c))
    bias = b.constant(rng.standard_normal(o).astype(dtype.numpy))
    attrs = {
        "strides": (stride, stride), "pads": (1, 1, 1, 1), "dilations": (1, 1),
        "data_layout": "NHWC", "group": 1,
    }  # fmt: skip
    y = b.add("conv", (x, b.constant(weight.astype(dtype.numpy)), bias), attrs)
    return b.finish([b.add("relu", (y,))])


def lowered(graph: Graph) -> tuple[Func, dict[str, Array]]:
    """The only kernel, and its weights by the names of its parameters."""
    program = lower_graph(Fuse(machines=CPU).run(graph))
    (kernel,) = program.kernels
    shapes = {b.array.shape: b.array for b in program.weights.values()}
    weights = {
        p.name: shapes[p.type.static_shape] for p in kernel.params if p.role == "weight"
    }  # fmt: skip
    return kernel, weights


def convolution(func: Func) -> str:
    return next(p.block.name for p in places(func.body) if p.block.combiner)


def run(s: Schedule, weights: dict[str, Array], x: Array) -> Array:
    """The result of a schedule under the interpreter, packers first."""
    table = dict(weights)
    for packer in s.packers:
        made = np.zeros(packer.params[1].type.static_shape, np.float32)
        run_func(packer, [table[packer.params[0].name], made])
        table[packer.params[1].name] = made
    output = next(p for p in s.func.params if p.role == "output")
    results = []
    for func in (s.func, optimize(s.func)):
        y = np.zeros(output.type.static_shape, np.float32)
        given = {**table, output.name: y, func.params[0].name: x}
        arrays = [
            given.get(p.name, np.full(p.type.static_shape, np.nan, np.float32))
            for p in func.params
        ]  # fmt: skip
        run_func(func, arrays)
        results.append(y)
    assert np.array_equal(*results), "step 8 changed the result"
    return results[0]


@pytest.mark.parametrize("sizes", [(1, 8, 8, 3, 5), (2, 10, 6, 4, 3), (1, 5, 7, 16, 16)])
def test_the_variant_computes_the_convolution(sizes: tuple[int, ...]) -> None:
    graph = model(*sizes)
    func, weights = lowered(graph)
    x = np.random.default_rng(0).standard_normal(sizes[:4]).astype(np.float32)
    s = Schedule.of(func).variant(convolution(func), "winograd")
    again = Schedule.of(func).replay(trace_from_json(trace_to_json(s.trace)))
    assert again == s
    (expected,) = interpret(graph, [x])
    np.testing.assert_allclose(run(s, weights, x), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("block", [(1, 1), (2, 4), (4, 8)])
def test_blocks_of_tiles_compute_the_convolution(block: tuple[int, int]) -> None:
    graph = model(2, 10, 13, 4, 3)
    func, weights = lowered(graph)
    x = np.random.default_rng(0).standard_normal((2, 10, 13, 4)).astype(np.float32)
    s = Schedule.of(func).variant(convolution(func), "winograd_blocks", *block)
    assert Schedule.of(func).replay(trace_from_json(trace_to_json(s.trace))) == s
    (expected,) = interpret(graph, [x])
    np.testing.assert_allclose(run(s, weights, x), expected, rtol=1e-4, atol=2e-5)


def test_images_of_any_size() -> None:
    """One compilation, whole blocks of tiles inside of the cache, in rows that are divided."""
    graph = model(symbol("n"), symbol("h"), symbol("w"), 32, 32)
    assert is_used(graph)
    func, _ = lowered(graph)
    s = default_schedule(func, Chooser(resolve_target("cpu")))
    between = [p.type.shape for p in optimize(s.func).params if p.role == "scratch"]
    assert all(isinstance(d, int) for shape in between for d in shape[2:])
    exe = aisc.compile(graph, threads=2, cache=False)
    alone = aisc.compile(graph, threads=1, cache=False)
    constants = [n.attr("value").array for n in graph.nodes if n.op == "constant"]
    bias, weight = sorted(constants, key=np.ndim)
    for sizes in ((1, 16, 32), (2, 5, 7), (1, 1, 1), (3, 17, 33), (0, 8, 8), (1, 40, 70)):
        x = np.abs(np.random.default_rng(1).standard_normal((*sizes, 32))).astype(np.float32)
        exact, direct = reference(x, weight, bias)
        got = exe(x)
        assert got.shape == exact.shape
        assert np.array_equal(got, alone(x))
        if x.size:
            bound = ERROR_FACTOR * np.abs(direct - exact).max()
            assert np.abs(got - exact).max() <= max(bound, 1e-6)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (56, 56), (13, 19)])
def test_any_number_of_images_goes_through_the_cache_like_one(height: int, width: int) -> None:
    graph = model(symbol("n"), height, width, 32, 48)
    target = resolve_target("x86-64-v3")

    def between(g: Graph) -> list[tuple[Dim, ...]]:
        func, _ = lowered(g)
        made = optimize(default_schedule(func, Chooser(target)).func)
        return [p.type.shape for p in made.params if p.role == "scratch"]

    of_one = between(model(1, height, width, 32, 48))
    assert [shape[-2:] for shape in between(graph)] == [shape[-2:] for shape in of_one]
    exe, alone = (aisc.compile(graph, threads=n, cache=False) for n in (2, 1))
    constants = [n.attr("value").array for n in graph.nodes if n.op == "constant"]
    bias, weight = sorted(constants, key=np.ndim)
    for images in (1, 3, 0):
        x = np.random.default_rng(1).random((images, height, width, 32), np.float32)
        exact, direct = reference(x, weight, bias)
        got = exe(x)
        assert got.shape == exact.shape and np.array_equal(got, alone(x))
        bound = ERROR_FACTOR * np.abs(direct - exact).max(initial=0)
        assert np.abs(got - exact).max(initial=0) <= bound


@pytest.mark.parametrize(
    "sizes", [(1, 16, 16, 64, 32), (2, 14, 14, 32, 32), (1, 13, 19, 48, 64), (2, 28, 28, 128, 32)]
)
def test_machine_code_keeps_the_stated_bound(sizes: tuple[int, ...]) -> None:
    """The error is at most a small multiple of that of summing directly in single precision."""
    graph = model(*sizes)
    assert is_used(graph)
    x = np.abs(np.random.default_rng(1).standard_normal(sizes[:4])).astype(np.float32)
    constants = [n.attr("value").array for n in graph.nodes if n.op == "constant"]
    bias, weight = sorted(constants, key=np.ndim)
    exact, direct = reference(x, weight, bias)
    got = aisc.compile(graph, threads=1, cache=False)(x)
    same = aisc.compile(graph, threads=2, cache=False)(x)
    assert np.array_equal(got, same)
    error = np.abs(got - exact).max()
    assert error <= ERROR_FACTOR * np.abs(direct - exact).max()


def reference(x: Array, w: Array, bias: Array) -> tuple[Array, Array]:
    """In f64, and directly summed in f32, one product after the other."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact, direct = np.zeros((*x.shape[:3], w.shape[3])), np.float32(0)
    for kh, kw in np.ndindex(3, 3):
        part = padded[:, kh : kh + x.shape[1], kw : kw + x.shape[2]]
        exact = exact + part.astype(np.float64) @ w[kh, kw].astype(np.float64)
        for c in range(x.shape[3]):
            direct = direct + part[..., c : c + 1] * w[kh, kw, c]
    return np.maximum(exact + bias, 0), np.maximum(direct + bias, 0)


def is_used(graph: Graph) -> bool:
    func, _ = lowered(graph)
    s = prepared(func, Chooser(resolve_target("cpu")))
    return any(step.primitive == "variant" for step in s.trace)


@pytest.mark.parametrize("machine", ["x86-64-v4", "x86-64-v3"])
@pytest.mark.parametrize("cores", [1, 2])
def test_tiles_go_through_the_cache_block_by_block(machine: str, cores: int) -> None:
    """196 tiles of an image: what lies between the transforms is kept for the blocks of a piece,
    also where the last register tile has more rows than there are."""
    func, _ = lowered(model(1, 56, 56, 64, 32))
    target = replace(resolve_target(machine), cores=cores)
    s = default_schedule(func, Chooser(target))
    between = [p.type.static_shape for p in optimize(s.func).params if p.role == "scratch"]
    assert len(between) == 2
    pieces, points, tiles, _ = between[0]
    assert points == 36
    assert pieces * tiles < 196 + 14
    assert all(shape[2] == tiles for shape in between)


def test_blocks_of_tiles_move_little() -> None:
    """Few tiles stay in the cache beside weights that fit it or nearly do; where weights are much
    more than it holds, they pass by once."""
    target = replace(resolve_target("x86-64-v3"), memories=(Memory("L2", 512 << 10),))
    few, many = (64, 64), (256, 256)
    assert _moved(6, 33, few, target) < min(_moved(198 // n, n, few, target) for n in (1, 3, 11))
    assert _moved(16, 1, many, target) < min(_moved(16 // n, n, many, target) for n in (2, 4))
    assert _moved(6, 33, (32, 32), target) == 0


@pytest.mark.parametrize(
    ("graph", "used"),
    [
        (model(1, 56, 56, 64, 64), True),
        (model(1, 7, 7, 512, 512), False),  # too few tiles for so many weights
        (model(1, 56, 56, 3, 64), False),
        (model(1, 56, 56, 64, 64, stride=2), False),
        (model(1, 56, 56, 64, 64, kernel=1), False),
        (model(1, 56, 56, 64, 64, dtype=dtypes.f64), False),
    ],
)
def test_the_rule_takes_it_where_it_pays(graph: Graph, used: bool) -> None:
    assert is_used(graph) == used


@pytest.mark.parametrize(
    "graph",
    [model(1, 8, 8, 16, 16, stride=2), model(1, 8, 8, 16, 16, dtype=dtypes.f64),
     model(1, 8, 8, 16, 16, kernel=5), model(1, symbol("h"), 8, 16, 16)],
)  # fmt: skip
def test_other_computations_are_refused(graph: Graph) -> None:
    func, _ = lowered(graph)
    with pytest.raises(CompileError) as refused:
        Schedule.of(func).variant(convolution(func), "winograd")
    assert refused.value.codes == ("E302",)


def test_a_scheduled_block_is_refused() -> None:
    func, _ = lowered(model(1, 8, 8, 16, 16))
    name = convolution(func)
    loop = next(p for p in places(func.body) if p.block.name == name).loops[1].var.name
    for step in (lambda s: s.split(loop, 4), lambda s: s.parallel(loop)):
        with pytest.raises(CompileError, match="scheduled already"):
            step(Schedule.of(func)).variant(name, "winograd")


def test_an_unknown_variant_is_refused() -> None:
    func, _ = lowered(model(1, 8, 8, 16, 16))
    with pytest.raises(CompileError, match="known: winograd"):
        Schedule.of(func).variant(convolution(func), "fft")


def test_what_is_not_finite_stays_in_its_tiles() -> None:
    graph = model(1, 16, 16, 64, 32)
    x = np.random.default_rng(2).standard_normal((1, 16, 16, 64)).astype(np.float32)
    clean = aisc.compile(graph, threads=1, cache=False)(x)
    x[0, 1, 1, 5] = np.nan
    got = aisc.compile(graph, threads=1, cache=False)(x)
    assert np.isnan(got[0, :3, :3]).all()  # under its taps
    assert np.array_equal(got[0, 4:], clean[0, 4:])
    assert np.array_equal(got[0, :, 4:], clean[0, :, 4:])


def test_quick_compilations_leave_it_out() -> None:
    func, _ = lowered(model(1, 56, 56, 64, 64))
    target = resolve_target("cpu")
    algorithms = [
        [s.primitive for s in default_schedule(func, Chooser(target, quick=quick)).algorithm]
        for quick in (False, True)
    ]
    assert ["variant" in a for a in algorithms] == [True, False]


def test_quick_compilations_agree_and_repeat_themselves() -> None:
    graph = model(1, 15, 17, 64, 32)
    x = np.random.default_rng(3).standard_normal((1, 15, 17, 64)).astype(np.float32)
    for threads in (1, 2):
        quick = aisc.compile(graph, threads=threads, cache=False, level=1)(x)
        again = aisc.compile(graph, threads=1, cache=False, level=1)(x)
        assert np.array_equal(quick, again)
    np.testing.assert_allclose(
        quick, aisc.compile(graph, threads=1, cache=False)(x), rtol=1e-3, atol=1e-3
    )

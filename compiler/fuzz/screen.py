"""Rounding or fault? A screen from float64.

The graph is evaluated with every float widened to float64, as it is and many times with errors of
the size of a rounding of the original type put on what is not exact. How far those runs lie apart
says how far a result may lie from the exact one: that is the conditioning of this graph on these
inputs, measured. A result is a fault where its error is beyond it. Where runs with larger errors
jump (a comparison that flips, an overflow), the element says nothing and is passed over.

What is exact gets no error: sums and products of small whole numbers must be right to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np

from aisc.fuzz.case import Feed
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.interpret import bind_dims, bind_values, run_node
from aisc.ir.graph.opdef import Array
from aisc.ir.graph.shapes import infer
from aisc.ir.types import TensorType

# Errors of the runs, in roundings, and how many runs there are of each. Every second one rounds
# its numbers to their type as well, for what is decided by two that meet in one; one more does
# only that.
SCALES = ((1.0, 10), (6.0, 8), (40.0, 8))
ALLOWED = 8.0  # times the spread of the runs with single roundings
ROUNDINGS = 8.0  # of a result, whatever the spread
JUMP = 12.0  # times what the error was made larger by: more is no rounding
# Operators of one rounding: right to the bit where float64 gives a number of the narrow type.
SINGLE = frozenset({
    "add", "sub", "mul", "neg", "abs", "relu", "max", "min", "reduce_max", "reduce_min", "floor",
    "ceil", "round", "trunc", "sign", "clip", "max_pool", "where", "cast", "div", "sqrt", "fmod",
    "leaky_relu", "prelu", "shrink", "thresholded_relu", "reciprocal",
})  # fmt: skip
# Sums: right to the bit on small whole numbers, else with errors of the size of their terms.
SUMS = frozenset({
    "matmul", "conv", "conv_transpose", "reduce_sum", "reduce_l1", "reduce_sum_square", "cumsum",
    "reduce_mean", "avg_pool",
})  # fmt: skip
# Their results may be rounded with a sum that they are added to, and alone for other users.
CONTRACTED = frozenset({
    "mul", "silu", "gelu", "hard_swish", "mish", "neg", "leaky_relu", "prelu", "if", "loop",
    "reshape", "transpose", "expand", "slice",
})  # fmt: skip
PRODUCTS = frozenset({"reduce_prod", "cumprod"})
# Operators that compute a difference of numbers of the size of their operand, or of one.
INNER = frozenset({
    "gelu", "hard_sigmoid", "hard_swish", "mish", "softplus", "celu", "elu", "selu", "log_softmax",
    "reduce_log_sum_exp", "layer_norm", "group_norm", "batch_norm",
})  # fmt: skip
MOVES = frozenset({
    "bitcast", "concat", "slice", "expand", "reshape", "transpose", "tile", "trilu", "pad",
    "sample", "gather", "gather_elements", "gather_nd", "top_k", "constant", "iota", "unique",
})  # fmt: skip
COMPOSITE = 4.0  # roundings of an operator that is no single one
LOOP = 32.0  # and of a loop, whose nodes get no errors of their own


def widened(graph: Graph) -> Graph:
    """`graph` with all floats replaced by f64: inputs, constants and casts. Values keep their
    order, so that those of the two graphs correspond."""
    b = GraphBuilder(graph.name)
    table: dict[Value, Value] = {}
    for v in graph.inputs:
        table[v] = Value(v.name, _wide_type(v.type))
    b.inputs = [table[v] for v in graph.inputs]
    for node in graph.nodes:
        outputs = tuple(Value(v.name, _wide_type(v.type)) for v in node.outputs)
        inputs = tuple(None if v is None else table[v] for v in node.inputs)
        attrs = tuple((k, _wide_attr(x)) for k, x in node.attrs)
        regions = tuple(map(widened, node.regions))
        b.append(GraphNode(node.op, inputs, outputs, attrs, regions, node.loc))
        table.update(zip(node.outputs, outputs, strict=True))
    return b.finish([table[v] for v in graph.outputs], graph.result_names)


def _wide_type(t: TensorType) -> TensorType:
    return TensorType(t.shape, dtypes.f64) if t.dtype.is_float else t


def _wide_attr(x: AttrValue) -> AttrValue:
    if isinstance(x, Blob) and x.dtype.is_float:
        return Blob(np.asarray(x.array).astype(np.float64))
    return dtypes.f64 if isinstance(x, DType) and x.is_float else x


@dataclass
class _Run:
    """One evaluation in float64. `scale` 0 puts no errors on anything; with `grid`, results are
    rounded to their narrow type."""

    scale: float
    source: np.random.Generator
    grid: bool = False
    dims: dict[str, int] = field(default_factory=dict)

    def graph(self, graph: Graph, wide: Graph, inputs: Sequence[Array]) -> list[Array]:
        """Results of a graph for inputs that may be narrow."""
        arrays = [_wide(x) for x in inputs]
        types, names = [v.type for v in wide.inputs], [v.name for v in wide.inputs]
        self.dims = bind_dims(types, arrays, names, self.dims)
        env = dict(zip(wide.inputs, arrays, strict=True))
        products = {v for n in wide.nodes if n.op in CONTRACTED for v in n.outputs}
        for narrow, node in zip(graph.nodes, wide.nodes, strict=True):
            args = [None if v is None else env[v] for v in node.inputs]
            if self.scale and node.op in ("add", "sub") and not products.isdisjoint(node.inputs):
                args = [self.contracted(x, v) for x, v in zip(args, narrow.inputs, strict=True)]
            if node.op == "bind_dims":
                bind_values(node, args[0], self.dims)
            for a, b, x in zip(
                node.outputs, narrow.outputs, self.node(narrow, node, args), strict=True
            ):
                env[a] = self.rounded(x, b.type.dtype, narrow, args)
        return [env[v] for v in wide.outputs]

    def node(
        self, narrow: GraphNode, node: GraphNode, args: Sequence[Array | None]
    ) -> Sequence[Array]:
        """The results of one node before rounding."""
        if node.op == "bitcast":
            return [self.bits(narrow, args)]
        if node.op == "if":
            cond, *captures = (x for x in args if x is not None)
            arm = 0 if bool(cond) else 1
            inner = _Run(self.scale, self.source, self.grid, dict(self.dims))
            return inner.graph(narrow.regions[arm], node.regions[arm], captures)
        if self.scale and node.op not in MOVES | SINGLE | SUMS:
            decomposed = opdef.get(node.op).decompose is not None
            args = [self.shaken(x, v, decomposed) for x, v in zip(args, narrow.inputs, strict=True)]
        results = run_node(node, args, self.dims)
        return self.large_powers(args, results) if node.op == "pow" else results

    def bits(self, narrow: GraphNode, args: Sequence[Array | None]) -> Array:
        """The result of a ``bitcast``, which is of narrow types; the bits of NaN are any."""
        (v,), (x,) = narrow.inputs, args
        assert v is not None and x is not None, "bitcast has one operand"
        with np.errstate(all="ignore"):
            (found,) = run_node(narrow, [x.astype(v.type.dtype.numpy)], self.dims)
        wide = _wide(found)
        same = narrow.output.type.dtype is v.type.dtype
        if x.dtype.kind != "f" or not np.isnan(x).any() or same:
            return wide
        noise = self.source.integers(0, 100, wide.shape).astype(wide.dtype)
        return np.where(np.isnan(x), noise, wide)

    def shaken(self, x: Array | None, v: Value | None, decomposed: bool) -> Array | None:
        """An operand with an error of a rounding. Those of 16 bits are computed with in f32, but
        for operators that become several."""
        if x is None or v is None or not v.type.dtype.is_float:
            return x
        if v.type.dtype.bits < 32 and not decomposed:
            return x
        return self.with_error(x, epsilon(v.type.dtype) * np.abs(x))

    def contracted(self, x: Array | None, v: Value | None) -> Array | None:
        """An operand of a sum with another rounding than elsewhere: it may be a product that is
        rounded with the sum."""
        if x is None or v is None or not v.type.dtype.is_float:
            return x
        error = epsilon(v.type.dtype) * np.abs(x)
        return self.with_error(x, np.where(x == np.rint(x), 0.0, error))

    def large_powers(self, args: Sequence[Array | None], results: list[Array]) -> list[Array]:
        """Powers of integers are computed in f64. Those beyond its whole numbers are rounded: they
        differ from run to run, which makes what depends on them unclear."""
        a, b = args
        assert a is not None and b is not None, "pow has two operands"
        if results[0].dtype.kind not in "iu":
            return results
        with np.errstate(all="ignore"):
            large = ~(np.abs(np.power(a.astype(np.float64), b.astype(np.float64))) <= 2.0**53)
        noise = self.source.integers(0, 100, results[0].shape).astype(results[0].dtype)
        return [np.where(large, noise, results[0])]

    def rounded(
        self, x: Array, dtype: DType, node: GraphNode, args: Sequence[Array | None]
    ) -> Array:
        """A result within the range of its narrow type, with an error where it is not exact."""
        if not dtype.is_float:
            return x
        limit, least = dtype.max_value, _least(dtype)
        with np.errstate(all="ignore"):
            x = np.where(np.abs(x) > limit * (1 + 0.5 * epsilon(dtype)), np.sign(x) * np.inf, x)
            x = np.where(np.abs(x) < 0.5 * least, np.copysign(0.0, x), x)
        if node.op in MOVES:
            return x
        with np.errstate(all="ignore"):
            if self.scale and node.op in SUMS:
                x = self.overflowing(x, limit, node, args)
            if self.scale and node.op in PRODUCTS:
                x = self.leaving(x, limit, least, node, args)
            if self.scale:
                x = self.with_error(x, self.error_of(x, dtype, node, args) + least * (x != 0))
            return x.astype(dtype.numpy).astype(np.float64) if self.grid else x

    def overflowing(
        self, x: Array, limit: float, node: GraphNode, args: Sequence[Array | None]
    ) -> Array:
        """Sums that are infinite, or NaN, in one order of their terms, not in another, are so at
        random."""
        first = args[0]
        many = first.size if first is not None and node.op in ("reduce_mean", "avg_pool") else 1
        finite = [a if a is None else np.where(np.isfinite(a), a, 0.0) for a in args]
        near = self.terms(node, finite) * many > 0.99 * limit
        for other in (np.inf, np.nan):
            x = np.where(near & self.by_chance(x), other, x)
        if node.op == "conv_transpose" and not all(map(_is_finite, args)):
            x = np.where(self.by_chance(x), np.nan, x)  # times a zero that fills the weights up
        return x

    def leaving(
        self, x: Array, limit: float, least: float, node: GraphNode, args: Sequence[Array | None]
    ) -> Array:
        """Products that leave the range of their type in one order of their factors are infinite,
        NaN or zero at random."""
        (first, *others) = args
        assert first is not None, "a product has an operand"
        sizes = np.where(np.isnan(first), 1.0, np.abs(first))
        (high,) = run_node(widened_node(node), [np.maximum(sizes, 1.0), *others], dict(self.dims))
        below = np.where(sizes == 0, 1.0, np.minimum(sizes, 1.0))
        (low,) = run_node(widened_node(node), [below, *others], dict(self.dims))
        x = np.where((high > limit) & self.by_chance(x), np.inf, x)
        x = np.where((high > limit) & self.by_chance(x), np.nan, x)
        return np.where((low < 2 * least) & self.by_chance(x), 0.0, x)

    def by_chance(self, x: Array) -> Array:
        """True for about one half of the elements."""
        return self.source.random(x.shape) < 0.5

    def error_of(
        self, x: Array, dtype: DType, node: GraphNode, args: Sequence[Array | None]
    ) -> Array:
        """How far a result may be from the exact one for exact operands, in one rounding."""
        eps = epsilon(dtype)
        if node.op in SINGLE:
            return np.where(_exact(x, dtype), 0.0, eps * np.abs(x))
        if node.op not in SUMS | PRODUCTS:
            inner = 0.0 if node.op not in INNER | {"loop"} else _largest(args)
            more = LOOP if node.op == "loop" else COMPOSITE * _of_rows(node, args)
            return more * eps * np.maximum(np.abs(x), inner)
        terms = np.abs(x)
        if node.op in SUMS:
            terms = self.terms(node, args)
        narrow = eps * np.abs(x)  # of a convolution weights are, where a scale moves into them
        whole = all(a is None or bool(np.all(a == np.rint(a))) for a in args)
        if opdef.get(node.op).decompose is None and node.op != "conv":
            eps = epsilon(infer.accumulator(dtype))
        exact = whole & (terms < 1 / eps) & _exact(x, dtype)
        return np.where(exact, 0.0, 2 * eps * terms + narrow)

    def terms(self, node: GraphNode, args: Sequence[Array | None]) -> Array:
        """The sum of the absolute terms of each sum."""
        sizes = [None if a is None else np.abs(a) for a in args]
        (found,) = run_node(widened_node(node), sizes, dict(self.dims))
        return np.abs(found)

    def with_error(self, x: Array, size: Array) -> Array:
        """`x` with random errors of a size."""
        noise = self.source.uniform(-1.0, 1.0, x.shape)
        with np.errstate(all="ignore"):
            moved = x + noise * self.scale * size
        return np.where(np.isfinite(x) & np.isfinite(moved), moved, x)


def _exact(x: Array, dtype: DType) -> Array:
    """Where a number of float64 is one of a type; of float64 itself only whole numbers are known
    to be right."""
    if dtype is dtypes.f64:
        return np.asarray(x == np.rint(x))
    return np.asarray(x.astype(dtype.numpy).astype(np.float64) == x)


def _of_rows(node: GraphNode, args: Sequence[Array | None]) -> float:
    """How much larger errors of sums over long rows are: they grow with the root of the length."""
    first = args[0] if args else None
    if first is None or opdef.get(node.op).kind not in ("reduction", "window"):
        return 1.0
    return max(1.0, float(np.sqrt(first.size)) / 16)


def widened_node(node: GraphNode) -> GraphNode:
    """A node with its results in float64."""
    outputs = tuple(Value(v.name, _wide_type(v.type)) for v in node.outputs)
    inputs = tuple(None if v is None else Value(v.name, _wide_type(v.type)) for v in node.inputs)
    return GraphNode(node.op, inputs, outputs, node.attrs, node.regions, node.loc)


def _is_finite(x: Array | None) -> bool:
    return x is None or x.dtype.kind in "iub" or bool(np.isfinite(x).all())


def _largest(args: Sequence[Array | None]) -> float:
    """The greatest finite magnitude among operands, or one."""
    found = 1.0
    for a in args:
        if a is not None and a.dtype.kind == "f":
            sizes = np.abs(a[np.isfinite(a)])
            found = max(found, float(sizes.max(initial=0.0)))
    return found


def _wide(x: Array) -> Array:
    return x if x.dtype.kind in "iub" else x.astype(np.float64)


def epsilon(t: DType) -> float:
    """The relative distance of neighbours."""
    return {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}[t.name]


def _least(t: DType) -> float:
    """The least positive number, denormal or not; that of bf16 is the least normal one, as what
    x86 has for conversions to bf16 makes zero of denormals."""
    return {"f16": 2.0**-24, "bf16": 2.0**-126, "f32": 2.0**-149, "f64": 5e-324}[t.name]


# -- judging ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Verdict:
    """What the screen says of one result. `faults` are places that no rounding explains, `unclear`
    how many elements could not be judged."""

    faults: Array
    unclear: int
    error: float = 0.0
    bound: float = 0.0


class Screen:
    """Judges results of one graph for one feed; evaluates it when first asked."""

    def __init__(self, graph: Graph, feed: Feed, seed: int = 0) -> None:
        self.graph, self.feed, self.seed = graph, feed, seed
        self._runs: tuple[list[Array], dict[float, list[list[Array]]]] | None = None

    def runs(self) -> tuple[list[Array], dict[float, list[list[Array]]]]:
        """The exact results, and those of the disturbed runs by their scale."""
        if self._runs is None:
            wide = widened(self.graph)
            exact = self._once(wide, 0.0, 0)
            found: dict[float, list[list[Array]]] = {}
            for scale, count in SCALES:
                found[scale] = [self._once(wide, scale, k, k % 2 == 1) for k in range(count)]
            found[SCALES[0][0]].append(self._once(wide, 0.0, 0, grid=True))
            self._runs = exact, found
        return self._runs

    def _once(self, wide: Graph, scale: float, turn: int, grid: bool = False) -> list[Array]:
        source = np.random.default_rng((self.seed & 0xFFFFFFFF, int(scale), turn))
        inputs = [self.feed[v.name] for v in self.graph.inputs]
        return _Run(scale, source, grid).graph(self.graph, wide, inputs)

    def judge(self, k: int, got: Array) -> Verdict:
        """The verdict on the k-th result."""
        exact, disturbed = self.runs()
        want, narrow = exact[k], self.graph.outputs[k].type.dtype
        others = {scale: [r[k] for r in runs] for scale, runs in disturbed.items()}
        every = [x for group in others.values() for x in group]
        if any(x.shape != want.shape for x in every):
            return Verdict(np.zeros(got.shape, np.bool_), got.size)
        if got.shape != want.shape:
            return Verdict(np.ones(got.shape, np.bool_), 0)
        if not narrow.is_float:
            unclear = np.zeros(want.shape, np.bool_)
            for x in every:
                unclear |= x != want
            return Verdict((got != want) & ~unclear, int(unclear.sum()))
        return self._floats(got.astype(np.float64), want, others, narrow)

    def _floats(
        self, got: Array, want: Array, others: Mapping[float, Sequence[Array]], narrow: DType
    ) -> Verdict:
        eps, least = epsilon(narrow), _least(narrow)
        finite = np.isfinite(want)
        unclear = np.zeros(want.shape, np.bool_)
        with np.errstate(all="ignore"):
            rounding = eps * np.abs(want) + least
            floor = ROUNDINGS * rounding
            single = np.zeros(want.shape)
            for scale, group in sorted(others.items()):
                spread = np.zeros(want.shape)
                for x in group:
                    unclear |= (np.isfinite(x) != finite) | (~finite & ~_same(x, want))
                    spread = np.maximum(spread, np.where(finite, np.abs(x - want), 0.0))
                if scale == 1.0:
                    single = spread
                unclear |= spread > JUMP * scale * np.maximum(single, rounding)
            bound = ALLOWED * single + floor
            error = np.where(finite, np.abs(got - want), 0.0)
            wrong = np.where(finite, ~(error <= bound), ~_same(got, want))
        near_limit = finite & (np.abs(want) * (1 + 64 * eps) + bound > narrow.max_value)
        faults = wrong & ~unclear & ~near_limit
        where = np.where(faults, error, -1.0)
        at = int(where.argmax()) if faults.any() else 0
        flat = error.reshape(-1), bound.reshape(-1)
        numbers = (float(flat[0][at]), float(flat[1][at])) if faults.any() else (0.0, 0.0)
        return Verdict(faults, int(unclear.sum()), *numbers)


def _same(a: Array, b: Array) -> Array:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def close(got: Array, want: Array) -> bool:
    """Whether two results are so near that no screen is needed: a few roundings apart."""
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if got.dtype.kind in "iub":
        return bool(np.array_equal(got, want))
    a, b = got.astype(np.float64), want.astype(np.float64)
    eps = epsilon(dtypes.from_numpy(got.dtype))
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= 2 * eps * np.abs(b)
    return bool(np.all(near | _same(a, b)))


def screened(graph: Graph, feed: Feed) -> Screen | None:
    """A screen, or ``None`` when the graph cannot be evaluated in float64."""
    screen = Screen(graph, feed)
    try:
        screen.runs()
    except (AiscError, IndexError, ValueError, ZeroDivisionError):
        return None
    return screen

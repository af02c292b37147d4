"""The signature of a compiled program: what its callers and its calling convention need to know.

A small frozen record, made by the pipeline or read from a bundle. Nothing of the IR is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from aisc.ir import dtypes
from aisc.ir.arith.dim_json import dim_from_json, dim_to_json, integer, text
from aisc.ir.arith.poly import Dim, SymDim, evaluate, sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.dtypes import DType
from aisc.ir.types import MAX_SIZE, TensorType

Values = tuple[int, ...]
_MAX_RANK = 64  # of numpy
_MAX_WORDS = 1 << 24


@dataclass(frozen=True, slots=True)
class Port:
    """An input, output or weight: its name in the model, and its type."""

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dimensions, some of them possibly symbolic."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs in order; weights in the order of the frame's table, packed as kernels
    read them.

    dims: symbolic dimensions in the order of the frame's values; results: those after them, which
    only a run gives. words: size of a call's memory block; segments: the numbers of the words in
    it that own memory. defaults: inputs of the model that are constants here.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dims: tuple[str, ...]
    results: tuple[str, ...]
    words: int
    segments: tuple[int, ...]
    weights: tuple[Port, ...]
    defaults: tuple[Port, ...] = ()

    @property
    def symbols(self) -> tuple[SymDim, ...]:
        """The symbolic dimensions of the inputs with their bounds, by name."""
        found = {s.name: s for p in self.inputs for s in p.type.symbols}
        return tuple(found[name] for name in sorted(found))


def to_json(s: Signature) -> dict[str, Any]:
    """The signature as a JSON value."""
    groups = {"inputs": s.inputs, "outputs": s.outputs, "weights": s.weights}
    groups["defaults"] = s.defaults
    ports = {key: [_port_to_json(p) for p in group] for key, group in groups.items()}
    return {
        "name": s.name,
        "dims": list(s.dims),
        "results": list(s.results),
        "words": s.words,
        "segments": list(s.segments),
        **ports,
    }


def from_json(data: Mapping[str, Any]) -> Signature:
    """The signature of :func:`to_json`; ``ValueError`` and its like when the form is wrong."""
    inputs, outputs, weights, defaults = (
        tuple(map(_port_from_json, data[key]))
        for key in ("inputs", "outputs", "weights", "defaults")
    )
    if not all(w.type.is_static for w in weights):
        raise ValueError("a weight has a symbolic dimension")
    dims, results = tuple(map(text, data["dims"])), tuple(map(text, data["results"]))
    words, segments = integer(data["words"]), tuple(map(integer, data["segments"]))
    if not 0 <= words <= _MAX_WORDS or any(not 0 <= k < words - 1 for k in segments):
        raise ValueError("a memory block is out of range")
    return Signature(
        text(data["name"]), inputs, outputs, dims, results, words, segments, weights, defaults
    )  # fmt: skip


def _port_to_json(p: Port) -> list[Any]:
    return [p.name, p.dtype.name, [dim_to_json(d) for d in p.shape]]


def _port_from_json(data: Any) -> Port:
    name, dtype, shape = data
    dims = tuple(map(dim_from_json, shape))
    if len(dims) > _MAX_RANK or any(isinstance(d, int) and d < 0 for d in dims):
        raise ValueError("a shape is out of range")
    return Port(text(name), TensorType(dims, dtypes.dtype(text(dtype))))


class Binding:
    """How shapes of inputs give the symbolic dimensions, and these the shapes of outputs; worked
    out once, so that a call only compares and looks up."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        names = signature.dims
        sources: dict[str, tuple[int, int]] = {}
        for k, port in enumerate(signature.inputs):
            for axis, d in enumerate(port.shape):
                symbol = sole_symbol(d)
                if symbol is not None:
                    sources.setdefault(symbol.name, (k, axis))
        unbound = [n for n in names if n not in sources]
        if unbound:
            raise execution_error(
                "E501",
                f"the dimension {', '.join(unbound)} is the size of no axis of an input",
                "fix it when compiling, with --shape or shapes=",
            )
        self._sources = [sources[n] for n in names]
        bounds = {s.name: (s.lower, s.upper) for s in signature.symbols}
        self._bounds = [
            (low, MAX_SIZE if high is None else high) for low, high in (bounds[n] for n in names)
        ]
        self._inputs = [_shape_rule(p.shape, names) for p in signature.inputs]
        self.later = [any(s.name not in names for s in p.type.symbols) for p in signature.outputs]
        every = (*names, *signature.results)
        self._outputs = [
            _shape_rule(p.shape, every if later else names)
            for p, later in zip(signature.outputs, self.later, strict=True)
        ]

    def values(self, inputs: Sequence[NDArray[Any]]) -> Values:
        """Values of the symbolic dimensions; E501 when the shapes are not consistent."""
        values = tuple([inputs[k].shape[axis] for k, axis in self._sources])
        for array, rule, port in zip(inputs, self._inputs, self.signature.inputs, strict=True):
            if array.shape != rule(values):
                raise shape_error("input", port, array)
        for v, (low, high), (k, _) in zip(values, self._bounds, self._sources, strict=True):
            if not low <= v <= high:
                raise shape_error("input", self.signature.inputs[k], inputs[k])
        return values

    def output_shapes(self, values: Values) -> list[Values | None]:
        """Shapes of the outputs for these values of the dimensions; ``None`` for those whose sizes
        only a run gives."""
        return [
            None if later else _possible(rule(values))
            for rule, later in zip(self._outputs, self.later, strict=True)
        ]

    def result_shape(self, k: int, values: Values) -> Values:
        """Shape of such an output; `values` are those of the dimensions and of the results."""
        return self._outputs[k](values)


def _possible(shape: Values) -> Values:
    """A shape that an array can have: where a size is below zero the run says so."""
    return tuple([max(d, 0) for d in shape]) if shape and min(shape) < 0 else shape


def dim_rule(d: Dim, names: Sequence[str]) -> Callable[[Values], int]:
    """`d` as a function of the values of the dimensions called `names`."""
    if isinstance(d, int):
        return lambda values: d
    symbol = sole_symbol(d)
    if symbol is not None and symbol.name in names:
        at = list(names).index(symbol.name)
        return lambda values: values[at]
    return lambda values: evaluate(d, dict(zip(names, values, strict=True)))


def _shape_rule(shape: tuple[Dim, ...], names: Sequence[str]) -> Callable[[Values], Values]:
    """A shape as a function of the values of the dimensions."""
    static = tuple(d for d in shape if isinstance(d, int))
    if len(static) == len(shape):
        return lambda values: static
    rules = [dim_rule(d, names) for d in shape]
    return lambda values: tuple([r(values) for r in rules])


def shape_error(what: str, port: Port, got: NDArray[Any]) -> ExecutionError:
    """E501: an array does not have the type of its port."""
    expected = [f"expected {port.type}"]
    large = max(got.shape, default=0) > MAX_SIZE
    for s in sorted(port.type.symbols, key=str):
        if s.lower > 0 or s.upper is not None or large:
            most = MAX_SIZE if s.upper is None and large else s.upper or "any size"
            expected.append(f"with {s.name} from {s.lower} to {most}")
    return execution_error(
        "E501",
        f"{what} '{port.name}' does not fit",
        ", ".join(expected),
        f"got {type_text(got)}",
    )


def type_text(array: NDArray[Any]) -> str:
    """The type of an array in the form that types are printed."""
    try:
        name = dtypes.from_numpy(array.dtype).name
    except KeyError:
        name = str(array.dtype)
    return f"{name}[{', '.join(map(str, array.shape))}]"

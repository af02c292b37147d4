"""What a user can choose about a quantized model."""

from __future__ import annotations

from typing import Literal, get_args

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error

Method = Literal["minmax", "percentile", "entropy", "mse"]
Activations = Literal["u8", "i8"]
Weights = Literal["i8", "i7", "i4"]
Rounding = Literal["nearest", "gptq"]

# Operators that read and write 8 bits where asked for.
CONTRACTIONS = ("Conv", "Gemm", "MatMul")
OPERATORS = (*CONTRACTIONS, "Add", "Concat", "AveragePool", "GlobalAveragePool", "MaxPool")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose.

    method: how a range is found in what the data give; percentile: of absolute values that it
    keeps, with that method.
    activations: u8 with a zero point, or i8 without. weights: i8; i7 for machines whose
    instructions add two products of 8 bits in 16; i4: weights alone, in groups of `group`, while
    activations stay floats.
    per_channel: weights have a scale for each output channel.
    bias_correction: what rounding of weights moves an output by, on average, goes into its bias.
    smooth: the part of the range of a norm's results that moves into the weights behind it, 0 for
    none.
    products: whether products of two activations are quantized as well.
    rounding: how weights of 4 bits are rounded.
    operators: kinds of operators that are quantized; keep: nodes that stay in float.
    budget: the relative error of the outputs that is allowed; layers stay in float until it holds.
    batch: samples of a run, where the model leaves the choice.
    """

    method: Method = "mse"
    percentile: float = 99.99
    activations: Activations = "u8"
    weights: Weights = "i8"
    per_channel: bool = True
    bias_correction: bool = True
    smooth: float = 0.0
    products: bool = False
    rounding: Rounding = "gptq"
    group: int = 32
    operators: tuple[str, ...] = OPERATORS
    keep: tuple[str, ...] = ()
    budget: float | None = None
    batch: int = 16

    def __post_init__(self) -> None:
        _one_of("method", self.method, get_args(Method))
        _one_of("activation type", self.activations, get_args(Activations))
        _one_of("weight type", self.weights, get_args(Weights))
        _one_of("rounding", self.rounding, get_args(Rounding))
        for name in self.operators:
            _one_of("operator", name, OPERATORS)
        _within("percentile", self.percentile, 50, 100)
        _within("smoothing", self.smooth, 0, 1)
        _within("group", self.group, 16, 256)
        if self.group & (self.group - 1):
            raise error("E401", "a group of weights is a power of two", f"got {self.group}")
        if self.budget is not None:
            _within("budget", self.budget, 0, 1)
        if self.batch < 1:
            raise error("E401", "a batch has one sample at least", f"got {self.batch}")

    @property
    def weights_alone(self) -> bool:
        """Whether activations stay floats."""
        return self.weights == "i4"


def _one_of(what: str, got: str, known: tuple[str, ...]) -> None:
    if got not in known:
        raise error("E401", f"there is no {what} '{got}'", f"there are {', '.join(known)}")


def _within(what: str, got: float, low: float, high: float) -> None:
    if not low <= got <= high:
        raise error("E401", f"the {what} must be from {low} to {high}", f"got {got}")

"""The examples of the model language and the same models in ONNX give the same bits."""

from __future__ import annotations

import pytest
import twins

SIZES = {"n": 3, "height": 17, "width": 20, "steps": 4}


@pytest.mark.parametrize("name", twins.TWINS)
def test_both_forms_give_the_same_bits(name: str) -> None:
    one, other = twins.both(name)
    inputs = twins.inputs_of(one, SIZES)
    pairs = list(zip(twins.results(one, inputs), twins.results(other, inputs), strict=True))
    assert pairs and all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in pairs)
    assert (one.input_names, one.output_names) == (other.input_names, other.output_names)


def test_every_example_has_a_twin() -> None:
    assert set(twins.TWINS) == {p.stem for p in twins.EXAMPLES.glob("*.aim")}

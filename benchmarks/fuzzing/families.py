"""The families of layers, how often models use each, and a layer by its number."""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzzing import elements, products
from fuzzing.draft import Draft, Layer

# family: (how many of 19 layers, what draws one)
FAMILIES: dict[str, tuple[int, Callable[[Draft], list[str]]]] = {
    "conv": (5, products.conv),
    "matmul": (4, products.matmul),
    "rows": (4, elements.rows),
    "maps": (2, elements.maps),
    "moves": (3, elements.moves),
    "recurrent": (1, products.recurrent),
}


def family_of(seed: int, number: int) -> str:
    """The family of a layer."""
    weights = [weight for weight, _ in FAMILIES.values()]
    return random.Random(f"family {seed} {number}").choices(list(FAMILIES), weights)[0]


def draw(seed: int, number: int) -> Layer:
    """A layer, which depends on nothing but the seed and its number."""
    family = family_of(seed, number)
    draft = Draft(family, f"layer {seed} {number}")
    return draft.layer(FAMILIES[family][1](draft))


def numbers(seed: int, count: int, wanted: list[str]) -> list[int]:
    """The first so many numbers of layers of the wanted families, of all where none is named."""
    found: list[int] = []
    number = 0
    while len(found) < count:
        if not wanted or family_of(seed, number) in wanted:
            found.append(number)
        number += 1
    return found

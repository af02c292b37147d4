"""What the standard says of an operator's operands, results and attributes, by version.

The facts stand in the generated table :mod:`aisc.frontend.onnx.standard`: the registry of onnx
itself, which builds the schemas of every version, is asked only for operator sets newer than that.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from aisc.frontend.onnx.standard import OPERATORS

if TYPE_CHECKING:
    from onnx.defs import OpSchema

# The domains whose operators are held against the standard, and the versions the table has of them.
NEWEST = {"": 28, "ai.onnx.ml": 5}


class Signature(NamedTuple):
    """How many operands and results an operator takes from version `since` on, least and greatest,
    and which attributes must be given; `removed`: it is no operator any more."""

    since: int
    operands: tuple[int, int] = (0, 0)
    results: tuple[int, int] = (0, 0)
    required: tuple[str, ...] = ()
    removed: bool = False


def signature(domain: str, op: str, version: int) -> Signature | None:
    """What holds for an operator in a version of its domain, ``None`` where it has none by then."""
    known = versions(domain, op, newest=max(version, NEWEST[domain]))
    return next((s for s in reversed(known) if s.since <= version), None)


@cache
def versions(domain: str, op: str, newest: int) -> tuple[Signature, ...]:
    """The signatures of an operator, the oldest first, as far as they differ; ``()`` for what the
    domain does not have."""
    if newest > NEWEST[domain]:
        return of_registry().get(domain, {}).get(op, ())
    return tuple(Signature(*s) for s in OPERATORS[domain].get(op, ()))


def of_registry() -> dict[str, dict[str, tuple[Signature, ...]]]:
    """What the installed onnx says of every operator, by domain and name."""
    from onnx import defs

    found: dict[tuple[str, str], list[OpSchema]] = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain in NEWEST:
            found.setdefault((schema.domain, schema.name), []).append(schema)
    table: dict[str, dict[str, tuple[Signature, ...]]] = {d: {} for d in NEWEST}
    for (domain, op), schemas in sorted(found.items()):
        table[domain][op] = _history(sorted(schemas, key=lambda s: s.since_version))
    return table


def _history(schemas: list[OpSchema]) -> tuple[Signature, ...]:
    kept: list[Signature] = []
    for schema in schemas:
        made = _of(schema, schemas[0].since_version)
        if not kept or made[1:] != kept[-1][1:]:
            kept.append(made)
    return tuple(kept)


def _of(schema: OpSchema, first: int) -> Signature:
    # GroupNormalization of opset 18 is marked as deprecated itself: its successor is another form.
    if schema.deprecated and schema.since_version > first:
        return Signature(schema.since_version, removed=True)
    required = tuple(sorted(n for n, a in schema.attributes.items() if a.required))
    operands = (schema.min_input, schema.max_input)
    results = (schema.min_output, schema.max_output)
    return Signature(schema.since_version, operands, results, required)

"""The table of the ONNX standard says what the schemas of onnx say, version by version."""

from __future__ import annotations

import pytest
from onnx import defs

from aisc.frontend.onnx.signatures import NEWEST, signature, versions

OPERATORS = sorted(
    {(s.domain, s.name) for s in defs.get_all_schemas_with_history() if s.domain in NEWEST}
)


@pytest.mark.parametrize("ahead", [0, 1], ids=["table", "registry"])
@pytest.mark.parametrize("domain", NEWEST)
def test_every_version_is_that_of_the_schema(domain: str, ahead: int) -> None:
    for of, op in OPERATORS:
        for version in range(1, NEWEST[domain] + 1) if of == domain else ():
            found = signature(domain, op, version) if not ahead else _of_registry(of, op, version)
            try:
                schema = defs.get_schema(op, version, domain)
            except defs.SchemaError:
                assert found is None
                continue
            assert found is not None
            if found.removed:
                assert schema.deprecated
                continue
            assert found.operands == (schema.min_input, schema.max_input), (op, version)
            assert found.results == (schema.min_output, schema.max_output), (op, version)
            required = [n for n, a in schema.attributes.items() if a.required]
            assert sorted(found.required) == sorted(required), (op, version)


def _of_registry(domain: str, op: str, version: int) -> object:
    """As it is found for a version that is newer than the table."""
    found = [s for s in versions(domain, op, NEWEST[domain] + 1) if s.since <= version]
    return found[-1] if found else None


def test_what_the_standard_does_not_have() -> None:
    assert signature("", "NoSuchOperator", 13) is None
    assert signature("", "NoSuchOperator", NEWEST[""] + 3) is None
    assert signature("", "Gelu", 19) is None
    assert versions("", "Gelu", NEWEST[""])[0].since == 20


def test_a_form_marked_as_deprecated_from_its_start_is_an_operator() -> None:
    found = signature("", "GroupNormalization", 18)
    assert found is not None
    assert not found.removed
    assert found.operands == (3, 3)

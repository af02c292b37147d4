"""Every operator of the registry is complete."""

from __future__ import annotations

import pickle

import pytest

from aisc.ir.graph import opdef
from aisc.ir.graph.opdef import OpDef

OPS = opdef.all_ops()
ATTR_TYPES = {"int", "float", "str", "bool", "dtype", "blob", "ints", "floats", "dims", "strs"}


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_operator_is_complete(op: OpDef) -> None:
    assert len(op.doc) > 5
    assert op.doc.endswith(".")
    assert callable(op.infer)
    assert callable(op.reference)
    forms = [op.scalar is not None, bool(op.variants), op.decompose is not None]
    formless = op.kind in ("opaque", "constant", "control")
    assert sum(forms) == (0 if formless and not any(forms) else 1)
    assert (op.scalar is not None) <= (op.kind == "map")
    assert {a.type for a in op.attrs} <= ATTR_TYPES
    assert not any(o.variadic for o in op.inputs[:-1])
    assert not op.variants or "direct" in op.variants


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_operator_pickles_by_name(op: OpDef) -> None:
    assert pickle.loads(pickle.dumps(op)) is op


def test_unknown_operator() -> None:
    assert not opdef.exists("no_such_op")
    with pytest.raises(KeyError):
        opdef.get("no_such_op")

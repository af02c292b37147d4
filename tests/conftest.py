"""Tiers: files that generate machine code are marked ``llvm``; ``make quick`` leaves them out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["AISC_STRICT"] = "1"  # a fault in an optional rule is a failure
os.environ["AISC_TUNED"] = "none"  # what the user has tuned changes no test

# The same examples in every run; ``make slow`` draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

WITHOUT_LLVM = {
    "test_bad_models", "test_dsa", "test_graph_verify", "test_layers", "test_linear",
    "test_onnx_import", "test_onnx_wire", "test_ops_reference", "test_packaging",
    "test_pad_reduction", "test_primitives", "test_registry", "test_rewrite", "test_roofline",
    "test_schedule", "test_schedule_fuzz", "test_schedule_refusals", "test_tensor_interpret",
    "test_tensor_verify", "test_text",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(str(item.path)).stem not in WITHOUT_LLVM:
            item.add_marker(pytest.mark.llvm)

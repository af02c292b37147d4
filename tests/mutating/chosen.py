"""A pytest plugin: runs the tests that a file lists, in its order, in a bounded address space.

``AISC_CHOSEN`` names the file, a JSON list of node ids.
"""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

MEMORY = 8 << 30  # bytes: a fault may ask for any amount


def pytest_configure(config: pytest.Config) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = {n: k for k, n in enumerate(json.loads(Path(os.environ["AISC_CHOSEN"]).read_text()))}
    items[:] = sorted((i for i in items if i.nodeid in wanted), key=lambda i: wanted[i.nodeid])

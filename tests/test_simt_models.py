"""Whole models on a SIMT machine, its kernels as loops over threads: what the host computes, and
every kernel divided among blocks."""

from __future__ import annotations

from functools import cache

import pytest
import zoo
from test_zoo import NAMES, check, model, shapes

import aisc
from aisc.ir.target import resolve

GPU = resolve("nvidia_sm90")


@cache
def compiled(name: str) -> aisc.Executable:
    return aisc.compile(model(name), target=GPU.name, cache=False)


@pytest.mark.parametrize("name", NAMES)
def test_models_agree_at_every_size(name: str) -> None:
    exe = compiled(name)
    for dims in shapes(name, 3):
        feeds = zoo.feeds(model(name), dims, seed=sum(dims.values()))
        check(name, exe.run(None, feeds), feeds)

"""Traversal of trees, and the hashes that they keep."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from aisc.ir.dtypes import f32
from aisc.ir.node import Node, children, distinct, map_children, walk
from aisc.ir.tensor.expr import Binary, Const, Load, Select, Var, has_loads, variables
from aisc.ir.tensor.func import buffer
from aisc.ir.tensor.stmt import Block, For, If, Iter, Region, Seq, Store
from aisc.ir.tensor.visitor import replace_buffers, size, substitute

X = buffer("x", f32, (4, 8), "input")
Y = buffer("y", f32, (4,), "output")
ROW, COL = Var("i"), Var("j")
LOAD = Load(X, (ROW, Binary("add", COL, Const(1))))
STORE = Store(Y, (ROW,), LOAD)


def test_children_stand_in_field_order() -> None:
    assert children(ROW) == ()
    assert children(LOAD) == LOAD.indices
    assert children(STORE) == (ROW, LOAD)
    written = Region(Y, (ROW,), (Const(1),))
    block = Block("b", (Iter(ROW, Const(4), "spatial"),), (COL,), (), (written,), None, STORE)
    assert children(block) == (*block.iters, COL, *block.writes, STORE)
    assert children(replace(block, init=STORE))[-2:] == (STORE, STORE)
    assert children(If(Const(1), STORE)) == (Const(1), STORE)
    loop = For(COL, Const(0), Const(8), "serial", Seq((block,)))
    assert [type(n).__name__ for n in walk(loop)][:6] == [
        "For", "Var", "Const", "Const", "Seq", "Block",
    ]  # fmt: skip


def test_what_does_not_change_is_shared() -> None:
    assert map_children(STORE, lambda n: n) is STORE

    def swap(n: Node) -> Node:
        return COL if n == ROW else n

    changed = map_children(STORE, swap)
    assert changed == Store(Y, (COL,), LOAD)
    assert changed.value is LOAD


def test_optional_children_and_several_are_mapped() -> None:
    def swap(n: Node) -> Node:
        return COL if n == ROW else n

    open_ended, both = If(ROW, STORE), If(ROW, STORE, Seq((STORE,)))
    assert map_children(open_ended, swap) == If(COL, STORE)
    assert map_children(both, swap) == If(COL, STORE, Seq((STORE,)))
    pair = Load(X, (ROW, COL))
    assert map_children(pair, swap) == Load(X, (COL, COL))
    assert map_children(pair, lambda n: n) is pair
    assert map_children(ROW, swap) is ROW


def test_nodes_made_through_their_slots_are_frozen_dataclasses() -> None:
    loop = For(var=ROW, low=Const(0), extent=Const(4), kind="serial", body=STORE)
    assert loop.annotations == ()
    assert loop == For(ROW, Const(0), Const(4), "serial", STORE, ())
    with pytest.raises(FrozenInstanceError):
        loop.kind = "unroll"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Var()  # type: ignore[call-arg]


def test_shared_parts_come_once_or_count_each_time() -> None:
    twice = Binary("add", LOAD, LOAD)
    assert sum(n is LOAD for n in walk(twice)) == 2
    assert sum(n is LOAD for n in distinct(twice)) == 1
    assert size(twice) == len(list(walk(twice))) == 11
    assert size(Seq((STORE, STORE))) == len(list(walk(Seq((STORE, STORE)))))


def test_hashes_are_kept_and_stay_with_their_object() -> None:
    same = Load(buffer("x", f32, (4, 8), "input"), (Var("i"), Binary("add", Var("j"), Const(1))))
    assert hash(LOAD) == hash(same)
    other = replace(LOAD, indices=(COL, ROW))
    assert other != LOAD
    assert hash(other) == hash(Load(X, (COL, ROW)))
    for twin in (pickle.loads(pickle.dumps(LOAD)), copy.deepcopy(LOAD)):
        assert twin == LOAD
        assert hash(twin) == hash(LOAD)


def test_what_an_expression_is_made_of() -> None:
    chosen = Select(Binary("lt", ROW, Const(3)), LOAD, Load(X, (COL, COL)))
    assert variables(chosen) == {ROW, COL}
    assert variables(Const(3)) == frozenset()
    assert [has_loads(e) for e in (chosen, chosen.cond, LOAD, LOAD.indices[1])] == [
        True, False, True, False,
    ]  # fmt: skip


def test_rewriting_leaves_alone_what_it_does_not_concern() -> None:
    k = Var("k")
    assert substitute(STORE, {k: Const(0)}) is STORE
    moved = substitute(Seq((STORE, STORE)), {COL: k})
    assert moved == Seq((Store(Y, (ROW,), Load(X, (ROW, k + 1))),) * 2)
    assert moved.stmts[0] is moved.stmts[1]
    other = buffer("other", f32, (4, 8))
    assert replace_buffers(STORE, {other: X}) is STORE
    assert replace_buffers(STORE, {X: other}).value == Load(other, LOAD.indices)
    nested = Store(Y, (ROW,), Load(Y, (Binary("add", ROW, Load(X, (ROW, COL))),)))
    assert replace_buffers(nested, {X: other, Y: X}).value == Load(
        X, (Binary("add", ROW, Load(other, (ROW, COL))),)
    )

"""Instructions that the threads of a warp execute together: shuffles, votes, matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.access import Memories
from ptx.memory import Fault
from ptx.state import KINDS, Mask
from ptx.syntax import Instruction, Operand, Several

Array = NDArray[Any]
Lanes = NDArray[np.int64]


def _inside(m: Memories, lanes: Lanes) -> Lanes:
    """The place of threads in their warps."""
    s = m.state
    found: Lanes = s.who[lanes] % s.clock.threads % s.warp
    return found


def _full(m: Memories, operand: Operand, kind: str) -> Array:
    return np.broadcast_to(m.state.value(operand, kind), m.state.count)


def shuffle(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``shfl.sync``."""
    s, mode = m.state, i.parts[2]
    result = i.operands[0]
    a = _full(m, i.operands[1], "u32")
    b, c = (_full(m, x, "u32")[lanes].astype(np.int64) for x in i.operands[2:4])
    lane = _inside(m, lanes)
    cut, clamp = c >> 8 & 31, c & 31
    most = (lane & cut) | (clamp & ~cut)
    least = lane & cut
    found = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": least | b & ~cut}[mode]
    inside = found >= most if mode == "up" else found <= most
    source = lanes - lane + np.where(inside, found, lane)
    active = np.zeros(s.count + s.warp, np.bool_)
    active[lanes] = True
    if not active[source].all():
        raise Fault("barrier", "a shuffle reads a thread that does not take part")
    full, told = np.zeros(s.count, np.uint32), np.zeros(s.count, np.bool_)
    full[lanes], told[lanes] = a[source], inside
    if isinstance(result, Several):
        s.put(result.parts[0], full, mask)
        s.put(result.parts[1], told, mask)
    else:
        s.put(result, full, mask)


def _groups(m: Memories, lanes: Lanes) -> list[Lanes]:
    """The threads of each warp."""
    warps = m.state.warps[lanes]
    cuts = np.flatnonzero(np.diff(warps)) + 1
    return np.split(lanes, cuts)


def vote(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``vote.sync``."""
    s, how = m.state, i.parts[2]
    holds = _full(m, i.operands[1], "pred")
    found = np.zeros(s.count, np.uint32 if how == "ballot" else np.bool_)
    for group in _groups(m, lanes):
        mine = holds[group]
        bits = int((1 << _inside(m, group))[mine].sum())
        uniform = bool(mine.all() or not mine.any())
        found[group] = {"all": mine.all(), "any": mine.any(), "ballot": bits, "uni": uniform}[how]
    s.put(i.operands[0], found, mask)


REDUCE: dict[str, Callable[[Array], Any]] = {
    "add": np.sum, "min": np.min, "max": np.max, "and": np.bitwise_and.reduce,
    "or": np.bitwise_or.reduce, "xor": np.bitwise_xor.reduce,
}  # fmt: skip


def reduce(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``redux.sync``."""
    s, kind = m.state, i.parts[-1]
    a = _full(m, i.operands[1], kind)
    found = np.zeros(s.count, a.dtype)
    for group in _groups(m, lanes):
        found[group] = np.asarray(REDUCE[i.parts[2]](a[group])).astype(a.dtype)
    s.put(i.operands[0], found, mask)


# -- matrices -------------------------------------------------------------------------------------


def load_matrix(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``ldmatrix``: eight threads give the rows of each 8 x 8 matrix of 16-bit elements."""
    s, count, turned = m.state, int(next(p for p in i.parts if p[0] == "x")[1:]), "trans" in i.parts
    assert isinstance(i.operands[0], Several), i.text
    results = i.operands[0].parts
    groups = _whole(m, lanes, i).reshape(-1, 32)
    found = [np.zeros(s.count, np.uint32) for _ in range(count)]
    place = np.arange(32)
    for k in range(count):
        rows = groups[:, 8 * k : 8 * k + 8].ravel()
        space, at = m.space(i, m.addresses(i.operands[1], rows))
        got = np.stack(m.read(i, space, at, rows, 4, 4), axis=1)
        halves = np.ascontiguousarray(got).view(np.uint16).reshape(-1, 8, 8)
        halves = halves.transpose(0, 2, 1) if turned else halves
        pairs = np.ascontiguousarray(halves).view(np.uint32)[:, place // 4, place % 4]
        found[k][groups.ravel()] = pairs.ravel()
    for result, value in zip(results, found, strict=True):
        s.put(result, value, mask)


def store_matrix(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``stmatrix``: the other way."""
    assert isinstance(i.operands[1], Several), i.text
    groups = _whole(m, lanes, i).reshape(-1, 32)
    for k, operand in enumerate(i.operands[1].parts):
        raw = np.ascontiguousarray(_full(m, operand, "u32")[groups])
        halves = raw.view(np.uint16).reshape(-1, 8, 8)
        halves = halves.transpose(0, 2, 1) if "trans" in i.parts else halves
        rows = groups[:, 8 * k : 8 * k + 8].ravel()
        space, at = m.space(i, m.addresses(i.operands[0], rows))
        quads = np.ascontiguousarray(halves).view(np.uint32).reshape(-1, 4)
        m.write(i, space, at, rows, [np.ascontiguousarray(quads[:, j]) for j in range(4)])


def _whole(m: Memories, lanes: Lanes, i: Instruction) -> Lanes:
    """Threads of whole warps of 32, which matrices need."""
    if len(lanes) % 32 or (_inside(m, lanes) != np.arange(len(lanes)) % 32).any():
        raise Fault("barrier", f"{i.parts[0]} with a part of a warp")
    return lanes


def multiply_matrices(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``mma.sync.aligned.mMnNkK.row.col``: products added up in double precision, rounded once."""
    shape = next(p for p in i.parts if p.startswith("m") and "n" in p and p[1].isdigit())
    rows, columns, depth = (int(n) for n in shape.replace("n", " ").replace("k", " ")[1:].split())
    kinds = [p for p in i.parts if p in KINDS]
    if tuple(p for p in i.parts if p in ("row", "col")) != ("row", "col") or len(kinds) != 4:
        raise Fault("unknown", i.opcode)
    groups = _whole(m, lanes, i).reshape(-1, 32)
    a = _fragment(m, i.operands[1], kinds[1], groups, rows, depth, False)
    b = _fragment(m, i.operands[2], kinds[2], groups, columns, depth, True)
    wide = np.int64 if kinds[0] == "s32" else np.float64
    product = np.matmul(a.astype(wide), b.astype(wide).transpose(0, 2, 1))
    _accumulate(m, i, mask, (groups, kinds), product)
    m.counters.steps[i.opcode] += len(groups)


def _fragment(
    m: Memories, operand: Operand, kind: str, groups: Lanes, rows: int, depth: int, second: bool
) -> Array:
    """The matrix whose parts threads hold: a register holds neighbours along the depth."""
    assert isinstance(operand, Several), operand
    dtype, lane = KINDS[kind], np.arange(32)
    each = 1 if dtype.itemsize == 8 else 4 // dtype.itemsize
    found = np.zeros((len(groups), rows, depth), dtype)
    halves = rows // 8
    for r, register in enumerate(operand.parts):
        raw = np.ascontiguousarray(_full(m, register, "u64" if each == 1 and dtype.itemsize == 8
                                         else "u32")[groups])  # fmt: skip
        if kind == "tf32":
            raw = raw & np.uint32(0xFFFF_E000)
        values = raw.view(dtype).reshape(len(groups), 32, each)
        row = lane // 4 + (0 if second else 8 * (r % halves))
        start = 4 * each * (r if second else r // halves)
        for e in range(each):
            found[:, row, lane % 4 * each + e + start] = values[:, :, e]
    return found


def _accumulate(
    m: Memories, i: Instruction, mask: Mask, about: tuple[Lanes, list[str]], product: Array
) -> None:
    """Add the products to the accumulators of the threads."""
    (groups, kinds), s, lane = about, m.state, np.arange(32)
    result, given = i.operands[0], i.operands[3]
    assert isinstance(result, Several) and isinstance(given, Several), i.text
    kind, into = kinds[3], kinds[0]
    each = 2 if kind == "f16" else 1
    for r, (to, source) in enumerate(zip(result.parts, given.parts, strict=True)):
        raw = _full(m, source, "b64" if kind == "f64" else "b32")[groups]
        before = np.ascontiguousarray(raw).view(KINDS[kind]).reshape(len(groups), 32, each)
        sums = np.zeros(before.shape, KINDS[into])
        for e in range(each):
            n = r * each + e
            part = product[:, lane // 4 + 8 * (n // 2), lane % 4 * 2 + n % 2]
            sums[:, :, e] = (before[:, :, e].astype(part.dtype) + part).astype(KINDS[into])
        full = np.zeros(s.count, np.uint64 if into == "f64" else np.uint32)
        full[groups] = sums.view(full.dtype)[:, :, 0]
        s.put(to, full, mask)


def meet(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``bar.warp.sync``: what threads of a warp have written is there for all of it."""
    m.state.clock.warps[m.state.who[lanes] - m.state.clock.first] += 1


HANDLERS: dict[str, Callable[[Memories, Instruction, Mask, Lanes], None]] = {
    "shfl": shuffle, "vote": vote, "redux": reduce, "ldmatrix": load_matrix,
    "stmatrix": store_matrix, "mma": multiply_matrices, "bar": meet,
}  # fmt: skip

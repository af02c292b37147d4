"""Transformers in the form that exporters give them: sizes computed from shapes, erf and tanh
spelled out, masks made from integers."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from zoo.net import Net


def _heads(net: Net, x: str, heads: int, width: int, perm: list[int]) -> str:
    """[batch, sequence, width] -> the heads' axis moved by `perm`."""
    sizes = [net.size(x, 0), net.size(x, 1), net.ints(heads), net.ints(width // heads)]
    split = net.op("Reshape", x, net.op("Concat", *sizes, axis=0))
    return net.op("Transpose", split, perm=perm)


def _merged(net: Net, x: str, width: int) -> str:
    """[batch, heads, sequence, size] -> [batch, sequence, width]."""
    y = net.op("Transpose", x, perm=[0, 2, 1, 3])
    sizes = [net.size(y, 0), net.size(y, 1), net.ints(width)]
    return net.op("Reshape", y, net.op("Concat", *sizes, axis=0))


# --- BERT -------------------------------------------------------------------------------------
def bert(
    seed: int = 0, layers: int = 12, hidden: int = 768, heads: int = 12, vocab: int = 30522,
    positions: int = 512,
) -> ModelProto:  # fmt: skip
    """The BERT encoder with its pooler; batch and sequence are symbolic."""
    net = Net("bert", seed)
    shape = ("batch", "sequence")
    ids = net.input("input_ids", shape, "i64")
    mask = net.input("attention_mask", shape, "i64")
    types = net.input("token_type_ids", shape, "i64")
    x = _embeddings(net, ids, types, (hidden, vocab, positions))
    bias = _mask_bias(net, mask)
    for _ in range(layers):
        x = _encoder_layer(net, x, bias, hidden, heads)
    net.output(x, "last_hidden_state", ("batch", "sequence", hidden))
    first = net.op("Gather", x, net.constant(np.asarray(0, np.int64), "first"), axis=1)
    pooled = net.op("Tanh", net.linear(first, hidden, hidden))
    net.output(pooled, "pooler_output", ("batch", hidden))
    return net.model()


def _embeddings(net: Net, ids: str, types: str, sizes: tuple[int, int, int]) -> str:
    hidden, vocab, positions = sizes
    words = net.op("Gather", net.normal((vocab, hidden), 0.5), ids)
    kinds = net.op("Gather", net.normal((2, hidden), 0.5), types)
    every = net.constant(np.arange(positions, dtype=np.int64).reshape(1, -1), "positions")
    here = net.op("Slice", every, net.ints(0), net.size(ids, 1), net.ints(1))
    places = net.op("Gather", net.normal((positions, hidden), 0.5), here)
    return net.norm(net.op("Add", net.op("Add", words, kinds), places), hidden)


def _mask_bias(net: Net, mask: str) -> str:
    """0 for tokens, the lowest float for padding, as [batch, 1, 1, sequence]."""
    wide = net.op("Unsqueeze", net.op("Unsqueeze", mask, net.ints(1)), net.ints(2))
    kept = net.op("Cast", wide, to=1)
    gone = net.op("Sub", net.number(1.0), kept)
    return net.op("Mul", gone, net.number(float(np.finfo(np.float32).min)))


def _encoder_layer(net: Net, x: str, bias: str, hidden: int, heads: int) -> str:
    q = _heads(net, net.linear(x, hidden, hidden), heads, hidden, [0, 2, 1, 3])
    k = _heads(net, net.linear(x, hidden, hidden), heads, hidden, [0, 2, 3, 1])
    v = _heads(net, net.linear(x, hidden, hidden), heads, hidden, [0, 2, 1, 3])
    scores = net.op("Div", net.op("MatMul", q, k), net.number(np.sqrt(hidden // heads)))
    weights = net.op("Softmax", net.op("Add", scores, bias), axis=-1)
    context = _merged(net, net.op("MatMul", weights, v), hidden)
    x = net.norm(net.op("Add", net.linear(context, hidden, hidden), x), hidden)
    wide = _gelu_erf(net, net.linear(x, hidden, 4 * hidden))
    return net.norm(net.op("Add", net.linear(wide, 4 * hidden, hidden), x), hidden)


def _gelu_erf(net: Net, x: str) -> str:
    shifted = net.op("Erf", net.op("Div", x, net.number(np.sqrt(2.0))))
    scaled = net.op("Mul", x, net.op("Add", shifted, net.number(1.0)))
    return net.op("Mul", scaled, net.number(0.5))


# --- GPT-2 ------------------------------------------------------------------------------------
def gpt2_prefill(
    seed: int = 0, layers: int = 12, hidden: int = 768, heads: int = 12, vocab: int = 50257,
    positions: int = 1024,
) -> ModelProto:  # fmt: skip
    """GPT-2 on a prompt: the logits of its last token, and the keys and values of every token."""
    net = Net("gpt2_prefill", seed)
    ids = net.input("input_ids", ("batch", "sequence"), "i64")
    every = net.constant(np.arange(positions, dtype=np.int64).reshape(1, -1), "positions")
    here = net.op("Slice", every, net.ints(0), net.size(ids, 1), net.ints(1))
    table = net.normal((vocab, hidden), 0.5)
    places = net.op("Gather", net.normal((positions, hidden), 0.5), here)
    x = net.op("Add", net.op("Gather", table, ids), places)
    seen = np.tril(np.ones((positions, positions), np.bool_)).reshape(1, 1, positions, positions)
    causal = net.constant(seen, "causal")
    kept = []
    for _ in range(layers):
        x, keys, values = _decoder_layer(net, x, hidden, heads, causal=causal)
        kept += [keys, values]
    last = net.op("Slice", x, net.ints(-1), net.ints(1 << 31), net.ints(1))
    _logits(net, last, table, hidden, vocab)
    _present(net, kept, ("batch", heads, "sequence", hidden // heads))
    return net.model()


def gpt2_decode(
    seed: int = 0, layers: int = 12, hidden: int = 768, heads: int = 12, vocab: int = 50257,
    positions: int = 1024,
) -> ModelProto:  # fmt: skip
    """GPT-2 on one token per sequence, after `past` tokens whose keys and values are given."""
    net = Net("gpt2_decode", seed)
    ids = net.input("input_ids", ("batch", 1), "i64")
    shape = ("batch", heads, "past", hidden // heads)
    past = [
        tuple(net.input(f"past_{k}_{kind}", shape) for kind in ("key", "value"))
        for k in range(layers)
    ]
    table = net.normal((vocab, hidden), 0.5)
    here = net.op("Unsqueeze", net.size(past[0][0], 2), net.ints(0))
    places = net.op("Gather", net.normal((positions, hidden), 0.5), here)
    x = net.op("Add", net.op("Gather", table, ids), places)
    kept = []
    for k in range(layers):
        x, keys, values = _decoder_layer(net, x, hidden, heads, past=past[k])
        kept += [keys, values]
    _logits(net, x, table, hidden, vocab)
    _present(net, kept, ("batch", heads, None, hidden // heads))
    return net.model()


def gpt2(
    net: Net, layers: int, hidden: int, heads: int, vocab: int, positions: int
) -> None:  # fmt: skip
    """GPT-2 on new tokens after `past` ones whose keys and values are given, none at first: a
    prompt, a part of one, or one token. Gives logits of the last token, keys and values of all."""
    ids = net.input("input_ids", ("batch", "sequence"), "i64")
    shape = ("batch", heads, "past", hidden // heads)
    past = [
        tuple(net.input(f"past_{k}_{kind}", shape) for kind in ("key", "value"))
        for k in range(layers)
    ]
    begin, new = net.size(past[0][0], 2), net.size(ids, 1)
    end = net.op("Add", begin, new)
    every = net.constant(np.arange(positions, dtype=np.int64).reshape(1, -1), "positions")
    here = net.op("Slice", every, begin, end, net.ints(1))
    table = net.normal((vocab, hidden), 0.5)
    places = net.op("Gather", net.normal((positions, hidden), 0.5), here)
    x = net.op("Add", net.op("Gather", table, ids), places)
    rows = net.op("Unsqueeze", here, net.ints(-1))
    columns = net.op("Slice", every, net.ints(0), end, net.ints(1))
    seen = net.op("Unsqueeze", net.op("LessOrEqual", columns, rows), net.ints(1))
    kept: list[str] = []
    for k in range(layers):
        x, keys, values = _decoder_layer(net, x, hidden, heads, seen=seen, past=past[k])
        kept += [keys, values]
    last = net.op("Slice", x, net.ints(-1), net.ints(1 << 31), net.ints(1))
    _logits(net, last, table, hidden, vocab)
    _present(net, kept, ("batch", heads, None, hidden // heads))


def _logits(net: Net, x: str, table: str, hidden: int, vocab: int) -> None:
    """The final norm and the product with the table of embeddings, which the two share."""
    y = net.op("MatMul", net.norm(x, hidden), net.op("Transpose", table, perm=[1, 0]))
    net.output(net.op("Mul", y, net.number(1 / np.sqrt(hidden))), "logits", ("batch", 1, vocab))


def _present(net: Net, kept: list[str], shape: tuple[str | int | None, ...]) -> None:
    for k, value in enumerate(kept):
        net.output(value, f"present_{k // 2}_{('key', 'value')[k % 2]}", shape)


def _projection(net: Net, x: str, inputs: int, outputs: int) -> str:
    """GPT-2's linear layer, exported as Gemm between two reshapes."""
    w = net.normal((inputs, outputs), 1 / np.sqrt(inputs))
    b = net.uniform((outputs,), -0.1, 0.1, "b")
    flat = net.op("Gemm", net.op("Reshape", x, net.ints(-1, inputs)), w, b)
    sizes = [net.size(x, 0), net.size(x, 1), net.ints(outputs)]
    return net.op("Reshape", flat, net.op("Concat", *sizes, axis=0))


def _decoder_layer(
    net: Net, x: str, hidden: int, heads: int, causal: str = "", past: tuple[str, ...] = (),
    seen: str = "",
) -> tuple[str, str, str]:  # fmt: skip
    """One layer; returns its result, keys and values. `causal`: a square mask that is cut to the
    scores; `seen`: the mask of these scores."""
    wide = _projection(net, net.norm(x, hidden), hidden, 3 * hidden)
    parts = net.multi("Split", 3, wide, net.ints(hidden, hidden, hidden), axis=2)
    q, k, v = (_heads(net, p, heads, hidden, [0, 2, 1, 3]) for p in parts)
    if past:
        k = net.op("Concat", past[0], k, axis=2)
        v = net.op("Concat", past[1], v, axis=2)
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Div", scores, net.number(np.sqrt(hidden // heads)))
    if causal:
        scores = _masked(net, scores, causal)
    if seen:
        scores = net.op("Where", seen, scores, net.number(float(np.finfo(np.float32).min)))
    context = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    x = net.op("Add", _projection(net, _merged(net, context, hidden), hidden, hidden), x)
    wide = _projection(net, net.norm(x, hidden), hidden, 4 * hidden)
    return net.op("Add", _projection(net, _gelu_tanh(net, wide), 4 * hidden, hidden), x), k, v


def _masked(net: Net, scores: str, causal: str) -> str:
    """Scores of later tokens replaced by the lowest float."""
    rows = net.op("Slice", causal, net.ints(0), net.size(scores, 2), net.ints(2))
    here = net.op("Slice", rows, net.ints(0), net.size(scores, 3), net.ints(3))
    return net.op("Where", here, scores, net.number(float(np.finfo(np.float32).min)))


def _gelu_tanh(net: Net, x: str) -> str:
    cube = net.op("Mul", net.op("Pow", x, net.number(3.0)), net.number(0.044715))
    inner = net.op("Mul", net.op("Add", x, cube), net.number(np.sqrt(2 / np.pi)))
    half = net.op("Mul", x, net.number(0.5))
    return net.op("Mul", half, net.op("Add", net.op("Tanh", inner), net.number(1.0)))

"""What those are told who write as in another language: names and notations that are not here."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What a name is called here, or what does its work.
ELSEWHERE = {
    **{n: f"reduce_{n}(x, axes=[0]), in a formula {n}[i](x[i])" for n in ("sum", "mean", "prod")},
    "amax": "reduce_max(x, axes=[0])", "amin": "reduce_min(x, axes=[0])",
    **dict.fromkeys(("cat", "stack", "concatenate"), "concat(a, b, axis=0)"),
    "permute": "transpose(x, perm=[1, 0])", "view": "reshape(x, shape=[-1])",
    **dict.fromkeys(("flatten", "squeeze", "unsqueeze"), "reshape(x, shape=[x.shape[0], -1])"),
    **{n: f"expand({v}, shape=[n, 3])" for n, v in (("zeros", 0.0), ("ones", 1.0), ("full", 2.0))},
    **dict.fromkeys(("split", "chunk"), "parts are slices: x[:, 0:4]"),
    **dict.fromkeys(("arange", "range"), "iota(shape=[n])"),
    **dict.fromkeys(("dense", "linear"), "a layer of your own: x @ w + b"),
    "dropout": "it does nothing when a network runs: leave it out",
    **dict.fromkeys(("einsum", "bmm", "dot"), "a @ b, or a formula: y[i] = sum[k](a[i, k] * b[k])"),
    "len": "x.shape[0]", "relu6": "clip(x, min=0, max=6)", "swish": "silu(x)",
    "True": "true", "False": "false", "None": "an axis of size 1 is added by reshape",
    **{f"float{b}": f"f{b}" for b in (16, 32, 64)}, "bfloat16": "bf16",
    **{f"int{b}": f"i{b}" for b in (8, 16, 32, 64)},
    **{f"uint{b}": f"u{b}" for b in (8, 16, 32, 64)},
    "T": "transpose(x, perm=[1, 0])", "size": "x.shape", "ndim": "x.rank",
}  # fmt: skip
_ASSIGNED = re.compile(r"(\w+)\s*([-+*/])$")


def for_name(name: str) -> Iterator[str]:
    """What to write for a name that is not known."""
    if name in ELSEWHERE:
        yield f"here: {ELSEWHERE[name]}"


def for_notation(before: str, behind: str) -> Iterator[str]:
    """What to write where a line cannot be read: what stands before the place, and from it on."""
    words = before.split()
    method, typed = (
        re.search(r"\.(\w+)$", before),
        re.search(r"\b(float|int|bool|[fiu]\d+)$", before),
    )
    if behind.startswith("(") and method:
        yield f"there are no methods: {method[1]}(x)"
    elif behind.startswith("(") and typed:
        yield "cast(x, to=f32) changes the element type"
    elif re.match(r"[-+*/]=", behind):
        yield f"write it out: x = x {behind[0]} 1"
    elif behind.startswith("=") and (found := _ASSIGNED.search(before)):
        yield f"write it out: {found[1]} = {found[1]} {found[2]} 1"
    elif words[:1] == ["for"] and behind.startswith(("{", ":")):
        yield "a range has two ends: for i in 0..3 { … }"
    elif words[:1] in (["if"], ["while"], ["else"], ["for"]) and behind.startswith(":"):
        yield "a block stands in braces: if x > 0 { … }"
    elif behind.startswith("'"):
        yield 'a text stands between double quotes: "same"'
    elif behind.startswith(";"):
        yield "the end of a line ends a statement"
    elif words[:1] in (["let"], ["var"], ["const"]) and len(words) == 1:
        yield "a name is assigned without a word before it: y = x"

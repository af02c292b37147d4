"""Words shared by the text forms: names, numbers, dimensions, attribute values, types.

A name stands bare when it is an identifier and, where one could stand, no keyword; else it is a
JSON string. Floats are
Python's shortest round-trip form, always with a point, an exponent or a name (``nan``, ``inf``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, DimCall, Poly, SymDim
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import DType
from aisc.ir.tensor.stmt import FOR_KINDS

FUNCTION_BINARY = ("min", "max", "pow", "truncdiv", "truncmod")
DIM_CALLS = ("floordiv", "ceildiv", "mod", "min", "max")
ROLES = ("input", "output", "weight", "state", "scratch")
# Words that may stand where a name of a buffer, variable or dimension does (for the lexer, which
# knows states of the parser: tests try every word).
KEYWORDS = frozenset(
    [
        "_", "alias", "align", "alloc", "await", "barrier", "base", "bind", "block", "body", "call",
        "copy", "dims", "else", "entry", "false", "from", "func", "handover", "host", "if", "in",
        "inf", "init", "invoke", "keep", "let", "live", "most", "nan", "none", "offset", "ordered",
        "prefetch", "prepare", "read", "reduce", "require", "requires", "reserve", "seq", "slot",
        "space", "spatial", "stream", "strides", "true", "warp", "while", "with", "write",
        *ROLES, *FOR_KINDS,
        *(t.name for t in (*dtypes.ALL, *dtypes.CODED)),
    ]
)  # fmt: skip

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*")
_VALUE = re.compile(r"[A-Za-z0-9_.]+")


def quote(text: str) -> str:
    """A JSON string; characters beyond ASCII stand for themselves where UTF-8 has them."""
    surrogates = any("\ud800" <= c <= "\udfff" for c in text)
    return json.dumps(text, ensure_ascii=surrogates)


def name(text: str) -> str:
    """A name of a buffer, variable or dimension: these may stand where keywords do."""
    return text if _BARE.fullmatch(text) and text not in KEYWORDS else quote(text)


def word(text: str) -> str:
    """A name of a function, block, operator, attribute and the like, which stands where the
    grammars expect nothing but a name."""
    return text if _BARE.fullmatch(text) else quote(text)


def value_name(text: str) -> str:
    """A name of a graph value, after its ``%``."""
    return "%" + (text if _VALUE.fullmatch(text) else quote(text))


def number(value: int | float | bool) -> str:
    """A literal that reads back as the same value of the same Python type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


def dim(d: Dim) -> str:
    """A dimension, in the normal form of :mod:`aisc.ir.arith.poly`."""
    if isinstance(d, int):
        return str(d)
    out = ""
    for mono, c in d.terms:
        factors = [_atom(atom) for atom, power in mono for _ in range(power)]
        if abs(c) != 1 or not factors:
            factors.insert(0, str(abs(c)))
        out += ("-" if c < 0 else "+" if out else "") + "*".join(factors)
    return out


def _atom(atom: SymDim | DimCall) -> str:
    if isinstance(atom, SymDim):
        text = name(atom.name)  # a string alone would be an attribute's value
        return "$" + text if text.startswith('"') else text
    return f"{atom.op}({', '.join(map(dim, atom.args))})"


def dims_list(items: Iterable[Dim]) -> str:
    """Dimensions between brackets."""
    return f"[{', '.join(map(dim, items))}]"


def symbols_clause(used: Iterable[SymDim]) -> str:
    """The declaration ``dims(n: input 1..512, …)``: only what differs from ``input 0..``."""
    special = {s.name: s for s in used if s != SymDim(s.name)}
    if not special:
        return ""
    items = [_symbol(special[key]) for key in sorted(special)]
    return f" dims({', '.join(items)})"


def _symbol(s: SymDim) -> str:
    upper = "" if s.upper is None else f" {s.upper}"
    return f"{name(s.name)}: {s.kind} {s.lower} ..{upper}"


def attribute(value: object) -> str:
    """A value of an attribute, of any kind."""
    if value is None:
        return "none"
    if isinstance(value, (bool, int, float)):
        return number(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, DType):
        return value.name
    if isinstance(value, Blob):
        return f"@blob<{value.digest}>"
    if isinstance(value, Poly):
        return dim(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(attribute, value))}]"
    raise InternalError(f"an attribute of type {type(value).__name__} has no text form")


def attributes(items: Iterable[tuple[str, object]]) -> str:
    """Attributes between braces."""
    return "{" + ", ".join(f"{word(k)} = {attribute(v)}" for k, v in items) + "}"

"""From the text of a file to its syntax tree, by lark's LALR(1) parser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, Token, v_args
from lark.exceptions import UnexpectedInput
from lark.visitors import Transformer_NonRecursive

from aisc.frontend.lang import syntax as s
from aisc.frontend.lang import syntax_faults
from aisc.frontend.lang.syntax_faults import PIECES
from aisc.ir.diagnostics import CompileError, Diagnostic
from aisc.ir.location import Loc
from aisc.ir.text.source import Source

MAX_DEPTH = 100  # brackets in each other
MAX_CHAIN = 200  # operators between two line ends or brackets
MAX_FAULTS = 20  # that one report tells of
_ITEM = re.compile(r"[ \t]*(?:layer|model|operator)\b")


class _LineEnds:
    """Keeps the line ends that separate items or statements: one at a time, none inside brackets,
    at the ends of a block or of the file."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        """The tokens that count."""
        depth, last, pending = 0, "LBRACE", None
        for token in stream:
            if token.type == "_NL":
                pending = pending or (token if depth == 0 else None)
                continue
            if pending is not None and last != "LBRACE" and token.type != "RBRACE":
                yield pending
            if token.type in ("LPAR", "LSQB"):
                depth += 1
            elif token.type in ("RPAR", "RSQB"):
                depth = max(0, depth - 1)
            last, pending = token.type, None
            yield token


@cache
def _parser() -> Lark:
    text = (resources.files("aisc.frontend.lang") / "grammar.lark").read_text("utf-8")
    return Lark(text, parser="lalr", lexer="basic", postlex=_LineEnds(),
                maybe_placeholders=True, propagate_positions=True)  # fmt: skip


def _patterns() -> dict[str, str]:
    """The terminals of the grammar, by name."""
    return {t.name: t.pattern.value for t in _parser().terminals}


def tokens(text: str) -> Iterator[Token]:
    """What a text consists of, line ends aside that separate nothing; lark's errors where a
    character begins nothing."""
    return _parser().lex(text)


def keywords() -> tuple[str, ...]:
    """The words of the language, as its grammar has them."""
    return tuple(sorted(
        t.pattern.value for t in _parser().terminals
        if t.pattern.type == "str" and t.pattern.value.isalpha()
    ))  # fmt: skip


def type_names() -> tuple[str, ...]:
    """Element types and types of hyper-parameters, as the grammar has them."""
    pattern = next(t.pattern.value for t in _parser().terminals if t.name == "DTYPE")
    return tuple(re.findall(r"\w+", pattern.removesuffix(r"\b")))


def read(source: Source) -> s.Module:
    """The tree of a text; E107 with the places of all that does not fit."""
    _check_depth(source)
    found: list[Diagnostic] = []
    lines = source.text.split("\n")
    while len(found) < MAX_FAULTS:
        try:
            tree = _parser().parse("\n".join(lines))
        except UnexpectedInput as fault:
            now = Source("\n".join(lines), source.file)
            told = syntax_faults.told(fault, source, now, _patterns())
            found.append(told)
            if not syntax_faults.drop(lines, told.loc.line - 1, now):
                break
            syntax_faults.forget(lines, told.loc.line - 1)
        else:
            break
    if found:
        raise CompileError(found)
    module: s.Module = _Build(source.file).transform(tree)
    return module


def _check_depth(source: Source) -> None:
    """Bounds what the parser's stack and the walk over the tree must hold."""
    depth = chain = 0
    for match in PIECES.finditer(source.text):
        text = match[0]
        if text in "([{":
            depth, chain = depth + 1, 0
        elif text in ")]}" or text == "\n":
            depth, chain = depth - (text != "\n"), 0
            if text == "\n" and _ITEM.match(source.text, match.end()):
                depth = 0  # what is open before is a fault, which stops the parser there
        elif text[0] not in '"#':
            chain += len(text) if text[0] in "-+*/@%<>=!" else 1
        if depth > MAX_DEPTH or chain > MAX_CHAIN:
            raise source.error(*source.place(match.start()), "the text is nested too deeply")


def _op(name: str) -> Any:
    def build(self: _Build, meta: Any, a: s.Expr, b: s.Expr) -> s.Binary:
        return s.Binary(a.at, name, a, b)

    return v_args(meta=True, inline=True)(build)


@v_args(meta=True, inline=True)
class _Build(Transformer_NonRecursive[Token, Any]):
    """One method per rule of the grammar."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def _at(self, meta: Any) -> Loc:
        return Loc(self.file, meta.line, meta.column)

    def _of(self, token: Token) -> Loc:
        return Loc(self.file, token.line or 0, token.column or 0)

    # -- items -------------------------------------------------------------------------------
    def start(self, meta: Any, *items: Any) -> s.Module:
        """A file."""
        found = [i for i in items if i is not None]
        layers = tuple(i for i in found if isinstance(i, s.Layer))
        named: dict[str, Any] = dict(i for i in found if isinstance(i, tuple))
        imports = tuple(i[1] for i in found if isinstance(i, tuple) and i[0] == "import")
        return s.Module(layers, imports, named.get("weights"), named.get("seed", 0))

    def weights(self, meta: Any, text: Token) -> tuple[str, Any]:
        """``weights "file"``."""
        return "weights", (json.loads(text), self._of(text))

    def import_(self, meta: Any, text: Token) -> tuple[str, Any]:
        """``import "file"``."""
        return "import", (json.loads(text), self._of(text))

    def seed(self, meta: Any, number: Token) -> tuple[str, int]:
        """``seed 7``."""
        return "seed", int(number)

    def kind(self, meta: Any, word: Token) -> str:
        """``layer`` or ``model``."""
        return str(word)

    def layer(self, meta: Any, kind: str, name: Token, *rest: Any) -> s.Layer:
        """A layer or model."""
        formals = tuple(r for r in rest if isinstance(r, s.Formal))
        *_, results, body = rest
        return s.Layer(self._of(name), kind, str(name), formals, results or (), body)

    def result(self, meta: Any, *types: s.Type) -> tuple[s.Type, ...]:
        """``-> f32[n]``."""
        return types

    def formal(self, meta: Any, name: Token, type_: s.Type, default: Any) -> s.Formal:
        """``x: f32[n]``."""
        return s.Formal(self._of(name), str(name), type_, default)

    def tensor_type(self, meta: Any, dtype: Token, *dims: Any) -> s.Type:
        """``f32[n, 3]``."""
        return s.Type(self._of(dtype), str(dtype), tuple(d for d in dims if d is not None))

    def scalar_type(self, meta: Any, dtype: Token) -> s.Type:
        """``int``."""
        return s.Type(self._of(dtype), str(dtype), None)

    # -- statements --------------------------------------------------------------------------
    def block(self, meta: Any, *statements: Any) -> tuple[Any, ...]:
        """``{ … }``."""
        return tuple(x for x in statements if x is not None)

    def param(self, meta: Any, name: Token, type_: s.Type, start: Any) -> s.Param:
        """``param w: f32[n] = zeros()``."""
        return s.Param(self._of(name), str(name), type_, start)

    def assign(self, meta: Any, *parts: Any) -> s.Assign:
        """``a, b = f(x)``."""
        *names, value = parts
        places = tuple(map(self._of, names))
        return s.Assign(self._at(meta), tuple(map(str, names)), value, places)

    def formula(self, meta: Any, name: Token, *rest: Any) -> s.Formula:
        """``y[i] = x[i] * 2``."""
        *indices, value = rest
        return s.Formula(self._of(name), str(name), tuple(indices), value)

    def ranged(self, meta: Any, name: Token, low: Any, high: Any) -> s.Ranged:
        """``i in 0..n``."""
        return s.Ranged(self._of(name), str(name), low, high)

    def reduction(self, meta: Any, index: s.Index, value: Any) -> s.Reduction:
        """``sum[k](x[k])``."""
        combiner = index.of.text if isinstance(index.of, s.Name) else ""
        return s.Reduction(index.at, combiner, index.items, value)

    def outside(self, meta: Any, element: Any, value: Any) -> s.Outside:
        """``(x[i] else 0)``."""
        return s.Outside(self._at(meta), element, value)

    def return_(self, meta: Any, *values: Any) -> s.Return:
        """``return a``."""
        return s.Return(self._at(meta), values)

    def for_(self, meta: Any, name: Token, low: Any, high: Any, body: Any) -> s.For:
        """``for i in 0..12 { … }``."""
        return s.For(self._at(meta), str(name), low, high, body, self._of(name))

    def while_(self, meta: Any, cond: Any, body: Any) -> s.While:
        """``while cond { … }``."""
        return s.While(self._at(meta), cond, body)

    def row(self, meta: Any, name: Token, of: Any) -> s.Over:
        """``row in x``."""
        return s.Over(self._of(name), str(name), of)

    def count(self, meta: Any, name: Token, low: Any, high: Any) -> s.Count:
        """``t in 0..n``."""
        return s.Count(self._of(name), str(name), low, high)

    def scan(self, meta: Any, *parts: Any) -> s.Scan:
        """``scan row in x { … }``."""
        *over, cond, body = parts
        return s.Scan(self._at(meta), tuple(over), cond, body)

    def collect(self, meta: Any, name: Token, value: Any) -> s.Collect:
        """``collect ys = y``."""
        return s.Collect(self._of(name), str(name), value)

    def again(self, meta: Any, cond: Any) -> s.Again:
        """``again cond``."""
        return s.Again(self._at(meta), cond)

    def require(self, meta: Any, cond: Any, message: Any) -> s.Require:
        """``require cond, "message"``."""
        told = "" if message is None else str(self.string(meta, message).value)
        return s.Require(self._at(meta), cond, told)

    def if_(self, meta: Any, cond: Any, then: Any, other: Any) -> s.If:
        """``if cond { … } else …``."""
        otherwise = (other,) if isinstance(other, s.If) else other or ()
        return s.If(self._at(meta), cond, then, otherwise)

    # -- expressions -------------------------------------------------------------------------
    add, sub, mul, div = _op("add"), _op("sub"), _op("mul"), _op("div")
    floordiv, mod, matmul, pow = _op("floordiv"), _op("mod"), _op("matmul"), _op("pow")
    equal, not_equal = _op("equal"), _op("not_equal")
    less, less_equal = _op("less"), _op("less_equal")
    greater, greater_equal = _op("greater"), _op("greater_equal")
    or_, and_ = _op("or"), _op("and")

    def not_(self, meta: Any, a: Any) -> s.Unary:
        """``not a``."""
        return s.Unary(self._at(meta), "not", a)

    def neg(self, meta: Any, a: Any) -> s.Unary:
        """``-a``."""
        return s.Unary(self._at(meta), "neg", a)

    def choice(self, meta: Any, a: Any, cond: Any, b: Any) -> s.Choice:
        """``a if cond else b``."""
        return s.Choice(self._at(meta), a, cond, b)

    def attribute(self, meta: Any, of: Any, name: Token) -> s.Attribute:
        """``x.shape``."""
        return s.Attribute(self._of(name), of, str(name))

    def index(self, meta: Any, of: Any, *items: Any) -> s.Index:
        """``x[0, 1:]``."""
        return s.Index(self._at(meta), of, tuple(i for i in items if i is not None))

    def slice(self, meta: Any, start: Any = None, stop: Any = None, step: Any = None) -> s.Slice:
        """``a:b:c``."""
        return s.Slice(self._at(meta), start, stop, step)

    def keyword(self, meta: Any, name: Token, value: Any) -> tuple[str, Any, Loc]:
        """``axis=1``."""
        return str(name), value, self._of(name)

    def path(self, meta: Any, *parts: Any) -> list[Any]:
        """``as blocks[i]``."""
        return [str(p) if isinstance(p, Token) else p for p in parts if p is not None]

    def call(self, meta: Any, name: Token, *rest: Any) -> s.Call:
        """``dense(x, out=10) as head``."""
        *arguments, path = rest
        args = tuple(a for a in arguments if a is not None and not isinstance(a, tuple))
        keywords = tuple(a for a in arguments if isinstance(a, tuple))
        return s.Call(self._of(name), str(name), args, keywords, tuple(path or ()))

    def name(self, meta: Any, text: Token) -> s.Name:
        """A name."""
        return s.Name(self._of(text), str(text))

    def integer(self, meta: Any, text: Token) -> s.Literal:
        """A whole number."""
        return s.Literal(self._of(text), int(text) if len(text) <= 40 else None)

    def float(self, meta: Any, text: Token) -> s.Literal:
        """A number with a point or an exponent."""
        return s.Literal(self._of(text), float(text))

    def string(self, meta: Any, text: Token) -> s.Literal:
        """A text."""
        return s.Literal(self._of(text), json.loads(text))

    def true(self, meta: Any) -> s.Literal:
        """``true``."""
        return s.Literal(self._at(meta), True)

    def false(self, meta: Any) -> s.Literal:
        """``false``."""
        return s.Literal(self._at(meta), False)

    def dtype(self, meta: Any, text: Token) -> s.Literal:
        """A type as a value: ``cast(x, to=f16)``."""
        return s.Literal(self._of(text), s.TypeName(text))

    def list(self, meta: Any, *items: Any) -> s.ListOf:
        """``[1, 2]``."""
        return s.ListOf(self._at(meta), tuple(i for i in items if i is not None))

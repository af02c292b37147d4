"""The places of a source file that may be changed, and the small faults that fit each.

A fault replaces the text of one expression or statement, so the rest of the file stays to the
letter. Left alone is what no test should be about: annotations and names of types, docstrings,
decorators, what a ``raise`` says, ``assert`` (it only looks for faults of our own), ``__repr__``,
formatted text.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
TYPES = (
    "tuple",
    "list",
    "dict",
    "Callable",
    "Generator",
    "Mapping",
    "Sequence",
    "Literal",
    "Union",
)
RENAMED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Place:
    """One small fault: `new` instead of the characters from `start` to `end` of a file.

    function: the qualified name of the function around it, "" where a class or module is made.
    """

    path: str
    line: int
    start: int
    end: int
    new: str
    what: str
    function: str

    def applied(self, text: str) -> str:
        """The text of the file with the fault."""
        return text[: self.start] + self.new + text[self.end :]


def places(path: str, text: str) -> list[Place]:
    """Every fault that fits a file, in the order of the text."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        before = lines[line - 1].encode()[:column] if line <= len(lines) else b""
        return starts[line - 1] + len(before.decode())

    found = []
    for node, new, what, function in _Finder().faults(ast.parse(text)):
        start = offset(node.lineno, node.col_offset)
        end = offset(node.end_lineno or node.lineno, node.end_col_offset or 0)
        found.append(Place(path, node.lineno, start, end, new, what, function))
    return found


def parses(text: str) -> bool:
    """Whether a text is Python: a fault within a pattern may not be."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


Fault = tuple[ast.expr | ast.stmt, str, str, str]


class _Finder:
    """Walks a syntax tree, knowing the qualified name of the function around."""

    def __init__(self) -> None:
        self.prefix: list[str] = []
        self.function = ""

    def faults(self, node: ast.AST) -> Iterator[Fault]:
        """The faults of a node and of what is below it."""
        match node:
            case ast.FunctionDef(name="__repr__"):
                return
            case ast.FunctionDef():
                for child in (node.args, *node.body):
                    yield from self._within(child, node.name, node)
                return
            case ast.ClassDef():
                for child in node.body:
                    yield from self._within(child, node.name, node)
                return
            case ast.Lambda():
                yield from self._within(node.body, "<lambda>", node)
                return
        for expression, new, what in _changes(node):
            yield expression, new, what, self.function
        for child in _children(node):
            yield from self.faults(child)

    def _within(self, child: ast.AST, name: str, of: ast.AST) -> Iterator[Fault]:
        before = self.prefix, self.function
        if isinstance(child, ast.arguments):  # defaults are computed outside
            child = ast.Tuple([d for d in (*child.defaults, *child.kw_defaults) if d], ast.Store())
        elif isinstance(of, ast.ClassDef):
            self.prefix = [*self.prefix, name]
        else:
            self.function = ".".join([*self.prefix, name])
            self.prefix = [*self.prefix, name, "<locals>"]
        yield from self.faults(child)
        self.prefix, self.function = before


def _children(node: ast.AST) -> list[ast.AST]:
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return []
        case ast.AnnAssign():
            return [node.value] if node.value is not None else []
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return []
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return []
        case ast.Call(func=ast.Name(id="cast" | "TypeVar" | "NewType")):
            return list(node.args[1:])
        case ast.Assign(value=ast.Subscript(value=ast.Name(id=name))) if name in TYPES:
            return []
    return list(ast.iter_child_nodes(node))


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """What a node invites to change, the new texts, and what was done."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.If(test=test):
            yield test, "True", "condition forced"
            yield test, "False", "condition forced"
        case ast.While(test=test):
            yield test, "False", "condition forced"
        case ast.comprehension(ifs=[test]):
            yield test, "True", "condition forced"
        case ast.stmt():
            yield from ((node, new, what) for new, what in _statement(node))
        case ast.expr():
            for changed, what in _expression(node):
                yield node, f"({ast.unparse(changed)})", what


def _statement(node: ast.stmt) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield "pass", "statement dropped"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "pass", "statement dropped"
        case ast.Return(value=ast.expr() as value) if not _is_none(value):
            yield "return None", "return value dropped"
        case ast.Break():
            yield "continue", "break to continue"
        case ast.Continue():
            yield "break", "continue to break"
    if isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        changed = copy.copy(node)
        changed.op = COMPUTED[type(node.op)]()
        yield ast.unparse(changed), "operator"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _expression(node: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            yield ast.Compare(node.left, [COMPARED[type(op)]()], node.comparators), "comparison"
        case ast.BinOp(op=op) if type(op) in COMPUTED and not _is_text(node):
            yield ast.BinOp(node.left, COMPUTED[type(op)](), node.right), "operator"
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.BoolOp(other, node.values), "and/or"
            for k in range(len(node.values)):
                left = [v for i, v in enumerate(node.values) if i != k]
                yield (ast.BoolOp(op, left) if len(left) > 1 else left[0]), "condition dropped"
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand, "not or minus dropped"
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value), "True/False"
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1), "constant"
            yield ast.Constant(value - 1), "constant"
        case ast.IfExp():
            yield node.body, "condition forced"
            yield node.orelse, "condition forced"
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()) if len(node.elts) > 1:
            yield from _shorter(node)
        case ast.Subscript(slice=ast.Slice() as bounds):
            for changed in _bounds(bounds):
                yield ast.Subscript(node.value, changed, node.ctx), "slice bound"
        case ast.Call():
            yield from _call(node)


def _shorter(node: ast.Tuple | ast.List) -> Iterator[tuple[ast.expr, str]]:
    for k in (0, len(node.elts) - 1):
        changed = copy.copy(node)
        changed.elts = [e for i, e in enumerate(node.elts) if i != k]
        yield changed, "element dropped"


def _call(node: ast.Call) -> Iterator[tuple[ast.expr, str]]:
    if isinstance(node.func, ast.Name) and node.func.id in RENAMED:
        yield ast.Call(ast.Name(RENAMED[node.func.id]), node.args, node.keywords), "min/max/any/all"
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        first, second, *rest = node.args
        if ast.dump(first) != ast.dump(second) and not _is_isinstance(node):
            yield ast.Call(node.func, [second, first, *rest], node.keywords), "arguments swapped"


def _is_isinstance(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass")


def _bounds(bounds: ast.Slice) -> Iterator[ast.Slice]:
    one = ast.Constant(1)
    low, high = bounds.lower, bounds.upper
    yield ast.Slice(ast.BinOp(low, ast.Add(), one) if low else one, high, bounds.step)
    if high:
        yield ast.Slice(low, ast.BinOp(high, ast.Add(), one), bounds.step)


def _is_text(node: ast.BinOp) -> bool:
    """Whether operands are texts to the eye: ``"a" + b`` has no other operator that runs."""
    sides = (node.left, node.right)
    return any(
        isinstance(s, ast.JoinedStr) or (isinstance(s, ast.Constant) and isinstance(s.value, str))
        for s in sides
    )

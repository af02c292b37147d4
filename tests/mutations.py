"""Random mutants of Python functions: what a person may write by mistake, or that nobody captures.

A mutant is text. Each comes from a function below by one or two changes of its syntax tree: names
that do not exist, other attributes, operators, constants, axes and arguments, statements that are
left out, doubled, or that no graph has.
"""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Callable, Iterator

FUNCTIONS = """
def kalman(z, q, r):
    x, p = 0.0, 1.0
    out = np.zeros(len(z))
    for i in range(len(z)):
        p = p + q
        k = p / (p + r)
        x = x + k * (z[i] - x)
        p = (1 - k) * p
        out[i] = x
    return out

def bisection(z, q, r):
    low, high = 0.0, 4.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        if middle * middle * middle - z[0] > q:
            high = middle
        else:
            low = middle
    return (low + high) / 2

def nearest(z, q, r):
    centres = np.stack([z[:3], z[3:6]])
    best = np.zeros(len(z), dtype=np.int64)
    for i in range(len(z)):
        least = 1e30
        for j in range(2):
            d = ((centres[j] - z[i]) ** 2).sum()
            if d < least:
                least = d
                best[i] = j
    return best

def norm(z, q, r):
    def centred(v):
        return v - v.mean(axis=-1, keepdims=True)
    y = np.reshape(z, (2, -1))
    y = centred(y)
    scale = np.sqrt((y * y).mean(axis=1) + r)
    return {"rows": y / scale[:, None], "scale": scale}

def early(z, q, r):
    total, seen = 0.0, 0
    for v in z:
        if v < -10:
            continue
        total += abs(v)
        seen += 1
        if total > q:
            break
    else:
        seen = -1
    return total, seen

def parts(z, q, r):
    a, b = z[::2], z[1::2]
    pairs = [(np.minimum(u, v), np.maximum(u, v)) for u, v in zip((a, b), (b, a))]
    lows = np.concatenate([low for low, _ in pairs])
    picked = np.where(lows > 0, lows, -1.0)
    return np.einsum("i,j->ij", picked, a), len(pairs), lows.argmax()
"""
STATEMENTS = (
    "global G", "yield z", "print(z)", "import os", "del z", "z[0] = 1.0", "w = z\nw[1] = 2.0",
    "w = z[1:]\nz = w", "raise ValueError('no')", "assert z.sum() < 0", 
    "assert len(z) == 8, 'eight'",
    "try:\n    pass\nfinally:\n    pass", "with z:\n    pass", "class A:\n    pass", "G = 1",
    "z = z.tolist()", "z.sort()", "return", "return None", "return z", "break", "continue",
    "match q:\n    case 1:\n        pass", "def inner():\n    nonlocal z\n    z = 1\ninner()",
    "pass",
    "while True:\n    break", "x = lambda v: v + 1", "z += 1", "z = z + 1", "q: float = 2.0", "...",
    "for unused in ():\n    pass", "x = y = z", "x, *w = z", "x = {1, 2}", "x = {**{}}",
    "async def later():\n    pass", "x = z.real", "x = [].append(z)", "(w := z)",
    "z.shape = (2, 4)",
)  # fmt: skip
CONSTANTS = (0, 1, -1, 2, 7, 100, 2.5, "a", "", None, True, 1j, float("nan"), 2**70, b"x", ...)
NAMES = (
    "z", "q", "r", "x", "np", "len", "undefined", "print", "G", "i", "range", "abs", "self", "sum",
    "open", "__name__", "kalman", "input", "list", "sorted",
)  # fmt: skip
ATTRIBUTES = (
    "sum", "shape", "T", "nothing", "reshape", "dtype", "sort", "exp", "zeros", "max", "tolist",
    "mean", "random", "linalg", "argmax", "float32", "__class__", "size", "save", "cumsum", "copy",
)  # fmt: skip
BINARY = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult, ast.LShift,
    ast.BitAnd, ast.BitOr,
)  # fmt: skip
COMPARE = (
    ast.Lt, ast.Gt, ast.Eq, ast.NotEq, ast.LtE, ast.GtE, ast.In, ast.NotIn, ast.Is, ast.IsNot,
)  # fmt: skip


def mutants(seed: int, count: int) -> Iterator[str]:
    """Texts of functions ``f(z, q, r)``; the same for a seed."""
    draw = random.Random(seed)
    functions = [n for n in ast.parse(FUNCTIONS).body if isinstance(n, ast.FunctionDef)]
    made = 0
    while made < count:
        one = copy.deepcopy(draw.choice(functions))
        for _ in range(draw.choice((1, 1, 2))):
            draw.choice(_CHANGES)(draw, one)
        one.name = "f"
        text = ast.unparse(ast.fix_missing_locations(one))
        try:
            compile(text, "f.py", "exec")
        except (SyntaxError, ValueError):
            continue  # no such function reaches anybody
        made += 1
        yield text + "\n"


def _all(one: ast.AST, *kinds: type) -> list[ast.AST]:
    return [n for n in ast.walk(one) if isinstance(n, kinds) and n is not one]


def _one_of(draw: random.Random, one: ast.AST, *kinds: type) -> list[ast.AST]:
    """One such node, where there is any."""
    found = _all(one, *kinds)
    return [draw.choice(found)] if found else []


def _blocks(one: ast.AST) -> list[list[ast.stmt]]:
    return [b for n in ast.walk(one) for b in (getattr(n, "body", None), getattr(n, "orelse", None))
            if isinstance(b, list) and b]  # fmt: skip


def _insert(draw: random.Random, one: ast.FunctionDef) -> None:
    block = draw.choice(_blocks(one))
    at = draw.randrange(len(block) + 1)
    block[at:at] = ast.parse(draw.choice(STATEMENTS)).body


def _remove(draw: random.Random, one: ast.FunctionDef) -> None:
    block = draw.choice(_blocks(one))
    if len(block) > 1:
        del block[draw.randrange(len(block))]


def _double(draw: random.Random, one: ast.FunctionDef) -> None:
    block = draw.choice(_blocks(one))
    at = draw.randrange(len(block))
    block.insert(draw.randrange(len(block) + 1), copy.deepcopy(block[at]))


def _swap(draw: random.Random, one: ast.FunctionDef) -> None:
    draw.shuffle(draw.choice(_blocks(one)))


def _name(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.Name):
        assert isinstance(node, ast.Name)
        node.id = draw.choice(NAMES)


def _attribute(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.Attribute):
        assert isinstance(node, ast.Attribute)
        node.attr = draw.choice(ATTRIBUTES)


def _constant(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.Constant):
        assert isinstance(node, ast.Constant)
        node.value = draw.choice(CONSTANTS)


def _operator(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.BinOp, ast.AugAssign, ast.Compare):
        if isinstance(node, ast.Compare):
            node.ops[0] = draw.choice(COMPARE)()
        else:
            assert isinstance(node, ast.BinOp | ast.AugAssign)
            node.op = draw.choice(BINARY)()


def _call(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.Call):
        assert isinstance(node, ast.Call)
        change = draw.randrange(5)
        if change == 0 and node.args:
            node.args.pop()
        elif change == 1:
            node.args.append(ast.Constant(draw.choice(CONSTANTS)))
        elif change == 2:
            word = draw.choice(("axis", "keepdims", "dtype", "wrong", "out"))
            if word not in [k.arg for k in node.keywords]:
                node.keywords.append(ast.keyword(word, ast.Constant(draw.choice(CONSTANTS))))
        elif change == 3 and len(node.args) > 1:
            draw.shuffle(node.args)
        elif node.keywords:
            node.keywords.pop()


def _subscript(draw: random.Random, one: ast.FunctionDef) -> None:
    for node in _one_of(draw, one, ast.Subscript):
        assert isinstance(node, ast.Subscript)
        text = draw.choice((
            "a[0, 0, 0]", "a[100]", "a[-1]", "a[1.5]", "a['x']", "a[::-1]", "a[None]", "a[...]",
            "a[z > 0]", "a[z]", "a[1:0]", "a[True]", "a[[0, 1]]", "a[i]", "a[:, 0]", "a[-100:3]",
        ))  # fmt: skip
        tree = ast.parse(text, mode="eval").body
        assert isinstance(tree, ast.Subscript)
        node.slice = tree.slice


def _wrap(draw: random.Random, one: ast.FunctionDef) -> None:
    """An expression becomes part of another one."""
    around = draw.choice((
        "not a", "-a", "~a", "a if z.sum() > 0 else q", "[a]", "(a, a)", "len(a)", "float(a)",
        "int(a)", "f'{a}'", "f(a, q, r)", "lambda: a", "a.T", "a and q", "np.exp(a)", "(yield a)",
        "[a for _ in range(2)]", "str(a)", "a @ a", "sum(a)", "a[0]", "{'k': a}", "max(a, 1)",
        "np.sort(a)[0]", "a is None", "a == 'x'", "next(iter(a))", "a.astype(np.int8)", "a.item()",
    ))  # fmt: skip
    holders = [
        (n, field, value)
        for n in ast.walk(one)
        for field, value in ast.iter_fields(n)
        if isinstance(value, ast.expr) and not isinstance(getattr(value, "ctx", None), ast.Store)
        and not isinstance(n, ast.arguments | ast.keyword)
    ]  # fmt: skip
    node, field, value = draw.choice(holders)

    class Put(ast.NodeTransformer):
        def visit_Name(self, name: ast.Name) -> ast.AST:
            return copy.deepcopy(value) if name.id == "a" else name

    setattr(node, field, Put().visit(ast.parse(around, mode="eval").body))


_CHANGES: tuple[Callable[[random.Random, ast.FunctionDef], None], ...] = (
    _insert, _insert, _remove, _double, _swap, _name, _attribute, _constant, _operator, _call,
    _subscript, _wrap, _wrap,
)  # fmt: skip

"""The text form of functions and programs of the tensor IR: one statement a line.

What has a usual value is left out: row-major strides, the space ``global``, the role ``scratch``,
an alignment of 64, an alias set called like its buffer, the dtype i64. A ``let`` that ends a
sequence has no braces: its body is what follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from aisc.ir import dtypes
from aisc.ir.arith.poly import SymDim, symbols
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import attribute_symbols
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import (
    MATH_CALLS,
    ZERO,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    result_of,
)
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import (
    Alloc,
    Await,
    Barrier,
    Bind,
    Block,
    CallKernel,
    Copy,
    For,
    Handover,
    HostCall,
    If,
    Invoke,
    Iter,
    Let,
    Prefetch,
    Region,
    Require,
    Reserve,
    Seq,
    Slot,
    Stmt,
    Store,
    While,
)
from aisc.ir.text import lexical

# Binary operators with a sign: (sign, level); a higher level binds tighter, all to the left.
INFIX: dict[str, tuple[str, int]] = {
    "or": ("|", 1), "xor": ("^", 2), "and": ("&", 3),
    "lt": ("<", 4), "le": ("<=", 4), "gt": (">", 4), "ge": (">=", 4), "eq": ("==", 4),
    "ne": ("!=", 4),
    "shl": ("<<", 5), "shr": (">>", 5), "add": ("+", 6), "sub": ("-", 6),
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("%", 7),
}  # fmt: skip
COMPARE_LEVEL = 4
# Called for every statement with the number of its first line; lets errors point at a line.
OnStmt = Callable[[Stmt, int], None]


def _suffix(dtype: DType) -> str:
    return "" if dtype is dtypes.i64 else f":{dtype.name}"


def expr_text(e: Expr, level: int = 0) -> str:
    """An expression, in parentheses when it binds less tightly than `level`."""
    if isinstance(e, Const):
        if isinstance(e.value, bool):
            usual = e.dtype is dtypes.boolean
            return lexical.number(e.value) + ("" if usual else f":{e.dtype.name}")
        return lexical.number(e.value) + _suffix(e.dtype)
    if isinstance(e, Var):
        return lexical.name(e.name) + _suffix(e.dtype)
    if isinstance(e, Binary):
        return _binary(e, level)
    if isinstance(e, Load):
        return f"{lexical.name(e.buffer.name)}[{_list(e.indices)}]"
    if isinstance(e, Unary):
        return f"{e.op}({expr_text(e.a)})"
    if isinstance(e, Cast):
        return f"{e.dtype.name}({expr_text(e.a)})"
    if isinstance(e, Select):
        return f"select({_list((e.cond, e.then, e.other))})"
    if isinstance(e, Call):
        if e.name in MATH_CALLS and e.args and e.dtype is result_of(e.name, e.args[0].dtype):
            return f"{e.name}({_list(e.args)})"
        return f"@{lexical.word(e.name)}({_list(e.args)}):{e.dtype.name}"
    raise InternalError(f"expression {type(e).__name__} has no text form")


def _binary(e: Binary, level: int) -> str:
    if e.op not in INFIX:
        return f"{e.op}({_list((e.a, e.b))})"
    sign, own = INFIX[e.op]
    left = own + 1 if own == COMPARE_LEVEL else own  # comparisons do not chain
    text = f"{expr_text(e.a, left)} {sign} {expr_text(e.b, own + 1)}"
    return f"({text})" if own < level else text


def _list(items: tuple[Expr, ...]) -> str:
    return ", ".join(expr_text(x) for x in items)


def buffer_text(b: Buffer) -> str:
    """A declaration of a buffer: every field that is not usual."""
    out = f"{lexical.name(b.name)}: {b.dtype.name}{lexical.dims_list(b.shape)}"
    if not b.is_dense:
        out += f" strides {lexical.dims_list(b.strides)}"
    if b.role != "scratch":
        out += f" {b.role}"
    if b.most:
        out += f" most {b.most}"
    if b.space != "global":
        out += f" space {lexical.word(b.space)}"
    if b.base:
        out += f" base {lexical.word(b.base)}"
    if b.offset != 0:
        out += f" offset {lexical.dim(b.offset)}"
    if b.alignment != 64:
        out += f" align {b.alignment}"
    if b.alias_set != b.name:
        out += f" alias {lexical.quote(b.alias_set)}"
    return out


def region_text(r: Region) -> str:
    """A region: ``low`` for one index, ``low +: extent`` for several, ``low +: extent by step``
    where they do not follow each other."""
    parts = []
    for low, size, step in zip(r.low, r.extent, r.steps, strict=False):
        some = f" +: {expr_text(size)}" if step else ""
        parts.append(f"{expr_text(low)}{some}{f' by {step}' if step > 1 else ''}")
    return f"{lexical.name(r.buffer.name)}[{', '.join(parts)}]"


class Lines:
    """Collects indented lines; `on_stmt` hears where each statement starts."""

    def __init__(self, on_stmt: OnStmt | None = None) -> None:
        self.lines: list[str] = []
        self.on_stmt = on_stmt

    def add(self, depth: int, text: str) -> None:
        """Append a line."""
        self.lines.append("  " * depth + text)

    def body(self, s: Stmt, depth: int) -> None:
        """The statements between the braces of an outer one."""
        if isinstance(s, Seq) and len(s.stmts) != 1:
            for i, item in enumerate(s.stmts):
                self.stmt(item, depth, last=i == len(s.stmts) - 1)
        else:
            self.stmt(s, depth, last=True)

    def stmt(self, s: Stmt, depth: int, last: bool) -> None:
        """One statement."""
        if self.on_stmt is not None:
            self.on_stmt(s, len(self.lines))
        if isinstance(s, Let) and last:
            self.add(depth, f"let {expr_text(s.var)} = {expr_text(s.value)}")
            self.body(s.body, depth)
            return
        writer = _COMPOUND.get(type(s))
        if writer is not None:
            writer(self, s, depth)
        else:
            self.add(depth, _simple(s))

    def nest(self, head: str, body: Stmt, depth: int) -> None:
        """``head {``, the body, and ``}``."""
        self.add(depth, head + " {")
        self.body(body, depth + 1)
        self.add(depth, "}")

    def loop(self, s: For, depth: int) -> None:
        """A loop."""
        kind = "serial" if s.kind == "serial" else s.kind
        if s.low == ZERO:
            span = f"in 0 .. {expr_text(s.extent)}"
        else:
            span = f"from {expr_text(s.low)} extent {expr_text(s.extent)}"
        extra = f" with {lexical.attributes(s.annotations)}" if s.annotations else ""
        self.nest(f"{kind} {expr_text(s.var)} {span}{extra}", s.body, depth)

    def branch(self, s: If, depth: int) -> None:
        """A conditional statement."""
        self.add(depth, f"if {expr_text(s.cond)} {{")
        self.body(s.then, depth + 1)
        if s.other is not None:
            self.add(depth, "} else {")
            self.body(s.other, depth + 1)
        self.add(depth, "}")

    def block(self, s: Block, depth: int) -> None:
        """A block with everything that it declares."""
        pairs = zip_longest(s.iters, s.bindings)
        head = f"block {lexical.word(s.name)}({', '.join(_iter(i, e) for i, e in pairs)})"
        if s.reads:
            head += f" reads({', '.join(map(region_text, s.reads))})"
        if s.writes:
            head += f" writes({', '.join(map(region_text, s.writes))})"
        if s.combiner:
            head += f" combiner {lexical.word(s.combiner)}"
        if s.init is not None:
            self.add(depth, head + " init {")
            self.body(s.init, depth + 1)
            head = "} body"
        self.nest(head, s.body, depth)


def _iter(it: Iter | None, binding: Expr | None) -> str:
    value = "?" if binding is None else expr_text(binding)
    if it is None:
        return f"? = {value}"
    return f"{expr_text(it.var)} {it.kind} {expr_text(it.extent)} = {value}"


_COMPOUND: dict[type[Stmt], Callable[[Lines, Any, int], None]] = {
    For: Lines.loop,
    If: Lines.branch,
    Block: Lines.block,
    Seq: lambda w, s, depth: w.nest("seq", s, depth) if len(s.stmts) != 1 else _single(w, s, depth),
    While: lambda w, s, depth: w.nest(f"while {expr_text(s.cond)}", s.body, depth),
    Let: lambda w, s, depth: w.nest(
        f"let {expr_text(s.var)} = {expr_text(s.value)}", s.body, depth
    ),
}


def _single(w: Lines, s: Seq, depth: int) -> None:
    w.add(depth, "seq {")
    w.stmt(s.stmts[0], depth + 1, last=True)
    w.add(depth, "}")


def _simple(s: Stmt) -> str:
    if isinstance(s, Store):
        target = f"{lexical.name(s.buffer.name)}[{_list(s.indices)}]"
        return f"{'stream ' if s.stream else ''}{target} = {expr_text(s.value)}"
    if isinstance(s, Prefetch):
        access = "write" if s.write else "read"
        return f"prefetch {access} {lexical.name(s.buffer.name)}[{_list(s.indices)}]"
    if isinstance(s, Alloc):
        return f"alloc {buffer_text(s.buffer)}"
    if isinstance(s, Barrier):
        return f"barrier {s.scope}"
    if isinstance(s, Handover):
        return f"handover {lexical.name(s.giver)} -> {lexical.name(s.taker)}"
    if isinstance(s, Await):
        return f"await {s.pending}"
    if isinstance(s, Invoke):
        return f"invoke {lexical.word(s.intrinsic)}({_call(map(region_text, s.operands), s.args)})"
    if isinstance(s, CallKernel):
        names = (lexical.name(b.name) for b in s.args)
        return f"call {lexical.word(s.kernel)}({_call(names, s.dims)})"
    if isinstance(s, Copy):
        return f"copy {lexical.name(s.src.name)} -> {lexical.name(s.dst.name)}"
    if isinstance(s, HostCall):
        inputs = ", ".join("_" if b is None else lexical.name(b.name) for b in s.inputs)
        # Results that are only measured are declared nowhere else.
        outputs = ", ".join(buffer_text(b) if s.binds else lexical.name(b.name) for b in s.outputs)
        extra = f" {lexical.attributes(s.attrs)}" if s.attrs else ""
        binds = f" bind {_list(s.binds)}" if s.binds else ""
        return f"host {lexical.word(s.op)}({inputs}) -> ({outputs}){extra}{binds}"
    if isinstance(s, Bind):
        pairs = zip(s.vars, s.values, strict=True)
        return f"bind {', '.join(f'{expr_text(v)} = {expr_text(e)}' for v, e in pairs)}"
    if isinstance(s, Require):
        values = f"; {_list(s.values)}" if s.values else ""
        return f"require {expr_text(s.cond)} else {lexical.quote(s.text)}{values}"
    if isinstance(s, Reserve):
        slots = "".join(f" slot {_slot(x)}" for x in s.slots)
        keep = " keep" if s.keep else ""
        return f"reserve {lexical.word(s.segment)} {expr_text(s.size)}{keep}{slots}"
    raise InternalError(f"statement {type(s).__name__} has no text form")


def _slot(s: Slot) -> str:
    return f"{expr_text(s.var)} = {expr_text(s.size)} live {s.first} .. {s.last}"


def _call(items: Iterator[str], scalars: tuple[Expr, ...]) -> str:
    return ", ".join(items) + (f"; {_list(scalars)}" if scalars else "")


def stmt_text(s: Stmt) -> str:
    """A statement alone, without a final newline."""
    lines = Lines()
    lines.body(s, 0)
    return "\n".join(lines.lines)


def func_lines(f: Func, on_stmt: OnStmt | None = None, prefix: str = "") -> list[str]:
    """The lines of a function."""
    lines = Lines(on_stmt)
    params = ", ".join(map(buffer_text, f.params))
    dims = f"; {', '.join(expr_text(v) for v in f.dims)}" if f.dims else ""
    head = f"{prefix}func @{lexical.word(f.name)}{lexical.symbols_clause(_symbols(f))}"
    head += f"({params}{dims}) target {lexical.word(f.target)}"
    if f.requires:
        head += f" requires {_list(f.requires)}"
    if f.attrs:
        head += f" with {lexical.attributes(f.attrs)}"
    lines.nest(head, f.body, 0)
    return lines.lines


def _symbols(f: Func) -> Iterator[SymDim]:
    buffers: dict[Buffer, None] = dict.fromkeys(f.params)
    for node in walk(f.body):
        if isinstance(node, Alloc):
            buffers[node.buffer] = None
        elif isinstance(node, HostCall):
            buffers.update(dict.fromkeys(node.outputs))
            for _, value in node.attrs:
                yield from attribute_symbols(value)
    for b in buffers:
        for d in (*b.shape, *b.strides, b.offset):
            if not isinstance(d, int):
                yield from symbols(d)


def print_func(f: Func) -> str:
    """The function as text, ending in a newline; deterministic, without locations."""
    return "\n".join(func_lines(f)) + "\n"


def print_program(p: Program) -> str:
    """The program as text: weights by name, kernels in order, what prepares weights, the entry."""
    lines = [f"program @{lexical.word(p.name)} {{"]
    for key in sorted(p.weights):
        lines.append(f"  weight {lexical.word(key)} = @blob<{p.weights[key].digest}>")
    funcs = [("", kernel) for kernel in p.kernels]
    if p.prepare is not None:
        funcs.append(("prepare ", p.prepare))
    for prefix, func in (*funcs, ("entry ", p.entry)):
        lines.extend("  " + x for x in func_lines(func, prefix=prefix))
    return "\n".join([*lines, "}"]) + "\n"


def node_text(node: Node) -> str:
    """Any expression, statement or region."""
    if isinstance(node, Expr):
        return expr_text(node)
    if isinstance(node, Stmt):
        return stmt_text(node)
    if isinstance(node, Region):
        return region_text(node)
    if isinstance(node, Iter):
        return _iter(node, None)
    if isinstance(node, Slot):
        return _slot(node)
    raise InternalError(f"{type(node).__name__} has no text form")

"""Writing LLVM IR text: names, nested scopes with hoisting, structured control flow.

A :class:`Scope` is the code of a loop body, a conditional arm or the function. Code may be
appended to an outer scope while an inner one is open: it then stands before the inner one, which
is how loop-invariant address arithmetic is hoisted. Values remembered in a scope are valid in it
and in the scopes inside.
"""

from __future__ import annotations

from dataclasses import field

from aisc.ir.dataclass import dataclass


@dataclass(slots=True)
class Scope:
    """Lines of one region of code, the label they end in, and the values it has computed."""

    level: int
    block: str
    lines: list[str] = field(default_factory=list)
    memo: dict[str, str] = field(default_factory=dict)


class Writer:
    """Builds the body of one function; declarations and globals are collected for the module."""

    def __init__(self, entry: str = "entry") -> None:
        self._count = 0
        self.scopes: list[Scope] = [Scope(0, entry, [f"{entry}:"])]
        self.allocas: list[str] = []
        self.declarations: dict[str, None] = {}

    @property
    def scope(self) -> Scope:
        """The innermost open scope."""
        return self.scopes[-1]

    def is_open(self, scope: Scope) -> bool:
        """Whether what a scope has computed is in reach."""
        return scope.level < len(self.scopes) and self.scopes[scope.level] is scope

    def fresh(self, hint: str = "v") -> str:
        """A new local name, with its ``%``."""
        self._count += 1
        return f"%{hint}{self._count}"

    def label(self, hint: str) -> str:
        """A new label, without ``%``."""
        self._count += 1
        return f"{hint}{self._count}"

    def line(self, text: str, level: int | None = None) -> None:
        """Append an instruction to the innermost scope, or hoist it to an outer level."""
        scope = self.scope if level is None else self.scopes[level]
        scope.lines.append(f"  {text}")

    def let(self, text: str, hint: str = "v", level: int | None = None) -> str:
        """Append ``%name = text`` and return the name."""
        name = self.fresh(hint)
        self.line(f"{name} = {text}", level)
        return name

    def shared(self, text: str, hint: str = "v", level: int | None = None) -> str:
        """Like :meth:`let`, but a pure instruction already computed in reach is used again."""
        at = len(self.scopes) - 1 if level is None else level
        for scope in self.scopes[: at + 1]:
            if text in scope.memo:
                return scope.memo[text]
        name = self.let(text, hint, at)
        self.scopes[at].memo[text] = name
        return name

    def start_block(self, label: str) -> None:
        """Begin a new basic block in the innermost scope."""
        self.scope.lines.append(f"{label}:")
        self.scope.block = label

    def declare(self, text: str) -> None:
        """Ask for a declaration at module level."""
        self.declarations[text] = None

    def either(self, cond: str, then: str, other: str) -> None:
        """One instruction where `cond` holds, the other elsewhere."""
        labels = [self.label(hint) for hint in ("then", "else", "endif")]
        self.line(f"br i1 {cond}, label %{labels[0]}, label %{labels[1]}")
        for label, text in zip(labels, (then, other), strict=False):
            self.start_block(label)
            self.line(text)
            self.line(f"br label %{labels[2]}")
        self.start_block(labels[2])

    # -- structured control flow ---------------------------------------------------------------

    def open_loop(
        self, low: str, high: str, may_be_empty: bool, number: str = "i64"
    ) -> tuple[str, _LoopEnd]:
        """Start ``for i in low..high``; returns the name of `i` and the token to close it, all
        numbers of a type."""
        head, done = self.label("loop"), self.label("done")
        var = self.fresh("i")
        end = _LoopEnd(head, done, var, low, high, may_be_empty, number)
        self.scopes.append(Scope(self.scope.level + 1, head))
        return var, end

    def close_loop(self, end: _LoopEnd, annotation: str = "") -> None:
        """Finish the loop opened last."""
        body = self.scopes.pop()
        outer = self.scope
        step = self.fresh("n")
        cond = self.fresh("c")
        if end.may_be_empty:
            guard = self.fresh("c")
            outer.lines.append(f"  {guard} = icmp slt {end.number} {end.low}, {end.high}")
            outer.lines.append(f"  br i1 {guard}, label %{end.head}, label %{end.done}")
        else:
            outer.lines.append(f"  br label %{end.head}")
        outer.lines.append(f"{end.head}:")
        outer.lines.append(
            f"  {end.var} = phi {end.number} [{end.low}, %{outer.block}], [{step}, %{body.block}]"
        )
        outer.lines.extend(body.lines)
        outer.lines.append(f"  {step} = add nuw nsw {end.number} {end.var}, 1")
        outer.lines.append(f"  {cond} = icmp slt {end.number} {step}, {end.high}")
        outer.lines.append(f"  br i1 {cond}, label %{end.head}, label %{end.done}{annotation}")
        self.start_block(end.done)

    def open_if(self, cond: str) -> _IfEnd:
        """Start the code run when `cond` holds."""
        end = _IfEnd(cond, self.label("then"), self.label("endif"))
        self.scopes.append(Scope(self.scope.level + 1, end.then))
        return end

    def close_if(self, end: _IfEnd) -> None:
        """Finish the conditional opened last."""
        body = self.scopes.pop()
        outer = self.scope
        outer.lines.append(f"  br i1 {end.cond}, label %{end.then}, label %{end.done}")
        outer.lines.append(f"{end.then}:")
        outer.lines.extend(body.lines)
        outer.lines.append(f"  br label %{end.done}")
        self.start_block(end.done)

    def open_while(self) -> _WhileEnd:
        """Start a loop whose condition is computed at its head, before :meth:`test_while`."""
        end = _WhileEnd(self.label("while"), self.label("done"))
        self.scopes.append(Scope(self.scope.level + 1, end.head))
        return end

    def test_while(self, end: _WhileEnd, cond: str) -> None:
        """Go on with the body where `cond` holds."""
        body = self.label("turn")
        self.line(f"br i1 {cond}, label %{body}, label %{end.done}")
        self.start_block(body)

    def close_while(self, end: _WhileEnd) -> None:
        """Finish the loop opened last."""
        body = self.scopes.pop()
        outer = self.scope
        outer.lines.append(f"  br label %{end.head}")
        outer.lines.append(f"{end.head}:")
        outer.lines.extend(body.lines)
        outer.lines.append(f"  br label %{end.head}")
        self.start_block(end.done)

    def finish(self, ret: str = "ret void") -> list[str]:
        """All lines of the function's body, stack slots first."""
        assert len(self.scopes) == 1, "a scope is still open"
        lines = self.scopes[0].lines
        return [lines[0], *(f"  {a}" for a in self.allocas), *lines[1:], f"  {ret}"]


@dataclass(frozen=True, slots=True)
class _LoopEnd:
    head: str
    done: str
    var: str
    low: str
    high: str
    may_be_empty: bool
    number: str


@dataclass(frozen=True, slots=True)
class _IfEnd:
    cond: str
    then: str
    done: str


@dataclass(frozen=True, slots=True)
class _WhileEnd:
    head: str
    done: str

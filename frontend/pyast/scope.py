"""What the names of a function stand for outside of it: closures, globals, builtins."""

from __future__ import annotations

import ast
import builtins
import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field
from types import CellType
from typing import Any

from aisc.frontend.arrays.state import State
from aisc.frontend.arrays.values import Partial, Unset, refused
from aisc.frontend.pyast.source import Captured, Text
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Guard:
    """What was read outside of a function: the owner's `name` was `value`. The owner is a table of
    globals, a cell of a closure or an object with attributes."""

    owner: Any
    name: str
    value: Any

    @property
    def holds(self) -> bool:
        """Whether it still is."""
        if isinstance(self.owner, dict):
            return self.owner.get(self.name, _MISSING) is self.value
        name = "cell_contents" if isinstance(self.owner, CellType) else self.name
        return getattr(self.owner, name, _MISSING) is self.value

    def __str__(self) -> str:
        name = getattr(self.value, "__name__", "")
        return f"{self.name} is {type(self.value).__name__} {name}".strip()


@dataclass(slots=True)
class Scope:
    """The names around a body. own: names that the body assigns, which are its own everywhere.
    outer: scope and state of the function around, for one that is defined inside another."""

    text: Text
    names: Mapping[str, Any]
    own: frozenset[str]
    cells: Mapping[str, CellType] = field(default_factory=dict)
    outer: tuple[Scope, State] | None = None

    def outside(self, name: str, loc: Loc, guards: dict[tuple[int, str], Guard]) -> Any:
        """What a name stands for outside, which becomes a guard; E108 where there is none, E111 for
        one that the function sets only later."""
        if name in self.own:
            raise refused(f"'{name}' has no value yet", "it is set further below", loc=loc)
        if self.outer is not None:
            scope, state = self.outer
            if name in state.names:
                item = state.names[name]
                if isinstance(item, Unset | Partial):
                    raise refused(f"'{name}' may have no value here", loc=loc)
                return item
            return scope.outside(name, loc, guards)
        cell = self.cells.get(name)
        owner: Any = self.names if cell is None else cell
        try:
            found = self.names[name] if cell is None else cell.cell_contents
        except (KeyError, ValueError):
            found = vars(builtins).get(name, _MISSING)
        else:
            guards[id(owner), name] = Guard(owner, name, found)
        if found is not _MISSING:
            return found
        known = {*self.own, *self.cells, *self.names, *vars(builtins)}
        near = difflib.get_close_matches(name, sorted(known), 2)
        raise error(
            "E108",
            f"the name '{name}' is not known",
            *((f"did you mean {' or '.join(near)}?",) if near else ()),
            loc=loc,
        )


def scope_of(captured: Captured) -> Scope:
    """The scope of a function."""
    return Scope(
        captured.text,
        captured.function.__globals__,
        assigned_in(captured.definition),
        captured.cells,
    )


def assigned_in(node: ast.FunctionDef | ast.Lambda) -> frozenset[str]:
    """Names that a function assigns itself: its parameters, and what its body sets."""
    a = node.args
    found = {p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
    found |= {p.arg for p in (a.vararg, a.kwarg) if p is not None}
    return frozenset(found) | assigned_by(
        node.body if isinstance(node, ast.FunctionDef) else [node.body]
    )


def assigned_by(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Names that statements or expressions assign."""
    found: set[str] = set()
    todo: list[ast.AST] = list(nodes)
    while todo:
        n = todo.pop()
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(n.name)
            continue
        if isinstance(n, ast.Lambda):
            continue
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store | ast.Del):
            found.add(n.id)
        if isinstance(n, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            todo += [g.iter for g in n.generators]  # targets are the comprehension's own
            continue
        todo += list(ast.iter_child_nodes(n))
    return frozenset(found)


def reads_of(nodes: Iterable[ast.AST]) -> Counter[str]:
    """How often each name is read in statements or expressions."""
    every = (n for top in nodes for n in ast.walk(top))
    return Counter(n.id for n in every if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load))


@dataclass(frozen=True, slots=True, eq=False)
class Local:
    """A function that is defined inside of the captured one."""

    name: str
    node: ast.FunctionDef | ast.Lambda
    text: Text
    scope: Any  # names around it
    defaults: tuple[Any, ...] = ()
    keyword_defaults: Mapping[str, Any] = field(default_factory=dict)

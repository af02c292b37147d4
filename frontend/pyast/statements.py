"""Statements: assignments, branches, exits; what the run decides becomes ``if``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from aisc.frontend.arrays.state import BREAK, CONTINUE, ON, RAISE, RETURN
from aisc.frontend.arrays.subscripts import write_item, write_value
from aisc.frontend.arrays.values import Partial, Record, Tensor, Unset, misfit, refused, shown
from aisc.frontend.pyast.calls import Caller
from aisc.frontend.pyast.joining import Joiner, Side
from aisc.frontend.pyast.scope import Local
from aisc.ir.graph.core import Value

_REFUSED: dict[type, tuple[str, str]] = {
    ast.Global: ("'global' is not supported", "give the value as an argument and return it"),
    ast.Nonlocal: ("'nonlocal' is not supported", "give the value as an argument and return it"),
    ast.Try: ("'try' is not supported", "test before: if x > 0"),
    ast.With: ("'with' is not supported", "do it outside of the function"),
    ast.ClassDef: ("a class inside of a function is not supported", "define it outside"),
    ast.AsyncFunctionDef: ("a coroutine is not supported", "leave out 'async'"),
    ast.AsyncFor: ("'async for' is not supported", "leave out 'async'"),
    ast.AsyncWith: ("'async with' is not supported", "do it outside of the function"),
}


class Ends(Exception):
    """The statement at hand ends the run: an exception was raised in a function that it calls."""


class Executor(Caller):
    """Runs statements. Loops are added by a subclass."""

    def block(self, statements: list[ast.stmt]) -> None:
        """Run statements until one ends the block; what follows one that may end it is run where it
        did not."""
        for k, statement in enumerate(statements):
            self.loc = self.at(statement)
            try:
                self.statement(statement)
            except Ends:
                self.state.end(RAISE)
            if self.state.code == ON and isinstance(self.state.code, int):
                continue
            if isinstance(self.state.code, Tensor) and statements[k + 1 :]:
                self._where_on(statements[k + 1 :])
            return

    def _where_on(self, rest: list[ast.stmt]) -> None:
        """Run statements where the block has not ended yet."""
        if ON not in self.state.may:
            return
        code = self.state.code
        ended = self.state.may - {ON}

        def go_on() -> None:
            self.state.end(ON)
            self.state.names = {n: _settled(x) for n, x in self.state.names.items()}
            self.block(rest)

        def stay() -> None:
            self.state.code = code if len(ended) > 1 else next(iter(ended))
            self.state.may = ended

        flag = self.em.op("equal", self.value(code), self.em.constant(ON))
        self.branch(flag, go_on, stay)

    # --- branches -----------------------------------------------------------------------------
    def branch(self, flag: Value, then: Callable[[], None], other: Callable[[], None]) -> None:
        """Run one of two, as the run decides."""
        loc, before, outer = self.loc, self.state, self.frame
        sides = []
        for name, arm in (("then", then), ("else", other)):
            self.frame, self.state, self.loc = outer.inside(name), before.copy(), loc
            try:
                arm()
            except Ends:
                self.state.end(RAISE)
            sides.append(Side(self.frame, self.state))
            self.frame = outer
        self.state, self.loc = before, loc
        self.state = Joiner(self, (sides[0], sides[1]), loc).joined(flag, before)

    def either(self, flag: Value, then: Callable[[], Any], other: Callable[[], Any]) -> Any:
        """The value of one of two expressions."""
        name = f" value {len(self.state.names)}"  # that nobody can write

        def into(arm: Callable[[], Any]) -> Callable[[], None]:
            def run() -> None:
                self.state.names[name] = arm()

            return run

        self.branch(flag, into(then), into(other))
        if self.state.may == {RAISE}:
            raise Ends
        item = self.state.names.pop(name)
        if isinstance(item, Partial):
            item = item.item
        if isinstance(item, Unset):
            raise misfit(f"one value for both ways is needed: {item.why}", loc=self.loc)
        return item

    # --- statements ---------------------------------------------------------------------------
    def statement(self, node: ast.stmt) -> None:
        """Run one statement."""
        if type(node) in _REFUSED:
            raise refused(_REFUSED[type(node)][0], _REFUSED[type(node)][1], loc=self.at(node))
        match node:
            case ast.Expr():
                self.expr(node.value)
            case ast.Assign():
                self._assign(node)
            case ast.AnnAssign():
                if node.value is not None:
                    self.assign(node.target, self.expr(node.value))
            case ast.AugAssign():
                self._augment(node)
            case ast.If():
                self._if(node)
            case ast.Return():
                self.state.result = None if node.value is None else self.expr(node.value)
                self.state.end(RETURN)
            case ast.Break():
                self.state.end(BREAK)
            case ast.Continue():
                self.state.end(CONTINUE)
            case ast.Assert():
                self._assert(node)
            case ast.Raise():
                self._raise(node)
            case ast.FunctionDef():
                self._define(node)
            case ast.Delete():
                self._delete(node)
            case ast.While() | ast.For():
                self.loop(node)
            case ast.Pass():
                pass
            case ast.Import() | ast.ImportFrom():
                self._import(node)
            case _:
                what = type(node).__name__.lower()
                raise refused(f"'{what}' is not supported", loc=self.at(node))

    def loop(self, node: ast.While | ast.For) -> None:
        """Run a loop."""
        raise NotImplementedError

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        import importlib

        if isinstance(node, ast.Import) and all(
            a.name in ("numpy", "math", "operator") for a in node.names
        ):
            for a in node.names:
                self.state.names[a.asname or a.name] = importlib.import_module(a.name)
            return
        raise refused(
            "an import inside of a function is not supported",
            "import it outside",
            loc=self.at(node),
        )

    def _assign(self, node: ast.Assign) -> None:
        item = self.expr(node.value)
        for target in node.targets:
            self.assign(target, item)

    def assign(self, target: ast.expr, item: Any) -> None:
        """Bind a target to a value."""
        self.loc = self.at(target)
        match target:
            case ast.Name():
                self.state.names[target.id] = item
            case ast.Tuple() | ast.List():
                self._unpack(target, item)
            case ast.Subscript():
                of, key = self.expr(target.value), self.expr(target.slice)
                self.loc = self.at(target)
                self._write(of, key, item)
            case ast.Attribute():
                of = self.expr(target.value)
                self.loc = self.at(target)
                if not isinstance(of, Record):
                    raise refused(
                        f"'{target.attr}' of {shown(of)} lies outside of the function",
                        "return the new value",
                        loc=self.loc,
                    )
                if vars(of.cls)["__dataclass_params__"].frozen:
                    raise refused(
                        f"{of.cls.__name__} is frozen", "dataclasses.replace", loc=self.loc
                    )
                of.fields[target.attr] = item
            case _:
                raise refused("this cannot be assigned to", loc=self.loc)

    def _unpack(self, target: ast.Tuple | ast.List, item: Any) -> None:
        items = self.sequence(item, target)
        stars = [k for k, t in enumerate(target.elts) if isinstance(t, ast.Starred)]
        count = len(target.elts)
        if stars:
            at, more = stars[0], len(items) - count + 1
            if more >= 0:
                items = [*items[:at], items[at : at + more], *items[at + more :]]
        if len(items) != count:
            raise misfit(f"{count} names for {len(items)} values", loc=self.loc)
        for t, x in zip(target.elts, items, strict=True):
            self.assign(t.value if isinstance(t, ast.Starred) else t, x)

    def _write(self, of: Any, key: Any, item: Any) -> None:
        if isinstance(of, Tensor):
            write_item(self, of, key, item)
        elif isinstance(of, list):
            place = key if isinstance(key, slice) else self.int_of(key, "the index of a list")
            self._foreign(of)
            self.natively(of.__setitem__, place, item)
        elif isinstance(of, dict):
            self._foreign(of)
            of[self._key(key)] = item
        else:
            raise refused(
                f"elements of {shown(of)} cannot be set",
                "copy it first: a = a.copy()",
                loc=self.loc,
            )

    def _foreign(self, of: Any) -> None:
        """Refuse to change a list or dict that is not the function's own."""
        if any(g.value is of for g in self.guards.values()):
            raise refused("this list lies outside of the function", "copy it first", loc=self.loc)

    def _augment(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            old = self.lookup(target.id, target)
            new = self.combine(node.op, old, self.expr(node.value))
            self.loc = self.at(node)
            if isinstance(old, list) and isinstance(new, list):
                old[:] = new
            elif isinstance(old, Tensor) and not old.weak and old.value.type.rank:
                self._write_whole(old, new)
            else:
                self.state.names[target.id] = new
            return
        if isinstance(target, ast.Subscript):
            of, key = self.expr(target.value), self.expr(target.slice)
            new = self.combine(node.op, self.item(of, key), self.expr(node.value))
            self.loc = self.at(node)
            self._write(of, key, new)
            return
        load = ast.copy_location(ast.Attribute(target.value, target.attr, ast.Load()), target)
        self.assign(target, self.combine(node.op, self.expr(load), self.expr(node.value)))

    def _write_whole(self, old: Tensor, new: Any) -> None:
        """``a += b``: the array itself is changed, and keeps type and shape."""
        made = self.value(new)
        held = self.read(old)
        if made.type.rank != held.type.rank:
            raise misfit(f"{made.type} does not fit into {held.type}", loc=self.loc)
        if not np.can_cast(made.type.dtype.numpy, held.type.dtype.numpy, "same_kind"):
            raise misfit(
                f"{made.type} cannot be stored in {held.type}", "write a = a + b", loc=self.loc
            )
        made = self.em.cast(made, held.type.dtype)
        if made.type.shape != held.type.shape:
            made = self.em.assume(made, held.type.shape)
        write_value(self, old, made)

    def _if(self, node: ast.If) -> None:
        flag = self.condition(self.expr(node.test))
        self.loc = self.at(node)
        if isinstance(flag, bool):
            self.block(node.body if flag else node.orelse)
        else:
            self.branch(flag, lambda: self.block(node.body), lambda: self.block(node.orelse))

    def _assert(self, node: ast.Assert) -> None:
        flag = self.condition(self.expr(node.test))
        self.loc = self.at(node)
        text = self._message(node.msg) or f"assert {ast.unparse(node.test)}"
        if flag is True:
            return
        if flag is False:
            self._fail(text)
        else:
            self.test(flag, text)

    def _message(self, node: ast.expr | None) -> str:
        if node is None:
            return ""
        found = self.expr(node)
        return found if isinstance(found, str) else shown(found)

    def _raise(self, node: ast.Raise) -> None:
        if node.exc is None:
            raise refused("'raise' without an exception is not supported", loc=self.loc)
        if isinstance(node.exc, ast.Call):
            words = ", ".join(self._message(a) for a in node.exc.args)
            self.loc = self.at(node)
            self._fail(f"{ast.unparse(node.exc.func)}: {words}")
        else:
            self._fail(ast.unparse(node.exc))

    def _fail(self, text: str) -> None:
        """The run ends here with an error."""
        if self.frame.outer is None and self.state.may == {ON} and self.state.code == ON:
            raise misfit(f"every call ends here: {text}", loc=self.loc)
        self.test(self.em.constant(False), text)
        self.state.end(RAISE)

    def _define(self, node: ast.FunctionDef) -> None:
        if node.decorator_list:
            raise refused("a decorator inside of a function is not supported", loc=self.at(node))
        defaults = tuple(self.expr(d) for d in node.args.defaults)
        more = {
            a.arg: self.expr(d)
            for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            if d is not None
        }
        self.state.names[node.name] = Local(
            node.name, node, self.text, self.closure(), defaults, more
        )

    def _delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if not isinstance(target, ast.Name):
                raise refused("only names can be deleted", loc=self.at(target))
            self.lookup(target.id, target)
            del self.state.names[target.id]


def _settled(item: Any) -> Any:
    """A variable where the block went on: one that is set then is set."""
    if isinstance(item, Partial):
        return item.item if ON in item.codes else Unset(item.why)
    return item

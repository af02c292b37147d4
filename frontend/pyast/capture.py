"""The graph of a Python function for arguments of some types."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from aisc.frontend.arrays.state import RAISE
from aisc.frontend.arrays.values import Frame, Tensor, is_size, refused
from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.report import DimWords
from aisc.frontend.pyast.arguments import Argument, Result, tree_map
from aisc.frontend.pyast.loops import Looper
from aisc.frontend.pyast.scope import Guard, Local, scope_of
from aisc.frontend.pyast.source import Captured
from aisc.frontend.pyast.statements import Ends
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Extent, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.graph.verify import verify
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.ir.text.source import with_carets
from aisc.ir.types import TensorType


@dataclass(slots=True)
class Model:
    """A captured function. inputs: paths of the arguments that are inputs of the graph, in order;
    result: what it returns, with :class:`Result` in the place of tensors; guards: what it has read
    of outside; sizes: names of those of its arguments."""

    graph: Graph
    inputs: tuple[str, ...]
    result: Any
    guards: tuple[Guard, ...] = ()
    sizes: tuple[str, ...] = ()


def graph_of(
    function: Captured, arguments: Mapping[str, Any], shapes: Mapping[str, Extent] | None = None
) -> Model:
    """The verified graph of a function. arguments: a tree for each parameter, with
    :class:`Argument` in the place of arrays and numbers. Raises ``CompileError`` E108 for unknown
    names, E111 for Python that is not captured, E112 and E2xx for what does not fit, with the place
    in the file; :class:`Known` where a number must be known."""
    implied: dict[str, int] = {}
    while True:
        try:
            return _Building(function, shapes or {}, implied).model(arguments)
        except BoundNeeded as fault:  # each round bounds one more size, or one more tightly
            if implied.get(fault.symbol, fault.upper + 1) <= fault.upper:
                raise with_carets(CompileError(fault.diagnostics)) from None
            implied[fault.symbol] = fault.upper
        except CompileError as fault:
            raise with_carets(CompileError(fault.diagnostics)) from None
        except RecursionError:
            raise error("E111", "the function is nested too deeply", loc=function.loc) from None


class _Building:
    """One try to build the graph, with what is implied about sizes so far."""

    def __init__(
        self, function: Captured, shapes: Mapping[str, Extent], implied: Mapping[str, int]
    ) -> None:
        self.function, self.shapes, self.implied = function, shapes, implied
        self.dims: dict[str, Dim] = {}
        self.inputs: list[Value] = []
        self.paths: list[str] = []
        name = function.name if function.name.isidentifier() else "function"
        self.frame = Frame(Emitter(GraphBuilder(name)))
        self.words = DimWords(origins=self.frame.em.names.origins)

    def model(self, arguments: Mapping[str, Any]) -> Model:
        """The function's graph."""
        definition = self.function.definition
        scope = scope_of(self.function)
        evaluator = Looper(self.frame, scope)
        evaluator.loc = self.function.loc
        evaluator.definition = definition
        evaluator.open = (self.function.function,)
        trees = {n: tree_map(x, self._leaf, n, unfold=True) for n, x in arguments.items()}
        self.frame.em.builder.inputs = self.inputs
        try:
            result = self._run(evaluator, definition, trees)
        except CompileError as fault:
            if isinstance(fault, BoundNeeded):
                raise
            raise CompileError([self.words.tell(d, ()) for d in fault.diagnostics]) from None
        outputs: list[Value] = []
        shape = tree_map(result, lambda x, _: self._output(evaluator, x, outputs), "", unfold=True)
        if not outputs:
            raise refused(
                f"'{self.function.name}' returns nothing that the run computes",
                "return an array or a number",
                loc=self.function.loc,
            )
        outputs = self._tested(outputs)
        graph = eliminate_dead(
            self.frame.em.builder.finish(outputs, [f"output{k}" for k in range(len(outputs))])
        )
        verify(graph)
        return Model(
            graph, tuple(self.paths), shape, tuple(evaluator.guards.values()), tuple(self.dims)
        )

    def _run(
        self, e: Looper, definition: ast.FunctionDef | ast.Lambda, trees: Mapping[str, Any]
    ) -> Any:
        names = [p.arg for p in (*definition.args.posonlyargs, *definition.args.args)]
        first = dict(zip(names, self.function.first, strict=False))
        local = Local(
            self.function.name,
            definition,
            self.function.text,
            None,
            self.function.function.__defaults__ or (),
            self.function.function.__kwdefaults__ or {},
        )
        e.state.names = e.bound(local, [], {**first, **trees})
        try:
            found = e.body(definition)
        except Ends:
            found = None
        if e.state.may == {RAISE}:
            raise refused("every call of this function ends with an error", loc=self.function.loc)
        return found

    def _leaf(self, x: Any, path: str) -> Any:
        """An argument as a tensor of the graph."""
        if not isinstance(x, Argument):
            return x
        shape = tuple(self._dim(d, f"{path}_{k}") for k, d in enumerate(x.dims))
        value = Value(self.frame.em.builder.fresh(path), TensorType(shape, x.dtype))
        self.inputs.append(value)
        self.paths.append(path)
        frozen = "" if x.weak else "it is the caller's"
        return Tensor(value, self.frame, x.weak, path if x.weak else "", frozen)

    def _dim(self, d: Dim | str | None, otherwise: str) -> Dim:
        if d is not None and not isinstance(d, str):
            return d
        name = d or otherwise
        if name not in self.dims:
            self.frame.em.names.taken.add(name)
            self.words.spelled[name] = name
            low, high = 0, self.implied.get(name)
            extent = self.shapes.get(name)
            if isinstance(extent, int):
                self.dims[name] = extent
                return extent
            if extent is not None:
                low, high = extent[0], extent[1] if high is None else min(high, extent[1])
            self.dims[name] = symbol(name, low, high)
        return self.dims[name]

    def _output(self, e: Looper, x: Any, outputs: list[Value]) -> Any:
        """A part of the result: what only the run knows is one of the graph's."""
        if isinstance(x, Tensor) or (is_size(x) and not isinstance(x, int)):
            e.loc = self.function.loc
            t = e.tensor(x)
            outputs.append(e.read(t))
            return Result(len(outputs) - 1, t.weak)
        if isinstance(x, Local):
            raise refused("a function cannot be returned", loc=self.function.loc)
        return x

    def _tested(self, outputs: list[Value]) -> list[Value]:
        """The results of runs in which the assertions hold."""
        em, found = self.frame.em, list(outputs)
        for flag, message, loc in self.frame.tests:
            found[0] = em.builder.add("expect", (found[0], flag), {"message": message}, loc=loc)
        return found


# --- types that are written -----------------------------------------------------------------------
_TYPE = re.compile(r"\s*(\w+)\s*(?:\[([^\]]*)\])?\s*\Z")


def argument_of(text: str) -> Argument | None:
    """The argument that an annotation names: ``f32[n, 3]``; nothing where it is none."""
    found = _TYPE.match(text)
    known = {t.name: t for t in dtypes.ALL}
    if found is None or found[1] not in known:
        return {
            "int": Argument(dtypes.i64, (), True),
            "float": Argument(dtypes.f64, (), True),
            "bool": Argument(dtypes.boolean, (), True),
        }.get(text.strip())
    parts = [p.strip() for p in (found[2] or "").split(",") if p.strip()]
    dims = tuple(int(p) if p.isdigit() else p for p in parts)
    return Argument(known[found[1]], dims)


def annotated(function: Captured) -> dict[str, Argument]:
    """The arguments of a function by its annotations; E106 where one says no type."""
    a = function.definition.args
    found: dict[str, Argument] = {}
    plain = [*a.posonlyargs, *a.args][len(function.first) :]
    optional = len(function.function.__defaults__ or ())
    needed: Sequence[ast.arg] = plain[: len(plain) - optional] if optional else plain
    for p in (*plain, *a.kwonlyargs):
        given = None if p.annotation is None else _annotation(p.annotation)
        if given is not None:
            found[p.arg] = given
        elif p in needed:
            hint = f'write its type: {p.arg}: "f32[n, 3]", int or float'
            raise with_carets(
                error(
                    "E106",
                    f"the argument '{p.arg}' of '{function.name}' has no type",
                    hint,
                    loc=function.text.loc(p),
                ),
            )
    return found


def _annotation(node: ast.expr) -> Argument | None:
    text = node.value if isinstance(node, ast.Constant) else ast.unparse(node)
    return argument_of(str(text))

"""Tensor statements compiled to Python closures.

Parallel loops run all their iterations, so a barrier between them does nothing. With
``nthreads > 1`` the iterations of the threads' chunks are interleaved: one of the orders that
SPMD execution may take, which shows dependences that a parallel loop must not have. Threads of a
hardware block are in :mod:`aisc.ir.tensor.interpret_threads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from aisc.ir.arith.poly import symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.node import walk
from aisc.ir.tensor import interpret_entry
from aisc.ir.tensor.expr import Const, Expr, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.interpret_empty import empty_reductions
from aisc.ir.tensor.interpret_expr import (
    Eval,
    Frame,
    Layout,
    Scope,
    compile_access,
    compile_expr,
    layout_of,
    out_of_bounds,
)
from aisc.ir.tensor.interpret_threads import Lockstep, holds_barrier, is_thread_loop
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
    Let,
    Prefetch,
    Region,
    Require,
    Reserve,
    Seq,
    Stmt,
    Store,
    While,
)
from aisc.ir.tensor.storage import Segments, Storage, allocate, as_array, copy_into, extent_of

Run = Callable[[Frame], None]
# (call, operands, dimensions of its attributes) -> results
HostFn = Callable[[HostCall, list[Any], Mapping[str, int]], list[Any]]


@dataclass(slots=True)
class Machine:
    """What functions may call while they run, and the cache of what was compiled.

    kernels, intrinsics: by name; the semantics of an intrinsic is a ``Func``.
    functions: scalar functions beyond ``MATH_CALLS``, by name.
    host: runs a graph operator on arrays, in entries.
    """

    kernels: Mapping[str, Func] = field(default_factory=dict)
    intrinsics: Mapping[str, Func] = field(default_factory=dict)
    functions: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    nthreads: int = 1
    host: HostFn | None = None
    compiled: dict[object, Compiled] = field(default_factory=dict)
    symbols: dict[int, tuple[Func, frozenset[str]]] = field(default_factory=dict)

    def function(
        self, func: Func, dims: Mapping[str, Any], layouts: Mapping[str, Layout]
    ) -> Compiled:
        """`func` compiled for the dimensions its buffers depend on."""
        if id(func) not in self.symbols:  # the function is kept, and with it its id
            self.symbols[id(func)] = (func, shape_symbols(func))
        names = self.symbols[id(func)][1]
        known = {k: v for k, v in dims.items() if k in names}
        key = (id(func), tuple(sorted(known.items())), tuple(sorted(layouts.items())))
        if key not in self.compiled:
            _check_operands(func, known, layouts)
            self.compiled[key] = Compiled(func, known, layouts, self)
        return self.compiled[key]


def buffers_of(func: Func) -> dict[str, Buffer]:
    """Parameters and allocated buffers by name."""
    found = {b.name: b for b in func.params}
    for node in walk(func.body):
        if isinstance(node, Alloc):
            found[node.buffer.name] = node.buffer
    return found


def shape_symbols(func: Func) -> frozenset[str]:
    """Names of the symbolic dimensions in shapes and strides of the function's buffers."""
    return frozenset(
        s.name
        for b in buffers_of(func).values()
        for d in b.shape + b.strides
        if not isinstance(d, int)
        for s in symbols(d)
    )


class Compiled:
    """A function as a closure: ``call(storages, dims)`` runs it once."""

    def __init__(
        self,
        func: Func,
        known: Mapping[str, int],
        layouts: Mapping[str, Layout],
        machine: Machine,
        segments: Segments | None = None,
    ) -> None:
        self.func = func  # keeps the id used as the cache key alive
        self.scope = Scope(known, layouts, machine.functions)
        self.params = [self.scope.buffer_slot(b) for b in func.params]
        self.dims = [self.scope.slot(v.name) for v in func.dims]
        self.run = StmtCompiler(self.scope, machine, segments).stmt(func.body)

    def call(self, storages: list[Storage], dims: list[Any]) -> Frame:
        """Run over flat storages of the parameters; the frame is returned."""
        frame: Frame = [None] * len(self.scope.slots)
        for slot, data in zip(self.params, storages, strict=True):
            frame[slot] = data
        for slot, value in zip(self.dims, dims, strict=True):
            frame[slot] = value
        self.run(frame)
        return frame

    def scalars(self, frame: Frame) -> dict[str, int]:
        """Integer variables as they were left in a frame."""
        slots = self.scope.slots.items()
        return {name: frame[i] for name, i in slots if isinstance(frame[i], int)}


def _nothing(f: Frame) -> None:
    return None


class StmtCompiler:
    """Compiles the statements of one function."""

    def __init__(self, scope: Scope, machine: Machine, segments: Segments | None) -> None:
        self.scope = scope
        self.machine = machine
        self.segments = segments
        self.placed: list[tuple[Buffer, Run]] = []  # allocations in scope, in segments

    def stmt(self, s: Stmt) -> Run:
        """The closure that executes `s`."""
        maker = _MAKERS.get(type(s))
        if maker is None:
            raise execution_error("E502", f"statement {type(s).__name__} cannot be interpreted")
        return maker(self, s)

    def expr(self, e: Expr) -> Eval:
        """The closure that evaluates `e`."""
        return compile_expr(e, self.scope)

    def seq(self, s: Seq) -> Run:
        """Statements in order."""
        outer = len(self.placed)
        items = [self.stmt(x) for x in s.stmts]
        del self.placed[outer:]
        if len(items) == 2:
            first, second = items

            def two(f: Frame) -> None:
                first(f)
                second(f)

            return two

        def run(f: Frame) -> None:
            for item in items:
                item(f)

        return items[0] if len(items) == 1 else run

    def loop(self, s: For) -> Run:
        """A loop of any kind, in order (a parallel one in the order of its threads)."""
        if is_thread_loop(s) and holds_barrier(s):
            return Lockstep(self).run(s)
        slot, turns, body = self.scope.slot(s.var.name), self.turns(s), self.stmt(s.body)
        start = None if isinstance(s.extent, Const) else empty_reductions(s)
        begin = _nothing if start is None else self.stmt(start)

        def run(f: Frame) -> None:
            found = turns(f)
            if not found:
                begin(f)
            for i in found:
                f[slot] = i
                body(f)

        return run

    def turns(self, s: For) -> Callable[[Frame], Any]:
        """The values of a loop's variable, in the order of execution."""
        if isinstance(s.low, Const) and isinstance(s.extent, Const):
            whole = range(int(s.low.value), int(s.low.value + s.extent.value))
            turns = interleave(whole, self.machine.nthreads) if s.kind == "parallel" else whole
            return lambda f: turns
        low, extent = self.expr(s.low), self.expr(s.extent)
        if s.kind == "parallel" and self.machine.nthreads > 1:
            n = self.machine.nthreads
            return lambda f: interleave(range(low(f), low(f) + extent(f)), n)

        def span(f: Frame) -> range:
            start = low(f)
            return range(start, start + extent(f))

        return span

    def loop_while(self, s: While) -> Run:
        """Repeat while the condition holds."""
        cond, body = self.expr(s.cond), self.stmt(s.body)

        def run(f: Frame) -> None:
            while cond(f):
                body(f)

        return run

    def block(self, s: Block) -> Run:
        """Bind the iterators, run `init` at the first reduce point, then the body."""
        if len(s.bindings) != len(s.iters):
            raise execution_error("E502", f"block '{s.name}' binds the wrong number of iterators")
        outer, self.scope.block = self.scope.block, s.name
        pairs = [
            (self.scope.slot(it.var.name), self.expr(e))
            for it, e in zip(s.iters, s.bindings, strict=True)
        ]
        init = None if s.init is None else self.stmt(s.init)
        body = self.stmt(s.body)
        self.scope.block = outer
        reduce_slots = [self.scope.slot(it.var.name) for it in s.iters if it.kind == "reduce"]

        def run(f: Frame) -> None:
            for slot, value in pairs:
                f[slot] = value(f)
            if init is not None:
                for slot in reduce_slots:
                    if f[slot]:
                        break
                else:
                    init(f)
            body(f)

        return run

    def store(self, s: Store) -> Run:
        """Assign one element."""
        at = compile_access(s.buffer, s.indices, self.scope)
        data, value = self.scope.buffer_slot(s.buffer), self.expr(s.value)

        def run(f: Frame) -> None:
            f[data][at(f)] = value(f)

        return run

    def branch(self, s: If) -> Run:
        """Conditional execution."""
        cond, then = self.expr(s.cond), self.stmt(s.then)
        other = _nothing if s.other is None else self.stmt(s.other)

        def run(f: Frame) -> None:
            if cond(f):
                then(f)
            else:
                other(f)

        return run

    def let(self, s: Let) -> Run:
        """Bind a scalar."""
        slot, value, body = self.scope.slot(s.var.name), self.expr(s.value), self.stmt(s.body)

        def run(f: Frame) -> None:
            f[slot] = value(f)
            body(f)

        return run

    def alloc(self, s: Alloc) -> Run:
        """Fresh, poisoned storage; in entries, a part of a segment or a weight's contents."""
        b, data = s.buffer, self.scope.buffer_slot(s.buffer)
        layout, segments = self.scope.layout(b), self.segments
        if segments is not None:
            found, offset = self._layout(b), self.expr(of_dim(b.offset))

            def place(f: Frame) -> None:
                f[data] = segments.place(b, found(f), offset(f))

            def move(f: Frame) -> None:
                f[data] = segments.moved(b, found(f), offset(f))

            self.placed.append((b, move))
            return place
        if layout is not None:
            count = extent_of(*layout)

            def run(f: Frame) -> None:
                f[data] = allocate(b.dtype, count)

            return run
        measure = self._layout(b)

        def run_dynamic(f: Frame) -> None:
            f[data] = allocate(b.dtype, extent_of(*measure(f)))

        return run_dynamic

    def _layout(self, b: Buffer) -> Callable[[Frame], Layout]:
        """Shape and strides of `b`; dynamic ones are evaluated and left in the frame."""
        static = self.scope.layout(b)
        if static is not None:
            return lambda f: static
        slot = self.scope.layout_slot(b)
        shape = [self.expr(of_dim(d)) for d in b.shape]
        strides = [self.expr(of_dim(d)) for d in b.strides]

        def measure(f: Frame) -> Layout:
            f[slot] = tuple(x(f) for x in shape), tuple(x(f) for x in strides)
            return f[slot]  # type: ignore[no-any-return]

        return measure

    def invoke(self, s: Invoke) -> Run:
        """Run an intrinsic's semantics over views of the operand regions."""
        func = self.machine.intrinsics.get(s.intrinsic)
        if func is None:
            raise execution_error("E502", f"unknown intrinsic '{s.intrinsic}'")
        if len(func.params) != len(s.operands) or len(func.dims) != len(s.args):
            raise execution_error("E502", f"wrong number of operands of '{s.intrinsic}'")
        views = [self._view(r, p) for r, p in zip(s.operands, func.params, strict=True)]
        args, machine = [self.expr(a) for a in s.args], self.machine

        def run(f: Frame) -> None:
            values = [a(f) for a in args]
            found = [v(f) for v in views]
            layouts = {p.name: v[1] for p, v in zip(func.params, found, strict=True)}
            dims = {v.name: x for v, x in zip(func.dims, values, strict=True)}
            machine.function(func, dims, layouts).call([v[0] for v in found], values)

        return run

    def _view(self, r: Region, param: Buffer) -> Callable[[Frame], tuple[Storage, Layout]]:
        """Storage from the region's first element on, and the layout the intrinsic sees."""
        low, extent = [self.expr(x) for x in r.low], [self.expr(x) for x in r.extent]
        data, layout = self.scope.buffer_slot(r.buffer), self._layout(r.buffer)
        block, steps, dims = self.scope.block, r.steps, r.dims_of(param.rank)
        if len(dims) != param.rank:
            raise _misfit(r, param)

        def view(f: Frame) -> tuple[Storage, Layout]:
            shape, strides = layout(f)
            lows, sizes = tuple(x(f) for x in low), tuple(x(f) for x in extent)
            ends = [a + (n - 1) * max(k, 1) for a, n, k in zip(lows, sizes, steps, strict=True)]
            for at, end, whole in zip(lows, ends, shape, strict=True):
                if 0 not in sizes and (at < 0 or end >= whole):
                    raise out_of_bounds(r.buffer, tuple(ends) if at >= 0 else lows, shape, block)
            flat = sum(a * s for a, s in zip(lows, strides, strict=True))
            sides = [
                (1, 0) if d is None else (sizes[d], strides[d] * max(steps[d], 1)) for d in dims
            ]
            return f[data][max(0, flat) :], (tuple(n for n, _ in sides), tuple(k for _, k in sides))

        return view

    def call_kernel(self, s: CallKernel) -> Run:
        """Call a kernel of the Program."""
        func = self.machine.kernels.get(s.kernel)
        if func is None:
            raise execution_error("E502", f"unknown kernel '{s.kernel}'")
        if len(func.params) != len(s.args) or len(func.dims) != len(s.dims):
            raise execution_error("E502", f"wrong number of arguments of kernel '{s.kernel}'")
        slots = [self.scope.buffer_slot(b) for b in s.args]
        layouts = [self._layout(b) for b in s.args]
        dims, machine = [self.expr(d) for d in s.dims], self.machine

        def run(f: Frame) -> None:
            values = [d(f) for d in dims]
            named = {v.name: x for v, x in zip(func.dims, values, strict=True)}
            compiled = machine.function(func, named, {})
            for param, arg, layout in zip(func.params, s.args, layouts, strict=True):
                _check_argument(compiled, param, arg, layout(f))
            compiled.call([f[slot] for slot in slots], values)

        return run

    def array(self, b: Buffer) -> Callable[[Frame], Any]:
        """A buffer's elements as an array."""
        data, layout = self.scope.buffer_slot(b), self._layout(b)
        return lambda f: as_array(f[data], b.dtype, layout(f))

    def copy(self, s: Copy) -> Run:
        """Copy a whole buffer."""
        src, dst = self.array(s.src), self.array(s.dst)
        return lambda f: copy_into(dst(f), src(f), s.dst.name)

    def barrier(self, s: Barrier) -> Run:
        """Nothing: what comes before has been completed."""
        return _nothing

    def handover(self, s: Handover) -> Run:
        """Nothing: units work one after another here."""
        return _nothing

    def wait(self, s: Await) -> Run:
        """Nothing: copies are made at once."""
        return _nothing

    def prefetch(self, s: Prefetch) -> Run:
        """Nothing: a hint has no meaning."""
        return _nothing


_MAKERS: dict[type, Callable[[StmtCompiler, Any], Run]] = {
    Seq: StmtCompiler.seq,
    For: StmtCompiler.loop,
    While: StmtCompiler.loop_while,
    Block: StmtCompiler.block,
    Store: StmtCompiler.store,
    If: StmtCompiler.branch,
    Let: StmtCompiler.let,
    Alloc: StmtCompiler.alloc,
    Invoke: StmtCompiler.invoke,
    CallKernel: StmtCompiler.call_kernel,
    HostCall: interpret_entry.host_call,
    Bind: interpret_entry.bind,
    Require: interpret_entry.require,
    Reserve: interpret_entry.reserve,
    Copy: StmtCompiler.copy,
    Barrier: StmtCompiler.barrier,
    Prefetch: StmtCompiler.prefetch,
    Handover: StmtCompiler.handover,
    Await: StmtCompiler.wait,
}


def interleave(turns: range, nthreads: int) -> range | list[int]:
    """Iterations of a parallel loop as `nthreads` threads may meet: first of each chunk, …"""
    if nthreads <= 1 or len(turns) <= 1:
        return turns
    chunk = -(-len(turns) // nthreads)
    return [i for step in range(chunk) for i in turns[step::chunk]]


def _misfit(r: Region, param: Buffer) -> ExecutionError:
    text = ", ".join(str(e.value) if isinstance(e, Const) else "…" for e in r.extent)
    return execution_error("E502", f"operand [{text}] does not fit {param.name}: {param.type}")


def _check_operands(func: Func, known: Mapping[str, int], layouts: Mapping[str, Layout]) -> None:
    """Operands of an intrinsic have the shapes of its semantics' parameters."""
    for param in func.params:
        if param.name in layouts:
            wanted, got = layout_of(param, known)[0], layouts[param.name][0]
            if wanted != got:
                text = f"operand {got} does not fit {param.name}: {param.type} of {func.name}"
                raise execution_error("E502", text)


def _check_argument(compiled: Compiled, param: Buffer, arg: Buffer, given: Layout) -> None:
    expected = compiled.scope.layout(param)
    if expected is None:
        raise execution_error("E502", f"the shape of {param.name} is not known at the call")
    strides_differ = any(
        d > 1 and s != t for d, s, t in zip(expected[0], expected[1], given[1], strict=False)
    )
    if expected[0] != given[0] or strides_differ or param.dtype is not arg.dtype:
        raise execution_error(
            "E502",
            f"argument {arg.name} does not fit parameter {param.name} of {compiled.func.name}",
            f"expected {param.dtype} {expected}, got {arg.dtype} {given}",
        )

"""Random small functions of integer loop nests, to be scheduled: maps, stencils, reductions,
recurrences, gathers, over constant and symbolic sizes."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, evaluate, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    Const,
    Expr,
    Load,
    Var,
    binary,
    cast,
    const,
    logical_and,
    of_dim,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Block, For, Iter, Stmt, Store
from aisc.ir.tensor.tree import with_regions

Array = np.ndarray
TYPES = (dtypes.i32, dtypes.i32, dtypes.i64, dtypes.i16)


@dataclass
class Case:
    """A function, the values of its dimensions, and its inputs by name."""

    func: Func
    dims: dict[str, int]
    inputs: dict[str, Array]

    def run(
        self, func: Func, packers: tuple[Func, ...] = (), nthreads: int = 1
    ) -> dict[str, Array]:
        """Outputs by name of a function with the same parameters."""
        arrays = dict(self.inputs)
        for packer in packers:
            source, out = packer.params
            arrays[out.name] = np.zeros(self.shape(out), out.dtype.numpy)
            run_func(packer, [arrays[source.name], arrays[out.name]], self.dims)
        for b in func.params:
            if b.role in ("output", "scratch"):
                arrays[b.name] = np.full(self.shape(b), 77, b.dtype.numpy)
        run_func(func, [arrays[b.name] for b in func.params], self.dims, nthreads)
        return {b.name: arrays[b.name] for b in func.params if b.role == "output"}

    def shape(self, b: Buffer) -> tuple[int, ...]:
        """Sizes of a buffer."""
        return tuple(evaluate(d, self.dims) for d in b.shape)


class Maker:
    """Builds one case from a source of chance."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.dtype: DType = rng.choice(TYPES)
        self.dims: dict[str, int] = {}
        self.sizes: list[Dim] = [rng.randint(1, 6) for _ in range(2)]
        if rng.random() < 0.4:
            self.dims["n"] = rng.choice([0, 1, 2, 3, 5, 6])
            self.sizes.append(symbol("n"))
        self.builder = ComputeBuilder()
        self.params: list[Buffer] = []
        self.values: list[Buffer] = []
        for k in range(rng.randint(1, 3)):
            role = "weight" if rng.random() < 0.3 else "input"
            b = buffer(f"x{k}", self.dtype, self.shape(rng.randint(1, 2)), role)  # type: ignore[arg-type]
            self.params.append(b)
            self.values.append(b)

    def shape(self, rank: int) -> tuple[Dim, ...]:
        """Some sizes of the case."""
        return tuple(self.rng.choice(self.sizes) for _ in range(rank))

    def result(self, shape: tuple[Dim, ...], last: bool, dtype: DType | None = None) -> Buffer:
        """A buffer to be written: an output or scratch memory."""
        if last or self.rng.random() < 0.25:
            out = buffer(f"y{len(self.params)}", dtype or self.dtype, shape, "output")
            self.params.append(out)
            return out
        return self.builder.alloc("t", dtype or self.dtype, shape)

    def pick(self, rank: int | None = None) -> Buffer | None:
        """A recent buffer of the type of the case."""
        found = [b for b in self.values if rank in (None, b.rank) and b.dtype is self.dtype]
        return self.rng.choice(found[-3:]) if found else None

    def read(self, at: tuple[tuple[Expr, Dim], ...]) -> Expr:
        """Some value at iterators with extents: same place, shifted, transposed, broadcast."""
        source = self.pick()
        if source is None:
            return const(self.rng.randint(-3, 3), self.dtype)
        indices: list[Expr] = []
        conds: list[Expr] = []
        for size in source.shape:
            fits = [(i, d) for i, d in at if d == size]
            if not fits:
                indices.append(Const(0))
                conds.append(binary("lt", Const(0), of_dim(size)))
                continue
            i, _ = self.rng.choice(fits)
            shift = self.rng.choice([0, 0, 0, -1, 1])
            if shift:
                i = i + shift
                conds += [binary("ge", i, Const(0)), binary("lt", i, of_dim(size))]
            indices.append(i)
        load: Expr = Load(source, tuple(indices))
        cond = logical_and(*(c for c in conds if not isinstance(c, Const)))
        if isinstance(cond, Const):
            return load
        return select(cond, load, const(self.rng.randint(-2, 2), self.dtype))

    def value(self, at: tuple[tuple[Expr, Dim], ...]) -> Expr:
        """An expression of one to three reads."""
        e = self.read(at)
        for _ in range(self.rng.randint(0, 2)):
            e = binary(self.rng.choice(["add", "sub", "mul", "min", "max"]), e, self.read(at))
        return e

    # -- blocks ------------------------------------------------------------------------------

    def map(self, last: bool) -> None:
        """``y[i] = f(i)``."""
        out = self.result(self.shape(self.rng.randint(1, 2)), last)
        self.builder.map(out, lambda *i: self.value(tuple(zip(i, out.shape, strict=True))), "map")
        self.values.append(out)

    def reduce(self, last: bool) -> None:
        """``y[i] = sum over r of f(i, r)``, or another combiner."""
        out = self.result(self.shape(self.rng.randint(0, 2)), last)
        extents = self.shape(self.rng.randint(1, 2))
        name = self.rng.choice(["sum", "sum", "max", "min", "prod"])

        def term(i: object, r: object) -> Expr:
            pairs = (*zip(i, out.shape, strict=True), *zip(r, extents, strict=True))  # type: ignore[call-overload]
            return self.value(pairs)

        self.builder.reduce(out, extents, name, term, "red")
        self.values.append(out)

    def argmax(self, last: bool) -> None:
        """The best value and its place, in one reduction."""
        shape, extents = self.shape(1), self.shape(1)
        best = self.result(shape, False)
        place = self.result(shape, last, dtypes.i64)

        def term(i: object, r: object) -> tuple[Expr, ...]:
            pairs = (*zip(i, shape, strict=True), *zip(r, extents, strict=True))  # type: ignore[call-overload]
            return self.value(pairs), r[0]  # type: ignore[index]

        self.builder.reduce(
            (best, place), extents, self.rng.choice(["argmax", "argmin"]), term, "arg"
        )
        self.values.append(best)

    def scan(self, last: bool) -> None:
        """``y[i] = y[i-1] + f(i)``, in order."""
        shape = self.shape(1)
        out = self.result(shape, last)
        block, i = self.builder.fresh("scan"), Var(self.builder.fresh("scan_i"))
        v = Var(self.builder.fresh("scan_v"))
        before = select(binary("ge", v, Const(1)), Load(out, (v - 1,)), const(0, self.dtype))
        value = binary("add", before, self.value(((v, shape[0]),)))
        b = Block(
            block,
            (Iter(v, of_dim(shape[0]), "ordered"),),
            (i,),
            (),
            (),
            None,
            Store(out, (v,), value),
        )
        self.builder.stmts.append(For(i, Const(0), of_dim(shape[0]), "serial", with_regions(b)))
        self.values.append(out)

    def update(self, last: bool) -> None:
        """``t[i] = t[i] + f(i)`` in place."""
        found = [
            b for b in self.values if b.role in ("scratch", "output") and b.dtype is self.dtype
        ]
        if not found:
            return self.map(last)
        out = self.rng.choice(found)
        block = self.builder.fresh("upd")
        vs = [Var(self.builder.fresh("upd_v")) for _ in out.shape]
        loops = [Var(self.builder.fresh("upd_i")) for _ in out.shape]
        held, self.values = self.values, [b for b in self.values if b is not out]
        value = binary(
            "add", Load(out, tuple(vs)), self.value(tuple(zip(vs, out.shape, strict=True)))
        )
        self.values = held
        iters = tuple(Iter(v, of_dim(d), "spatial") for v, d in zip(vs, out.shape, strict=True))
        nest: Stmt = with_regions(
            Block(block, iters, tuple(loops), (), (), None, Store(out, tuple(vs), value))
        )
        for var, it in zip(reversed(loops), reversed(iters), strict=True):
            nest = For(var, Const(0), it.extent, "serial", nest)
        self.builder.stmts.append(nest)
        return None

    def gather(self, last: bool) -> None:
        """``y[i] = x[|t[i]| mod N]``."""
        source, places = self.pick(1), self.pick(1)
        if source is None or places is None or not isinstance(source.shape[0], int):
            return self.map(last)
        out = self.result(places.shape, last)
        size = source.shape[0]
        self.builder.map(
            out,
            lambda i: Load(source, (binary("mod", cast(Load(places, (i,)), dtypes.i64), size),)),
            "gather",
        )
        self.values.append(out)
        return None

    def case(self) -> Case:
        """A function of a few blocks."""
        kinds: list[Callable[[bool], None]] = [
            self.map, self.map, self.reduce, self.reduce, self.argmax, self.scan, self.update,
            self.gather,
        ]  # fmt: skip
        count = self.rng.randint(1, 4)
        for k in range(count):
            self.rng.choice(kinds)(k == count - 1)
        dims = tuple(Var(n) for n in self.dims)
        func = self.builder.func("f", self.params, dims)
        case = Case(func, self.dims, {})
        seed = np.random.default_rng(self.rng.randrange(1 << 30))
        for b in self.params:
            if b.role != "output":
                case.inputs[b.name] = seed.integers(-9, 9, case.shape(b)).astype(b.dtype.numpy)
        return case


def make(seed: int) -> tuple[Case, random.Random]:
    """A case, and the source of chance for what is done with it."""
    rng = random.Random(seed)
    return Maker(rng).case(), rng

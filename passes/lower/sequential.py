"""A loop over numbers as one function: its state in registers, its arrays written where they lie.

before: ``%s, %y = loop(%s0, %y0, %x) { %v = gather(%x, %k) … %y2 = scatter_nd(%y, %k, %v) … }``
after:  ``func k(s0, y0, x, s, y) { y = y0; r = s0; while … { r = …; y[k] = … }; s = r }``

Every value of one element is a register. Larger ones are only looked at: a slice, a row or another
shape of an array is the rule that says where its elements lie. An array that a loop carries has one
storage, of which each turn writes elements; so what is read of it must be read before it is written
again, which is checked here: a loop of which that does not hold, or that computes arrays, is
:class:`NotSequential`.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, sole_symbol
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.names import identifier
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    TRUE,
    ZERO,
    Expr,
    Load,
    Var,
    binary,
    logical_and,
    of_dim,
)
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import For, If, Let, Stmt, Store, While, seq
from aisc.passes.lower.elements import (
    Elements,
    Item,
    NotSequential,
    Places,
    Storage,
    Values,
    broadcast,
    whole,
)
from aisc.passes.lower.looking import RULES


class Sequential(Values):
    """Writes the statements of loops and of the nodes in them."""

    # --- nodes --------------------------------------------------------------------------------
    def node(self, node: GraphNode) -> None:
        """One node."""
        definition = opdef.get(node.op)
        rule = RULES.get(node.op)
        if node.op in ("if", "loop"):
            (self.branch if node.op == "if" else self.loop)(node)
            return
        if rule is not None:
            found = rule(self, node)
        elif definition.scalar is not None:
            found = self._map(node)
        else:
            raise NotSequential(f"{node.op} computes more than a number")
        v = node.output
        if isinstance(found, Elements) and v.type.size == 1:
            found = self.element(found, (ZERO,) * len(found.shape))
        self.items[v] = (
            found if isinstance(found, Elements) else self.keep(identifier(v.name), found)
        )

    def _map(self, node: GraphNode) -> Item:
        scalar, call = opdef.get(node.op).scalar, opdef.call_of(node)
        assert scalar is not None, "an elementwise operator"
        parts = [self.elements(v) for v in node.input_values]
        out = node.output.type.shape

        def at(places: Places) -> Expr:
            found = [p.at(broadcast(p.shape, places, out)) for p in parts]
            return scalar(call, found)

        if node.output.type.size == 1:
            return scalar(call, [self.number(v) for v in node.input_values])
        return Elements(out, at, tuple(s for p in parts for s in p.storage))

    # --- branches -----------------------------------------------------------------------------
    def branch(self, node: GraphNode) -> None:
        """``if`` with the results of its arms in registers."""
        cond, *captures = node.input_values
        if node.attr_map.get("binds"):
            raise NotSequential("a branch decides about sizes")
        test = self.keep("test", self.number(cond))
        slots = [
            self.slot(identifier(v.name), v.type.dtype) if v.type.size == 1 else None
            for v in node.outputs
        ]
        arms, found = [], []
        versions = self._versions()
        peaks = dict(versions)
        for region in node.regions:
            for storage, version in versions.items():
                storage.version = version
            with self.block() as body:
                self.region(region, [self.items[v] for v in captures])
                found.append(
                    [
                        None if s else self.elements(v)
                        for s, v in zip(slots, region.outputs, strict=True)
                    ]
                )
                for place, v in zip(slots, region.outputs, strict=True):
                    if place is not None:
                        self.body.append(Store(place, (), self.number(v)))
                self._require_current(found[-1])
            arms.append(seq(*body))
            peaks = {t: max(t.version, p) for t, p in peaks.items()}
        self.body.append(If(test, arms[0], arms[1]))
        for storage, peak in peaks.items():  # whichever way was taken
            storage.version = peak + 1 if peak > versions[storage] else peak
        for k, (v, place) in enumerate(zip(node.outputs, slots, strict=True)):
            self.items[v] = (
                Load(place, ()) if place is not None else self._joined(found[0][k], found[1][k])
            )

    def _versions(self) -> dict[Storage, int]:
        found: dict[Storage, int] = {}
        for item in self.items.values():
            if isinstance(item, Elements):
                found.update({s: s.version for s, _ in item.storage})
        return found

    @staticmethod
    def _require_current(items: Sequence[Elements | None]) -> None:
        for item in items:
            if item is not None and not (
                item.whole and item.storage[0][0].version == item.storage[0][1]
            ):
                raise NotSequential("a branch gives an array that is not carried")

    @staticmethod
    def _joined(a: Elements | None, b: Elements | None) -> Elements:
        if a is None or b is None or a.storage[0][0] is not b.storage[0][0]:
            raise NotSequential("a branch chooses between arrays")
        return whole(a.storage[0][0])

    def region(self, region: Graph, given: Sequence[Item]) -> None:
        """The nodes of a region over values from outside."""
        self.items.update(zip(region.inputs, given, strict=True))
        for node in region.nodes:
            self.node(node)

    # --- loops --------------------------------------------------------------------------------
    def loop(self, node: GraphNode, outputs: Sequence[Buffer] = ()) -> None:
        """``loop``: the outermost one, of which `outputs` are the results, copies its arrays
        once."""
        call = opdef.call_of(node)
        limit, cond, *values = node.inputs
        (body,), count = node.regions, int(call.attrs["carried"])
        if len(node.outputs) != count or call.attrs["carried_dims"]:
            raise NotSequential("the loop collects values, or sizes change")
        conditional = bool(call.attrs["conditional"])
        given = [v for v in values if v is not None]
        nexts = body.outputs[conditional : conditional + count]
        slots = [
            self._started(v, inner, nxt, k, outputs)
            for k, (v, inner, nxt) in enumerate(zip(given, body.inputs, nexts, strict=False))
        ]
        captures = [self.items[v] for v in given[count:]]
        turn = self.slot("turn", dtypes.i64)
        go = self.slot("go", dtypes.boolean) if cond is not None or conditional else None
        self.body.append(Store(turn, (), ZERO))
        if go is not None:
            self.body.append(Store(go, (), TRUE if cond is None else self.number(cond)))
        test = self._test(call.attrs["trip"], limit, turn, go)
        with self.block() as inside:
            entered = self._versions()
            carried = [Load(s, ()) if isinstance(s, Buffer) else s for s in slots]
            self.region(body, [*carried, *captures])
            self._finish_turn(body, nexts, slots, conditional, go)
            self.body.append(Store(turn, (), Load(turn, ()) + 1))
            self._require_unwritten(entered, slots, captures)
        at = _index_of(call.attrs["index"])
        stmt: Stmt = seq(*inside)
        if at is not None:
            stmt = Let(at, Load(turn, ()), stmt)
        self.body.append(While(test, stmt))
        for v, s in zip(node.outputs, slots, strict=True):
            self.items[v] = (
                Load(s, ()) if isinstance(s, Buffer) else whole(s.storage[0][0]) if s.whole else s
            )

    def _started(
        self, v: Value, inner: Value, nxt: Value, k: int, outputs: Sequence[Buffer]
    ) -> Buffer | Elements:
        """Where a carried value is: a register, or the storage of an array."""
        if v.type.size == 1:
            place = self.slot(identifier(inner.name), v.type.dtype)
            self.body.append(Store(place, (), self.number(v)))
            return place
        item = self.elements(v)
        if nxt is inner:
            return item
        if item.whole:
            self.element(item, (ZERO,) * len(item.shape))  # it is as it was
            return item
        if not outputs:
            raise NotSequential("an inner loop writes an array of its own")
        out = outputs[k]
        stmt = _copied(self.cb, out, item)
        self.body.append(stmt)
        return whole(Storage(out))

    def _test(
        self, trip: tuple[Dim, ...], limit: Value | None, turn: Buffer, go: Buffer | None
    ) -> Expr:
        test: Expr = TRUE
        if trip:
            test = binary("lt", Load(turn, ()), of_dim(trip[0]))
        elif limit is not None:
            test = binary("lt", Load(turn, ()), self.keep("limit", self.number(limit)))
        return test if go is None else logical_and(Load(go, ()), test)

    def _finish_turn(
        self,
        body: Graph,
        nexts: Sequence[Value],
        slots: Sequence[Buffer | Elements],
        conditional: bool,
        go: Buffer | None,
    ) -> None:
        """Put the next values where the next turn looks for them, all after all are known."""
        moved: list[tuple[Buffer, Expr]] = []
        for v, s in zip(nexts, slots, strict=True):
            if isinstance(s, Buffer):
                moved.append((s, self.keep("next", self.number(v))))
            elif v not in body.inputs:
                item = self.elements(v)
                self._require_current([item])
                if item.storage[0][0] is not s.storage[0][0]:
                    raise NotSequential("a loop exchanges its arrays")
        if conditional and go is not None:
            moved.append((go, self.number(body.outputs[0])))
        changing = {s for s, _ in moved}
        late = [
            (s, self.keep("next", e) if isinstance(e, Load) and e.buffer in changing else e)
            for s, e in moved
        ]
        self.body += [Store(s, (), e) for s, e in late]

    @staticmethod
    def _require_unwritten(
        entered: dict[Storage, int], slots: Sequence[Buffer | Elements], captures: Sequence[Item]
    ) -> None:
        """A turn may write only what the loop carries, and nothing that it reads as it was
        before."""
        own = {s.storage[0][0] for s in slots if isinstance(s, Elements) and s.whole}
        written = {s for s, version in entered.items() if s.version != version}
        if written - own:
            raise NotSequential("a loop writes an array that it does not carry")
        if any(t in written for c in captures if isinstance(c, Elements) for t, _ in c.storage):
            raise NotSequential("a loop reads an array as it was before it")


def _copied(cb: ComputeBuilder, out: Buffer, of: Elements) -> Stmt:
    """``out = of``, element by element."""
    loops = tuple(Var(cb.fresh("c")) for _ in out.shape)
    stmt: Stmt = Store(out, loops, of.at(loops))
    for var, d in zip(reversed(loops), reversed(out.shape), strict=True):
        stmt = For(var, ZERO, of_dim(d), "serial", stmt)
    return stmt


def _index_of(dims: tuple[Dim, ...]) -> Var | None:
    found = sole_symbol(dims[0]) if dims else None
    return None if found is None else Var(found.name)


def lower_sequential(
    cb: ComputeBuilder, node: GraphNode, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    """The statements of a loop between buffers; :class:`NotSequential` where it is none."""
    s = Sequential(cb)
    for v, b in zip(node.inputs, ins, strict=True):
        if v is not None and b is not None:
            s.items[v] = Load(b, (ZERO,) * b.rank) if v.type.size == 1 else _read_only(b)
    s.loop(node, outs)
    for v, out in zip(node.outputs, outs, strict=True):
        item = s.items[v]
        if not isinstance(item, Elements):
            s.body.append(Store(out, (ZERO,) * out.rank, item))
        elif not (item.whole and item.storage[0][0].buffer is out):
            s.body.append(_copied(cb, out, item))
    cb.stmts += s.body


def _read_only(b: Buffer) -> Elements:
    return Elements(b.shape, lambda at: Load(b, at))

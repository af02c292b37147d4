"""Branches and loops of the run as ``if``, ``while`` and ``scan``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from aisc.frontend.lang.printing.attributes import bound, dims, whole
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.forms import Form, Text
from aisc.frontend.lang.printing.function import Alias, Line
from aisc.frontend.lang.printing.names import hint_of
from aisc.ir.arith.poly import sole_symbol
from aisc.ir.graph.core import GraphNode, Value


def _child(body: Body, region: int) -> Body:
    """A body for a region of the node at hand."""
    exact = body.fn.module.exact
    parts = [part[body.place].regions[region].nodes for part in body.aligned]
    kept = [tuple(n for n in nodes if exact or n.op != "constant") for nodes in parts]
    outputs = body.nodes[body.place].regions[region].outputs
    return Body(body.fn, kept, outputs, body.write)


def _sink(inner: Body, v: Value) -> str:
    """What is written for a value that leaves a region, after everything before it."""
    for k, w in enumerate(inner.waiting):
        if w.value is v and not w.literal and inner.uses[v] == 1:
            inner.flush(k)
            return inner.waiting.pop(0).text.text
    return inner.expression(Form((v,), lambda t: t[0])).text


# -- branches ------------------------------------------------------------------------------------
def write_if(body: Body, node: GraphNode) -> None:
    """``if cond { … } else { … }``, whose arms assign the results."""
    cond, *captures = node.input_values
    for v in captures:
        body.named(v)
    head = body.expression(Form((cond,), lambda t: t[0])).text
    body.flush()
    names = [body.wanted.get(v, "") for v in node.outputs]
    names = [
        n if n and n not in body.fn.texts.values() else body.fn.names.fresh(hint_of(v, "chosen"))
        for n, v in zip(names, node.outputs, strict=True)
    ]
    lines: list[Line] = [f"if {head} {{"]
    for k, region in enumerate(node.regions):
        inner = _child(body, k)
        given = [body.fn.texts[v] for v in captures]
        body.fn.texts.update(zip(region.inputs, given, strict=True))
        body.write(inner)
        for v, name in zip(region.outputs, names, strict=True):
            value = _sink(inner, v)
            inner.lines.append(f"{name} = {value}")
        lines += [*inner.lines, "}" if k else "} else {"]
    body.lines += lines
    for v, name in zip(node.outputs, names, strict=True):
        _rename(body, v, name)
    body.define_sizes(node)


def _rename(body: Body, v: Value, name: str) -> None:
    """A result has the name of a variable; one that must have its own gets it."""
    body.fn.texts[v] = name
    wanted = body.wanted.get(v)
    if wanted is not None and wanted != name:
        body.lines.append(f"{wanted} = {name}")
        body.fn.texts[v] = wanted


def prefer(body: Body) -> None:
    """What starts as a variable of a loop has the name that it must have in the end."""
    for place, node in reversed(list(enumerate(body.nodes))):
        if node.op != "loop":
            continue
        count = whole(node, "carried")
        starts = node.inputs[2 : 2 + count]
        for v, result in zip(starts, node.outputs, strict=False):
            once = v in body.makers and node.inputs.count(v) == 1 and body.last.get(v) == place
            if v is not None and once and result in body.wanted:
                body.wanted.setdefault(v, body.wanted[result])


def _write_readers(inner: Body, v: Value, name: str) -> None:
    """What waits and reads a variable is written before the variable changes."""
    reads = [
        k
        for k, w in enumerate(inner.waiting)
        if w.value is not v and re.search(rf"\b{name}\b", w.text.text)
    ]
    if reads:
        inner.flush(reads[-1] + 1)


# -- loops ---------------------------------------------------------------------------------------
def write_loop(body: Body, node: GraphNode) -> None:
    """``scan`` where turns are counted, else ``while``."""
    _Loop(body, node).write()


class _Loop:
    """One loop. `carried`: names of the variables that it changes."""

    def __init__(self, body: Body, node: GraphNode) -> None:
        self.body, self.node, self.fn = body, node, body.fn
        (self.region,) = node.regions
        count, conditional = whole(node, "carried"), bool(node.attr("conditional"))
        self.count = count
        self.limit, self.cond, *rest = (*node.inputs, None, None)[: max(2, len(node.inputs))]
        operands = [v for v in rest if v is not None]
        self.initial, self.captures = operands[:count], operands[count:]
        self.flag = self.region.outputs[0] if conditional else None
        outputs = self.region.outputs[int(conditional) :]
        self.nexts, self.stacked = outputs[:count], outputs[count:]
        self.own = self.region.inputs[:count]
        self.trip = next(iter(dims(node, "trip")), None)
        self.index = bound(node, "index")

    def write(self) -> None:
        """The loop, and names for what it gives."""
        body = self.body
        for v in self.captures:
            body.named(v)
        limit, cond = self._head()
        body.flush()
        carried = self._start()
        before = len(body.lines)
        inner = self._inside(carried)
        rows = _rows(inner, self) if self.trip is not None else {}
        body.write(inner)
        collected, again = self._leave(inner, carried)
        self._sugar(inner, cond, again)
        lines = [self._opening(limit, cond, again, rows), *inner.lines, "}"]
        body.lines[before:] = lines
        for v, name in zip(self.node.outputs, (*carried, *collected), strict=True):
            _rename(body, v, name)
        body.define_sizes(self.node)

    # -- before ------------------------------------------------------------------------------
    def _head(self) -> tuple[str, str]:
        """The greatest number of turns and the condition of the first, and what starts as a
        literal."""
        wanted = [v for v in (self.limit, self.cond) if v is not None]
        literals = self._literals()
        order = (*wanted, *(v for v in self.initial if v in literals))
        form = Form(order, lambda t: Text("\0".join(x.text for x in t)), ())
        self.literals: dict[Value, str] = {}
        texts: list[str] = []
        found = self._taken(form, literals)
        for v, text in zip(order, found, strict=True):
            if v in wanted:
                texts.append(text)
            else:
                self.literals[v] = text
        limit = texts.pop(0) if self.limit is not None else ""
        return limit, texts.pop(0) if texts else ""

    def _literals(self) -> Mapping[Value, Text]:
        """Values that start as literals: those that wait last, in order, and are of usual types."""
        body = self.body
        found: dict[Value, Text] = {}
        for v in self.initial:
            form = Form((v,), lambda t: t[0], (v,))
            text = body.literals(form).get(v)
            if text is not None and self.initial.count(v) == 1:
                found[v] = text
        return found

    def _taken(self, form: Form, literals: Mapping[Value, Text]) -> list[str]:
        """What is written for limit, condition and literals, as far as they wait in this order."""
        body = self.body
        waits = [w.value for w in body.waiting]
        known = {w.value for w in body.waiting if w.literal} - set(literals)
        wanted = [v for v in form.operands if v in waits and v not in known]
        while wanted and waits[-len(wanted) :] != wanted:
            wanted.pop(0)
        found: list[str] = []
        body.flush(len(waits) - len(wanted))
        for v in form.operands:
            if v in wanted:
                found.append(body.waiting.pop(0).text.text)
            elif v in literals and v not in body.fn.texts:
                found.append(literals[v].text)
            else:
                found.append(body.named(v))
        return found

    def _start(self) -> list[str]:
        """Names of the carried variables, which have their first values then."""
        body = self.body
        carried: list[str] = []
        for v, own in zip(self.initial, self.own, strict=True):
            if v not in self.literals and self._is_over(v) and body.named(v) not in carried:
                carried.append(body.fn.texts[v])
                continue
            name = self._wanted(own) or body.fn.names.fresh(hint_of(own, "state"))
            value = self.literals.get(v) or body.named(v)
            body.lines.append(f"{name} = {value}")
            carried.append(name)
        return carried

    def _wanted(self, own: Value) -> str:
        """The name that the last value of a variable must have, if nothing has it yet."""
        wanted = self.body.wanted.get(self.node.outputs[self.own.index(own)], "")
        return "" if wanted in self.fn.texts.values() else wanted

    def _is_over(self, v: Value) -> bool:
        """Whether nothing reads a value of this body but the loop, as its start."""
        body = self.body
        once = self.initial.count(v) == 1 and v not in self.captures
        return v in body.makers and once and body.last.get(v) == body.place

    # -- inside ------------------------------------------------------------------------------
    def _inside(self, carried: Sequence[str]) -> Body:
        fn = self.fn
        inner = _child(self.body, 0)
        given = [fn.texts[v] for v in self.captures]
        fn.texts.update(zip(self.region.inputs, (*carried, *given), strict=True))
        for s in self.index:
            fn.sizes.define(s)
        for s in bound(self.node, "carried_dims"):
            for v, name in zip(self.own, carried, strict=True):
                axes = [k for k, size in enumerate(v.type.shape) if sole_symbol(size) == s]
                if axes and s.name not in fn.sizes.texts:
                    fn.sizes.define(s)
                    inner.lines.append(Alias(s.name, f"{name}.shape[{axes[0]}]"))
        self._keep_old(inner, carried)
        inner.wanted.update(self._direct(inner, carried))
        return inner

    def _keep_old(self, inner: Body, carried: Sequence[str]) -> None:
        """A variable of a turn before, which is read after its change, gets another name."""
        for k, (v, name) in enumerate(zip(self.own, carried, strict=True)):
            after = [x for j, x in enumerate(self.nexts) if j != k]
            if v in after or v in self.stacked or v is self.flag:
                old = self.fn.names.fresh(f"last_{name}")
                inner.lines.append(f"{old} = {name}")
                self.fn.texts[v] = old

    def _direct(self, inner: Body, carried: Sequence[str]) -> dict[Value, str]:
        """Next values that have the names of their variables at once: nothing reads the old ones
        after that, and variables are changed in their order."""
        places = {v: k for k, n in enumerate(inner.nodes) for v in n.outputs}
        found: dict[Value, str] = {}
        last = -1
        for v, own, name in zip(self.nexts, self.own, carried, strict=True):
            place = places.get(v)
            fits = place is not None and self.nexts.count(v) == 1
            if place is not None and fits:
                fits = inner.last.get(own, -1) <= place and inner.nodes[place].op not in _APART
                fits = fits and len(inner.nodes[place].outputs) == 1
            if place is not None and self.fn.module.exact:
                fits = fits and place > last
            if not fits or place is None:
                if self.fn.module.exact:
                    break
                continue
            found[v], last = name, place
        return found

    def _leave(self, inner: Body, carried: Sequence[str]) -> tuple[list[str], str]:
        """What ends a turn: the changes of variables, what is collected, whether one follows."""
        for v, own, name in zip(self.nexts, self.own, carried, strict=True):
            if self.fn.texts.get(v) != name:
                _write_readers(inner, v, name)
            value = _sink(inner, v)
            if value != name or v is own:
                inner.lines.append(f"{name} = {value}")
        collected: list[str] = []
        for k, v in enumerate(self.stacked):
            result = self.node.outputs[self.count + k]
            value = _sink(inner, v)
            wanted = self.body.wanted.get(result, "")
            free = wanted and wanted not in self.fn.texts.values()
            name = wanted if free else self.fn.names.fresh(hint_of(result, "all"))
            collected.append(name)
            inner.lines.append(f"collect {collected[-1]} = {value}")
        again = _sink(inner, self.flag) if self.flag is not None else ""
        inner.flush()
        return collected, again

    def _sugar(self, inner: Body, cond: str, again: str) -> None:
        """Say whether another turn follows, unless the head does."""
        self.in_head = bool(again) and cond == again
        if again and not self.in_head:
            inner.lines.append(f"again {again}")
        elif self.cond is not None and not again:
            inner.lines.append("again true")

    def _opening(self, limit: str, cond: str, again: str, rows: Mapping[str, str]) -> str:
        """The head, once it is known whether the number of the turn is used."""
        sizes = self.fn.sizes
        over = [f"{name} in {x}" for name, x in rows.items()]
        counts = [sizes.texts[s.name] for s in self.index if s.name in sizes.used]
        end = limit if self.limit is not None else ""
        end = sizes.text(self.trip, 5) if self.trip is not None else end
        if (self.trip is not None or self.limit is not None) and not counts and not over:
            counts = [sizes.texts[s.name] for s in self.index]
        over += [f"{t} in 0..{end}" for t in counts]
        if over:
            return f"scan {', '.join(over)}{f' while {cond}' if cond else ''} {{"
        return f"while {cond or 'true'} {{"


_APART = frozenset({"constant"})


def _rows(inner: Body, loop: _Loop) -> dict[str, str]:
    """Places of first axes with which a turn begins: their names, and what they are of. The nodes
    that take them are left out."""
    rows: dict[str, str] = {}
    names = dict(zip(loop.region.inputs[loop.count :], loop.captures, strict=True))
    while len(inner.nodes) >= 2 and len(inner.aligned) == 1:
        cut, made = inner.nodes[:2]
        if not _is_row(cut, made, loop) or inner.uses[cut.outputs[0]] != 1:
            break
        (x,) = cut.input_values
        if x not in names:
            break
        row = inner.fn.names.fresh(f"{hint_of(x)}_t")
        rows[row] = inner.fn.texts[x]
        inner.fn.texts[made.output] = row
        kept = inner.nodes[2:]
        fresh = Body(inner.fn, [kept], inner.outputs, inner.write)
        inner.nodes, inner.aligned = kept, [kept]
        inner.uses, inner.last, inner.makers = fresh.uses, fresh.last, fresh.makers
    return rows


def _is_row(cut: GraphNode, made: GraphNode, loop: _Loop) -> bool:
    """Whether two nodes take the place of a turn from a first axis that has one for each."""
    if (cut.op, made.op) != ("slice", "reshape") or made.input_values != cut.outputs:
        return False
    shape = cut.input_values[0].type.shape
    starts, ends, steps = (dims(cut, name) for name in ("starts", "ends", "steps"))
    if not shape or shape[0] != loop.trip or made.output.type.shape != shape[1:]:
        return False
    turn = [sole_symbol(starts[0])] == loop.index and ends[0] == starts[0] + 1
    whole = (*starts[1:],) == (0,) * (len(shape) - 1) and (*ends[1:],) == shape[1:]
    return turn and whole and set(steps) == {1}

"""The statements of a layer, model or region.

Nodes become expressions; one whose value is read once waits until what reads it comes, and is
written inside of it, if the text evaluates in the order of the graph and the line stays readable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from aisc.frontend.lang.printing import literals
from aisc.frontend.lang.printing.attributes import bound, dims
from aisc.frontend.lang.printing.forms import Form, Text, form_of
from aisc.frontend.lang.printing.function import Alias, Function, Line
from aisc.frontend.lang.printing.names import hint_of
from aisc.ir.arith.poly import sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import GraphNode, Value, defined_symbols

MAX_LINE = 90  # characters of a statement that holds expressions in each other
MAX_WEIGHT = 8  # operators of one
SIZES = "sizes"


@dataclass(slots=True)
class Waiting:
    """A value that is not written yet. `literal`: it is evaluated last, with the operator that
    takes it."""

    value: Value
    text: Text
    literal: bool = False


class Body:
    """Writes nodes into `lines`. `aligned`: the nodes, and their fellows in each part of the graph
    that the function stands for; `write`: what writes all nodes of a body, such as one inside."""

    def __init__(
        self,
        fn: Function,
        aligned: Sequence[Sequence[GraphNode]],
        outputs: Sequence[Value],
        write: Callable[[Body], None],
    ) -> None:
        self.fn, self.aligned, self.outputs, self.write = fn, aligned, outputs, write
        self.nodes = aligned[0]
        self.wanted: dict[Value, str] = {}  # names that values must have
        self.must_name: set[Value] = set()
        self.lines: list[Line] = []
        self.waiting: list[Waiting] = []
        self.place = 0
        reads = [v for n in self.nodes for v in n.input_values]
        self.uses = Counter((*reads, *outputs))
        self.last = {v: k for k, n in enumerate(self.nodes) for v in n.input_values}
        self.last.update(dict.fromkeys(outputs, len(self.nodes)))
        self.makers = {v: n.op for n in self.nodes for v in n.outputs}

    # -- nodes -------------------------------------------------------------------------------
    def operator(self, node: GraphNode) -> None:
        """One operator: it waits, or is written."""
        if self._is_size(node):
            self._size(node)
            return
        form = self._picked(node) or form_of(node, self.fn.sizes, self.fn.module.exact)
        text = self.expression(form)
        if len(node.outputs) == 1:
            self.let(node.output, text)
        else:
            self.flush()
            names = [self.name(v) for v in node.outputs]
            self.lines.append(f"{', '.join(names)} = {text.text}")
        self.define_sizes(node)

    def _picked(self, node: GraphNode) -> Form | None:
        """``x[i]``: a slice of one place, without its axis."""
        if node.op != "reshape" or not self.waiting or self.waiting[-1].value not in node.inputs:
            return None
        top = self.waiting[-1]
        axis = top.text.pick.count(":, ", top.text.pick.rfind("["))
        shape = top.value.type.shape
        if not top.text.pick or node.output.type.shape != (*shape[:axis], *shape[axis + 1 :]):
            return None
        return Form((top.value,), lambda t: Text(t[0].pick, t[0].level, t[0].weight))

    def bind(self, node: GraphNode) -> None:
        """``n, m = bind_dims(v)``."""
        (v,) = node.input_values
        text = self.expression(Form((v,), lambda t: t[0]))
        self.flush()
        found = bound(node, "binds")
        ends = ""
        for word, values, usual in (
            ("least", [s.lower for s in found], 0),
            ("most", [float("inf") if s.upper is None else s.upper for s in found], 1 << 31),
        ):
            if any(x != usual for x in values):
                ends += f", {word}=[{', '.join(map(literals.number, values))}]"
        names = ", ".join(map(self.fn.sizes.define, found))
        self.lines.append(f"{names} = bind_dims({text.text}{ends})")

    # -- constants ---------------------------------------------------------------------------
    def constant(self, v: Value) -> None:
        """A constant of the graph, where it stands: a literal that waits, or a parameter."""
        fellows = self.fellows(v)
        text = self.fn.literal(fellows)
        if text is not None and self.uses[v] == 1:
            self.waiting.append(Waiting(v, Text(text, _level(text)), literal=True))
        else:
            self.flush()
            self.lines.append(self.fn.parameter(self.name(v), fellows))

    def fellows(self, v: Value) -> list[Value]:
        """The values of all parts that stand where `v` does: a result or operand of the node at
        hand. What stands elsewhere is the same in all of them."""
        for node in self.nodes[self.place : self.place + 1]:
            for where in ("outputs", "inputs"):
                if v in getattr(node, where):
                    k = getattr(node, where).index(v)
                    return [getattr(part[self.place], where)[k] for part in self.aligned]
        return [v] * len(self.aligned)

    def _free_literal(self, v: Value) -> Text | None:
        """A constant that may be written anywhere, as a literal."""
        if self.fn.module.exact or v in self.fn.texts or v not in self.fn.module.blobs:
            return None
        text = self.fn.literal(self.fellows(v))
        return None if text is None else Text(text, _level(text))

    # -- sizes -------------------------------------------------------------------------------
    def _is_size(self, node: GraphNode) -> bool:
        """Whether a node makes a scalar of a vector of one size, which is written as the size."""
        top = self.waiting[-1] if self.waiting else None
        own = top is not None and node.inputs[:1] == (top.value,) and top.text.pick == SIZES
        return own and node.op == "reshape" and not node.output.type.shape

    def _size(self, node: GraphNode) -> None:
        (values,) = (w.text for w in [self.waiting.pop()])
        inner = values.text.removeprefix("sizes(values=[").removesuffix("])")
        level = 0 if " " in inner else 10
        self.waiting.append(Waiting(node.output, Text(inner, level, pick=SIZES), literal=True))
        if self.uses[node.output] != 1:
            self.flush()

    def define_sizes(self, node: GraphNode) -> None:
        """Names for dimensions that a node's results have: of what has been written."""
        for s in defined_symbols(node):
            for v in node.outputs:
                axes = [k for k, d in enumerate(v.type.shape) if sole_symbol(d) == s]
                if axes and s.name not in self.fn.sizes.texts:
                    self.flush()
                    self.fn.sizes.define(s)
                    self.lines.append(Alias(s.name, f"{self.fn.texts[v]}.shape[{axes[0]}]"))

    # -- expressions -------------------------------------------------------------------------
    def let(self, v: Value, text: Text) -> None:
        """A value is computed by an expression: it waits, or gets a name."""
        node = self.nodes[self.place]
        if node.op == SIZES and len(dims(node, "values")) == 1:
            text = Text(text.text, text.level, text.weight, SIZES)
        self.waiting.append(Waiting(v, text))
        if self.uses[v] != 1 or v in self.must_name:
            self.flush()

    def expression(self, form: Form) -> Text:
        """What a form gives for its operands, which are taken from what waits or are named."""
        while True:
            chosen = self.literals(form)
            count = self._nested(form, chosen)
            keep = len(self.waiting) - count
            texts = [self._operand(v, chosen, keep) for v in form.operands]
            if None in texts:
                continue
            found = form.write([t for t in texts if t is not None])
            trees = [k for k in range(keep, len(self.waiting)) if not self.waiting[k].literal]
            long = len(found.text) > MAX_LINE or found.weight > MAX_WEIGHT
            heavy = [k for k in trees if len(self.waiting[k].text.text) > 12]
            if long and heavy:
                self.flush(heavy[0] + 1)
                continue
            del self.waiting[keep:]
            return found

    def _operand(self, v: Value, chosen: Mapping[Value, Text], keep: int) -> Text | None:
        """An operand; nothing where something had to be written for it first."""
        for k, w in enumerate(self.waiting):
            if w.value is v:
                if k >= keep:
                    return w.text
                self.flush(k + 1)
                return None
        if v in chosen:
            return chosen[v]
        if v not in self.fn.texts:
            line = self.fn.parameter(self.name(v), self.fellows(v))
            self.lines.append(line)
        return Text(self.fn.texts[v])

    def literals(self, form: Form) -> dict[Value, Text]:
        """Operands that are written as literals: their type is what the language gives them."""
        waiting = {w.value: w.text for w in self.waiting if w.literal}
        found: dict[Value, Text] = {}
        for v in form.typed:
            text = waiting.get(v) or self._free_literal(v)
            if text is not None:
                found[v] = text
        while True:
            first = next((x for x in form.typed if x not in found), None)
            bad = next((v for v, t in found.items() if not self._fits(v, t, first, form)), None)
            if bad is None:
                return found
            del found[bad]

    @staticmethod
    def _fits(v: Value, text: Text, first: Value | None, form: Form) -> bool:
        if first is None and form.infix:
            return False
        if text.pick == SIZES:
            return True
        t = v.type.dtype
        return first.type.dtype is t if first is not None else literals.usual_type(text.text, t)

    def _nested(self, form: Form, chosen: Mapping[Value, Text]) -> int:
        """How many of the last that wait are written inside of a form."""
        literal = [w.value for w in self.waiting if w.literal]
        trees = [v for v in form.operands if v not in chosen]
        order = [*trees, *(v for v in form.typed if v in chosen and v in literal)]
        held = {w.value for w in self.waiting}
        order = [v for v in order if v in held]
        lasts = [w.value for w in self.waiting]
        for count in range(min(len(order), len(lasts)), 0, -1):
            if order[-count:] == lasts[-count:]:
                tops = self.waiting[-count:]
                if all(w.literal == (w.value in chosen) for w in tops):
                    return count
        return 0

    # -- statements --------------------------------------------------------------------------
    def name(self, v: Value) -> str:
        """A name for a value from here on."""
        if v not in self.fn.texts:
            hint = hint_of(v, self.makers.get(v, ""))
            self.fn.texts[v] = self.wanted.get(v) or self.fn.names.fresh(hint)
        return self.fn.texts[v]

    def named(self, v: Value) -> str:
        """The name of a value, which is written now at the latest."""
        text = self.expression(Form((v,), lambda t: t[0])) if v not in self.fn.texts else None
        if text is not None and v not in self.fn.texts:
            self.flush()
            self.lines.append(f"{self.name(v)} = {text.text}")
        return self.fn.texts[v]

    def flush(self, count: int | None = None) -> None:
        """Write what waits, or the first of it, as statements."""
        rest = self.waiting[len(self.waiting) if count is None else count :]
        written = self.waiting[: len(self.waiting) - len(rest)]
        self.waiting = []
        for w in written:
            if w.text.pick == SIZES and w.literal:
                value = f"reshape(sizes(values=[{w.text.text}]), shape=[])"
                self.lines.append(f"{self.name(w.value)} = {value}")
            elif w.literal:
                self.lines.append(self._scalar(w.value))
            else:
                self.lines.append(f"{self.name(w.value)} = {w.text.text}")
        self.waiting = rest

    def _scalar(self, v: Value) -> str:
        """A scalar constant as a parameter: all parts have the same."""
        return self.fn.parameter(self.name(v), [v] * len(self.aligned))


def _level(text: str) -> int:
    return 7 if text.startswith("-") else 10

"""Dimensions as expressions of the language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from aisc.frontend.lang.printing.names import Names
from aisc.ir.arith.poly import Dim, DimCall, Poly, SymDim, symbols
from aisc.ir.dataclass import dataclass

SUM, PRODUCT, UNARY, POSTFIX = 5, 6, 7, 9


@dataclass(slots=True)
class Sizes:
    """What the dimensions of one layer or model are called. `used`: those that its text names;
    `wanted`: those that nothing has defined, which a layer takes as hyper-parameters."""

    names: Names
    texts: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    wanted: list[SymDim] = field(default_factory=list)

    def define(self, s: SymDim) -> str:
        """A name for a dimension from here on."""
        self.texts[s.name] = self.names.exactly(s.name)
        return self.texts[s.name]

    def knows(self, d: Dim) -> bool:
        """Whether all of a dimension has names."""
        return all(s.name in self.texts for s in symbols(d))

    def text(self, d: Dim, level: int = 0) -> str:
        """A dimension as an expression, in parentheses where it binds less than `level`."""
        if isinstance(d, int):
            return _in(str(d), UNARY if d < 0 else POSTFIX, level)
        text, own = self._sum(d)
        return _in(text, own, level)

    def list_of(self, dims: Sequence[Dim]) -> str:
        """``[n, 3]``."""
        return f"[{', '.join(map(self.text, dims))}]"

    def _sum(self, d: Poly) -> tuple[str, int]:
        out, own = "", POSTFIX
        for mono, factor in d.terms:
            sign = "-" if factor < 0 else "+"
            text, level = self._product(mono, abs(factor), bool(out) or factor < 0)
            if not out:
                out, own = (f"-{text}", UNARY) if factor < 0 else (text, level)
            else:
                out, own = f"{out} {sign} {text}", SUM
        return out, own

    def _product(
        self, mono: Sequence[tuple[SymDim | DimCall, int]], factor: int, inside: bool
    ) -> tuple[str, int]:
        parts = [str(factor)] if factor != 1 or not mono else []
        alone = not parts and len(mono) == 1 and mono[0][1] == 1
        for atom, power in mono:
            level = 0 if alone and not inside else PRODUCT if alone else UNARY
            parts += [self._atom(atom, level)] * power
        if alone and isinstance(mono[0][0], DimCall) and mono[0][0].op in ("floordiv", "mod"):
            return parts[0], PRODUCT
        return " * ".join(parts), POSTFIX if len(parts) == 1 else PRODUCT

    def _atom(self, atom: SymDim | DimCall, level: int) -> str:
        if isinstance(atom, SymDim):
            if atom.name not in self.texts:
                self.wanted.append(atom)
                self.define(atom)
            self.used.add(atom.name)
            return self.texts[atom.name]
        if atom.op in ("floordiv", "mod"):
            a, b = atom.args
            sign = "//" if atom.op == "floordiv" else "%"
            return _in(f"{self.text(a, PRODUCT)} {sign} {self.text(b, UNARY)}", PRODUCT, level)
        return f"{atom.op}({', '.join(map(self.text, atom.args))})"


def _in(text: str, own: int, level: int) -> str:
    return f"({text})" if own < level else text

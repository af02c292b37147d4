"""Random nests of loops over numbers, as text of Python functions.

Arrays: ``x`` of n elements, ``a`` of n rows and m columns, ``w`` of m; results ``y`` like x and
``b`` like a. Places may lie outside by one, and turns may need each other; in tidy nests results
are touched at the place of the turn alone.
"""

from __future__ import annotations

import random

HEAD = """import numpy as np


def f(x, a, w):
    n, m = a.shape
    y = x * 1
    b = a * 1
"""


class Nest:
    """One function."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.tidy = self.chance.random() < 0.7
        self.lines: list[str] = []

    def pick(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def text(self) -> str:
        """The module."""
        for _ in range(self.chance.randint(1, 2)):
            self.outer()
        return HEAD + "\n".join("    " + line for line in [*self.lines, "return y, b"]) + "\n"

    def outer(self) -> None:
        low = self.pick("", "", "1, ")
        self.lines.append(f"for i in range({low}{self.pick('n', 'n', 'n - 1', 'len(y)')}):")
        self.lines.append("    s = 0.0")
        self.body(1, ["i"])
        self.lines.append(f"    y[{self.own('i', 'n')}] = s + {self.value(['i'])}")

    def body(self, depth: int, numbers: list[str]) -> None:
        for _ in range(self.chance.randint(1, 3)):
            self.statement(depth, numbers)

    def statement(self, depth: int, numbers: list[str]) -> None:
        pad = "    " * depth
        what = self.pick("sum", "sum", "store", "if", "loop", "loop")
        if what == "loop" and depth < 3:
            var = "jk"[depth - 1]
            count = self.pick("m", "m", "i", "n - i", "3", "m - 1")
            self.lines.append(f"{pad}for {var} in range({count}):")
            self.body(depth + 1, [*numbers, var])
        elif what == "if":
            op = self.pick("<", ">", "<=", "==")
            self.lines.append(f"{pad}if {self.value(numbers)} {op} {self.value(numbers)}:")
            self.statement_of_numbers(depth + 1, numbers)
            if self.pick("", "else"):
                self.lines.append(f"{pad}else:")
                self.statement_of_numbers(depth + 1, numbers)
        else:
            self.statement_of_numbers(depth, numbers)

    def statement_of_numbers(self, depth: int, numbers: list[str]) -> None:
        pad = "    " * depth
        if self.pick("sum", "store") == "sum":
            op = self.pick("+", "-", "*")
            self.lines.append(f"{pad}s = s {op} {self.value(numbers)}")
        elif len(numbers) > 1 and self.pick("b", "y") == "b":
            row, column = self.own("i", "n"), self.own(numbers[-1], "m")
            self.lines.append(f"{pad}b[{row}, {column}] = {self.value(numbers)}")
        else:
            self.lines.append(f"{pad}y[{self.own(numbers[0], 'n')}] = {self.value(numbers)}")

    def own(self, var: str, size: str) -> str:
        """A place of a result."""
        return var if self.tidy else self.place([var], size)

    def place(self, numbers: list[str], size: str) -> str:
        var = self.chance.choice(numbers)
        return self.pick(*[var] * 8, f"{var} - 1", f"{var} + 1", f"{size} - 1 - {var}")

    def value(self, numbers: list[str]) -> str:
        inner = numbers[1:] or numbers
        simple = [
            "s", "0.5", f"x[{self.place(numbers, 'n')}]", f"y[{self.own('i', 'n')}]",
            f"a[i, {self.place(inner, 'm')}]", f"b[{self.own('i', 'n')}, {inner[-1]}]",
            f"w[{self.place(inner, 'm')}]", f"np.sqrt(abs(x[{numbers[-1]}]))", "float(i)",
        ]  # fmt: skip
        first = self.chance.choice(simple)
        if self.pick("one", "two") == "one":
            return first
        return f"({first} {self.pick('+', '-', '*')} {self.chance.choice(simple)})"

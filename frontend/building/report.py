"""Collecting every problem of a model into one ``CompileError``, in the words of the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import field, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, Diagnostic, Diagnostics
from aisc.ir.location import Loc

MAX_PROBLEMS = 100
MAX_NAMED = 4  # dimensions that one message explains
_WORD = re.compile(r"'[^']*'|[^\W\d]\w*")  # names of nodes and values stand in quotes
_SIZES = re.compile(r"(?=(\[[^\[\]]*\]|\bsizes? [^,;:]*))")  # which may overlap


@dataclass(slots=True)
class DimWords:
    """What the dimensions of a graph are for the user of its model.

    spelled: the model's own names of those of the inputs; origins: the nodes that give those that
    only the run knows.
    """

    spelled: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def tell(self, d: Diagnostic, involved: Iterable[str]) -> Diagnostic:
        """`d` without names that only the compiler knows. Where a size should be known (E204), it
        says how to fix those that it mentions, else those `involved`, else any."""
        texts = (d.message, *d.notes)
        unknown = [w for w in dict.fromkeys(_words(texts)) if w in self.origins]
        table = {w: "?" if len(unknown) == 1 else f"?{k + 1}" for k, w in enumerate(unknown)}
        message, *notes = (self._replaced(text, table) for text in texts)
        for name in unknown[:MAX_NAMED]:
            giver = f", by node '{self.origins[name]}'" if self.origins[name] else ""
            notes.append(f"{table[name]} is a size computed at run time{giver}")
        if d.code == "E204":
            notes.extend(self._hint(texts, involved))
        return replace(d, message=message, notes=tuple(notes))

    def _replaced(self, text: str, table: dict[str, str]) -> str:
        return _WORD.sub(lambda m: table.get(m[0]) or self.spelled.get(m[0], m[0]), text)

    def _hint(self, texts: Iterable[str], involved: Iterable[str]) -> Iterator[str]:
        sizes = [part for text in texts for part in _SIZES.findall(text)]
        mentioned = [*_words(texts), *involved]
        any_size = self.spelled if any(w in self.origins for w in mentioned) else ()
        for found in (_words(sizes), involved, any_size):
            names = [self.spelled[n] for n in dict.fromkeys(found) if n in self.spelled]
            if names:
                values = ", ".join(f'"{n}": 224' for n in names[:MAX_NAMED])
                options = " ".join(f"--shape {_quoted(n)}=224" for n in names[:MAX_NAMED])
                yield f"fix what is open, e.g. shapes={{{values}}} or {options}"
                return


def _words(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from _WORD.findall(text)


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"'{name}'"


class Report:
    """Problems so far."""

    def __init__(self, words: DimWords | None = None) -> None:
        self.found = Diagnostics()
        self.words = words or DimWords()

    @property
    def is_about_sizes(self) -> bool:
        """Whether all that was found is that operands do not fit operators."""
        codes = {d.code for d in self.found.errors}
        return bool(codes) and codes <= {"E201", "E203", "E204"}

    def add(self, fault: CompileError, involved: Iterable[str] = ()) -> None:
        """Record the problems of one node. `involved`: dimensions of its operands."""
        known = tuple(involved)
        self.found.extend(self.words.tell(d, known) for d in fault.diagnostics)
        if len(self.found.errors) > MAX_PROBLEMS:
            self.found.raise_if_errors()

    def malformed(self, message: str, *notes: str, loc: Loc) -> None:
        """Record an inconsistency of the model (E103)."""
        self.found.add("E103", message, *notes, loc=loc)

    def finish(self) -> None:
        """Raise if anything was recorded."""
        self.found.raise_if_errors()

"""Diagnostics: stable codes, messages with places, and the three families of exceptions.

``CompileError`` is the user's (their model, text, schedule or target), ``ExecutionError`` is
raised while running compiled code, ``InternalError`` is a fault of aisc. Tests match codes,
never wording. Every code has its one entry in :data:`CODES`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import field
from typing import Literal

from aisc.ir.dataclass import dataclass
from aisc.ir.location import UNKNOWN, Loc

Severity = Literal["error", "warning", "note"]

CODES: dict[str, str] = {
    # E1xx: front ends
    "E101": "the file cannot be read as a model",
    "E102": "the model uses an operator, attribute or type that aisc does not support",
    "E103": "the model is inconsistent",
    "E104": "external data is missing, truncated or outside the model's folder",
    "E105": "the model or one of its tensors is larger than the limit",
    "E106": "an option names no dimension or input of the model, or contradicts it",
    "E107": "a text of aisc's IR or of the model language cannot be parsed",
    "E108": "a name of the model language or of a Python function is not known",
    "E109": "a call, type or parameter of the model language does not fit",
    "E110": "the source of a Python function cannot be read",
    "E111": "a Python function does what aisc does not compile",
    "E112": "operands or arguments in a Python function do not fit",
    # E2xx: graph
    "E201": "operand types do not fit the operator",
    "E202": "the graph is malformed",
    "E203": "an attribute is missing or has the wrong type or value",
    "E204": "a shape must be known at compile time but is not",
    # E3xx: tensor IR and schedules
    "E301": "the tensor IR is malformed",
    "E302": "the schedule step does not apply here",
    "E303": "the schedule step would violate a dependence",
    "E304": "the schedule step could not be proved legal",
    "E306": "threads race on a buffer: a barrier is missing",
    # E4xx: targets
    "E401": "an option is wrong, or the target is unknown or its description invalid",
    "E402": "the target lacks an intrinsic or a resource that the code needs",
    # E5xx: execution
    "E501": "an input or output does not match the compiled signature",
    "E502": "the compiled code reported an error",
    "E503": "a file of compiled code or tuning records cannot be read or written",
    "E504": "the file is no bundle, or it is damaged",
    "E505": "the bundle was made by another version of aisc or of the format",
    "E506": "the code was made for another machine, or needs CPU features that this one lacks",
    "E507": "units of an accelerator race on a memory: a token is missing",
    "E508": "units of an accelerator wait for tokens that never come",
    "E509": "an instruction reads what nothing has written, or its addresses do not fit its memory",
    # E6xx: quantization
    "E601": "the data for calibration do not fit the model",
    "E602": "the model cannot be quantized",
}

USER, UNSUPPORTED, INTERNAL = 1, 3, 70


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One message. ``notes`` say what was expected and got, and what to try."""

    code: str
    message: str
    loc: Loc = UNKNOWN
    notes: tuple[str, ...] = ()
    severity: Severity = "error"

    def __post_init__(self) -> None:
        assert self.code in CODES, f"unknown diagnostic code {self.code}"

    def __str__(self) -> str:
        place = "" if self.loc == UNKNOWN else f"\n  --> {self.loc}"
        notes = "".join(f"\n  note: {n}" for n in self.notes)
        return f"{self.severity}[{self.code}]: {self.message}{place}{notes}"


class AiscError(Exception):
    """Base of the errors that carry diagnostics."""

    def __init__(self, diagnostics: Diagnostic | Sequence[Diagnostic]) -> None:
        items = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        assert items, "an error needs at least one diagnostic"
        self.diagnostics: tuple[Diagnostic, ...] = items
        super().__init__("\n".join(map(str, items)))

    @property
    def codes(self) -> tuple[str, ...]:
        """The code of every diagnostic, in order."""
        return tuple(d.code for d in self.diagnostics)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.diagnostics,))


class AiscWarning(UserWarning):
    """A diagnostic that ends nothing; issued through :mod:`warnings`."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(str(diagnostic))


def warn(diagnostic: Diagnostic) -> None:
    """Show a diagnostic that ends nothing."""
    warnings.warn(AiscWarning(diagnostic), stacklevel=2)


class CompileError(AiscError):
    """The user's model, text, schedule or target cannot be compiled."""

    @property
    def exit_code(self) -> int:
        """Process exit code: 3 when everything reported is 'not supported', else 1."""
        unsupported = all(d.code in ("E102", "E402") for d in self.diagnostics)
        return UNSUPPORTED if unsupported else USER


class ExecutionError(AiscError):
    """Compiled code was called wrongly or reported an error."""

    exit_code = USER


class InternalError(Exception):
    """A fault of aisc itself: never the user's."""

    exit_code = INTERNAL


def error(code: str, message: str, *notes: str, loc: Loc = UNKNOWN) -> CompileError:
    """A ``CompileError`` with one diagnostic, ready to be raised."""
    return CompileError(Diagnostic(code, message, loc, notes))


def execution_error(code: str, message: str, *notes: str, loc: Loc = UNKNOWN) -> ExecutionError:
    """An ``ExecutionError`` with one diagnostic, ready to be raised."""
    return ExecutionError(Diagnostic(code, message, loc, notes))


@dataclass(slots=True)
class Diagnostics:
    """A collector: problems are gathered and reported together."""

    items: list[Diagnostic] = field(default_factory=list)

    def add(self, code: str, message: str, *notes: str, loc: Loc = UNKNOWN) -> None:
        """Record an error once; repeats are dropped."""
        item = Diagnostic(code, message, loc, notes)
        if item not in self.items:
            self.items.append(item)

    def extend(self, items: Iterable[Diagnostic]) -> None:
        """Record the diagnostics of another report."""
        for item in items:
            if item not in self.items:
                self.items.append(item)

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """Only the errors."""
        return tuple(d for d in self.items if d.severity == "error")

    def raise_if_errors(self) -> None:
        """Raise one ``CompileError`` with every recorded error."""
        if self.errors:
            raise CompileError(self.errors)

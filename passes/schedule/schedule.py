"""Schedules: a function under rewriting and the trace of the steps that led there.

A :class:`Schedule` is immutable; each primitive returns a new one with a longer trace::

    s = Schedule.of(func)
    s = s.split("j", 16, names=("jo", "ji")).vectorize("ji")

Primitives are registered by name (:data:`PRIMITIVES`); the trace, its Python and JSON forms and its
replay derive from the registration.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import field
from functools import cache
from typing import TYPE_CHECKING, Any

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.optional import attempt
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Invoke
from aisc.ir.tensor.tree import statements
from aisc.passes.schedule.arguments import checked, signature
from aisc.passes.schedule.kinds import require_kinds
from aisc.passes.schedule.picks import Pick

# A step's argument: names, numbers, or tuples of them.
Argument = Any
Rewrite = Callable[..., "Func | tuple[Func, Func]"]


@dataclass(frozen=True, slots=True)
class Primitive:
    """A registered rewrite. `reassociating` ones may change the rounding of float results;
    only `with_instructions` ones apply after the first ``tensorize``."""

    name: str
    rewrite: Rewrite
    reassociating: bool
    with_instructions: bool


PRIMITIVES: dict[str, Primitive] = {}
_MODULES = (
    "loops", "sequences", "blocks", "reductions", "factors", "storage", "pipelines", "padding",
    "hardware", "hints", "algebra", "domains", "unread",
)  # fmt: skip


def primitive(
    reassociating: bool = False, with_instructions: bool = False
) -> Callable[[Rewrite], Rewrite]:
    """Register a function ``(func, *args) -> Func`` as a schedule primitive under its name."""

    def add(fn: Rewrite) -> Rewrite:
        assert fn.__name__ not in PRIMITIVES, f"primitive {fn.__name__} is defined twice"
        PRIMITIVES[fn.__name__] = Primitive(fn.__name__, fn, reassociating, with_instructions)
        return fn

    return add


@cache
def _load() -> None:
    for module in _MODULES:
        importlib.import_module(f"aisc.passes.schedule.primitives.{module}")


@dataclass(frozen=True, slots=True)
class Step:
    """One applied primitive."""

    primitive: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...] = ()

    def __str__(self) -> str:
        parts = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs]
        return f"{self.primitive}({', '.join(parts)})"


if TYPE_CHECKING:  # the primitives as methods: a stub that docs/generate.py writes
    from aisc.passes.schedule.steps import Steps
else:

    class Steps:
        """A base without methods: primitives are found by name."""

        __slots__ = ()


@dataclass(frozen=True, slots=True)
class Schedule(Steps):
    """`func` after `trace`; `packers` fill packed parameters at compile time, in order; `picks` are
    the decisions by which rules came to the trace."""

    func: Func
    trace: tuple[Step, ...] = ()
    packers: tuple[Func, ...] = ()
    picks: tuple[Pick, ...] = field(default=(), compare=False)

    @staticmethod
    def of(func: Func) -> Schedule:
        """The schedule of an unscheduled function; E302 if it holds instructions already."""
        if not isinstance(func, Func):
            got = type(func).__name__
            raise error("E302", "a function of the tensor IR is scheduled", f"got {got}")
        if any(isinstance(n, Invoke) for n in statements(func.body)):
            raise error("E302", f"{func.name} holds instructions and cannot be scheduled")
        return Schedule(func)

    def apply(self, name: str, /, *args: Argument, **kwargs: Argument) -> Schedule:
        """Apply the primitive called `name`; E302-E304 when it is refused."""
        _load()
        if name not in PRIMITIVES:
            import difflib  # only to say this

            near = difflib.get_close_matches(name, PRIMITIVES, 3) or sorted(PRIMITIVES)
            hint = f"there are {', '.join(near)}"
            raise error("E302", f"there is no schedule primitive '{name}'", hint)
        known = PRIMITIVES[name]
        if not known.with_instructions and any(s.primitive == "tensorize" for s in self.trace):
            # Dependences are found on blocks: accesses of instructions would be overlooked.
            raise error("E302", f"{name} cannot follow tensorize", "tensorize at the end")
        args, kwargs = checked(name, known.rewrite, args, kwargs)
        result = known.rewrite(self.func, *args, **kwargs)
        func, packers = (result[0], (result[1],)) if isinstance(result, tuple) else (result, ())
        require_kinds(func, name)
        step = Step(name, args, tuple(kwargs.items()))
        return Schedule(func, (*self.trace, step), (*self.packers, *packers), self.picks)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Schedule]:
            if name.startswith("_"):
                raise AttributeError(name)

            def step(*args: Argument, **kwargs: Argument) -> Schedule:
                return self.apply(name, *args, **kwargs)

            _load()
            if name in PRIMITIVES:  # for help() and the hints of a shell
                rewrite = PRIMITIVES[name].rewrite
                step.__name__, step.__doc__ = name, rewrite.__doc__
                step.__signature__ = signature(rewrite)
            return step

    def __dir__(self) -> list[str]:
        _load()
        return [*object.__dir__(self), *PRIMITIVES]

    def replay(self, trace: tuple[Step, ...]) -> Schedule:
        """Apply the steps of a recorded trace; refused like any step when one does not fit."""
        schedule = self
        for step in trace:
            schedule = schedule.apply(step.primitive, *step.args, **dict(step.kwargs))
        return schedule

    @property
    def algorithm(self) -> tuple[Step, ...]:
        """The steps up to the last choice of a variant; none where the function computes what was
        lowered. Replayed, they give what is computed, before most of how."""
        chosen = [k for k, step in enumerate(self.trace) if step.primitive == "variant"]
        return self.trace[: chosen[-1] + 1] if chosen else ()

    def to_python(self) -> str:
        """The trace as Python text that rebuilds this schedule; decisions are comments in it."""
        picks = (f"# {p}" for p in self.picks)
        return "\n".join([*picks, "s = Schedule.of(func)", *(f"s = s.{t}" for t in self.trace)])


def unless_refused(s: Schedule, step: Callable[[Schedule], Schedule]) -> Schedule:
    """Take a step that only speed depends on, or leave it out where it is not provably legal, or
    fails."""
    try:
        return attempt(f"a step of the schedule of {s.func.name}", lambda: step(s), lambda: s)
    except CompileError as refusal:
        if not set(refusal.codes) <= {"E302", "E303", "E304"}:
            raise
        return s


def trace_to_json(trace: tuple[Step, ...]) -> str:
    """A trace as JSON; :func:`trace_from_json` restores it exactly."""
    return json.dumps([[s.primitive, list(s.args), dict(s.kwargs)] for s in trace])


def trace_from_json(text: str) -> tuple[Step, ...]:
    """Read :func:`trace_to_json`; lists become tuples."""
    steps = json.loads(text)
    return tuple(
        Step(name, _tuples(args), tuple((k, _tuples(v)) for k, v in kwargs.items()))
        for name, args, kwargs in steps
    )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value

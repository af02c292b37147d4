"""Write the reference pages that derive from the code: operators, primitives, diagnostics; and the
results of measurements that are kept in ``benchmarks/results/``.

    python docs/generate.py

A test holds the pages against what this script would write.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from aisc.frontend.onnx import signatures
from aisc.ir import description
from aisc.ir.diagnostics import CODES
from aisc.ir.graph import opdef
from aisc.ir.graph.opdef import Attr, OpDef
from aisc.ir.tensor import intrinsic
from aisc.passes.schedule import arguments, schedule

HERE = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py from the code; do not edit. -->"
KINDS = {
    "map": "each output element from the elements at the same place",
    "reduction": "axes are folded by a combiner",
    "contraction": "sums of products",
    "window": "a window slides over spatial axes",
    "movement": "elements are only rearranged",
    "constant": "no operands: values known at compile time",
    "control": "branches, loops, sizes from data: statements of a program's entry",
    "opaque": "structure, and what only its reference computes",
}
FAMILIES = {
    "E1": "front ends",
    "E2": "graphs",
    "E3": "tensor IR and schedules",
    "E4": "targets",
    "E5": "execution",
    "E6": "quantization",
}


def operators() -> str:
    """The page of operators, by kind."""
    ops = opdef.all_ops()
    parts = [
        NOTE,
        "# Operators\n",
        f"The {len(ops)} operators of the graph IR, by kind. An operator is defined in one file of "
        "`ir/graph/ops/`; see [add an operator](add-an-op.md). Operands in brackets are optional, "
        "`...` marks any number of them; an attribute without a default is required.",
    ]
    for kind in get_args(opdef.Kind):
        chosen = [op for op in ops if op.kind == kind]
        if not chosen:
            continue
        parts.append(f"\n## {kind}: {KINDS[kind]}\n")
        parts.append("| operator | operands | attributes | meaning | computed by |")
        parts.append("|---|---|---|---|---|")
        parts += [_row(op) for op in chosen]
    return "\n".join(parts) + "\n"


def _row(op: OpDef) -> str:
    names = [
        f"[{o.name}]" if o.optional else o.name + ("..." if o.variadic else "") for o in op.inputs
    ]
    attrs = "; ".join(map(_attribute, op.attrs))
    doc = " ".join(op.doc.split())
    cells = (f"`{op.name}`", ", ".join(names), attrs, doc, _computed(op))
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _attribute(a: Attr) -> str:
    kind = " or ".join(f"`{c}`" for c in a.choices) or a.type
    if a.default is None:
        return f"{a.name}: {kind}"
    return f"{a.name}: {kind} = {a.default}"


def _computed(op: OpDef) -> str:
    if op.scalar is not None:
        return "an expression"
    if op.variants:
        return "loops: " + ", ".join(op.variants)
    if op.kind == "control":
        return "by the entry"
    return "other operators" if op.decompose is not None else "on the host: its reference"


def primitives() -> str:
    """The page of schedule primitives, by file."""
    schedule._load()
    parts = [
        NOTE,
        "# Schedule primitives\n",
        "A primitive takes a function and gives a new one, after checking that the step is legal; "
        "a refusal is an error E302, E303 or E304. See [add a primitive](add-a-primitive.md). "
        "Those marked *reassociating* may change the rounding of float results; all others leave "
        "results the same to the bit.",
    ]
    module = ""
    for p in schedule.PRIMITIVES.values():
        home = p.rewrite.__module__.removeprefix("aisc.").replace(".", "/") + ".py"
        if home != module:
            module = home
            parts.append(f"\n## `{home}`")
        parts.append(_primitive(p.name, p.rewrite, p.reassociating))
    return "\n".join(parts) + "\n"


def _primitive(name: str, rewrite: Callable[..., object], reassociating: bool) -> str:
    arguments = list(inspect.signature(rewrite).parameters.values())[1:]
    text = ", ".join(map(_argument, arguments))
    mark = " *(reassociating)*" if reassociating else ""
    doc = inspect.getdoc(rewrite) or ""
    lines = doc.replace("``", "`").splitlines()
    return f"\n### `{name}({text})`{mark}\n\n" + _paragraphs(lines)


def _argument(p: inspect.Parameter) -> str:
    star = "*" if p.kind is p.VAR_POSITIONAL else ""
    default = "" if p.default is p.empty else f" = {p.default!r}"
    return f"{star}{p.name}: {p.annotation}{default}"


def _paragraphs(lines: list[str]) -> str:
    """`before:` and `after:` become list items; the rest stays text."""
    shown = []
    for line in lines:
        item = line.strip()
        if item.startswith(("before:", "after:")):
            shown.append(f"- *{item.split(':')[0]}*: {item.partition(':')[2].strip()}")
        else:
            shown.append(line)
    return "\n".join(shown)


def diagnostics() -> str:
    """The page of diagnostic codes."""
    parts = [
        NOTE,
        "# Diagnostics\n",
        "Every error has a stable code, a place where that is known, and notes that say what was "
        "expected and what to try. Codes live in `ir/diagnostics.py`; a minimal input for each "
        "is in `tests/errors/`.\n",
        "The command line exits with 0 when all is well, 1 for the user's error, 2 for wrong "
        "usage, 3 when everything reported is unsupported (E102, E402), 4 for a mismatch and 70 "
        "for a fault of aisc.",
    ]
    for head, title in FAMILIES.items():
        parts.append(f"\n## {head}xx: {title}\n")
        parts.append("| code | meaning |")
        parts.append("|---|---|")
        parts += [f"| {code} | {text} |" for code, text in CODES.items() if code.startswith(head)]
    return "\n".join(parts) + "\n"


def steps() -> str:
    """The typed stub with every primitive as a method of a schedule, for editors and mypy."""
    schedule._load()
    parts = [
        "# Written by docs/generate.py from the code; do not edit.",
        "from collections.abc import Sequence",
        "from typing import Literal",
        "",
        "from aisc.passes.schedule.schedule import Schedule",
        "",
        "class Steps:",
    ]
    for p in schedule.PRIMITIVES.values():
        text = str(arguments.signature(p.rewrite)).replace("collections.abc.", "")
        text = text.replace("typing.", "").replace("'", '"').removeprefix("(")
        head = f"    def {p.name}(self, {text} -> Schedule:"
        if len(head) > 100:  # as ruff's formatter breaks it
            head = f"    def {p.name}(\n        self, {text.removesuffix(')')}\n    ) -> Schedule:"
        doc = (inspect.getdoc(p.rewrite) or "").splitlines()
        parts += [head, f'        """{doc[0]}', *(f"        {x}".rstrip() for x in doc[1:])]
        parts[-1] += '"""'
    return "\n".join(parts) + "\n"


def target_keys() -> str:
    """The page of the keys of target descriptions, and of the targets that are shipped."""
    parts = [
        NOTE,
        "# Target descriptions\n",
        "What may stand in a description ([add a target](add-a-target.md), [an accelerator]"
        "(add-an-accelerator.md)). `aisc targets validate "
        "FILE` checks one, `aisc targets probe` writes that of the machine at hand.",
    ]
    for title, keys in (
        ("[target]", description.TARGET),
        ("[memory.NAME]", description.MEMORY),
        ("[costs]", description.COSTS),
        ("[array]", description.ARRAY),
        ("[dma.NAME]", description.DMA),
        ("[vector]", description.VECTOR),
        ("[queue.UNIT]", description.QUEUE),
        ("[token.NAME]", description.TOKEN),
        ("[encoding]", description.ENCODING),
        ("[proxies]", description.PROXIES),
    ):
        parts += [f"\n## `{title}`\n", "| key | expected | meaning |", "|---|---|---|"]
        parts += [f"| `{k.name}` | {k.expected} | {k.doc} |" for k in keys]
    for key in (description.LIMIT, description.RATE):
        parts.append(f"\n## `[{key.name}]`\n\n{key.doc.capitalize()}: {key.expected}.")
    parts += ["\n## `[instruction.NAME]`\n", "| key | meaning |", "|---|---|"]
    parts += [f"| `{name}` | {what} |" for name, what in intrinsic.KEYS.items()]
    parts.append(
        "\nFormulas have numbers, names, `+ - * //`, `min` and `max`. Names are the limits, the "
        "dimensions of the meaning, and of an accelerator `rows`, `columns`, `weight_buffers`, "
        "`vector_width`, `NAME_width` and `NAME_latency` of each engine. In its texts `$rows` "
        "stands for such a number, `$input`, `$weight`, `$accumulator` and `$output` for an "
        "element type, `$input_bytes` for its size, `$zero` for what sums start with that have no "
        "bias, `$name` for the instruction's name, which ends in the types where the array has "
        "several."
    )
    parts += ["\n## Shipped\n", "| target | kind | vectors | what it is |", "|---|---|---|---|"]
    for path in sorted((HERE.parent / "ir/targets").glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
        what = " ".join(line.lstrip("# ") for line in comment)
        t = description.from_toml(text, str(path))
        vectors = f"{t.vector_registers} of {t.vector_bits} bits"
        parts.append(f"| `{path.stem}` | {t.kind} | {vectors} | {what} |")
    return "\n".join(parts) + "\n"


def standard() -> str:
    """The table of the operators of the ONNX standard, up to the versions that we know."""
    parts = [
        '"""Operators of the ONNX standard, by domain: see :mod:`aisc.frontend.onnx.signatures`.',
        "",
        "Written by docs/generate.py from the schemas of onnx; do not edit.",
        '"""',
        "",
        "from typing import Any",
        "",
        "OPERATORS: dict[str, dict[str, tuple[tuple[Any, ...], ...]]] = {",
    ]
    for domain, ops in signatures.of_registry().items():
        parts.append(f'    "{domain}": {{')
        for op, history in ops.items():
            known = [_least(s) for s in history if s.since <= signatures.NEWEST[domain]]
            if known:
                parts.append(f'        "{op}": {tuple(known)},'.replace("'", '"'))
        parts.append("    },")
    return "\n".join([*parts, "}"]) + "\n"


def _least(s: signatures.Signature) -> tuple[object, ...]:
    """Without the defaults at its end: the fewer constants, the sooner the table is loaded."""
    return tuple(s) if s.removed else tuple(s)[: 4 if s.required else 3]


def measured() -> str:
    """The page about measuring, with the results that are kept."""
    folder = str(HERE.parent / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    from fuzzing import page, results

    text = (HERE / "benchmarks.md").read_text(encoding="utf-8")
    return page.renewed(text, results.saved(results.FOLDER))


PAGES: dict[str, Callable[[], str]] = {
    "operators.md": operators,
    "primitives.md": primitives,
    "diagnostics.md": diagnostics,
    "targets.md": target_keys,
    "benchmarks.md": measured,
    "../passes/schedule/steps.pyi": steps,
    "../frontend/onnx/standard.py": standard,
}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

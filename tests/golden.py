"""The default schedules of the zoo's kernels, as they are now.

    python tests/golden.py

writes them to `tests/golden/` and prints what has changed. The targets are described here, so that
every machine gives the same text; nothing is compiled.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from aisc.frontend.onnx.importer import import_model
from aisc.ir.target import Memory, Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.lower.canonical import canonical
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.default import default_schedule, packer_schedule
from aisc.passes.schedule.schedule import Schedule

HERE = Path(__file__).resolve().parent
CACHES = (Memory("L1", 32 << 10), Memory("L2", 1 << 20), Memory("L3", 32 << 20))
AVX512 = Target(
    "avx512", "cpu", vector_bits=512, vector_registers=32, cores=4, memories=CACHES,
    features=("+avx2", "+avx512f", "+fma"),
)  # fmt: skip
AVX2 = Target(
    "avx2", "cpu", vector_bits=256, vector_registers=16, cores=2, memories=CACHES,
    features=("+avx2", "+fma"),
)  # fmt: skip
TARGETS = {t.name: t for t in (AVX512, AVX2)}
# Of layers that repeat, one; of a vocabulary, what is enough to be large.
FEWER = {"layers": 1, "vocab": 2000}
VISION = ("resnet50", "mobilenet_v2", "unet")
TEXT = ("bert", "gpt2_prefill", "gpt2_decode")
MODELS = {
    "avx512": (*VISION, *TEXT, "lstm", "mlp"),
    "avx2": ("mobilenet_v2", "bert", "gpt2_decode", "lstm", "mlp"),
}


def kernels(model: str) -> list[Func]:
    """The lowered kernels of a model of the zoo."""
    sys.path.append(str(HERE.parent / "benchmarks"))
    import zoo

    entry = zoo.ZOO[model]
    takes = entry.build.__code__.co_varnames[: entry.build.__code__.co_argcount]
    graph = import_model(entry.build(**{k: v for k, v in FEWER.items() if k in takes}))
    for step in (Canonicalize(), Legalize(), Fuse()):
        graph = step.run(graph)
    return list(lower_graph(graph, "cpu").kernels)


def texts(target: Target) -> Iterator[str]:
    """A paragraph for each distinct kernel: where it was met first, and its steps."""
    seen: set[str] = set()
    for model in MODELS[target.name]:
        for kernel in kernels(model):
            text = print_ir(canonical(kernel)).partition("(")[2]
            if text not in seen:
                seen.add(text)
                yield f"# {model} {kernel.name}\n{steps(default_schedule(kernel, target), target)}"


def steps(s: Schedule, target: Target) -> str:
    """The trace of a schedule, and those of its packers behind it."""
    lines = [str(step) for step in s.trace]
    for packer in s.packers:
        inner = packer_schedule(packer, target)
        lines += [f"{packer.name}: {step}" for step in inner.trace]
    return "".join(f"{line}\n" for line in lines)


def current(name: str) -> str:
    """What the file of a target should hold."""
    return "\n".join(texts(TARGETS[name]))


def path(name: str) -> Path:
    """The file of a target."""
    return HERE / "golden" / f"{name}.txt"


def main() -> None:
    for name in TARGETS:
        before = path(name).read_text(encoding="utf-8") if path(name).exists() else ""
        after = current(name)
        lines = (before.splitlines(), after.splitlines())
        print("\n".join(difflib.unified_diff(*lines, f"{name} before", f"{name} now", lineterm="")))
        path(name).parent.mkdir(exist_ok=True)
        path(name).write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

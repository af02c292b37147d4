"""The default schedules of the zoo's kernels and of single operators, as they are now.

    python tests/golden.py

writes them to `tests/golden/` and prints what has changed. The targets are described here, so that
every machine gives the same text; nothing is compiled.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aisc.codegen.cpu.policy import CpuPolicy
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.target import Memory, Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fuse import Fuse
from aisc.passes.graph.legalize import Legalize
from aisc.passes.lower.canonical import canonical
from aisc.passes.lower.program import lower_graph
from aisc.passes.policy import Machines
from aisc.passes.schedule.rules.chooser import Chooser
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
    "avx512": ("operators", *VISION, *TEXT, "lstm", "mlp"),
    "avx2": ("operators", "mobilenet_v2", "bert", "gpt2_decode", "lstm", "mlp"),
}


def operators() -> Graph:
    """Single operators, large ones among them, on operands that are all inputs."""
    b = GraphBuilder("operators")
    results: list[Value] = []

    def put(op: str, *shapes: tuple[int, ...], **attrs: Any) -> None:
        inputs = [b.input(f"x{len(b.inputs)}", TensorType(s, dtypes.f32)) for s in shapes]
        results.append(b.add(op, inputs, attrs))

    far = (1 << 12, 1 << 12)
    put("exp", far)
    put("add", far, far)
    put("add", (40, 30, 20), (30, 1))
    put("softmax", far, axis=1)
    put("softmax", (64, 100), axis=0)
    put("layer_norm", (256, 1024), (1024,), (1024,), axis=1)
    put("reduce_sum", far, axes=(0,), keepdims=False)
    put("reduce_max", (7, 1000, 9), axes=(1,), keepdims=True)
    put("transpose", (300, 200, 50), perm=(2, 0, 1))
    put("matmul", (1, 768), (768, 3072))
    put("matmul", (100, 64), (64, 7))
    put("matmul", (8, 33, 65), (8, 65, 17))
    put("conv", (1, 56, 56, 32), (3, 3, 1, 32), group=32, data_layout="NHWC", pads=(1, 1, 1, 1))
    put("conv", (1, 14, 14, 48), (3, 3, 48, 40), data_layout="NHWC", strides=(2, 2))
    put("avg_pool", (1, 17, 17, 20), kernel_shape=(3, 3), strides=(2, 2), data_layout="NHWC")
    put("cumsum", (50, 60), axis=1)
    return b.finish(results)


def kernels(model: str, target: Target) -> list[Func]:
    """The lowered kernels of a model of the zoo, or of :func:`operators`."""
    graph = operators() if model == "operators" else _imported(model)
    machines = Machines(CpuPolicy(target))
    for step in (Canonicalize(), Legalize(machines=machines), Fuse(machines=machines)):
        graph = step.run(graph)
    return list(lower_graph(graph, "cpu").kernels)


def _imported(model: str) -> Graph:
    import zoo  # found by pytest's configuration, or by main()

    entry = zoo.ZOO[model]
    takes = entry.build.__code__.co_varnames[: entry.build.__code__.co_argcount]
    return import_model(entry.build(**{k: v for k, v in FEWER.items() if k in takes}))


def texts(target: Target) -> Iterator[str]:
    """A paragraph for each distinct kernel: where it was met first, and its steps."""
    seen: set[str] = set()
    for model in MODELS[target.name]:
        for kernel in kernels(model, target):
            text = print_ir(canonical(kernel)).partition("(")[2]
            if text not in seen:
                seen.add(text)
                s = default_schedule(kernel, Chooser(target))
                yield f"# {model} {kernel.name}\n{steps(s, target)}"


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
    sys.path.append(str(HERE.parent / "benchmarks"))
    for name in TARGETS:
        before = path(name).read_text(encoding="utf-8") if path(name).exists() else ""
        after = current(name)
        lines = (before.splitlines(), after.splitlines())
        print("\n".join(difflib.unified_diff(*lines, f"{name} before", f"{name} now", lineterm="")))
        path(name).parent.mkdir(exist_ok=True)
        path(name).write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()

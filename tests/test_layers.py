"""Who may import whom: the layers of the design, read from the source by ``ast``."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "ir": "aisc.ir",
    "frontend": "aisc.frontend",
    "passes": "aisc.passes",
    "codegen": "aisc.codegen",
    "compiler": "aisc",
}
IR_THIRD_PARTY = {"numpy", "ml_dtypes", "lark", "networkx", "islpy"}
# folder -> (aisc packages it may import, third-party packages)
ALLOWED: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "ir": (("aisc.ir",), IR_THIRD_PARTY),
    "frontend": (
        ("aisc.ir", "aisc.frontend"),
        IR_THIRD_PARTY | {"onnx", "torch", "google", "safetensors"},
    ),
    "passes": (("aisc.ir", "aisc.passes"), IR_THIRD_PARTY),
    "codegen": (("aisc.ir", "aisc.passes", "aisc.codegen"), IR_THIRD_PARTY | {"llvmlite"}),
}
BACKENDS = ("cpu", "simt", "dsa")


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found += [f"{node.module}.{a.name}" for a in node.names]
    return found


def package_of(module: str) -> str:
    return next((p for p in FOLDERS.values() if p != "aisc" and module.startswith(p)), "aisc")


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_follow_the_layers(folder: str) -> None:
    packages, third_party = ALLOWED[folder]
    for path in sources(folder):
        for module in imports(path):
            top = module.split(".")[0]
            if top == "aisc":
                assert package_of(module) in packages, f"{path} imports {module}"
            elif top not in sys.stdlib_module_names:
                assert top in third_party, f"{path} imports {module}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_back_ends_do_not_know_each_other(backend: str) -> None:
    others = [f"aisc.codegen.{b}" for b in BACKENDS if b != backend]
    for path in sources(f"codegen/{backend}"):
        for module in imports(path):
            assert not any(module.startswith(o) for o in others), f"{path} imports {module}"


def test_llvmlite_stays_in_code_generation() -> None:
    homes = [ROOT / "codegen" / d for d in ("llvm", "cpu", "simt")]
    for folder in FOLDERS:
        for path in sources(folder):
            if any(m.split(".")[0] == "llvmlite" for m in imports(path)):
                assert any(h in path.parents for h in homes), f"{path} imports llvmlite"


@pytest.mark.parametrize("folder", FOLDERS)
def test_packages_refuse_to_be_loaded_under_another_name(folder: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {folder}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: import this package as" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, aisc.cli.main\n"
        "try: aisc.cli.main.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('onnx', 'torch', 'llvmlite', 'lark') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip().endswith("[]"), result.stdout + result.stderr


def test_a_plain_compilation_loads_neither_parser_nor_interpreter() -> None:
    """What a model without host operators and declared instructions needs is not more."""
    code = (
        "import sys, onnx, aisc; from onnx import helper as h\n"
        "v = [h.make_tensor_value_info(n, 1, [3]) for n in 'xy']\n"
        "g = h.make_graph([h.make_node('Relu', ['x'], ['y'])], 'g', v[:1], v[1:])\n"
        "before = set(sys.modules)\n"
        "aisc.compile(h.make_model(g, opset_imports=[h.make_opsetid('', 17)]), cache=False)\n"
        "unwanted = ('lark', 'torch', 'aisc.ir.tensor.interpret', 'aisc.ir.text.parser')\n"
        "print([m for m in unwanted if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip().endswith("[]"), result.stdout + result.stderr


def test_passes_ask_the_machine_and_not_its_rules() -> None:
    """Rule sets belong to back ends; other passes see only a policy."""
    rules = ROOT / "passes/schedule/rules"
    for path in sources("passes"):
        if rules not in path.parents:
            asked = [m for m in imports(path) if m.startswith("aisc.passes.schedule.rules")]
            assert not asked, f"{path} imports {asked}"


def test_back_ends_are_found_and_not_named() -> None:
    """Nothing but a back end itself imports its class, or asks of which kind a target is."""
    for folder in FOLDERS:
        for path in sources(folder):
            text = path.read_text(encoding="utf-8")
            home = {f"codegen/{b}" for b in BACKENDS}
            inside = any(path.is_relative_to(ROOT / h) for h in home)
            named = re.findall(r"\b(?:Cpu|Simt|Dsa)Backend\b", text)
            assert inside or not named, f"{path} names {named[0]}"
    pipeline = (ROOT / "compiler/driver/pipeline.py").read_text(encoding="utf-8")
    assert ".kind ==" not in pipeline and ".kind !=" not in pipeline


FEATURE = re.compile(r"\b(avx|sse|amx|neon|sve|fma3|f16c)\w*\b", re.IGNORECASE)


def test_features_of_cpus_are_named_where_they_belong() -> None:
    """In the back end, its rules, and what reads them from the kernel of the host."""
    homes = [ROOT / "codegen/cpu", ROOT / "passes/schedule/rules", ROOT / "ir/probe.py"]
    for folder in FOLDERS:
        for path in sources(folder):
            if not any(path.is_relative_to(h) for h in homes):
                found = FEATURE.findall(path.read_text(encoding="utf-8"))
                assert not found, f"{path} names {found}"


def test_packages_depend_in_one_direction() -> None:
    graph = nx.DiGraph()
    known = {module_name(p, folder): p for folder in FOLDERS for p in sources(folder)}
    for module, path in known.items():
        for found in top_level_imports(path):
            target = found if found in known else found.rpartition(".")[0]
            if target in known and package(target, known) != package(module, known):
                graph.add_edge(package(module, known), package(target, known))
    assert [sorted(c) for c in nx.strongly_connected_components(graph) if len(c) > 1] == []


def module_name(path: Path, folder: str) -> str:
    parts = path.relative_to(ROOT / folder).with_suffix("").parts
    return ".".join([FOLDERS[folder], *parts]).removesuffix(".__init__")


def package(module: str, known: dict[str, Path]) -> str:
    return module if known[module].name == "__init__.py" else module.rpartition(".")[0]


def top_level_imports(path: Path) -> list[str]:
    """What is imported when the module is: neither inside of functions nor for types alone."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    found = [n for n in body if isinstance(n, ast.ImportFrom)]
    return [f"{n.module}.{a.name}" for n in found for a in n.names]


def test_dataclasses_are_those_that_cost_little() -> None:
    """The standard decorator compiles six methods for every class that is imported."""
    for folder in FOLDERS:
        for path in sources(folder):
            if not path.is_relative_to(ROOT / "ir/dataclass"):
                assert "dataclasses.dataclass" not in top_level_imports(path), path

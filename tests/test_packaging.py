"""The explicit package list equals the folders; what a file of the wheel needs is in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAPPING = {
    "compiler": "aisc",
    "ir": "aisc.ir",
    "frontend": "aisc.frontend",
    "passes": "aisc.passes",
    "codegen": "aisc.codegen",
}


def setuptools_table() -> dict[str, object]:
    with open(ROOT / "pyproject.toml", "rb") as f:
        table: dict[str, object] = tomllib.load(f)["tool"]["setuptools"]
    return table


def folders() -> set[str]:
    found = set()
    for folder, package in MAPPING.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    return found


def test_every_folder_is_listed() -> None:
    assert set(setuptools_table()["packages"]) == folders()  # type: ignore[call-overload]


def test_every_folder_with_sources_is_a_package() -> None:
    for folder in MAPPING:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_package_dir_maps_the_five_folders() -> None:
    mapped = setuptools_table()["package-dir"]
    assert mapped == {package: folder for folder, package in MAPPING.items()}


def test_data_files_are_shipped() -> None:
    data = setuptools_table()["package-data"]
    assert isinstance(data, dict)
    for folder, package in MAPPING.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".lark", ".toml") or path.name == "py.typed":
                parts = path.parent.relative_to(ROOT / folder).parts
                patterns = data.get(".".join((package, *parts)), [])
                assert any(path.match(p) for p in patterns), f"{path} is not in package-data"

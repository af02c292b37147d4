"""The pages under docs/ are true: their Python runs, their links lead somewhere, the reference
pages are what the code says now."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import linecache
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *DOCS.glob("*.md"),
        *ROOT.glob("examples/*/*.md"),
        *ROOT.glob("editors/*.md"),
    ]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

FIRST = DOCS / "first-hour.md"  # its commands are run as well

FOLDERS = "compiler|ir|frontend|passes|codegen|tests|examples|docs"
NAMED_FILE = re.compile(rf"`((?:{FOLDERS})/[^`\s*<{{]*)`")


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """The fenced blocks of a page: language, text, line."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2], text.count("\n", 0, m.start()) + 2) for m in BLOCK.finditer(text)]


def with_python(pages: list[Path]) -> list[Path]:
    return [p for p in pages if any(language == "python" for language, _, _ in blocks(p))]


@pytest.mark.parametrize("page", with_python(PAGES), ids=lambda p: p.name)
def test_python_runs_and_prints_what_it_says(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page != FIRST:
        monkeypatch.chdir(ROOT)
        follow(page, monkeypatch, {"python"})


def test_the_first_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and Python in turn, in a folder where a reader of a clone may write."""
    for name in ("examples", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    follow(FIRST, monkeypatch, {"python", "sh"})


def follow(page: Path, monkeypatch: pytest.MonkeyPatch, languages: set[str]) -> None:
    """Run a page from top to bottom; the text under a block is what it prints."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    found = blocks(page)
    for (language, text, line), following in zip(found, [*found[1:], ("", "", 0)], strict=True):
        if language not in languages:
            continue
        run = run_shell if language == "sh" else run_python
        printed = run(page, text, line, module)
        if following[0] != "text":
            continue
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        same = doctest.OutputChecker().check_output(following[1], printed, flags)
        assert same, f"{page.name}:{line} prints\n{printed}"


def run_python(page: Path, text: str, line: int, module: ModuleType) -> str:
    out = io.StringIO()
    whole, name = "\n" * (line - 1) + text, f"{page}:{line}"
    lines = whole.splitlines(keepends=True)
    linecache.cache[name] = len(whole), None, lines, name  # functions are read again
    with contextlib.redirect_stdout(out):
        exec(compile(whole, name, "exec"), module.__dict__)
    return out.getvalue()


def run_shell(page: Path, text: str, line: int, module: ModuleType) -> str:
    done = subprocess.run(["sh", "-e", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, f"{page.name}:{line}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", BLOCK.sub("", text)):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links {target}"
    for path in NAMED_FILE.findall(text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def generator():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(generator().PAGES))
def test_reference_pages_are_current(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == generator().PAGES[name](), "run python docs/generate.py"


def test_the_map_names_every_folder() -> None:
    text = (DOCS / "map.md").read_text(encoding="utf-8")
    for top in ("compiler", "ir", "frontend", "passes", "codegen"):
        for init in sorted((ROOT / top).rglob("__init__.py")):
            folder = init.parent.relative_to(ROOT).as_posix() + "/"
            assert f"`{folder}`" in text, f"docs/map.md does not name {folder}"

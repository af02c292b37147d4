"""Notebooks of the examples: executed, and with ``python tests/notebooks.py`` stored as they then
are. A cell with the tag *same* prints the same on every machine."""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "examples" / "notebook"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 300  # for a cell


def executed(path: Path, folder: Path) -> Any:
    """A notebook after a run in a folder, with the outputs of this one."""
    notebook = copy.deepcopy(nbformat.read(path, as_version=4))
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it was run
    return notebook


def main() -> None:
    os.environ["COLUMNS"] = "100"
    for path in NOTEBOOKS:
        nbformat.write(executed(path, FOLDER), path)
        print(path.name)


if __name__ == "__main__":
    sys.exit(main())

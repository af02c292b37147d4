"""``aisc convert``: a model of any front end as a file of the model language."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from aisc.codegen.files import write_whole
from aisc.frontend.lang.model import import_model
from aisc.frontend.lang.parameters import safetensors_of
from aisc.frontend.lang.printing import Printed, printed
from aisc.frontend.registry import importer_for
from aisc.ir.diagnostics import InternalError, error
from aisc.ir.graph.core import Graph


def convert_model(model: str, output: Path, shapes: dict[str, Any]) -> None:
    """Write a model as `output`, a ``.aim`` file, and its weights beside it. What was written has
    been read again before it gets its name; E401 for another kind of file, E503 where it cannot be
    written."""
    if output.suffix.lower() != ".aim":
        hint = f"give -o {Path(model).stem or 'model'}.aim; the graph: aisc compile --emit graph"
        raise error("E401", f"cannot convert to '{output}'", hint)
    if output.exists() and Path(model).exists() and output.samefile(model):
        raise error("E401", f"'{output}' is the model itself", "give another name with -o")
    graph = importer_for(model)(model, shapes)
    weights = output.with_suffix(".safetensors").name
    text = printed(graph, weights, exact=False)
    _write(graph, text, output, weights)
    told = f"{output}: {len(text.text.splitlines())} lines"
    if text.weights:
        size = sum(a.nbytes for a in text.weights.values())
        told += f"; {weights}: {len(text.weights)} parameters, {size / 1e6:.1f} MB"
    print(told)


def _write(graph: Graph, text: Printed, output: Path, weights: str) -> None:
    """Both files, or none: they are written and read in a folder of their own first."""
    try:
        folder = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}."))
    except OSError as fault:
        raise error("E503", f"cannot write {output}", str(fault.strerror or fault)) from None
    try:
        if text.weights:
            write_whole(folder / weights, safetensors_of(text.weights))
        write_whole(folder / output.name, text.text.encode())
        _require_readable(graph, folder / output.name)
        for name in (weights, output.name) if text.weights else (output.name,):
            (folder / name).replace(output.parent / name)
    except OSError as fault:
        raise error("E503", f"cannot write {output}", str(fault.strerror or fault)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _require_readable(graph: Graph, path: Path) -> None:
    """What is read from a file takes and gives the tensors of the graph."""
    found = import_model(path)
    kinds = [[(v.type.dtype, v.type.rank) for v in (*g.inputs, *g.outputs)] for g in (graph, found)]
    if kinds[0] != kinds[1]:
        raise InternalError("the text of the model means another one")

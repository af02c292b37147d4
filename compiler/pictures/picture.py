"""``aisc.show``: a model seen at a glance, from Python and in notebooks."""

from __future__ import annotations

import html
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from aisc.codegen.files import write_whole
from aisc.driver.api import Targets
from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import error
from aisc.pictures.formats import as_dot, as_json, as_onnx
from aisc.pictures.page import page_of
from aisc.pictures.stages import Shown, shown

FORMS = ("html", "json", "dot", "onnx")
HEIGHT = 520  # pixels of the page in a notebook


class Picture:
    """What became of a model: a page in notebooks, and files for other viewers. `data`: all that is
    shown."""

    def __init__(self, data: Shown) -> None:
        self.data = data

    def __repr__(self) -> str:
        stages = ", ".join(f"{name}: {len(items)}" for name, items in self.data.stages.items())
        return f"<Picture of {self.data.name} for {self.data.target}; boxes {stages}>"

    def _repr_html_(self) -> str:
        """The page in a frame of its own."""
        page = html.escape(page_of(self.data), quote=True)
        return f'<iframe srcdoc="{page}" width="100%" height="{HEIGHT}" frameborder="0"></iframe>'

    def text(self, form: str = "html", stage: str = "kernels") -> bytes:
        """The contents of a file; E401 for an unknown form or stage. form: ``html``, ``json``, or,
        of one stage, ``dot`` for Graphviz or ``onnx`` for Netron."""
        if form not in FORMS:
            raise error("E401", f"there is no form '{form}'", f"there are {', '.join(FORMS)}")
        if form in ("html", "json"):
            return (page_of(self.data) if form == "html" else as_json(self.data)).encode()
        stages = self.data.stages
        name = next((n for n in stages if n.replace(" ", "-") == stage.replace(" ", "-")), "")
        if not name:
            raise error("E401", f"there is no stage '{stage}'", f"there are {', '.join(stages)}")
        if form == "dot":
            return as_dot(self.data, name).encode()
        found: bytes = as_onnx(self.data, name).SerializeToString()
        return found

    def save(self, path: str | PathLike[str], stage: str = "kernels") -> Path:
        """Write a file, whose suffix says its form."""
        place = Path(path)
        write_whole(place, self.text(place.suffix.removeprefix("."), stage))
        return place


@checked_arguments
def show(model: Any, target: Targets = "cpu", **choices: Any) -> Picture:
    """Compile a model and give a picture of it: the graph as it was written, optimised and as
    kernels, what was fused, shapes, layouts, bytes, and memory over time. `choices` are those of
    :func:`aisc.compile`."""
    return Picture(shown(model, target, choices))


def frame(model: Any, target: Targets, choices: Mapping[str, Any]) -> str:
    """The graph of a model as HTML, without its code, which takes longer."""
    return Picture(shown(model, target, choices, code=False))._repr_html_()

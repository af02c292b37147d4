"""The page of a model: one file that needs no other and no network."""

from __future__ import annotations

import html
from importlib.resources import files

from aisc.pictures.formats import as_json
from aisc.pictures.stages import Shown


def page_of(s: Shown) -> str:
    """The page, with what is shown as data inside."""
    template = (files("aisc.pictures") / "page.html").read_text(encoding="utf-8")
    data = as_json(s).replace("</", "<\\/")
    return template.replace("{{title}}", html.escape(s.name)).replace("{{data}}", data)

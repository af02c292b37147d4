"""The page of a model: one file that needs no other and no network."""

from __future__ import annotations

import html
from importlib.resources import files

from aisc.show.formats import as_json
from aisc.show.stages import Shown


def page_of(s: Shown) -> str:
    """The page, with what is shown as data inside."""
    template = (files("aisc.show") / "page.html").read_text(encoding="utf-8")
    data = as_json(s).replace("</", "<\\/")
    return template.replace("{{title}}", html.escape(s.name)).replace("{{data}}", data)

"""The importer of the model language. The parser is loaded when a file comes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from aisc.ir.arith.poly import Extent
from aisc.ir.graph.core import Graph


class LangImporter:
    """Files of the model language."""

    @staticmethod
    def accepts(source: object) -> bool:
        """A text without a file has no folder for its weights."""
        return False

    @staticmethod
    def parts(path: Path) -> Sequence[str] | None:
        """Its files of weights; ``None`` when it imports others, which have weights as well."""
        from aisc.frontend.lang.model import parts

        return parts(path)

    def __call__(
        self,
        source: str | os.PathLike[str],
        shapes: Mapping[str, Extent],
        *,
        overridable: Sequence[str] = (),
    ) -> Graph:
        """The graph of a file."""
        from aisc.frontend.lang.model import import_model

        return import_model(source, shapes, overridable=overridable)


IMPORTER = LangImporter()

"""How tiles of products are compared, whatever computes them."""

from __future__ import annotations

from math import prod

from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr
from aisc.passes.schedule.variants.panel_form import PanelForm

# Rows and columns of a product that only the run knows.
UNKNOWN = 1024
# Registers of a thread beside its sums and what it multiplies.
OWN_REGISTERS = 40


def size_of(e: Expr) -> int:
    """An extent, or what it is taken for."""
    return int(e.value) if isinstance(e, Const) else UNKNOWN


def rounds(form: PanelForm, rows: int, columns: int, target: Target) -> int:
    """How often all multiprocessors compute tiles at the same time until all are done."""
    tiles = -(-size_of(form.rows.extent) // rows) * -(-size_of(form.columns.extent) // columns)
    tiles *= prod(size_of(it.extent) for it in form.outer if isinstance(it.extent, Const))
    return -(-tiles // max(1, target.cores))

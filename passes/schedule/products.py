"""The form of a sum of products."""

from __future__ import annotations

from aisc.ir.tensor.expr import Binary, Cast, Expr, Load


def factors(value: Expr) -> tuple[Load, Load] | None:
    """The two loads of ``acc + a * b``, through casts; ``None`` for other forms."""
    if not (isinstance(value, Binary) and value.op == "add"):
        return None
    product = value.b if isinstance(value.b, Binary) and value.b.op == "mul" else value.a
    if not (isinstance(product, Binary) and product.op == "mul"):
        return None
    a, b = _uncast(product.a), _uncast(product.b)
    return (a, b) if isinstance(a, Load) and isinstance(b, Load) else None


def _uncast(e: Expr) -> Expr:
    while isinstance(e, Cast):
        e = e.a
    return e

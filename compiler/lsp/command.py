"""``aisc lsp``."""

from __future__ import annotations

from aisc.ir.diagnostics import error


def serve() -> None:
    """Answer an editor until it says goodbye; E402 where the optional package is missing."""
    try:
        from aisc.lsp.server import SERVER
    except ImportError as fault:
        hint = "pip install 'aisc[lsp]'"
        raise error("E402", "the language server needs pygls", str(fault), hint) from None
    SERVER.start_io()

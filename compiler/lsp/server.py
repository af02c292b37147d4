"""The protocol: what an editor sends is answered with what ``answers.py`` knows.

A text that cannot be read at the moment is answered for from the last one that could.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import TextDocument

from aisc.frontend.lang.analysis import Analysis, analysed
from aisc.frontend.lang.formatting import formatted
from aisc.ir.diagnostics import CompileError
from aisc.ir.location import Loc
from aisc.lsp import answers

PAUSE = 0.1  # seconds
_KINDS = {
    "operator": lsp.CompletionItemKind.Function, "layer": lsp.CompletionItemKind.Class,
    "name": lsp.CompletionItemKind.Variable, "keyword": lsp.CompletionItemKind.Keyword,
    "type": lsp.CompletionItemKind.TypeParameter, "argument": lsp.CompletionItemKind.Field,
    "property": lsp.CompletionItemKind.Property,
}  # fmt: skip

_SEVERITIES = {
    "error": lsp.DiagnosticSeverity.Error, "warning": lsp.DiagnosticSeverity.Warning,
    "note": lsp.DiagnosticSeverity.Information,
}  # fmt: skip


class AimServer(LanguageServer):
    """`known`: what was found out about each open file, when it last could be read."""

    def __init__(self) -> None:
        super().__init__("aisc", "1")
        self.known: dict[str, Analysis] = {}

    def check(self, uri: str) -> None:
        """Find out about a file and tell what is wrong with it."""
        document = self.workspace.get_text_document(uri)
        path = path_of(uri)
        found = analysed(document.source.replace("\r\n", "\n"), path.name, path.parent)
        if found.is_read or uri not in self.known:
            self.known[uri] = found
        told = [
            lsp.Diagnostic(
                _word(document, *answers.place(d, path.name)),
                answers.message(d),
                severity=_SEVERITIES[d.severity],
                code=d.code,
                source="aisc",
            )
            for d in found.diagnostics
        ]
        self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, told))

    def place(self, uri: str, position: lsp.Position) -> tuple[int, int]:
        """A position of the protocol as line and column."""
        document = self.workspace.get_text_document(uri)
        found = document.position_codec.position_from_client_units(document.lines, position)
        return found.line + 1, found.character + 1


SERVER = AimServer()


def path_of(uri: str) -> Path:
    """The file that is meant; one that was never saved lies in the working directory."""
    return Path(to_fs_path(uri) or "untitled.aim")


def _range(document: TextDocument, line: int, column: int, end: int) -> lsp.Range:
    """Columns of a line, in the units of the client."""
    ends = (lsp.Position(line - 1, column - 1), lsp.Position(line - 1, end - 1))
    codec, lines = document.position_codec, document.lines
    return lsp.Range(*(codec.position_to_client_units(lines, p) for p in ends))


def _word(document: TextDocument, line: int, column: int) -> lsp.Range:
    """The word that begins at a place, or one character."""
    lines = document.lines
    text = lines[line - 1] if line <= len(lines) else ""
    end = column
    while end <= len(text) and (text[end - 1].isalnum() or text[end - 1] == "_"):
        end += 1
    return _range(document, line, column, max(end, column + 1))


@SERVER.feature(lsp.TEXT_DOCUMENT_DID_OPEN)
def opened(server: AimServer, params: lsp.DidOpenTextDocumentParams) -> None:
    """A file was opened."""
    server.check(params.text_document.uri)


@SERVER.feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
async def changed(server: AimServer, params: lsp.DidChangeTextDocumentParams) -> None:
    """A file was edited: it is looked at when the next key does not follow at once."""
    uri = params.text_document.uri
    await asyncio.sleep(PAUSE)
    document = server.workspace.text_documents.get(uri)
    if document is not None and document.version == params.text_document.version:
        server.check(uri)


@SERVER.feature(lsp.TEXT_DOCUMENT_DID_SAVE)
def saved(server: AimServer, params: lsp.DidSaveTextDocumentParams) -> None:
    """A file was saved: others that are open may import it."""
    for uri in list(server.known):
        server.check(uri)


@SERVER.feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
def closed(server: AimServer, params: lsp.DidCloseTextDocumentParams) -> None:
    """A file was closed: nothing is wrong with it any more."""
    uri = params.text_document.uri
    server.known.pop(uri, None)
    server.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(uri, []))


@SERVER.feature(lsp.TEXT_DOCUMENT_HOVER)
def hover(server: AimServer, params: lsp.HoverParams) -> lsp.Hover | None:
    """The type of a name, the documentation of an operator."""
    uri = params.text_document.uri
    found = server.known.get(uri)
    m = found.at(*server.place(uri, params.position)) if found is not None else None
    if found is None or m is None:
        return None
    content = lsp.MarkupContent(lsp.MarkupKind.Markdown, answers.hover(found, m))
    document = server.workspace.get_text_document(uri)
    return lsp.Hover(content, _range(document, m.at.line, m.at.column, m.end))


@SERVER.feature(lsp.TEXT_DOCUMENT_DEFINITION)
def definition(server: AimServer, params: lsp.DefinitionParams) -> lsp.Location | None:
    """Where a layer, a name or an imported file is."""
    uri = params.text_document.uri
    found = server.known.get(uri)
    m = found.at(*server.place(uri, params.position)) if found is not None else None
    return None if m is None or m.definition is None else _location(server, uri, m.definition)


def _location(server: AimServer, uri: str, at: Loc) -> lsp.Location:
    path = path_of(uri)
    target = uri if at.file == path.name else from_fs_path(str(path.parent / at.file)) or uri
    if (at.line, at.column) == (1, 1):  # a file as a whole, which may hold no text
        return lsp.Location(target, lsp.Range(lsp.Position(0, 0), lsp.Position(0, 0)))
    document = server.workspace.get_text_document(target)
    return lsp.Location(target, _range(document, at.line, at.column, at.column))


@SERVER.feature(lsp.TEXT_DOCUMENT_COMPLETION)
def complete(server: AimServer, params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
    """Operators, layers, names and words that may stand here."""
    uri = params.text_document.uri
    document = server.workspace.get_text_document(uri)
    found = server.known.get(uri) or Analysis("")
    place = server.place(uri, params.position)
    return [
        lsp.CompletionItem(c.word, kind=_KINDS[c.kind], detail=c.detail, documentation=c.doc)
        for c in answers.completions(found, document.source, *place)
    ]


@SERVER.feature(lsp.TEXT_DOCUMENT_FORMATTING)
def reform(server: AimServer, params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit] | None:
    """The file in its one form; nothing where it cannot be read, which diagnostics tell."""
    document = server.workspace.get_text_document(params.text_document.uri)
    try:
        text = formatted(document.source)
    except CompileError:
        return None
    if text == document.source:
        return []
    whole = lsp.Range(lsp.Position(0, 0), lsp.Position(len(document.lines) + 1, 0))
    return [lsp.TextEdit(whole, text)]

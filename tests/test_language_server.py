"""The language server, by a client that speaks the protocol over standard input and output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aisc.cli.main import main
from aisc.frontend.lang.reading import keywords
from aisc.ir.diagnostics import CompileError
from aisc.lsp.command import serve

TEXT = """import "layers.aim"

# Größe 𝒙: characters of two and four bytes.
model m(x: f32[n, 4]) {
    y = softmax(twice(x, by=2), axis=1)
    return y + x
}
"""
LAYERS = "layer twice(x: f32[n, k], by: int) {\n    return x * by\n}\n"


class Client:
    """An editor."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "aisc", "lsp"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.uri = (folder / "m.aim").as_uri()
        self.told: list[dict[str, Any]] = []
        self.count, self.version = 0, 1
        self.request("initialize", processId=None, rootUri=None, capabilities={})
        self.send("initialized")

    def write(self, content: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **content}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        size = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                size = int(line.split(b":")[1])
        found: dict[str, Any] = json.loads(self.process.stdout.read(size))
        return found

    def send(self, method: str, **params: Any) -> None:
        self.write({"method": method, "params": params})

    def request(self, method: str, **params: Any) -> Any:
        self.count += 1
        self.write({"id": self.count, "method": method, "params": params})
        while True:
            got = self.read()
            if got.get("id") == self.count and "method" not in got:
                assert "error" not in got, got
                return got["result"]
            self.told.append(got)

    def open(self, text: str) -> list[dict[str, Any]]:
        document = {"uri": self.uri, "languageId": "aim", "version": 1, "text": text}
        self.send("textDocument/didOpen", textDocument=document)
        return self.diagnostics()

    def change(self, text: str) -> list[dict[str, Any]]:
        self.version += 1
        document = {"uri": self.uri, "version": self.version}
        self.send("textDocument/didChange", textDocument=document, contentChanges=[{"text": text}])
        return self.diagnostics()

    def diagnostics(self) -> list[dict[str, Any]]:
        while True:
            got = self.told.pop(0) if self.told else self.read()
            if got.get("method") == "textDocument/publishDiagnostics":
                found: list[dict[str, Any]] = got["params"]["diagnostics"]
                return found

    def ask(self, what: str, text: str, snippet: str, **more: Any) -> Any:
        """A request about the place of a snippet."""
        place = text.index(snippet)
        start = text.rfind("\n", 0, place) + 1
        units = len(text[start:place].encode("utf-16-le")) // 2
        position = {"line": text.count("\n", 0, place), "character": units}
        document = {"uri": self.uri}
        return self.request(
            f"textDocument/{what}", textDocument=document, position=position, **more
        )

    def close(self) -> None:
        self.request("shutdown")
        self.send("exit")
        assert self.process.wait(20) == 0
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "layers.aim").write_text(LAYERS, encoding="utf-8")
    made = Client(tmp_path)
    try:
        yield made
        made.close()
    finally:
        made.process.kill()


def test_faults_are_told_as_the_file_changes(client: Client) -> None:
    assert client.open(TEXT) == []
    (fault,) = client.change(TEXT.replace("softmax", "sofmax"))
    assert fault["code"] == "E108" and "did you mean softmax" in fault["message"]
    begin, end = fault["range"]["start"], fault["range"]["end"]
    assert (begin["line"], begin["character"], end["character"]) == (4, 8, 14)
    assert "^" not in fault["message"]
    (fault,) = client.change(TEXT.replace("axis=1)", "axis=1"))
    assert fault["code"] == "E107"
    (fault,) = client.change(TEXT.replace("by=2", "by=2.5"))
    assert (fault["code"], fault["range"]["start"]["line"]) == ("E109", 4)
    assert client.change(TEXT) == []


def test_a_fault_in_an_imported_layer_is_told_at_its_call(client: Client, tmp_path: Path) -> None:
    client.open(TEXT)
    (tmp_path / "layers.aim").write_text(
        LAYERS.replace("x * by", "softmax(x, axis=9)"), encoding="utf-8"
    )
    client.send("textDocument/didSave", textDocument={"uri": client.uri})
    (fault,) = client.diagnostics()
    assert (fault["code"], fault["range"]["start"]["line"]) == ("E203", 4)


def test_hover_tells_types_and_operators(client: Client) -> None:
    client.open(TEXT)

    def hovered(snippet: str) -> str:
        text: str = client.ask("hover", TEXT, snippet)["contents"]["value"]
        return text

    assert "y: f32[n, 4]" in hovered("y + x")
    assert "softmax(x, axis" in hovered("softmax(") and "gives `f32[n, 4]`" in hovered("softmax(")
    assert "layer twice(x: f32[n, k], by: int)" in hovered("twice(")
    assert "by: int" in hovered("by=2")
    assert client.ask("hover", TEXT, "# Gr") is None
    client.change(TEXT.replace("return y", "return y +"))
    assert "softmax(x, axis" in hovered("softmax("), "known from before"


def test_definitions_are_found_in_this_file_and_others(client: Client) -> None:
    client.open(TEXT)

    def defined(snippet: str) -> tuple[str, int, int]:
        found = client.ask("definition", TEXT, snippet)
        start = found["range"]["start"]
        return found["uri"].rsplit("/", 1)[1], start["line"], start["character"]

    assert defined("y + x") == ("m.aim", 4, 4)
    assert defined("x, by") == ("m.aim", 3, 8)
    assert defined("twice(") == ("layers.aim", 0, 6)
    assert defined("by=2") == ("layers.aim", 0, 26)
    assert defined('"layers') == ("layers.aim", 0, 0)
    assert client.ask("definition", TEXT, "softmax") is None


def test_only_the_last_of_quick_changes_is_looked_at(client: Client) -> None:
    client.open(TEXT)
    for k in range(20):
        client.version += 1
        document = {"uri": client.uri, "version": client.version}
        changes = [{"text": TEXT + "#" * k}]
        client.send("textDocument/didChange", textDocument=document, contentChanges=changes)
    (fault,) = client.change(TEXT.replace("softmax", "softmin"))
    assert "softmin" in fault["message"]
    assert not [m for m in client.told if "publishDiagnostics" in str(m.get("method"))]


def test_a_file_of_weights_is_found_without_being_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(b"\xff\xfe\x00 no text")
    text = f'weights "w.npz"\n{TEXT}'
    assert [d["code"] for d in client.open(text)] == ["E104"]
    found = client.ask("definition", text, '"w.npz')
    assert found["uri"].endswith("/w.npz")


def test_completion_knows_operators_layers_names_and_words(client: Client) -> None:
    client.open(TEXT)
    text = TEXT.replace("return y + x", "return y + so")
    client.change(text)
    found = {i["label"]: i for i in client.ask("completion", text, "o\n}")}
    assert {"softmax", "twice", "y", "x", "n", *keywords(), "f32"} <= set(found)
    assert found["y"]["detail"] == "f32[n, 4]"
    assert found["softmax"]["documentation"]
    text = TEXT.replace("axis=1", "")
    client.change(text)
    assert "axis=" in {i["label"] for i in client.ask("completion", text, ")\n    return")}
    text = TEXT.replace("y + x", "y.shape")
    client.change(text)
    assert {i["label"] for i in client.ask("completion", text, "shape")} == {
        "shape", "rank", "dtype",
    }  # fmt: skip
    assert client.ask("completion", text, "layers.aim") == []


def test_formatting_gives_the_one_form(client: Client) -> None:
    client.open(TEXT.replace("    y = softmax", "y=softmax"))
    options = {"tabSize": 4, "insertSpaces": True}
    (edit,) = client.ask("formatting", TEXT, "model", options=options)
    assert edit["newText"] == TEXT
    client.change(TEXT)
    assert client.ask("formatting", TEXT, "model", options=options) == []
    client.change("model (")
    assert client.ask("formatting", TEXT, "model", options=options) is None


def test_without_its_package_the_server_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "aisc.lsp.server", None)
    with pytest.raises(CompileError, match=r"pip install 'aisc\[lsp\]'"):
        serve()
    with pytest.raises(SystemExit):
        main(["lsp"])
    assert "error[E402]" in capsys.readouterr().err

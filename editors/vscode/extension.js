// Starts the language server `aisc lsp` for .aim files.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function activate() {
  const command = workspace.getConfiguration("aisc").get("command");
  client = new LanguageClient(
    "aisc",
    "aisc model language",
    { command, args: ["lsp"] },
    { documentSelector: [{ scheme: "file", language: "aim" }] },
  );
  return client.start();
}

function deactivate() {
  return client && client.stop();
}

module.exports = { activate, deactivate };

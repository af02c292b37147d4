"""The language server of the model language: what an editor asks, and what it is told."""

"""Translations of ONNX operators, one file per family; all are loaded by the table."""

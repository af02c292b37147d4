"""Tensor-IR passes."""

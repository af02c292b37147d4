"""Shared LLVM IR printing."""

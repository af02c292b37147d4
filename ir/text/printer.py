"""Printing either IR: the facade over :mod:`printer_graph` and :mod:`printer_tensor`."""

from __future__ import annotations

from aisc.ir.graph.core import Graph
from aisc.ir.node import Node
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.text.printer_graph import print_graph
from aisc.ir.text.printer_tensor import buffer_text, node_text, print_func, print_program


def print_ir(x: Graph | Func | Program | Node | Buffer) -> str:
    """The text of any piece of IR; whole graphs, functions and programs parse back."""
    if isinstance(x, Graph):
        return print_graph(x)
    if isinstance(x, Func):
        return print_func(x)
    if isinstance(x, Program):
        return print_program(x)
    return buffer_text(x) if isinstance(x, Buffer) else node_text(x)


__all__ = ["print_func", "print_graph", "print_ir", "print_program"]

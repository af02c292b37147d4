"""Configurations and topologies of SCALE-Sim, as descriptions and models.

A configuration (``.cfg``) names an array, its dataflow and its memories; a topology (``.csv``) the
convolutions of a network, or with M, N and K its matrix products, each for itself. See Samajdar et
al., *A systematic methodology for characterizing scalability of DNN accelerators*, ISPASS 2020.
"""

from __future__ import annotations

import configparser
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w

from aisc.ir.accelerator import DATAFLOWS
from aisc.ir.dataclass import dataclass
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import error

if TYPE_CHECKING:
    import onnx

_SETS = {"WS": "weight-stationary", "OS": "output-stationary"}
# SCALE-Sim does not tell how long a request takes; its DRAM answers after so many cycles.
LATENCY = 100
_SECTION = "architecture_presets"
_MOST = 1 << 16  # of a size of a layer


def description(text: str, file: str) -> str:
    """The TOML of a configuration; E401 names what is missing or wrong. Words are bytes."""
    parser = configparser.ConfigParser()
    try:
        parser.read_string(text, file)
    except configparser.Error as fault:
        raise error("E401", f"{file} is no configuration of SCALE-Sim", str(fault)) from None
    if not parser.has_section(_SECTION):
        raise error("E401", f"{file} has no section [{_SECTION}]")
    given = parser[_SECTION]
    flow = given.get("dataflow", "ws").strip().upper()
    if flow not in DATAFLOWS:
        known = f"expected one of: {', '.join(DATAFLOWS).lower()}"
        raise error("E401", f"{file}: Dataflow is wrong", known, f"got '{flow.lower()}'")
    rows, columns = _number(given, "ArrayHeight", file), _number(given, "ArrayWidth", file)
    words = _number(given, "Bandwidth", file, 10)
    inputs = sum(_number(given, f"{n}SramSzkB", file) for n in ("Ifmap", "Filter")) << 10
    sums = _number(given, "OfmapSramSzkB", file) << 10
    name = parser.get("general", "run_name", fallback="scalesim").strip("\"' ")
    engine = {"width": words, "latency": LATENCY, "outstanding": 16}
    table: dict[str, Any] = {
        "target": {
            "name": re.sub(r"\W+", "_", name) or "scalesim", "kind": "dsa", "arch": "systolic",
            "instruction_set": _SETS[flow],
        },
        "memory": {
            "global": {"bytes": 1 << 32, "bandwidth": float(words)},
            "scratchpad": {"bytes": inputs}, "accumulator": {"bytes": sums},
            "array": {"bytes": 2 * rows * columns},
        },
        "array": {
            "rows": rows, "columns": columns, "dataflow": flow, "inputs": ["u8", "i8"],
            "weights": ["i8"], "accumulator": "i32", "outputs": ["u8", "i8"],
            **({"weight_buffers": 2} if flow == "WS" else {}),
        },
        "dma": {"load": engine, "store": engine},
    }  # fmt: skip
    made = tomli_w.dumps(table)
    from_toml(made, file)  # what is out of range is told now
    return made


def _number(given: Mapping[str, str], name: str, file: str, default: int | None = None) -> int:
    text = given.get(name.lower(), "" if default is None else str(default)).split(",")[0].strip()
    if not text.isdigit() or not 0 < int(text) < 1 << 40:
        notes = ("expected a whole number above 0", f"got '{text}'")
        raise error("E401", f"{file}: {name} is wrong or missing", *notes)
    return int(text)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of a topology: a convolution (height, width, filter's height and width, channels,
    filters, strides) or a product (rows, columns, depth)."""

    name: str
    sizes: tuple[int, ...]


def topology(text: str, file: str) -> list[Layer]:
    """The layers of a topology; E101 with the line that is wrong."""
    rows = list(csv.reader(io.StringIO(text)))
    head = [c.strip().lower() for c in rows[0]] if rows else []
    count = 3 if {"m", "n", "k"} <= set(head) else 7
    found = []
    for line, row in enumerate(rows[1:], 2):
        cells = [c.strip() for c in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        numbers = cells[1:]
        if count == 7 and len(numbers) == 8:  # strides of both axes
            same = numbers[6] == numbers[7]
            numbers = numbers[:7] if same else numbers
        right = len(numbers) == count and all(n.isdigit() and 0 < int(n) < _MOST for n in numbers)
        if not right:
            what = "M, N, K" if count == 3 else "height, width, filter, channels, filters, stride"
            raise error("E101", f"{file}:{line}: no layer", f"expected {what}", f"got {row}")
        found.append(Layer(cells[0], tuple(map(int, numbers))))
    if not found:
        raise error("E101", f"{file} has no layers")
    return found


def model_of(layers: Sequence[Layer], name: str) -> onnx.ModelProto:
    """The layers as a model in integers, each with an input and a result of its own; weights are
    drawn from a seed."""
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    nodes, inputs, outputs, weights = [], [], [], []
    for k, layer in enumerate(layers):
        x, w, y = f"x{k}", f"w{k}", f"y{k}"
        if len(layer.sizes) == 3:
            m, n, depth = layer.sizes
            given, kept, result = [m, depth], [depth, n], [m, n]
            node = helper.make_node("MatMulInteger", [x, w], [y], name=layer.name)
        else:
            h, wide, r, s, c, f, stride = layer.sizes
            given, kept = [1, c, h, wide], [f, c, r, s]
            result = [1, f, (h - r) // stride + 1, (wide - s) // stride + 1]
            strides = [stride, stride]
            node = helper.make_node("ConvInteger", [x, w], [y], name=layer.name, strides=strides)
        nodes.append(node)
        inputs.append(helper.make_tensor_value_info(x, TensorProto.UINT8, given))
        outputs.append(helper.make_tensor_value_info(y, TensorProto.INT32, result))
        drawn = draw.integers(-127, 128, kept).astype(np.int8)
        weights.append(numpy_helper.from_array(drawn, w))
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])

"""Short forms for ONNX models made by tests, and the comparison of a model on all roads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.driver import api
from aisc.ir.graph.interpret import interpret
from aisc.ir.tensor.interpret import run_program

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Feed = Mapping[str, np.ndarray]


def value(name: str, kind: int = F, shape: Sequence[int | str] | None = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def node(op: str, inputs: str, outputs: str, **attrs: Any) -> Any:
    """A node; an input ``_`` is absent."""
    names = ["" if n == "_" else n for n in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attrs)


def const(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def graph(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], *weights: Any
) -> Any:
    return helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))


def model(*parts: Any) -> onnx.ModelProto:
    """A model of opset 18: nodes, inputs, outputs, weights."""
    made = helper.make_model(graph(*parts), opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    return made


def close(got: Sequence[np.ndarray], want: Sequence[np.ndarray], where: str) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape, where
        assert a.dtype == b.dtype, where
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=where)


def check_everywhere(m: onnx.ModelProto, feeds: Sequence[Feed], host: bool = False) -> None:
    """One compilation gives onnxruntime's results for all feeds: in machine code (1 and 2 threads
    to the bit), and at every level under the interpreters."""
    session = ort.InferenceSession(m.SerializeToString())
    compiled, products = api.products(m, use_cache=False, verify=True, threads=1, host=host)
    two = aisc.compile(m, threads=2, cache=False)
    assert compiled.executable is not None
    names = compiled.executable.input_names
    for feed in feeds:
        want = session.run(None, dict(feed))
        one = compiled.executable.run(None, feed)
        close(one, want, "machine code")
        for again in (compiled.executable.run(None, feed), two.run(None, feed)):
            for a, b in zip(one, again, strict=True):
                np.testing.assert_array_equal(a, b)
        for step in ("import", "canonicalize", "legalize", "fuse"):
            close(interpret(products[step], dict(feed)), want, step)  # type: ignore[arg-type]
        for step in ("lower", "optimize", "plan"):
            got = run_program(products[step], [feed[n] for n in names], nthreads=2)  # type: ignore[arg-type]
            close(got, want, step)

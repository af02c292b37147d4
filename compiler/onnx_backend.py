"""The standard onnx Backend API on top of :func:`aisc.compile`.

>>> import aisc.onnx_backend as backend
>>> rep = backend.prepare(model)
>>> (y,) = rep.run([x])

Shapes are compiled in where they must be known: a model that takes a target shape (or axes, or
repeats) as an input is compiled when it is first run, for the values it is given, and again when
these values change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict

from aisc.codegen.run.executable import Executable
from aisc.driver import api
from aisc.frontend.onnx.importer import import_model
from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import CompileError, error, execution_error

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[Any]
_OPTIONS = ("threads", "level", "cache", "shapes", "host")


class Rep(BackendRep):
    """A prepared model; :meth:`run` may be called any number of times."""

    def __init__(self, model: ModelProto, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = dict(options)
        self._shapes: Mapping[str, Extent] | None = self._options.pop("shapes", None)
        given = {t.name for t in model.graph.initializer}
        given |= {t.values.name for t in model.graph.sparse_initializer}
        self._names = [i.name for i in model.graph.input if i.name not in given]
        self._compiled: dict[_Key, Executable] = {}
        self._fixed: dict[tuple[str, ...], tuple[str, ...]] = {}  # for the defaults replaced
        try:
            self._compile((), {})
        except CompileError as fault:
            # E204: a value that the graph takes at run time decides a shape.
            if "E204" not in fault.codes:
                raise

    def _compile(self, replaced: tuple[str, ...], fixed: Mapping[str, Array]) -> Executable:
        """The executable in which inputs are fixed, and others that have defaults are none."""
        graph = import_model(self._model, self._shapes, fixed, overridable=replaced)
        executable = api.compile(graph, **self._options)
        self._fixed[replaced] = tuple(fixed)
        self._compiled[_key(replaced, fixed)] = executable
        return executable

    def run(self, inputs: Any, **_: Any) -> tuple[Any, ...]:
        """The outputs, as a tuple with the fields named like the model's outputs.

        inputs: the arrays in the model's order (initializers left out), or a mapping by name, in
        which inputs that have defaults may stand as well.
        Raises ``ExecutionError`` when they do not fit the model.
        """
        feeds = self._feeds(inputs)
        executable = self._executable(feeds)
        names = executable.output_names
        results = executable.run(None, {n: feeds[n] for n in executable.input_names})
        outputs: tuple[Any, ...] = namedtupledict("Outputs", names)(*results)
        return outputs

    def _feeds(self, inputs: Any) -> dict[str, Array]:
        if isinstance(inputs, Mapping):
            feeds = {str(k): _array(v) for k, v in inputs.items()}
        else:
            arrays = list(inputs) if isinstance(inputs, Sequence) else [inputs]
            if len(arrays) > len(self._names):
                raise execution_error(
                    "E501", f"the model takes {len(self._names)} inputs", f"got {len(arrays)}"
                )
            feeds = dict(zip(self._names, map(_array, arrays), strict=False))
        missing = [n for n in self._names if n not in feeds]
        if missing:
            raise execution_error("E501", f"there is no value for input {', '.join(missing)}")
        return feeds

    def _executable(self, feeds: Mapping[str, Array]) -> Executable:
        """The executable for these inputs; operands that must be known are fixed, fewest first."""
        replaced = tuple(n for n in feeds if n not in self._names)
        if replaced in self._fixed:
            fixed = {n: feeds[n] for n in self._fixed[replaced]}
            found = self._compiled.get(_key(replaced, fixed))
            if found is not None:
                return found
        small = [n for n in self._names if feeds[n].dtype.kind in "iu" and feeds[n].ndim < 2]
        last: CompileError | None = None
        for names in ([], small, self._names[1:], self._names):
            fixed = {n: feeds[n] for n in names}
            try:
                return self._compile(replaced, fixed)
            except CompileError as fault:
                last = fault
                if "E204" not in fault.codes:
                    raise
        assert last is not None, "three attempts were made"
        raise last


_Key = tuple[tuple[str, ...], tuple[tuple[str, str, bytes], ...]]


def _key(replaced: tuple[str, ...], fixed: Mapping[str, Array]) -> _Key:
    contents = tuple((n, f"{a.dtype}{a.shape}", a.tobytes()) for n, a in fixed.items())
    return replaced, contents


def _array(x: Any) -> Array:
    return numpy_helper.to_array(x) if isinstance(x, TensorProto) else np.asarray(x)


class AiscBackend(Backend):
    """Compiles onnx models and runs them; devices: ``CPU``."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether `device`, such as ``CPU`` or ``CUDA:1``, can be prepared for."""
        return bool(Device(device).type == DeviceType.CPU)

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **options: Any) -> bool:
        """Whether the model can be imported."""
        if not cls.supports_device(device):
            return False
        try:
            import_model(model, options.get("shapes"))
        except CompileError as fault:
            return set(fault.codes) == {"E204"}
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **options: Any) -> Rep:
        """Compile `model`; ``CompileError`` when that cannot be done.

        options: ``threads``, ``level``, ``cache``, ``host`` and ``shapes`` of
        :func:`aisc.compile`; others are ignored, as the onnx test runner passes its own.
        """
        if not cls.supports_device(device):
            raise error("E401", f"there is no device '{device}'", "known devices: CPU")
        return Rep(model, {k: v for k, v in options.items() if k in _OPTIONS})

    @classmethod
    def run_model(
        cls, model: ModelProto, inputs: Any, device: str = "CPU", **options: Any
    ) -> tuple[Any, ...]:
        """Compile `model` and run it once."""
        return cls.prepare(model, device, **options).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Compile a model of one node and run it once; ``opset_version`` may be given."""
        arrays = [_array(x) for x in inputs]
        names = list(dict.fromkeys(n for n in node.input if n))
        infos = [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(a.dtype), list(a.shape)
            )
            for n, a in zip(names, arrays, strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(n) for n in node.output if n]
        graph = helper.make_graph([node], "node", infos, outputs)
        imports = {}
        if "opset_version" in options:
            imports["opset_imports"] = [helper.make_opsetid("", options.pop("opset_version"))]
        return cls.run_model(helper.make_model(graph, **imports), arrays, device, **options)


supports_device = AiscBackend.supports_device
is_compatible = AiscBackend.is_compatible
prepare = AiscBackend.prepare
run_model = AiscBackend.run_model
run_node = AiscBackend.run_node

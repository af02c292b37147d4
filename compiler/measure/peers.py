"""Other runtimes, to compare with: how each opens an ONNX model for some threads and runs it.

One definition per runtime, for ``aisc bench --against`` and for ``benchmarks/peers.py``. All
compute in fp32 on the CPU, hold their model ready, and give their results as numpy arrays in the
model's order. The packages are optional, and imported when a peer is opened.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error

Runner = Callable[[], Sequence[Any]]
Feeds = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """A runtime. `make` opens the model at a path for the shapes of the inputs, a number of
    threads and a number of streams, for each of which it gives a runner: all may run at once, each
    on so many threads. `extra` of aisc installs `package`."""

    name: str
    package: str
    extra: str
    make: Callable[[str, Feeds, int, int], Sequence[Runner]]

    def open(self, model: str, feeds: Feeds, threads: int) -> Runner:
        """The model ready to run on `feeds`. E402 when the runtime is not installed or cannot run
        the model."""
        return self.open_streams(model, feeds, threads, 1)[0]

    def open_streams(
        self, model: str, feeds: Feeds, threads: int, streams: int
    ) -> Sequence[Runner]:
        """The same, ready for as many requests at once, by the runtime's own means for that."""
        try:
            return self.make(model, feeds, threads, streams)
        except ImportError as fault:
            hint = f"pip install aisc[{self.extra}]"
            raise error("E402", f"{self.name} is not installed", str(fault), hint) from None
        except CompileError:
            raise
        except Exception as fault:  # whatever a runtime throws at a model it does not know
            raise error("E402", f"{self.name} cannot run the model", _head(fault)) from None

    @property
    def version(self) -> str:
        """The version that is installed, or nothing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


def _head(fault: Exception) -> str:
    """The first line of what a runtime says."""
    text = str(fault).strip()
    return f"{type(fault).__name__}: {text.splitlines()[0] if text else ''}"


def peer(name: str) -> Peer:
    """The runtime called `name`; E401 when there is none."""
    if name not in PEERS:
        raise error("E401", f"unknown runtime '{name}'", f"known: {', '.join(PEERS)}")
    return PEERS[name]


def _onnxruntime(model: str, feeds: Feeds, threads: int, streams: int) -> Sequence[Runner]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = dict(feeds)
    return [lambda: session.run(None, inputs)] * streams  # a session serves several threads


def _openvino(model: str, feeds: Feeds, threads: int, streams: int) -> Sequence[Runner]:
    import openvino

    core = openvino.Core()
    graph = core.read_model(model)
    graph.reshape({name: list(array.shape) for name, array in feeds.items()})
    settings = {
        # CPUs with bf16 or fp16 would compute in these otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads * streams,
        "NUM_STREAMS": streams,
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
    }
    compiled = core.compile_model(graph, "CPU", settings)

    def runner() -> Runner:
        request, inputs = compiled.create_infer_request(), dict(feeds)

        def run() -> list[Any]:
            results = request.infer(inputs, share_inputs=True, share_outputs=True)
            return [results[port] for port in compiled.outputs]

        return run

    return [runner() for _ in range(streams)]


def _torch(model: str, feeds: Feeds, threads: int, streams: int) -> Sequence[Runner]:
    return [_torch_runner(_torch_module(model, threads), feeds)] * streams


def _torch_compile(model: str, feeds: Feeds, threads: int, streams: int) -> Sequence[Runner]:
    import torch

    run = _torch_runner(torch.compile(_torch_module(model, threads)), feeds)
    run()  # compiles
    return [run] * streams


def _torch_module(model: str, threads: int) -> Any:
    """The model as a module, through onnx2torch."""
    import torch

    _ensure_torchvision()
    import onnx2torch

    torch.set_num_threads(threads)
    return onnx2torch.convert(model).eval()


def _ensure_torchvision() -> None:
    """onnx2torch imports torchvision for two detection operators. Where that fails, as it does
    beside CPU builds of torch, it gets empty modules: the other operators do not need it."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        package, ops = ModuleType("torchvision"), ModuleType("torchvision.ops")
        ops.roi_align = None  # type: ignore[attr-defined]
        package.ops = ops  # type: ignore[attr-defined]
        sys.modules.update({"torchvision": package, "torchvision.ops": ops})


def _torch_runner(module: Any, feeds: Feeds) -> Runner:
    import torch

    inputs = [torch.from_numpy(a) for a in feeds.values()]

    def run() -> list[Any]:
        with torch.inference_mode():
            results = module(*inputs)
        return [t.numpy() for t in (results if isinstance(results, tuple | list) else (results,))]

    return run


PEERS: dict[str, Peer] = {
    p.name: p
    for p in (
        Peer("onnxruntime", "onnxruntime", "bench", _onnxruntime),
        Peer("openvino", "openvino", "peers", _openvino),
        Peer("torch", "torch", "torch", _torch),
        Peer("torch-compile", "torch", "torch", _torch_compile),
    )
}

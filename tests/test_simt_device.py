"""Models on a device through its driver, which is pretended: what it is asked for, in which order,
what comes back, and what happens where it refuses."""

from __future__ import annotations

import ctypes
import gc
import json
from collections.abc import Iterator
from pathlib import Path

import gpu
import numpy as np
import pytest
import zoo
from onnx import TensorProto
from onnx_models import model, node, value
from ptx.driver import OUT_OF_MEMORY, FakeCuda, Stream
from test_simt_staged import made

import aisc
from aisc.codegen import dlpack
from aisc.codegen.simt import choice
from aisc.codegen.simt import gpu as gpu_module
from aisc.codegen.simt.driver import Driver, DriverError
from aisc.codegen.simt.gpu import Gpu
from aisc.codegen.simt.launches import DeviceKernel, DeviceModule
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.pool import GRAIN, Pool, rounded
from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.target import resolve

DIGITS = Path(__file__).parent.parent / "examples/digits"
F = TensorProto.FLOAT


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine with a device."""
    fake = FakeCuda()
    driver = Driver(fake)
    driver.call("cuInit", 0)
    monkeypatch.setattr(choice, "driver_here", lambda: driver)
    yield fake
    gc.collect()


@pytest.fixture
def images() -> np.ndarray:
    found: np.ndarray = np.load(DIGITS / "images.npz")["images"]
    return found[:2]


def device_of(exe: aisc.Executable) -> Gpu:
    (device,) = exe._devices.values()
    assert isinstance(device, Gpu)
    return device


def compiled(what: object, target: str = "nvidia_sm90") -> aisc.Executable:
    return aisc.compile(what, target=target, cache=False)


def perceptron() -> object:
    """Two layers of any number of rows."""
    return zoo.ZOO["mlp"].build(sizes=(20, 33, 17))


def test_a_net_runs_on_the_device(cuda: FakeCuda, images: np.ndarray) -> None:
    exe = compiled(DIGITS / "digits.onnx")
    want = aisc.compile(DIGITS / "digits.onnx", cache=False)(images)
    np.testing.assert_allclose(exe(images), want, rtol=1e-5, atol=1e-6)
    assert device_of(exe).name == "Pretended Device"
    kernels = [c.kernel for c in exe.image.calls if hasattr(c, "kernel")]
    assert [name for name, *_ in cuda.launched] == kernels


def test_later_calls_launch_one_graph(cuda: FakeCuda) -> None:
    exe, rng = compiled(perceptron()), np.random.default_rng(1)
    host = aisc.compile(perceptron(), cache=False)
    first = rng.standard_normal((3, 20)).astype(np.float32)
    exe(first)
    weights = cuda.calls("cuMemcpyHtoDAsync_v2").__len__() - 1
    assert weights == len(exe.image.weights)
    cuda.journal.clear()
    for _ in range(3):
        x = rng.standard_normal((3, 20)).astype(np.float32)
        np.testing.assert_allclose(exe(x), host(x), rtol=1e-5, atol=1e-6)
    once = ["cuCtxSetCurrent", "cuMemcpyHtoDAsync_v2", "cuGraphLaunch", "cuMemcpyDtoHAsync_v2",
            "cuStreamSynchronize"]  # fmt: skip
    assert cuda.calls() == 3 * once
    cuda.journal.clear()
    x = rng.standard_normal((5, 20)).astype(np.float32)  # another size is run by the entry
    np.testing.assert_allclose(exe(x), host(x), rtol=1e-5, atol=1e-6)
    assert "cuLaunchKernel" in cuda.calls() and "cuGraphLaunch" not in cuda.calls()
    np.testing.assert_allclose(exe(first), host(first), rtol=1e-5, atol=1e-6)


def test_nothing_is_left_behind(cuda: FakeCuda) -> None:
    exe = compiled(perceptron())
    for rows in (1, 4, 4, 2, 9, 9):
        exe(np.ones((rows, 20), np.float32))
    assert cuda.blocks and cuda.streams and cuda.graphs and cuda.modules
    del exe
    gc.collect()
    for left in (cuda.blocks, cuda.streams, cuda.graphs, cuda.modules, cuda.events):
        assert not left


def test_host_and_device_take_turns(cuda: FakeCuda) -> None:
    """What the device does not take runs on the host, between copies."""
    nodes = [node("Relu", "x", "a"), node("Unique", "a", "u j i k"), node("Neg", "u", "y")]
    what = model(nodes, [value("x", F, [6])], [value("y", F, ["n"]), value("i", 7, [6])])
    exe = compiled(what)
    x = np.array([3, -1, 2, 3, 2, 0], np.float32)
    for _ in range(2):
        y, i = exe(x)
        np.testing.assert_array_equal(y, [0, -2, -3])
        np.testing.assert_array_equal(i, [2, 0, 1, 2, 1, 0])
    assert not exe.image.straight and not cuda.calls("cuGraphLaunch")


def test_several_threads_have_sessions_of_their_own(cuda: FakeCuda) -> None:
    exe = compiled(perceptron())
    spaces = [exe.new_workspace() for _ in range(2)]
    assert len(cuda.streams) == 2
    for space in spaces:
        exe.release(space)
    assert not cuda.streams


def test_bundles_run_on_the_device(cuda: FakeCuda, tmp_path: Path) -> None:
    exe = compiled(perceptron())
    exe.save(tmp_path / "m.aisc")
    opened = aisc.load(tmp_path / "m.aisc")
    x = np.ones((2, 20), np.float32)
    for _ in range(2):
        np.testing.assert_array_equal(opened(x), exe(x))
    assert opened.image.straight and len(cuda.calls("cuGraphLaunch")) == 2


# -- arrays of the device --------------------------------------------------------------------------


class Foreign:
    """An array of another library on the device."""

    def __init__(self, cuda: FakeCuda, array: np.ndarray, **about: object) -> None:
        at = cuda.memory.add(array.copy(), "foreign")
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (at, False), "version": 3,
            **about,
        }  # fmt: skip


def test_arrays_of_the_device_stay_there(cuda: FakeCuda) -> None:
    exe, rng = compiled(perceptron()), np.random.default_rng(5)
    host = aisc.compile(perceptron(), cache=False)
    exe(rng.standard_normal((3, 20)).astype(np.float32))
    for rows in (3, 4, 3, 3):
        x = rng.standard_normal((rows, 20)).astype(np.float32)
        cuda.journal.clear()
        y = exe(Foreign(cuda, x))
        assert not cuda.calls("cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2")
        grown = rows == 4  # then what the smaller memory held is kept as well
        assert len(cuda.calls("cuMemcpyDtoDAsync_v2")) == 2 + grown
        np.testing.assert_allclose(np.asarray(y), host(x), rtol=1e-5, atol=1e-6)
        again = exe.run(None, {exe.input_names[0]: Foreign(cuda, x)})[0]
        np.testing.assert_array_equal(again.numpy(), y.numpy())
    x = np.ones((3, 20), np.float32)  # and now again on the host
    np.testing.assert_allclose(exe(x), host(x), rtol=1e-5, atol=1e-6)
    assert "cuGraphLaunch" in cuda.calls() and "Pretended" in repr(y)


def test_results_on_the_device_are_inputs_again(cuda: FakeCuda) -> None:
    exe = compiled(model([node("Neg", "x", "y")], [value("x", F, ["n"])], [value("y", F, ["n"])]))
    x = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(np.asarray(exe(exe(Foreign(cuda, x)))), x)


def test_arrays_of_the_device_that_do_not_fit(cuda: FakeCuda) -> None:
    exe, x = compiled(perceptron()), np.ones((2, 20), np.float32)
    for wrong in (
        Foreign(cuda, x.astype(np.float64)), Foreign(cuda, x[0]), Foreign(cuda, x[:, :3]),
        Foreign(cuda, x, strides=(4, 8)),
    ):  # fmt: skip
        with pytest.raises(ExecutionError) as caught:
            exe(wrong)
        assert caught.value.codes == ("E501",)
    stream = Driver(cuda).stream()
    exe(Foreign(cuda, x, stream=stream))
    waits = [args for name, args in cuda.journal if name == "cuStreamSynchronize"]
    assert (stream,) in waits


def test_capsules_of_other_libraries_are_read() -> None:
    for array in (np.arange(6, dtype=np.int16).reshape(2, 3), np.ones((), np.float64),
                  np.zeros((3, 4), np.float32)[:, ::2], np.ones(3, np.bool_)):  # fmt: skip
        found = dlpack.read(array.__dlpack__())
        assert (found.shape, found.dtype) == (array.shape, array.dtype)
        assert found.address == array.ctypes.data
        assert found.strides in (None, array.strides)
    with pytest.raises(TypeError, match="type 5 with 64 bits"):
        dlpack.read(np.zeros(2, np.complex64).__dlpack__())


class Packed:
    """An array that only DLPack knows."""

    def __init__(self, array: object) -> None:
        self.array = array

    def __dlpack__(self, stream: int) -> object:
        assert stream == dlpack.LEGACY_STREAM
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_arrays_of_the_device_go_through_dlpack(cuda: FakeCuda) -> None:
    exe = compiled(model([node("Neg", "x", "y")], [value("x", F, ["n"])], [value("y", F, ["n"])]))
    x = np.arange(5, dtype=np.float32)
    y = exe(Foreign(cuda, x))
    cuda.streams[dlpack.LEGACY_STREAM] = Stream()
    np.testing.assert_array_equal(np.asarray(exe(Packed(y))), x)
    assert y.__dlpack_device__() == (2, 0)
    held, before = y.__dlpack__(), len(cuda.calls("cuMemFree_v2"))
    address = y.address
    del y
    gc.collect()
    assert address not in [a for blocks in device_of(exe).pool.idle.values() for a in blocks]
    assert dlpack.read(held).address == address
    del held
    gc.collect()
    assert address in [a for blocks in device_of(exe).pool.idle.values() for a in blocks]
    assert len(cuda.calls("cuMemFree_v2")) == before and not dlpack._given


def test_a_session_keeps_so_many_recordings(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_module, "RECORDINGS", 2)
    exe = compiled(model([node("Neg", "x", "y")], [value("x", F, ["n"])], [value("y", F, ["n"])]))
    exe(np.ones(9, np.float32))
    for n in (3, 4, 5, 3, 3, 5):
        np.testing.assert_array_equal(exe(np.full(n, 2, np.float32)), np.full(n, -2))
    assert len(cuda.graphs) == 2


# -- what goes wrong -------------------------------------------------------------------------------


def test_kernels_report_what_goes_wrong(cuda: FakeCuda) -> None:
    nodes = [node("Gather", "x i", "y", axis=0)]
    inputs = [value("x", F, [3, 2]), value("i", TensorProto.INT64, [2])]
    exe = compiled(model(nodes, inputs, [value("y")]))
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    for _ in range(2):  # the second time by the recording
        np.testing.assert_array_equal(exe(x, np.array([2, 0])), x[[2, 0]])
        with pytest.raises(ExecutionError, match="3 on an axis of size 3") as caught:
            exe(x, np.array([0, 3]))
        assert caught.value.codes == ("E502",)
    np.testing.assert_array_equal(exe(x, np.array([1, 0])), x[[1, 0]])


@pytest.mark.parametrize("function", [
    "cuMemAlloc_v2", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuLaunchKernel",
    "cuStreamSynchronize", "cuStreamBeginCapture_v2", "cuGraphInstantiateWithFlags",
])  # fmt: skip
def test_what_the_driver_refuses_is_an_error_of_the_call(cuda: FakeCuda, function: str) -> None:
    exe, x = compiled(perceptron()), np.ones((2, 20), np.float32)
    cuda.fail(function, 719)
    with pytest.raises(ExecutionError, match=f"{function}: CUDA_ERROR_LAUNCH_FAILED") as caught:
        exe(x)
    assert caught.value.codes == ("E502",)
    want = aisc.compile(perceptron(), cache=False)(x)
    for _ in range(3):
        np.testing.assert_allclose(exe(x), want, rtol=1e-5, atol=1e-6)


def test_a_recording_that_cannot_be_launched(cuda: FakeCuda) -> None:
    exe, x = compiled(perceptron()), np.ones((2, 20), np.float32)
    want = exe(x)
    cuda.fail("cuGraphLaunch", 719)
    with pytest.raises(ExecutionError, match="cuGraphLaunch"):
        exe(x)
    np.testing.assert_array_equal(exe(x), want)


def test_too_little_memory(cuda: FakeCuda) -> None:
    cuda.memory_bytes = 2048
    exe = compiled(perceptron())
    with pytest.raises(ExecutionError, match="too little memory"):
        exe(np.ones((2, 20), np.float32))
    cuda.memory_bytes = 1 << 20
    exe(np.ones((2, 20), np.float32))


def test_code_that_the_driver_refuses(cuda: FakeCuda) -> None:
    driver = Driver(cuda)
    driver.enter()
    with pytest.raises(DriverError) as caught:
        driver.load(".version 8.0\n.target sm_90\nnonsense\n")
    assert "CUDA_ERROR_INVALID_PTX" in str(caught.value) and "line 3" in caught.value.log
    cuda.fail("cuModuleLoadDataEx", 218)
    with pytest.raises(ExecutionError) as refused:
        compiled(perceptron())
    assert refused.value.codes == ("E506",)


def test_memory_that_is_given_back_is_used_again(cuda: FakeCuda) -> None:
    driver = Driver(cuda)
    driver.enter()
    pool = Pool(driver)
    first = pool.take(1000)
    pool.give(first)
    assert pool.take(900) == first and cuda.calls("cuMemAlloc_v2") == ["cuMemAlloc_v2"]
    pool.give(first)
    cuda.memory_bytes = 4096
    big = pool.take(4000)  # only when what is idle has been given up
    assert first not in cuda.blocks
    with pytest.raises(DriverError) as caught:
        pool.take(4000)
    assert caught.value.status == OUT_OF_MEMORY
    pool.give(big)
    pool.trim()
    assert not cuda.blocks
    for size in (0, 1, 512, 513, 4097, 1 << 20, (1 << 20) + 1, 3 << 28):
        assert size <= rounded(size) <= max(GRAIN, size * 9 // 8 + GRAIN)
        assert rounded(size) % GRAIN == 0


# -- which device ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "capability", "fits"),
    [("sm_90", (9, 0), True), ("sm_90", (10, 0), True), ("sm_90", (8, 6), False),
     ("sm_90a", (9, 0), True), ("sm_90a", (10, 0), False), ("sm_80", (8, 9), True),
     ("sm_100", (9, 0), False), ("sm_100", (10, 3), True)],
)  # fmt: skip
def test_architectures(target: str, capability: tuple[int, int], fits: bool) -> None:
    assert choice.runs(f".version 8.0\n.target {target}\n.address_size 64", capability) is fits


def test_without_a_device_the_model_runs(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((2, 20), np.float32)
    want = compiled(perceptron())(x)
    cuda.capability = (8, 0)
    journal = len(cuda.calls("cuModuleLoadDataEx"))
    np.testing.assert_allclose(compiled(perceptron())(x), want, rtol=1e-5)
    cuda.capability = (9, 0)
    monkeypatch.setenv(choice.VARIABLE, "0")
    np.testing.assert_allclose(compiled(perceptron())(x), want, rtol=1e-5)
    assert len(cuda.calls("cuModuleLoadDataEx")) == journal


def test_a_driver_without_devices_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    from aisc.codegen.simt import driver

    for fake, there in ((FakeCuda(count=0), False), (FakeCuda(), True)):
        monkeypatch.setattr(ctypes, "CDLL", lambda name, fake=fake: fake)
        assert (driver.find_driver() is not None) is there

    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert driver.find_driver() is None


def test_check_says_what_runs_kernels(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    machines = {n: resolve(n) for n in ("nvidia_sm90", "amd_gfx942")}
    assert choice.device_here(machines["nvidia_sm90"]).endswith("on Pretended Device, sm_90")
    assert "no PTX" in choice.device_here(machines["amd_gfx942"])
    cuda.capability = (8, 0)
    assert "has sm_80, its code needs sm_90" in choice.device_here(machines["nvidia_sm90"])
    monkeypatch.setenv(choice.VARIABLE, "0")
    assert "AISC_GPU is 0" in choice.device_here(machines["nvidia_sm90"])


# -- times -----------------------------------------------------------------------------------------


def test_launches_are_timed_by_events(cuda: FakeCuda) -> None:
    options = from_environment(profile=True, use_cache=False)
    exe = build(perceptron(), "nvidia_sm90", options).executable
    assert exe is not None
    for _ in range(2):
        exe(np.ones((2, 20), np.float32))
    (space,) = exe.idle
    (session,) = space.host.sessions.values()
    assert not cuda.calls("cuGraphLaunch")
    assert list(session.times) == [c.kernel for c in exe.image.calls if hasattr(c, "kernel")]
    assert all(t > 0 for times in session.times.values() for t in times)
    assert not cuda.events


def test_recordings_are_timed_as_a_whole(cuda: FakeCuda) -> None:
    exe = compiled(perceptron())
    exe(np.ones((2, 20), np.float32))
    (space,) = exe.idle
    (session,) = space.host.sessions.values()
    kernels = sum(hasattr(c, "kernel") for c in exe.image.calls)
    assert session.measure(3) == 3 * [kernels + 1.0]  # the clock of the double counts work
    assert not cuda.events


# -- the measurements ------------------------------------------------------------------------------


def measured(tmp_path: Path, *args: str) -> tuple[list[dict[str, object]], str]:
    made, table = tmp_path / "gpu.json", tmp_path / "gpu.md"
    assert gpu.main(["--json", str(made), "--markdown", str(table), *args]) == 0
    return json.loads(made.read_text())["rows"], table.read_text()


def test_measurements_on_a_device(cuda: FakeCuda, tmp_path: Path) -> None:
    rows, table = measured(tmp_path, "--tiny", "--sections", "rows,gemm")
    assert "Pretended Device" in table and len(rows) == 6
    for row in rows:
        assert row["agrees"] is not False and row["ms"] and row["rate"], row
        assert row["torch_ms"] is None and row["case"] in table
    assert not cuda.events


def test_without_a_device_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(choice, "driver_here", lambda: None)
    rows, table = measured(tmp_path, "--sections", "rows,attention,gemm")
    assert "nothing is measured" in table and len(rows) == 8
    for row in rows:
        assert row["ms"] is row["rate"] is row["torch_ms"] is None and row["note"]
    assert all(row["agrees"] for row in rows[1:])
    rows, _ = measured(tmp_path, "--seconds", "0", "--sections", "correct")
    assert {row["note"] for row in rows} == {"no time was left"}


def test_a_case_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> object:
        raise ValueError("no such model")

    case = gpu.Case("gemm", "broken", broken)
    monkeypatch.setattr(gpu, "cases", lambda tiny: [case])
    (row,) = gpu.run(gpu.arguments(["--tiny", "--sections", "gemm"]))
    assert row.agrees is False and row.note == "no such model" and row.ms is None


def test_kernels_ask_for_the_shared_memory_that_they_need(cuda: FakeCuda) -> None:
    func = made((128, 512, 128), dtypes.f16, warps=(2, 4, 4, 4), steps=(2, 4)).func
    machine = resolve("nvidia_sm90")
    text, (grid,) = module_of([func], machine)
    about = DeviceKernel.of(func, (grid,))
    gpu = Gpu(Driver(cuda), [DeviceModule((about,), ptx_of(text, machine), b"")])
    assert list(cuda.allowed.values()) == [grid.dynamic]
    (entry,) = gpu.functions.values()
    with pytest.raises(DriverError):
        gpu.driver.launch(entry, (1, 1, 1), grid.block, [0, 0, 0], 0, grid.dynamic + 16)

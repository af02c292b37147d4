"""The onnx Backend API: preparing, running, and the cases of the standard on machine code."""

from __future__ import annotations

import importlib.util
import unittest
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from aisc import onnx_backend as backend
from aisc.ir.diagnostics import CompileError, ExecutionError

F, I64 = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(0)


def conformance() -> ModuleType:
    place = Path(__file__).with_name("conformance.py")
    spec = importlib.util.spec_from_file_location("conformance", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model(op: str, *inputs: tuple[str, int, list[int | str]], **attrs: object) -> onnx.ModelProto:
    nodes = [helper.make_node(op, [name for name, _, _ in inputs], ["y"], **attrs)]
    infos = [helper.make_tensor_value_info(*i) for i in inputs]
    outputs = [helper.make_empty_tensor_value_info("y")]
    return helper.make_model(helper.make_graph(nodes, "g", infos, outputs))


def test_prepare_once_run_often() -> None:
    rep = backend.prepare(model("Neg", ("x", F, ["n", 3])), threads=1)
    for n in (1, 4, 1):
        x = floats(n, 3)
        result = rep.run([x])
        np.testing.assert_array_equal(result.y, -x)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(result[0], rep.run({"x": x})[0])


def test_a_shape_given_at_run_time() -> None:
    rep = backend.prepare(model("Reshape", ("x", F, [2, 6]), ("s", I64, [2])))
    x = floats(2, 6)
    for shape in ((3, 4), (12, 1), (3, 4)):
        (y,) = rep.run([x, np.array(shape)])
        np.testing.assert_array_equal(y, x.reshape(shape))
    assert len(rep._compiled) == 1


def test_axes_given_at_run_time() -> None:
    """One model serves all axes."""
    rep = backend.prepare(model("ReduceSum", ("x", F, [2, 6]), ("a", I64, [1]), keepdims=0))
    x = floats(2, 6)
    for axis in (0, 1, 0):
        (y,) = rep.run([x, np.array([axis])])
        np.testing.assert_allclose(y, x.sum(axis), rtol=1e-5)
    assert len(rep._compiled) == 1


def test_run_model() -> None:
    x, y = floats(3), floats(2, 1)
    m = model("Add", ("a", F, [3]), ("b", F, [2, 1]))
    np.testing.assert_array_equal(backend.run_model(m, [x, y])[0], x + y)


def test_run_node() -> None:
    x, w = floats(2, 5), floats(5, 3)
    (y,) = backend.run_node(helper.make_node("MatMul", ["x", "w"], ["y"]), [x, w])
    np.testing.assert_allclose(y, x @ w, rtol=1e-5, atol=1e-6)
    square = helper.make_node("Mul", ["x", "x"], ["y"])
    np.testing.assert_array_equal(backend.run_node(square, [x], opset_version=17)[0], x * x)


def test_initializers_are_no_inputs() -> None:
    """Old models list their initializers among the inputs."""
    m = model("Add", ("a", F, [3]), ("b", F, [3]))
    m.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "b"))
    np.testing.assert_array_equal(backend.run_model(m, [np.ones(3, np.float32)])[0], [2, 2, 2])


def test_devices() -> None:
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA:0")
    good, bad = model("Neg", ("x", F, [3])), model("NoSuchOperator", ("x", F, [3]))
    assert backend.is_compatible(good) and not backend.is_compatible(bad)
    assert not backend.is_compatible(good, "CUDA")
    with pytest.raises(CompileError) as caught:
        backend.prepare(good, "CUDA")
    assert caught.value.codes == ("E401",)


def test_faults_are_diagnostics() -> None:
    with pytest.raises(CompileError) as caught:
        backend.prepare(model("NoSuchOperator", ("x", F, [3])))
    assert caught.value.codes == ("E102",)
    rep = backend.prepare(model("Neg", ("x", F, [3])))
    for inputs in ([], [floats(3), floats(3)], {"z": floats(3)}, [floats(4)]):
        with pytest.raises(ExecutionError) as wrong:
            rep.run(inputs)
        assert wrong.value.codes == ("E501",)


QUICK = """
test_abs test_add_bcast test_add_uint8 test_and_bcast4v2d test_argmax_keepdims_random
test_averagepool_2d_same_upper test_basic_conv_with_padding test_batchnorm_epsilon
test_cast_FLOAT_to_FLOAT16 test_ceil test_clip_example test_concat_3d_axis_2
test_conv_with_strides_and_asymmetric_padding test_convtranspose_pads test_depthtospace_example
test_div_uint8 test_einsum_batch_matmul test_expand_dim_changed test_flatten_axis2 test_floor
test_gather_negative_indices test_gemm_all_attributes test_globalaveragepool test_greater_bcast
test_hardswish test_identity test_leakyrelu_default test_matmul_4d test_max_example
test_maxpool_2d_ceil test_maxpool_2d_dilations test_mod_mixed_sign_int64 test_not_3d
test_onehot_with_axis test_constant_pad_axes test_prelu_broadcast test_quantizelinear_axis
test_reduce_mean_keepdims_random test_reflect_pad test_relu test_reshape_reordered_all_dims
test_resize_upsample_scales_nearest test_shape_start_1 test_slice_neg_steps
test_sqrt test_squeeze_negative_axes test_sub_bcast test_sum_example test_tile
test_transpose_all_permutations_3 test_tril_pos test_where_example test_xor_bcast3v2d
"""


@pytest.fixture(scope="module")
def cases() -> dict[str, object]:
    return {c.name: c for c in conformance().all_cases()}


@pytest.mark.parametrize("name", QUICK.split())
def test_node_case(name: str, cases: dict[str, object]) -> None:
    assert conformance().outcome(cases[name]) == "pass"


@pytest.mark.slow
def test_the_table_of_missing_cases_is_current(cases: dict[str, object]) -> None:
    """Every case passes or stands in the table; after a change run tests/conformance.py."""
    module = conformance()
    missing = {n for n, reason in module.run_cases(list(cases.values())) if reason != "pass"}
    table = set(module.read_table())
    assert sorted(missing - table) == [], "these cases passed before"
    assert sorted(table - missing) == [], "these pass now: write the table anew"


@pytest.mark.slow
def test_the_official_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``onnx.backend.test`` passes, but for the cases of the table and the CUDA ones.

    The light models, for which it would make data, are in tests/test_light_models.py.
    """
    from onnx.backend.test import BackendTest

    monkeypatch.setenv("ONNX_HOME", str(tmp_path))
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    np.random.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        suite = BackendTest(backend.AiscBackend, __name__)
        for name in conformance().read_table():
            suite.exclude(f"^{name}_cpu$")
        suite.exclude("_cuda$")
        classes = {k: c for k, c in suite.test_cases.items() if k != "OnnxBackendRealModelTest"}
        result = unittest.TestResult()
        for case in classes.values():
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun - len(result.skipped) >= 1000
    assert [str(t) for t, _ in (*result.failures, *result.errors)] == []


def test_errors_of_the_suite_are_ours() -> None:
    """The table holds no crash and no hang."""
    reasons = conformance().read_table().values()
    assert not [r for r in reasons if r.startswith(("crash", "hangs"))]

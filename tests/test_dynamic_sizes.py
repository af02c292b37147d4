"""Sizes that data or the graph's own arithmetic decide, and operators that run on the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import BOOL, I64, F, check_everywhere, close, const, model, node, value

import aisc
from aisc.cli.main import main
from aisc.ir.diagnostics import CompileError, ExecutionError

rng = np.random.default_rng(5)
X = rng.standard_normal((4, 6)).astype(np.float32)
X[1, 2] = 0
X[3] = 0
IN = value("x", F, ["n", 6])


def ints(*items: int) -> np.ndarray:
    return np.array(items, np.int64)


def scalar(n: int) -> np.ndarray:
    return np.array(n, np.int64)


def test_non_zero() -> None:
    nodes = [
        node("NonZero", "x", "p"), node("Transpose", "p", "q"), node("GatherND", "x q", "v"),
        node("Mul", "v v", "y"),
    ]  # fmt: skip
    m = model(nodes, [IN], [value("q", I64), value("y")])
    check_everywhere(m, [{"x": X}, {"x": X * 0}, {"x": X[:0]}, {"x": X[:1]}])


def test_compress() -> None:
    nodes = [node("Compress", "x c", "z", axis=0), node("Softmax", "z", "w"), node("Exp", "z", "y")]
    m = model(nodes, [IN, value("c", BOOL, ["n"])], [value("y"), value("w")])
    masks = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    check_everywhere(m, [{"x": X, "c": mask} for mask in masks])


@pytest.mark.parametrize("step", [1, 2, -1, -2])
def test_slice(step: int) -> None:
    far = 2**63 - 1
    m = model([node("Slice", "x s e a t", "y0"), node("Neg", "y0", "y")],
              [IN, value("s", I64, [2]), value("e", I64, [2])], [value("y")],
              const("a", ints(0, 1)), const("t", ints(step, step)))  # fmt: skip
    pairs = [((1, -3), (3, 100)), ((-100, 2), (2, 2)), ((3, 5), (-far, 1))]
    pairs += [((0, 0), (far, -1))] if step > 0 else [((9, 9), (-9, -9))]
    check_everywhere(m, [{"x": X, "s": ints(*s), "e": ints(*e)} for s, e in pairs])


@pytest.mark.parametrize("kind", [I64, F])
def test_range(kind: int) -> None:
    inputs = [value(n, kind, []) for n in "abc"]
    m = model([node("Range", "a b c", "r"), node("Add", "r r", "y")], inputs, [value("y", kind)])
    t = np.int64 if kind == I64 else np.float32
    triples = [(0, 7, 2), (5, -3, -3), (5, 3, 3)]
    check_everywhere(
        m, [{n: np.array(v, t) for n, v in zip("abc", x, strict=True)} for x in triples]
    )


def reshape() -> Any:
    return model([node("Reshape", "x s", "y0"), node("Relu", "y0", "y")],
                 [IN, value("s", I64, [3])], [value("y")])  # fmt: skip


def test_reshape() -> None:
    shapes = [(2, 3, 4), (0, -1, 2), (-1, 1, 1), (4, 6, 1)]
    check_everywhere(reshape(), [{"x": X, "s": ints(*s)} for s in shapes])


@pytest.mark.parametrize("shape", [(5, 3, 4), (-5, 3, 4), (1 << 40, 1, 1), (-1, 5, 1)])
def test_a_shape_that_does_not_fit(shape: tuple[int, ...]) -> None:
    exe = aisc.compile(reshape(), threads=1)
    with pytest.raises(ExecutionError) as caught:
        exe.run(None, {"x": X, "s": ints(*shape)})
    assert caught.value.codes == ("E502",)
    (y,) = exe.run(None, {"x": X, "s": ints(3, 8, 1)})  # the next call is as good as any
    np.testing.assert_array_equal(y, np.maximum(X, 0).reshape(3, 8, 1))


def test_sizes_beyond_all_memory() -> None:
    m = model([node("ConstantOfShape", "s", "z"), node("Exp", "z", "y")],
              [value("s", I64, [4])], [value("y")])  # fmt: skip
    exe = aisc.compile(m, threads=1)
    for shape in ((1 << 30, 1 << 30, 4, 1), (1 << 31, 1 << 31, 1 << 31, 1 << 31)):
        with pytest.raises(ExecutionError) as caught:
            exe(ints(*shape))
        assert caught.value.codes == ("E502",)
    assert exe(ints(2, 0, 3, 1)).shape == (2, 0, 3, 1)


def test_expand_and_tile() -> None:
    m = model([node("Expand", "x s", "y0"), node("Relu", "y0", "y")],
              [value("x", F, [4, 1, 6]), value("s", I64, [3])], [value("y")])  # fmt: skip
    cubes = [{"x": X[:, None], "s": ints(*s)} for s in ((4, 3, 6), (1, 3, 1), (4, 1, 1), (1, 0, 6))]
    check_everywhere(m, cubes)
    m = model([node("Tile", "x k", "y")], [IN, value("k", I64, [2])], [value("y")])
    check_everywhere(m, [{"x": X, "k": ints(2, 3)}, {"x": X, "k": ints(1, 0)}])


def test_sizes_that_only_run_time_compares() -> None:
    """Two inputs whose sizes have different names are added: they must be equal."""
    m = model([node("Add", "x z", "y")], [IN, value("z", F, ["m", 6])], [value("y")])
    check_everywhere(m, [{"x": X, "z": X}, {"x": X[:1], "z": X[:1]}])
    with pytest.raises(ExecutionError) as caught:
        aisc.compile(m, threads=1).run(None, {"x": X, "z": X[:2]})
    assert caught.value.codes == ("E502",)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_images_of_a_batch_are_resized(mode: str) -> None:
    """The batch keeps its size, which only the run knows: by sizes, and by scales."""
    scales = np.array([1, 1, 2, 0.5], np.float32)
    by_sizes = [
        node("Shape", "x", "s"), node("Slice", "s a b", "batch"),
        node("Concat", "batch sizes", "all", axis=0),
        onnx.helper.make_node("Resize", ["x", "", "", "all"], ["y"], mode=mode),
    ]  # fmt: skip
    by_scales = [onnx.helper.make_node("Resize", ["x", "", "f"], ["y"], mode=mode)]
    image = value("x", F, ["n", 2, 4, 6])
    constants = [const("a", ints(0)), const("b", ints(2)), const("sizes", ints(7, 9))]
    feeds = [{"x": rng.standard_normal((n, 2, 4, 6)).astype(np.float32)} for n in (1, 3)]
    check_everywhere(model(by_sizes, [image], [value("y")], *constants), feeds)
    check_everywhere(model(by_scales, [image], [value("y")], const("f", scales)), feeds)


def test_split_sizes() -> None:
    m = model([node("Split", "x s", "a b", axis=1)], [IN, value("s", I64, [2])],
              [value("a"), value("b")])  # fmt: skip
    check_everywhere(m, [{"x": X, "s": ints(2, 4)}, {"x": X, "s": ints(6, 0)}])
    with pytest.raises(ExecutionError):
        aisc.compile(m, threads=1).run(None, {"x": X, "s": ints(2, 5)})


def test_top_k() -> None:
    m = model([node("TopK", "x k", "y i", axis=-1)], [IN, value("k", I64, [1])],
              [value("y"), value("i", I64)])  # fmt: skip
    x = rng.standard_normal((4, 6)).astype(np.float32)
    check_everywhere(m, [{"x": x, "k": ints(k)} for k in (1, 3, 6)])


def test_scatter_with_a_run_time_number_of_updates() -> None:
    inputs = [IN, value("i", I64, ["k", 1]), value("u", F, ["k", 6])]
    m = model([node("ScatterND", "x i u", "y0"), node("Relu", "y0", "y")], inputs, [value("y")])
    feeds = [{"x": X, "i": np.array(i, np.int64).reshape(-1, 1), "u": X[: len(i)] + 5}
             for i in ([1, 0], [3], [])]  # fmt: skip
    check_everywhere(m, feeds)
    bad = {"x": X, "i": np.array([[4]]), "u": X[:1]}
    with pytest.raises(ExecutionError):
        aisc.compile(m, threads=1).run(None, bad)


def test_shapes_computed_by_the_graph() -> None:
    """Exporters compute shapes with tensors: known sizes stay known, one unknown can be solved."""
    nodes = [
        node("Shape", "x", "s"), node("Gather", "s zero", "n", axis=0),
        node("Concat", "n k", "t", axis=0), node("Reshape", "x t", "y0"), node("Relu", "y0", "y"),
    ]  # fmt: skip
    m = model(nodes, [IN, value("k", I64, [1])], [value("y")], const("zero", ints(0)))
    graph = aisc.lower(m, to="graph")
    assert not any(n.op == "bind_dims" for n in graph.nodes)  # type: ignore[union-attr]
    check_everywhere(m, [{"x": X, "k": ints(6)}, {"x": X[:1], "k": ints(-1)}])


def test_sizes_that_exporters_leave_open() -> None:
    """Axes called ``?`` or -1 have nothing to do with each other; squeezed axes are tested."""
    nodes = [node("Squeeze", "x a", "s"), node("Reshape", "s t", "r"), node("Relu", "r", "y")]
    inputs = [value("x", F, ["?", -1, "?"])]
    m = model(nodes, inputs, [value("y")], const("a", ints(1)), const("t", ints(-1, 6)))
    exe = aisc.compile(m, threads=1)
    x = rng.standard_normal((4, 1, 3)).astype(np.float32)
    np.testing.assert_array_equal(exe(x), np.maximum(x, 0).reshape(2, 6))
    for wrong in (x.reshape(2, 2, 3), x[:1]):
        with pytest.raises(ExecutionError) as caught:
            exe(wrong)
        assert caught.value.codes == ("E502",)


def test_channels_are_no_widths() -> None:
    """Operands of a normalisation belong to the channels, whatever the width is."""
    weights = [const(n, rng.uniform(0.5, 1.5, 3).astype(np.float32)) for n in "abcd"]
    m = model([node("BatchNormalization", "x a b c d", "y")],
              [value("x", F, ["n", 3, "h", "w"])], [value("y")], *weights)  # fmt: skip
    x = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    check_everywhere(m, [{"x": x}, {"x": x[:, :, :1, :1]}])


def test_concatenated_sizes_are_tested() -> None:
    m = model([node("Concat", "x z", "y0", axis=1), node("Neg", "y0", "y")],
              [IN, value("z", F, ["m", 6])], [value("y")])  # fmt: skip
    check_everywhere(m, [{"x": X, "z": X * 2}])
    with pytest.raises(ExecutionError):
        aisc.compile(m, threads=1).run(None, {"x": X, "z": X[:2]})


# --- the host ---------------------------------------------------------------------------------
def unique(**attrs: Any) -> Any:
    nodes = [node("Unique", "x", "u i v c", **attrs), node("Mul", "u u", "y")]
    return model(nodes, [IN], [value("y"), *(value(n, I64) for n in "ivc")])


@pytest.mark.parametrize("attrs", [{}, {"sorted": 0}, {"axis": 0}, {"axis": 1, "sorted": 0}])
def test_an_operator_on_the_host(attrs: dict[str, int]) -> None:
    x = rng.integers(0, 3, (4, 6)).astype(np.float32)
    check_everywhere(unique(**attrs), [{"x": x}, {"x": x * 0}, {"x": x[:1]}], host=True)


def test_the_host_can_be_forbidden() -> None:
    with pytest.raises(CompileError) as caught:
        aisc.compile(unique(), host=False)
    assert caught.value.codes == ("E102",)
    assert caught.value.exit_code == 3


def test_the_host_inside_a_loop() -> None:
    body = model(
        [node("Unique", "h", "u"), node("ReduceSum", "u", "r", keepdims=0),
         node("Add", "h r", "h2"), node("Identity", "go", "flag")],
        [value("i", I64, []), value("go", BOOL, []), value("h")],
        [value("flag", BOOL, []), value("h2")],
    ).graph  # fmt: skip
    m = model([node("Loop", "m _ x", "y", body=body)], [IN, value("m", I64, [])], [value("y")])
    x = rng.integers(0, 3, (4, 6)).astype(np.float32)
    check_everywhere(m, [{"x": x, "m": scalar(3)}, {"x": x, "m": scalar(0)}], host=True)


def test_a_fault_on_the_host_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from aisc.ir.tensor import interpret

    def broken(*_: object) -> list[Any]:
        raise ValueError("no such luck")

    exe = aisc.compile(unique(), threads=2)
    x = np.ones((2, 6), np.float32)
    want = exe(x)
    with monkeypatch.context() as patch:
        patch.setattr(interpret, "host_results", broken)
        with pytest.raises(ExecutionError) as caught:
            exe(x)
    assert "no such luck" in str(caught.value)
    close(exe(x), want, "after the fault")


def test_check_names_what_runs_on_the_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(unique(), tmp_path / "m.onnx")
    place = str(tmp_path / "m.onnx")
    assert _exit_code(["check", place]) == 0
    text = capsys.readouterr().out
    assert "unique" in text
    assert "24*n" in text
    assert _exit_code(["check", "--no-host", place]) == 3
    assert _exit_code(["run", "--no-host", place]) == 3


def _exit_code(arguments: list[str]) -> int:
    try:
        main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.parametrize("scale", [0.3, 1.7, 0.9999999, 2.5])
def test_a_scale_that_is_no_simple_fraction(scale: float) -> None:
    """The size of the result is rounded as f32, whether the model or the run knows the operand."""
    scales = const("f", np.array([1, scale], np.float32))
    m = model([node("Resize", "x  f", "y", mode="nearest")], [IN], [value("y")], scales)
    m.graph.node[0].input[:] = ["x", "", "f"]
    check_everywhere(m, [{"x": X}, {"x": X[:1]}])
    wide = value("x", F, [4, "n"])
    m = model([node("Resize", "x f", "y", mode="linear")], [wide], [value("y")], scales)
    m.graph.node[0].input[:] = ["x", "", "f"]
    check_everywhere(m, [{"x": X}, {"x": np.tile(X, 20)}, {"x": X[:, :5]}])

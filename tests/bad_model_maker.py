"""Models that are broken at random, and what the compiler makes of them.

    python tests/bad_model_maker.py 1000        # seeds 0 to 999
    python tests/bad_model_maker.py 1000 5000   # seeds 5000 to 5999

A model of :data:`BASES` is changed field by field, through the descriptors of its messages, or
byte by byte. Each file must be compiled or refused with a report, within :data:`SECONDS` and
:data:`BYTES`. Forked children work through the seeds; one that dies costs the seed it was at.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto, numpy_helper

SECONDS, BYTES = 10.0, 2 << 30
ADDRESSES = 6 << 30  # an allocation that is absurd ends the case at once
BATCH = 2000
MAX_REPORT = 40_000  # characters
COMPILED_EACH = 25  # every so many cases go on to machine code

TEXTS = {
    "net": """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 1, 6, 6] x) => (float[n, 5] y)
        <float[2, 1, 3, 3] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9}, int64 zero = {0},
         int64[1] first = {0}, int64[1] open = {-1}, float[5, 18] f> {
          c = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3]>(x, w)
          r = Relu(c)
          p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(r)
          s = Shape(p)
          k = Gather<axis = 0>(s, zero)
          kv = Unsqueeze(k, first)
          t = Concat<axis = 0>(kv, open)
          flat = Reshape(p, t)
          m = Gemm<transB = 1>(flat, f)
          y = Softmax<axis = -1>(m) }""",
    "elementwise": """<ir_version: 9, opset_import: ["": 18]>
        g (float[a, 3] x, float[a, 1] z, bool[3] c) => (float[a, 3] y, int64[a] i)
        <float[3] w = {0.5, -1, 2}, int64[1] ax = {1}, float lo = {0}> {
          s = Add(x, z)  e = Exp(s)  q = Clip(e, lo)  u = Where(c, q, w)  v = Pow(u, w)
          m = ReduceMean<keepdims = 1>(v, ax)  d = Div(v, m)
          y = LayerNormalization<axis = -1>(d, w)  i = ArgMax<axis = 1, keepdims = 0>(y) }""",
    "shapes": """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 4, 6] x, int64[2] target) => (float[] y, float[] z)
        <int64[3] st = {0, 1, -1}, int64[3] en = {9, 3, -9}, int64[3] ax = {0, 1, 2},
         int64[3] by = {1, 1, -2}, int64[6] pads = {0, 1, 0, 0, 0, 2}, int64[2] sp = {1, 3},
         int64[2] halves = {2, 2}, int64 two = {2}> {
          a = Slice(x, st, en, ax, by)  b = Transpose<perm = [2, 0, 1]>(a)
          c = Pad(b, pads)  d, e = Split<axis = 1>(x, halves)  y = Reshape(x, target)
          k = Constant<value_ints = [2, 3]>()  f = Expand(two, k)  h = Cast<to = 1>(f)
          r = Range(two, two, two)  o = ConstantOfShape<value = float[1] {3}>(k)
          t = Tile(o, sp)  z = Concat<axis = 0>(h, o) }""",
    "indexing": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4, 5] x, int64[3] i) => (float[3, 5] y, float[2, 5] v, int64[2, 5] k, float[] z)
        <int64[2, 1] at = {0, 3}, float[2, 5] u = {1,2,3,4,5,6,7,8,9,10}, int64[1] n = {2}> {
          y = Gather(x, i)  s = ScatterND(x, at, u)  v, k = TopK<axis = 0>(s, n)
          nz = NonZero(x)  e = GatherElements<axis = 0>(x, k)  o = GatherND(x, at)
          w = ScatterElements<axis = 0>(x, k, v)  z = ReduceSum<keepdims = 0>(w) }""",
    "flow": """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 3] x, bool c, int64 turns) => (float[] y, float[k, m, 3] all)
        <float[1, 3] w = {1, 2, 3}, bool yes = {1}> {
          p = If (c) <then_branch = t () => (float[n, 3] a) { a = Add(x, w) },
                      else_branch = e () => (float[n, 3] b) { b = Neg(x) }>
          y, all = Loop (turns, yes, p) <body = l (int64 i, bool go, float[n, 3] h)
            => (bool on, float[n, 3] next, float[n, 3] row) {
              on = Identity(go)  next = Mul(h, w)  row = Tanh(next) }> }""",
    "scan": """<ir_version: 8, opset_import: ["": 17]>
        g (float[t, 4] x, float[4] h0) => (float[4] h, float[t, 4] y) {
          h, y = Scan<num_scan_inputs = 1, body = b (float[4] s, float[4] xt)
            => (float[4] s2, float[4] o) { s2 = Add(s, xt)  o = Sigmoid(s2) }> (h0, x) }""",
    "functions": """<ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[2, 3] x) => (float[2, 3] y) { a = f.outer<slope = 0.5>(x)  y = f.inner(a) }
        <domain: "f", opset_import: ["": 17, "f": 1]> outer <slope> (a) => (b) {
          t = LeakyRelu<alpha: float = @slope>(a)  b = f.inner(t) }
        <domain: "f", opset_import: ["": 17, "f": 1]> inner (a) => (b) { b = Relu(a) }""",
    "quantized": """<ir_version: 8, opset_import: ["": 17]>
        g (float[n, 4] x) => (float[n, 3] y)
        <float s = {0.1}, uint8 z = {128}, int8[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12},
         float[3] ws = {0.1, 0.2, 0.3}, int8[3] wz = {0, 0, 0}> {
          q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)
          v = DequantizeLinear<axis = 1>(w, ws, wz)  y = MatMul(d, v) }""",
    "recurrent": """<ir_version: 8, opset_import: ["": 17]>
        g (float[t, 1, 2] x) => (float[] y, float[] h)
        <float[1, 12, 2] w, float[1, 12, 3] r, float[1, 24] b> {
          y, h = LSTM<hidden_size = 3, direction = "forward">(x, w, r, b) }""",
    "images": """<ir_version: 8, opset_import: ["": 18]>
        g (float[1, 2, 4, 5] x, float[1, 4, 4, 2] grid) => (float[] y, float[] z, float[] u)
        <float[4] by = {1, 1, 2, 1.5}, float[2, 2, 3, 3] w, float[2] e2 = {1, 2}> {
          y = Resize<mode = "linear">(x, , by)  z = GridSample(x, grid)
          t = ConvTranspose<strides = [2, 2]>(x, w)  a = AveragePool<kernel_shape = [2, 2]>(t)
          g1 = GlobalAveragePool(a)  n = InstanceNormalization<epsilon = 0.1>(a, e2, e2)
          u = DepthToSpace<blocksize = 1>(a) }""",
    "products": """<ir_version: 8, opset_import: ["": 17]>
        g (float[b, 2, s, 4] q, float[b, 2, s, 4] k) => (float[] y, float[b, 2, s, s] z) {
          kt = Transpose<perm = [0, 1, 3, 2]>(k)  m = MatMul(q, kt)  p = Softmax(m)
          y = Einsum<equation = "bhst,bhtd->bhsd">(p, k)  z = Trilu<upper = 0>(p) }""",
}  # fmt: skip


def bases() -> list[ModelProto]:
    """The whole models; a value without contents becomes a weight, one lies in another file."""
    found = []
    for name, text in TEXTS.items():
        model = onnx.parser.parse_model(text)
        rng = np.random.default_rng(len(name))
        for info in model.graph.value_info:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            data = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(data, info.name))
        del model.graph.value_info[:]
        if name == "recurrent":
            outside = model.graph.initializer[0]
            outside.ClearField("raw_data")
            outside.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", "0"), ("length", "96")):
                outside.external_data.add(key=key, value=value)
        found.append(model)
    return found


# --- changes --------------------------------------------------------------------------------------
INTS = (
    -(2**63), -(2**31), -1000, -7, -2, -1, 0, 1, 2, 3, 5, 7, 8, 16, 17, 64, 1000, 65_537, 2**20,
    2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1,
)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "", "x", "y", "nowhere", "a" * 300, "ä€", "\0", "a/b", "../w.bin", "w.bin", "NCHW", "nearest",
    "cubic", "SAME_UPPER", "reverse", "bidirectional", "ai.onnx", "ai.onnx.ml", "com.microsoft",
    "-1", "99999999999999999999", "bij,bjk->bik", "i->", "...",
)  # fmt: skip
_INTEGRAL = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def messages(root: Message) -> Iterator[Message]:
    """A message and all inside it."""
    stack = [root]
    while stack:
        top = stack.pop()
        yield top
        for field, value in top.ListFields():
            if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                stack.extend(value if _repeats(field) else [value])


def _repeats(field: Any) -> bool:
    return bool(field.is_repeated)


def _words(model: ModelProto, rng: random.Random) -> str:
    """A name of the model, most often, else some word."""
    if rng.random() < 0.25:
        return rng.choice(WORDS)
    nodes = [m for m in messages(model) if isinstance(m, onnx.NodeProto)]
    names = [n for k in nodes for n in (*k.input, *k.output, k.op_type)]
    return rng.choice(names) if names else "x"


def _value(model: ModelProto, field: Any, old: Any, rng: random.Random) -> Any:
    """Another value for a scalar field."""
    kind = field.cpp_type
    if kind in _INTEGRAL:
        low, high = _INTEGRAL[kind]
        near = [old + d for d in (-1, 1)] if isinstance(old, int) else []
        return min(max(rng.choice([*INTS, *near]), low), high)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return not old
    if field.type == FieldDescriptor.TYPE_BYTES:
        data = bytes(old or b"")
        cut = rng.randrange(len(data) + 1)
        return rng.choice([b"", data[:cut], data + b"\xff", rng.randbytes(8), data[::-1]])
    return _words(model, rng)


def change_field(model: ModelProto, rng: random.Random) -> None:
    """One field of one message gets another value, or loses it."""
    top = rng.choice(list(messages(model)))
    set_fields = [f for f, _ in top.ListFields()]
    every = list(top.DESCRIPTOR.fields)
    field = rng.choice(set_fields if set_fields and rng.random() < 0.85 else every)
    if rng.random() < 0.1:
        top.ClearField(field.name)
    elif _repeats(field):
        _change_list(model, top, field, rng)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        _copy_alike(model, getattr(top, field.name), rng)
    else:
        setattr(top, field.name, _value(model, field, getattr(top, field.name), rng))


def _change_list(model: ModelProto, top: Message, field: Any, rng: random.Random) -> None:
    items = getattr(top, field.name)
    at = rng.randrange(len(items)) if len(items) else -1
    is_message = field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE
    choice = rng.randrange(5)
    if at < 0 or choice == 0:
        if is_message:
            _copy_alike(model, items.add(), rng)
        else:
            items.append(_value(model, field, None, rng))
    elif choice == 1:
        del items[at]
    elif choice == 2:
        rest = (
            [type(i).FromString(i.SerializeToString()) for i in items] if is_message else [*items]
        )
        rng.shuffle(rest)
        del items[:]
        items.extend(rest)
    elif is_message:
        _copy_alike(model, items[at] if choice == 3 else items.add(), rng)
    else:
        items[at] = _value(model, field, items[at], rng)


def _copy_alike(model: ModelProto, target: Message, rng: random.Random) -> None:
    """The contents of another message of the same type, of another model at times."""
    source = rng.choice(bases_once()) if rng.random() < 0.3 else model
    alike = [m for m in messages(source) if type(m) is type(target) and m is not target]
    if alike:
        with contextlib.suppress(ValueError):  # it would be copied into itself
            target.CopyFrom(type(target).FromString(rng.choice(alike).SerializeToString()))


def rename(model: ModelProto, rng: random.Random) -> None:
    """An operand or result of a node becomes another name, as in cycles and repeats."""
    nodes = [m for m in messages(model) if isinstance(m, onnx.NodeProto)]
    if nodes:
        node = rng.choice(nodes)
        names = node.input if rng.random() < 0.6 or not node.output else node.output
        if names:
            names[rng.randrange(len(names))] = _words(model, rng)


def resize(model: ModelProto, rng: random.Random) -> None:
    """A size of a tensor, or a number among a shape's, becomes absurd."""
    tensors = [m for m in messages(model) if isinstance(m, TensorProto)]
    if not tensors:
        return
    tensor = rng.choice(tensors)
    if tensor.data_type == TensorProto.INT64 and tensor.int64_data and rng.random() < 0.7:
        tensor.int64_data[rng.randrange(len(tensor.int64_data))] = rng.choice(INTS)
    elif tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(INTS)


def swap_operator(model: ModelProto, rng: random.Random) -> None:
    """A node becomes one of another operator, its operands staying."""
    from onnx import defs

    nodes = [m for m in messages(model) if isinstance(m, onnx.NodeProto)]
    if nodes:
        schemas = defs.get_all_schemas()
        schema = rng.choice(schemas)
        node = rng.choice(nodes)
        node.op_type = schema.name
        if rng.random() < 0.3:
            node.domain = schema.domain


def attribute(model: ModelProto, rng: random.Random) -> None:
    """An attribute gets another type or value, or a node one that it does not know."""
    nodes = [m for m in messages(model) if isinstance(m, onnx.NodeProto)]
    if not nodes:
        return
    node = rng.choice(nodes)
    if node.attribute and rng.random() < 0.8:
        a = rng.choice(node.attribute)
        a.type = rng.randrange(15) if rng.random() < 0.5 else a.type
    else:
        a = node.attribute.add(name=rng.choice(["axis", "axes", "perm", "to", "value", "mode"]))
        a.type = rng.randrange(1, 9)
    a.i, a.f = rng.choice(INTS), rng.choice(FLOATS)
    if rng.random() < 0.5:
        a.ints.extend(rng.choice(INTS) for _ in range(rng.randrange(4)))
    if rng.random() < 0.3:
        a.s = _words(model, rng).encode()


def nest(model: ModelProto, rng: random.Random) -> None:
    """The graph, or a part, inside of an attribute of one of its own nodes, a few times over."""
    graphs = [m for m in messages(model) if isinstance(m, onnx.GraphProto)]
    holders = [m for m in messages(model) if isinstance(m, onnx.AttributeProto) and m.HasField("g")]
    for _ in range(rng.randrange(1, 5)):
        if holders and model.ByteSize() < 40_000:
            data = rng.choice(graphs).SerializeToString()
            rng.choice(holders).g.CopyFrom(onnx.GraphProto.FromString(data))
            holders = [
                m for m in messages(model) if isinstance(m, onnx.AttributeProto) and m.HasField("g")
            ]


CHANGES: tuple[tuple[Callable[[ModelProto, random.Random], None], int], ...] = (
    (change_field, 8), (rename, 3), (resize, 3), (swap_operator, 2), (attribute, 3), (nest, 1),
)  # fmt: skip
_BASES: list[ModelProto] = []


def bases_once() -> list[ModelProto]:
    if not _BASES:
        _BASES.extend(bases())
    return _BASES


def broken(seed: int) -> bytes:
    """The file of a seed."""
    rng = random.Random(seed)
    model = ModelProto()
    model.CopyFrom(rng.choice(bases_once()))
    kinds, weights = zip(*CHANGES, strict=True)
    if rng.random() < 0.8:
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 5])):
            change = rng.choices(kinds, weights)[0]
            with contextlib.suppress(UnicodeError):
                change(model, rng)
        if rng.random() < 0.9:
            return model.SerializeToString()
    return _broken_bytes(model.SerializeToString(), rng)


def _broken_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        match rng.randrange(5):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + rng.randrange(1, 20)]
            case 2:
                out[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3 if out:
                start = rng.randrange(len(out))
                out[at:at] = out[start : start + rng.randrange(1, 60)]
            case _ if out:
                out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


# --- judging --------------------------------------------------------------------------------------
def fault_of(path: Path, whole: bool) -> str:
    """What is wrong with how a file is dealt with; empty when it is compiled, or refused well."""
    import aisc
    from aisc.ir.diagnostics import AiscError

    try:
        if whole:
            aisc.compile(path, threads=1, cache=False)
        else:
            aisc.lower(path, "graph")
    except AiscError as fault:
        text = str(fault)
        if fault.exit_code not in (1, 3):
            return f"exit code {fault.exit_code}"
        if len(text) > MAX_REPORT:
            return f"a report of {len(text)} characters: {text[:200]}"
        if not all(d.message.strip() for d in fault.diagnostics):
            return "an empty message"
    except Exception as fault:
        last = traceback.extract_tb(fault.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno} {last.name}"
        return f"{type(fault).__name__} at {place}: {str(fault)[:150]}"
    return ""


def _work(seeds: range, at: Any, out: Connection, folder: Path) -> None:
    """A child: the cases of some seeds, faults to the connection."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    np.random.default_rng(0).standard_normal(24).astype(np.float32).tofile(folder / "w.bin")
    path = folder / "m.onnx"
    for seed in seeds:
        at.value = seed
        path.write_bytes(broken(seed))
        signal.setitimer(signal.ITIMER_REAL, SECONDS)  # not caught: it ends the child
        fault = fault_of(path, seed % COMPILED_EACH == 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if used > BYTES:
            out.send((seed, fault or f"{used >> 20} MiB of memory"))
            return  # the next child starts small
        if fault:
            out.send((seed, fault))
    at.value = seeds.stop


def faults(seeds: range, folder: Path) -> Iterator[tuple[int, str]]:
    """(seed, what is wrong) of all seeds that are dealt with badly."""
    fork = multiprocessing.get_context("fork")
    bases_once()
    start = seeds.start
    while start < seeds.stop:
        at = fork.Value("q", start)
        mine, theirs = fork.Pipe(duplex=False)
        batch = range(start, min(start + BATCH, seeds.stop))
        child = fork.Process(target=_work, args=(batch, at, theirs, folder))
        child.start()
        theirs.close()
        with contextlib.suppress(EOFError):
            while True:
                yield mine.recv()
        child.join()
        if child.exitcode:
            what = "hangs" if child.exitcode == -signal.SIGALRM else "crash"
            yield at.value, f"{what} ({child.exitcode})"
        start = batch.stop if at.value == batch.stop else at.value + 1


def main() -> None:
    count, first = (*map(int, sys.argv[1:]), 0, 0)[:2]
    with tempfile.TemporaryDirectory() as folder:
        found = 0
        for seed, fault in faults(range(first, first + count), Path(folder)):
            found += 1
            print(seed, fault, flush=True)
    print(f"{count} cases, {found} faults; pid {os.getpid()}")


if __name__ == "__main__":
    main()

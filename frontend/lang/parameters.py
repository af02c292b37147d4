"""Parameters of a network: from its file of weights, or made from a seed."""

from __future__ import annotations

import difflib
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np

from aisc.frontend.lang.scope import misfit
from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.location import Loc
from aisc.ir.mapped import Bytes, mapped, part_of
from aisc.ir.types import TensorType

Start = Callable[[np.random.Generator, tuple[int, ...], Sequence[float]], Any]
Array = np.ndarray[Any, Any]
MAX_WEIGHTS = 1 << 36  # bytes of a file of weights


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Values that one result depends on, and results that depend on one value, for weights whose
    last axis are the results."""
    return max(1, math.prod(shape[:-1])), max(1, shape[-1] if shape else 1)


def _kaiming(rng: np.random.Generator, shape: tuple[int, ...], _: Sequence[float]) -> Any:
    return rng.normal(0.0, math.sqrt(2 / _fans(shape)[0]), shape)


def _xavier(rng: np.random.Generator, shape: tuple[int, ...], _: Sequence[float]) -> Any:
    limit = math.sqrt(6 / sum(_fans(shape)))
    return rng.uniform(-limit, limit, shape)


# Name -> (defaults of its arguments, the values). Sources: He et al. 2015, Glorot and Bengio 2010.
STARTS: Mapping[str, tuple[tuple[float | None, ...], Start]] = {
    "zeros": ((), lambda rng, shape, a: np.zeros(shape)),
    "ones": ((), lambda rng, shape, a: np.ones(shape)),
    "full": ((None,), lambda rng, shape, a: np.full(shape, a[0])),
    "normal": ((0.02, 0.0), lambda rng, shape, a: rng.normal(a[1], a[0], shape)),
    "uniform": ((-0.05, 0.05), lambda rng, shape, a: rng.uniform(a[0], a[1], shape)),
    "kaiming_normal": ((), _kaiming),
    "xavier_uniform": ((), _xavier),
}  # fmt: skip


@dataclass(slots=True)
class Parameters:
    """Every parameter of a network by path; `file` and `stored` are where weights come from.
    `lost`: the file could not be read, which has been told."""

    seed: int = 0
    file: str = ""
    stored: Mapping[str, Array] = field(default_factory=dict)
    lost: bool = False
    taken: dict[str, Loc] = field(default_factory=dict)

    def state(self) -> Mapping[str, Loc]:
        """Which parameters there are so far."""
        return dict(self.taken)

    def reset(self, state: Mapping[str, Loc]) -> None:
        """Forget the parameters that a part of the network has made, which is built again."""
        self.taken = dict(state)

    def fetch(self, folder: Path, file: str, at: Loc) -> None:
        """Take the weights of a file; errors as those of :func:`stored_in`."""
        self.file = file
        self.stored = stored_in(folder, file, at)

    def make(
        self, path: str, t: TensorType, start: tuple[str, Sequence[float]] | None, at: Loc
    ) -> Array:
        """The contents of the parameter at `path`; E109 where the file's do not fit, or where
        neither the file nor a start gives them."""
        if path in self.taken:
            notes = f"the first: {self.taken[path]}", "name the blocks: f(x) as name"
            raise misfit(f"there are two parameters '{path}'", *notes, at=at)
        self.taken[path] = at
        if not t.is_static:
            raise misfit(f"the sizes of parameter '{path}' must be known, got {t}", at=at)
        if path in self.stored:
            return self._from_file(path, t, at)
        if start is None and not self.lost:
            raise self._without_contents(path, at)
        if t.size * t.dtype.bytes > MAX_WEIGHTS:  # type: ignore[operator]
            raise error("E105", f"parameter '{path}' is too large: {t}", loc=at)
        return hollow(t) if start is None else self._started(path, t, start)

    def _without_contents(self, path: str, at: Loc) -> CompileError:
        hints = ["no weights are given"]
        if self.file:
            beside = [n for n in self.stored if n.rpartition(".")[0] == path.rpartition(".")[0]]
            near = beside or difflib.get_close_matches(path, sorted(self.stored))
            hints = [f"{self.file} has {', '.join(near[:4]) or 'none of this name'}"]
        hints.append("give it a start: param w: f32[n] = zeros()")
        return misfit(f"parameter '{path}' has no contents", *hints, at=at)

    def _started(self, path: str, t: TensorType, start: tuple[str, Sequence[float]]) -> Array:
        rng = np.random.default_rng([self.seed, zlib.crc32(path.encode())])
        name, arguments = start
        return np.asarray(STARTS[name][1](rng, t.static_shape, arguments)).astype(t.dtype.numpy)

    def _from_file(self, path: str, t: TensorType, at: Loc) -> Array:
        array = self.stored[path]
        if array.shape != t.static_shape or array.dtype != t.dtype.numpy:
            hints = [f"{self.file} holds {array.dtype}{list(array.shape)}"]
            if array.shape == t.static_shape:
                hints.append(f"save it as {t.dtype.numpy}: w.astype(np.{t.dtype.numpy})")
            raise misfit(f"parameter '{path}' is {t}", *hints, at=at)
        return array


def hollow(t: TensorType) -> Array:
    """Contents that nobody asks for, which need no memory."""
    return np.broadcast_to(np.zeros((), t.dtype.numpy), t.static_shape)


def stored_in(folder: Path, name: str, at: Loc, contents: bool = True) -> Mapping[str, Array]:
    """The arrays of a ``.safetensors`` or ``.npz`` file beside the model, or without `contents`
    what has their shapes; E104 where it is not there, no such file, or outside of the model's
    folder."""
    path = inside(folder, name, "weights", at)
    read = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix.lower())
    if read is None:
        raise error("E104", f"weights '{name}' are of an unknown kind",
                    "known: .npz, .safetensors", loc=at)  # fmt: skip
    try:
        if path.stat().st_size > MAX_WEIGHTS:
            raise error("E105", f"weights '{name}' are {path.stat().st_size} bytes", loc=at)
        return read(path, at, contents)
    except FileNotFoundError:
        raise error("E104", f"there is no file of weights '{name}'", loc=at) from None
    except AiscError:
        raise
    except Exception as fault:  # whatever a reader makes of a damaged file
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise error("E104", f"'{name}' is no readable {path.suffix} file", reason, loc=at) from None


def inside(folder: Path, name: str, what: str, at: Loc) -> Path:
    """A file beside the model; E104 where the name leads out of its folder."""
    try:
        path = (folder / name).resolve()
        fits = path.is_relative_to(folder.resolve())
    except (OSError, ValueError):
        fits = False
    if not fits:
        hint = f"{what} lie beside the model, or in a folder there"
        raise error("E104", f"'{name}' is outside of the model's folder", hint, loc=at)
    return path


def _npz(path: Path, at: Loc, contents: bool) -> Mapping[str, Array]:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if not contents:
            return dict(_npy_head(archive, entry) for entry in archive.infolist())
    if size > MAX_WEIGHTS:
        raise error("E105", f"weights '{path.name}' are {size} bytes", loc=at)
    with np.load(path, allow_pickle=False) as data:
        return {k: data[k] for k in data.files}


def _npy_head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[str, Array]:
    """The name of an array, and what has its shape."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        reads = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, dtype = reads.get(version, np.lib.format.read_array_header_2_0)(file)
    return entry.filename.removesuffix(".npy"), np.broadcast_to(np.zeros((), dtype), shape)


def _safetensors(path: Path, at: Loc, contents: bool) -> Mapping[str, Array]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:  # refuses what is damaged
        if contents:
            return dict(_tensors(mapped(path)))
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: np.broadcast_to(np.zeros((), element.numpy), tuple(part.get_shape()))
            for name, part in parts.items()
            if (element := _ELEMENTS.get(part.get_dtype())) is not None
        }


def _tensors(data: Bytes) -> Iterator[tuple[str, Array]]:
    """The tensors of a sound file, but for those of types that no tensor of ours has."""
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    for name, entry in json.loads(data[8:start].tobytes()).items():
        element = _ELEMENTS.get(entry["dtype"]) if name != "__metadata__" else None
        if element is not None:
            begin, end = (start + n for n in entry["data_offsets"])
            yield name, part_of(data[begin:end]).view(element.numpy).reshape(entry["shape"])


# What the format calls our element types.
_ELEMENTS: Mapping[str, DType] = {
    ("BOOL" if t is dtypes.boolean else t.name.upper()): t
    for t in map(dtypes.dtype, ("f16", "bf16", "f32", "f64", "i8", "i16", "i32", "i64", "u8",
                                "u16", "u32", "u64", "bool"))
}  # fmt: skip


def safetensors_of(arrays: Mapping[str, Array]) -> bytes:
    """The contents of a ``.safetensors`` file of these arrays: the length of the head, the head,
    the data of the widest elements first. The numpy interface of the package knows no bf16."""
    words = {t: word for word, t in _ELEMENTS.items()}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    head: dict[str, object] = {}
    parts: list[bytes] = []
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        word = words[dtypes.from_numpy(array.dtype)]
        head[name] = {"dtype": word, "shape": list(array.shape), "data_offsets": [begin, end]}
        parts.append(np.ascontiguousarray(array).tobytes())
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))

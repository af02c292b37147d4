"""A planned Program and its objects become an image, without its weights."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen.callbacks import calls_of, is_straight
from aisc.codegen.cpu.entry import result_dims
from aisc.codegen.cpu.faults import faults_of
from aisc.codegen.cpu.memory import memory_of
from aisc.codegen.cpu.profile import profile_words, sites_of
from aisc.codegen.cpu.runtime_object import runtime_object
from aisc.codegen.image import DeviceCode, Image, Machine
from aisc.codegen.signature import Port, Signature
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Program


def image_of(
    program: Program,
    objects: Sequence[bytes],
    devices: Sequence[DeviceCode],
    target: Target,
    names: tuple[Sequence[str], Sequence[str]],
    profile: bool = False,
) -> Image:
    """The image of a planned Program, but for its weights. `names`: what the model calls inputs
    and outputs; `profile`: whether the entry was made for profiling."""
    entry = program.entry
    inputs, outputs, weights = (
        [b for b in entry.params if b.role == role] for role in ("input", "output", "weight")
    )
    memory = memory_of(entry)
    signature = Signature(
        program.name,
        _ports(inputs, names[0]),
        _ports(outputs, names[1]),
        tuple(v.name for v in entry.dims),
        tuple(result_dims(entry)),
        memory.words,
        tuple(words.base for words in memory.segments.values()),
        _ports(weights, [b.name for b in weights]),
    )
    runtime = runtime_object(target)
    machine = Machine(target.kind, target.triple, target.arch, target.features)
    kernels = {k.name: k for k in program.kernels}
    words = profile_words(sites_of(entry, kernels)) if profile else 0
    faults = tuple(faults_of(entry, kernels))
    return Image(
        signature, machine, runtime, tuple(objects), (), calls_of(entry, kernels), words,
        faults, tuple(devices), is_straight(entry, kernels),
    )  # fmt: skip


def _ports(buffers: Sequence[Buffer], names: Sequence[str]) -> tuple[Port, ...]:
    return tuple(Port(n, b.type) for n, b in zip(names, buffers, strict=True))

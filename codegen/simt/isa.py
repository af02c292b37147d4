"""What differs between the instruction sets of SIMT machines in LLVM IR, by the architecture in a
target's triple (LLVM's *User Guide for NVPTX Back-end* and *User Guide for AMDGPU Backend*)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.target import Target


@dataclass(frozen=True, slots=True)
class Isa:
    """An instruction set. kernel: calling convention; block_size: attribute for the threads of a
    block, from x, y, z; block, thread: intrinsics that give numbers along an axis; blocks: one that
    gives how many blocks there are, if there is one; barrier: lines
    that make a block wait, and wait: those that make a thread wait for all but some groups of its
    copies, and what they call; shuffle: the call that gives 32 bits of another lane, for warps of
    up to WARP lanes, where it has one; private: address space of stack slots; ptx: whether its text
    is PTX."""

    name: str
    kernel: str
    block_size: str
    block: str
    thread: str
    blocks: str
    barrier: Sequence[str]
    wait: Sequence[str]
    shuffle: str
    declares: Sequence[str]
    private: int
    ptx: bool

    def size_attribute(self, size: tuple[int, int, int]) -> str:
        """The attribute for this many threads along x, y, z."""
        x, y, z = size
        return self.block_size.format(x=x, y=y, z=z, threads=x * y * z)


WARP = 32  # lanes of a warp of hardware
_SHUFFLE = "@llvm.nvvm.shfl.sync.idx.i32"
_CTA_BARRIER = "@llvm.nvvm.barrier.cta.sync.aligned.all"
ISAS: Mapping[str, Isa] = {
    "nvptx64": Isa(
        "nvptx64", "ptx_kernel", '"nvvm.reqntid"="{x},{y},{z}"',
        "llvm.nvvm.read.ptx.sreg.ctaid.{axis}", "llvm.nvvm.read.ptx.sreg.tid.{axis}",
        "llvm.nvvm.read.ptx.sreg.nctaid.{axis}",
        (f"call void {_CTA_BARRIER}(i32 0)",),
        ("call void @llvm.nvvm.cp.async.commit.group()",
         "call void @llvm.nvvm.cp.async.wait.group(i32 {pending})"),
        f"call i32 {_SHUFFLE}(i32 -1, i32 {{value}}, i32 {{lane}}, i32 {{segment}})",
        (f"declare void {_CTA_BARRIER}(i32) convergent nounwind",
         f"declare i32 {_SHUFFLE}(i32, i32, i32, i32)",
         "declare void @llvm.nvvm.cp.async.commit.group()",
         "declare void @llvm.nvvm.cp.async.wait.group(i32 immarg)"), 0, True,
    ),
    "amdgcn": Isa(
        "amdgcn", "amdgpu_kernel", '"amdgpu-flat-work-group-size"="{threads},{threads}"',
        "llvm.amdgcn.workgroup.id.{axis}", "llvm.amdgcn.workitem.id.{axis}", "",
        ('fence syncscope("workgroup") release', "call void @llvm.amdgcn.s.barrier()",
         'fence syncscope("workgroup") acquire'), (), "",
        ("declare void @llvm.amdgcn.s.barrier() convergent nounwind",), 5, False,
    ),
}  # fmt: skip


def isa_of(target: Target) -> Isa:
    """That of a target; E402 for one that has none here."""
    name = target.triple.split("-")[0]
    if name not in ISAS:
        known = ", ".join(ISAS)
        raise error("E402", f"no code is made for '{name}' as a SIMT machine", f"known: {known}")
    return ISAS[name]

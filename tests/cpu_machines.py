"""The machines of a compilation for the CPU alone, for tests that run passes one by one."""

from aisc.codegen.cpu.policy import CpuPolicy
from aisc.passes.policy import Machines

CPU = Machines(CpuPolicy())

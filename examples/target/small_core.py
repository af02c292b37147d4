"""The description of a core with 16 vector registers of 128 bits, known to aisc by name."""

from aisc.ir.description import from_toml
from aisc.ir.target import Target

TEXT = """
[target]
kind = "cpu"
name = "small-core"
vector_bits = 128
vector_registers = 16
cores = 1

[memory.L1]
bytes = 16384
ways = 4

[costs]
fma_latency = 5
fma_units = 1
"""


def target() -> Target:
    """What the entry point gives."""
    return from_toml(TEXT)

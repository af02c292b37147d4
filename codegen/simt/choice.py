"""Whether there is a device here that runs a module."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache

from aisc.codegen.simt.driver import Driver, find_driver
from aisc.codegen.simt.gpu import Gpu
from aisc.codegen.simt.isa import isa_of
from aisc.codegen.simt.launches import DeviceModule
from aisc.ir.target import Target

VARIABLE = "AISC_GPU"  # 0: no device is looked for
_TARGET = re.compile(r"^\.target\s+sm_(\d+)(\d)(a?)\b", re.MULTILINE)


def gpu_of(modules: Sequence[DeviceModule]) -> Gpu | None:
    """The device with these modules; ``None`` where there is no driver, no device, or one that is
    too old for the code."""
    driver = None if os.environ.get(VARIABLE) == "0" or not modules else driver_here()
    if driver is None or not all(runs(m.code, driver.capability(0)) for m in modules):
        return None
    return Gpu(driver, modules)


def device_here(target: Target) -> str:
    """What runs the kernels of a target on this computer, and why."""
    instead = "its kernels run as loops over threads on the host"
    if os.environ.get(VARIABLE) == "0":
        return f"{instead}: {VARIABLE} is 0"
    driver = driver_here() if isa_of(target).ptx else None
    if driver is None:
        reason = "there is no driver with a device" if isa_of(target).ptx else "its code is no PTX"
        return f"{instead}: {reason}"
    name, (major, minor) = driver.device_name(0), driver.capability(0)
    if not runs(f".target {target.arch}", (major, minor)):
        return f"{instead}: {name} has sm_{major}{minor}, its code needs {target.arch}"
    return f"its kernels run on {name}, sm_{major}{minor}"


@cache
def driver_here() -> Driver | None:
    """The driver of this machine; looked for once."""
    return find_driver()


def runs(code: str, capability: tuple[int, int]) -> bool:
    """Whether a device of this architecture runs PTX: any that is not older than what the text was
    made for, and only that one where the text uses what later ones may lack."""
    made = _TARGET.search(code)
    if made is None:
        return False
    wanted = int(made[1]), int(made[2])
    return capability == wanted if made[3] else capability >= wanted

"""What `aisc fuzz --load` imports to have a fault in each of its processes."""

from __future__ import annotations

from planted import FAULTS, Planting

FAULTS["a_triangle_off_by_one"](Planting())

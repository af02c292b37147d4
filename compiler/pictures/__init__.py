"""A model seen at a glance: as written, as optimised, as kernels, in memory, in time."""

"""Fuzzing: random graphs and schedules, independent answers, and reduction of what differs.

:mod:`.generate` makes a case from a seed, :mod:`.oracles` lists who answers it, :mod:`.screen`
tells rounding from faults, :mod:`.reduce` makes a failing case small, :mod:`.write` keeps it as a
test, :mod:`.driver` runs many of them in bounded processes. ``docs/fuzzing.md`` tells how to use
it.
"""

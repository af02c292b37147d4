"""Small faults planted in the sources, to see whether the tests find them (docs/mutants.md)."""

"""IR to IR: graph passes, lowering, schedule primitives and rules, tensor passes, planning."""

if __name__ != "aisc.passes":
    raise ImportError(f"import this package as aisc.passes, not as {__name__}")

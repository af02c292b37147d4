"""Data and meaning: types, both IRs, operator definitions, text forms, verifiers, interpreters."""

if __name__ != "aisc.ir":
    raise ImportError(f"import this package as aisc.ir, not as {__name__}")

"""aisc: a multi-level AI compiler toolchain: models to native code."""

if __name__ != "aisc":
    raise ImportError(f"import this package as aisc, not as {__name__}")

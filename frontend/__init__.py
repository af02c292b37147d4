"""Front ends: a foreign model becomes a verified graph."""

if __name__ != "aisc.frontend":
    raise ImportError(f"import this package as aisc.frontend, not as {__name__}")

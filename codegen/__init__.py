"""Tensor IR to machine code: shared LLVM printing, back ends, executables, run time."""

if __name__ != "aisc.codegen":
    raise ImportError(f"import this package as aisc.codegen, not as {__name__}")

"""Graph IR: SSA over tensors, operator definitions, verifier, interpreter."""

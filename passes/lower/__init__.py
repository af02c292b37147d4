"""Graph groups into tensor-IR functions, the graph into a Program."""

"""Arrays and numbers with numpy's meaning, as nodes of a graph: operators, functions,
subscripts."""

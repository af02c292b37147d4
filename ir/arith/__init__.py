"""Integer arithmetic for shapes and indices: polynomials, intervals, simplification."""

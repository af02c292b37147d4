"""Python functions as models: their syntax trees, with numpy's meaning, become graphs."""

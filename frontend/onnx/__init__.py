"""ONNX front end: reads a model safely and translates it to the graph IR."""
